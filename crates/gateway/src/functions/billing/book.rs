//! What each escrow has left, and what each provider has earned out of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use r3mes_functions::{
    Moment,
    billing::{Bill, Price, Purse},
};
use r3mes_ledger::bank::MODULES;
use r3mes_types::{
    Address, Amount, Time,
    escrow::{Escrow, MAX_PAYEES, MsgCharge, Total},
    wire::List,
};

use super::journal::{Earnings, Journal, JournalError};

/// Most escrows of one user that are looked at, the largest first: anybody may open one for any user,
/// and small ones must not keep a call from finding those that pay.
const MAX_PER_USER: usize = 64;
/// Most payees of one usage record. Each may be a new account, and a record of [`MAX_PAYEES`] of those
/// takes more gas than a transaction has; totals come to the same in several records.
const MAX_RECORD: usize = 16;

/// The escrows of a gateway. Clones are the same ones.
#[derive(Clone, Debug)]
pub struct Book {
    pages: Arc<Mutex<Pages>>,
}

#[derive(Debug)]
struct Pages {
    gateway: Address,
    /// How long an escrow must last beyond a call's latest end to pay for it.
    margin: Duration,
    journal: Journal,
    /// What was earned out of escrows that the ledger has not been asked for yet.
    before: Earnings,
    entries: BTreeMap<u64, Entry>,
    of_user: BTreeMap<String, Vec<u64>>,
}

/// An open escrow.
#[derive(Debug)]
struct Entry {
    escrow: Escrow,
    /// What each payee has earned since it was opened; nothing for one whose call still runs.
    earned: BTreeMap<Address, Amount>,
    /// Prices of calls that run.
    reserved: Amount,
}

impl Entry {
    /// What is neither earned nor set aside.
    fn left(&self) -> Amount {
        let taken = self.earned.values().copied();
        let taken = taken.fold(self.reserved, Amount::saturating_add);
        self.escrow.deposit.saturating_sub(taken)
    }

    /// What has been earned and not been paid yet.
    fn owed(&self) -> impl Iterator<Item = Total> {
        let earned = self.earned.iter();
        earned
            .filter(|(payee, amount)| **amount > self.escrow.paid_to(payee))
            .map(|(payee, amount)| Total {
                payee: *payee,
                amount: *amount,
            })
    }
}

impl Book {
    /// A book of no escrows yet, for the account of a gateway. What the journal has counts as earned.
    pub fn new(gateway: Address, margin: Duration, journal: Journal, before: Earnings) -> Self {
        let pages = Pages {
            gateway,
            margin,
            journal,
            before,
            entries: BTreeMap::new(),
            of_user: BTreeMap::new(),
        };
        Self {
            pages: Arc::new(Mutex::new(pages)),
        }
    }

    /// The open escrows as the ledger has them now: all that this gateway may charge.
    pub fn follow(&self, escrows: Vec<Escrow>) {
        self.pages().follow(escrows);
    }

    /// Usage records of all that has been earned and not been paid, once it is safe on the disk.
    ///
    /// # Errors
    /// When the journal cannot be written.
    pub fn charges(&self) -> Result<Vec<MsgCharge>, JournalError> {
        let (charges, file) = self.pages().charges()?;
        // Without the lock, since calls wait for it.
        let flushed = file.sync_data();
        flushed.map_err(|source| self.pages().journal.failed(source))?;
        Ok(charges)
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pages {
    fn charges(&mut self) -> Result<(Vec<MsgCharge>, File), JournalError> {
        if self.journal.is_long() {
            let earnings = self.earnings();
            self.journal.shorten(&earnings)?;
        }
        let gateway = self.gateway;
        let mut charges = Vec::new();
        for entry in self.entries.values() {
            let owed: Vec<Total> = entry.owed().collect();
            for totals in owed.chunks(MAX_RECORD) {
                charges.push(MsgCharge {
                    gateway,
                    escrow: entry.escrow.id,
                    // A record is shorter than the list that it goes into.
                    totals: List::new(totals.to_vec()).unwrap_or_default(),
                    voucher: None,
                });
            }
        }
        Ok((charges, self.journal.handle()?))
    }

    fn follow(&mut self, escrows: Vec<Escrow>) {
        let mut gone = std::mem::take(&mut self.entries);
        let mut of_user: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for escrow in escrows {
            if escrow.gateway != self.gateway {
                continue;
            }
            let id = escrow.id;
            let known = gone.remove(&id);
            let (mut earned, reserved) = match known {
                Some(entry) => (entry.earned, entry.reserved),
                None => {
                    let before = self.before.remove(&(id, escrow.expires_at));
                    (before.unwrap_or_default(), Amount::ZERO)
                }
            };
            for paid in &escrow.totals {
                let total = earned.entry(paid.payee).or_default();
                *total = (*total).max(paid.amount);
            }
            of_user.entry(escrow.user.to_string()).or_default().push(id);
            let entry = Entry {
                escrow,
                earned,
                reserved,
            };
            self.entries.insert(id, entry);
        }
        for (id, entry) in gone {
            for owed in entry.owed() {
                let (payee, total) = (owed.payee, owed.amount);
                let paid = entry.escrow.paid_to(&payee);
                tracing::warn!(escrow = id, %payee, %total, %paid, "functions.billing.ended_before_it_was_paid");
            }
        }
        for ids in of_user.values_mut() {
            ids.sort_by_key(|id| std::cmp::Reverse(self.entries.get(id).map(Entry::left)));
            ids.truncate(MAX_PER_USER);
            ids.sort_by_key(|id| self.entries.get(id).map(|entry| entry.escrow.expires_at));
        }
        self.of_user = of_user;
    }

    fn earnings(&self) -> Earnings {
        let open = self.entries.values().map(|entry| {
            let key = (entry.escrow.id, entry.escrow.expires_at);
            (key, entry.earned.clone())
        });
        self.before.clone().into_iter().chain(open).collect()
    }

    fn reserve(&mut self, user: &str, price: &Price, end: Moment) -> Result<Bill, String> {
        let (payee, amount) = read(price)?;
        let until = Time::from_nanos(end.0.saturating_mul(1_000));
        let margin = u64::try_from(self.margin.as_nanos()).unwrap_or(u64::MAX);
        let until = Time::from_nanos(until.nanos().saturating_add(margin));
        let ids = self.of_user.get(user).cloned().unwrap_or_default();
        let mut why = BTreeSet::new();
        for id in ids {
            let Some(entry) = self.entries.get_mut(&id) else {
                continue;
            };
            if entry.escrow.expires_at <= until {
                why.insert(format!(
                    "escrow {id} ends before the call could and be settled: \
                     give the call a shorter deadline, or use an escrow that lasts longer"
                ));
            } else if entry.escrow.voucher_key.is_some() {
                why.insert(format!(
                    "escrow {id} asks for vouchers, which are not taken here"
                ));
            } else if entry.left() < amount {
                why.insert(format!("escrow {id} has {} left", entry.left()));
            } else if entry.earned.len() >= MAX_PAYEES && !entry.earned.contains_key(&payee) {
                why.insert(format!("escrow {id} pays {MAX_PAYEES} providers already"));
            } else {
                entry.earned.entry(payee).or_default();
                entry.reserved = entry.reserved.saturating_add(amount);
                return Ok(Bill {
                    escrow: id,
                    price: price.clone(),
                });
            }
        }
        let gateway = self.gateway;
        let how = format!(
            "open one with: r3mes tx escrow open {gateway} AMOUNT --user {user}; it counts within seconds"
        );
        Err(match why.is_empty() {
            true => format!("{user:?} has no open escrow for this gateway: {how}"),
            false => {
                let why: Vec<String> = why.into_iter().collect();
                format!(
                    "no escrow of {user:?} pays {amount} ({}): {how}",
                    why.join(", ")
                )
            }
        })
    }

    fn settle(&mut self, bill: &Bill, owed: bool) {
        let Ok((payee, amount)) = read(&bill.price) else {
            return;
        };
        let escrow = bill.escrow;
        let Some(entry) = self.entries.get_mut(&escrow) else {
            if owed {
                tracing::warn!(escrow, %payee, %amount, "functions.billing.ended_before_the_call");
            }
            return;
        };
        entry.reserved = entry.reserved.saturating_sub(amount);
        if !owed {
            return;
        }
        let total = entry.earned.entry(payee).or_default();
        *total = total.saturating_add(amount);
        let key = (escrow, entry.escrow.expires_at);
        if let Err(error) = self.journal.add(key, &payee, *total) {
            tracing::error!(escrow, %payee, %amount, error = %error, "functions.billing.journal");
        }
    }
}

/// A price as the ledger has it.
fn read(price: &Price) -> Result<(Address, Amount), String> {
    let payee = price.payee.parse::<Address>();
    let payee = payee.map_err(|error| format!("its price names no account to pay: {error}"))?;
    if MODULES.iter().any(|module| module.address() == payee) {
        return Err(format!(
            "its price goes to {payee}, an account of the network itself, which no escrow pays: \
             name an account of your own"
        ));
    }
    Ok((payee, Amount::new(price.uremes)))
}

impl Purse for Book {
    fn check(&self, price: &Price) -> Result<(), String> {
        read(price).map(|_| ())
    }

    fn reserve(&mut self, user: &str, price: &Price, end: Moment) -> Result<Bill, String> {
        self.pages().reserve(user, price, end)
    }

    fn settle(&mut self, bill: &Bill, owed: bool) {
        self.pages().settle(bill, owed);
    }
}

#[cfg(test)]
mod tests;

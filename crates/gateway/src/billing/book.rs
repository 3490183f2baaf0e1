//! What each escrow has left, and what each provider has earned out of it.

use std::{
    collections::{BTreeMap, BTreeSet},
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

use super::journal::{Earnings, EscrowKey, Journal, JournalError};

/// Most escrows of one user that are looked at: those that pay, with the most left, first. Anybody may
/// open one for any user, and others must not keep a call from finding those.
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
    /// How long an escrow must last beyond a call's latest end to pay for it: the time in which it owes no
    /// more than before, and is charged until it owes nothing.
    margin: Duration,
    journal: Journal,
    /// What was earned out of escrows that the ledger has not been asked for yet.
    before: Earnings,
    entries: BTreeMap<EscrowKey, Entry>,
    of_user: BTreeMap<String, Vec<EscrowKey>>,
}

/// An escrow, open or not: what was earned out of it is forgotten at its end, and not because an answer
/// left it out.
#[derive(Debug)]
struct Entry {
    escrow: Escrow,
    /// Whether it was in the newest answer of the ledger.
    listed: bool,
    /// What each payee has earned since it was opened.
    earned: BTreeMap<Address, Amount>,
    /// Prices of calls that run.
    reserved: BTreeMap<Address, Amount>,
}

impl Entry {
    /// What is neither earned nor set aside.
    fn left(&self) -> Amount {
        let taken = self.earned.values().chain(self.reserved.values()).copied();
        let taken = taken.fold(Amount::ZERO, Amount::saturating_add);
        self.escrow.deposit.saturating_sub(taken)
    }

    /// Whether calls that end by then can be paid out of it, if it has enough left.
    fn pays_until(&self, until: Time) -> bool {
        self.escrow.voucher_key.is_none() && self.escrow.expires_at > until
    }

    /// Whether a record has room for this payee beside those who have earned, or may yet.
    fn has_room_for(&self, payee: &Address) -> bool {
        let is_new = |of: &Address| !self.earned.contains_key(of);
        let awaited = self.reserved.keys().filter(|other| is_new(other)).count();
        !is_new(payee)
            || self.reserved.contains_key(payee)
            || self.earned.len() + awaited < MAX_PAYEES
    }

    /// Ends what was set aside for a call.
    fn free(&mut self, payee: &Address, amount: Amount) {
        if let Some(reserved) = self.reserved.get_mut(payee) {
            *reserved = reserved.saturating_sub(amount);
            if reserved.is_zero() {
                self.reserved.remove(payee);
            }
        }
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

    /// The sum that a charge would move now.
    fn owed_in_all(&self) -> Amount {
        let sums = self.owed();
        let sums = sums.map(|owed| owed.amount.saturating_sub(self.escrow.paid_to(&owed.payee)));
        sums.fold(Amount::ZERO, Amount::saturating_add)
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

    /// The open escrows as the ledger has them now: all that this gateway may charge. What was earned
    /// out of others counts until their end has passed.
    pub fn follow(&self, escrows: Vec<Escrow>, now: Time) {
        self.pages().follow(escrows, now);
    }

    /// Has all that was earned so far outlast a loss of power. Waits for the disk.
    ///
    /// # Errors
    /// When the journal cannot be written.
    pub fn flush(&self) -> Result<(), JournalError> {
        let Some(file) = self.pages().journal.unflushed()? else {
            return Ok(());
        };
        // Without the lock, since calls wait for it.
        let flushed = file.sync_data();
        flushed.map_err(|source| self.pages().journal.not_flushed(source))
    }

    /// Usage records of what has been earned out of open escrows and not been paid. Escrows that owe less
    /// than `least` are left out until they end so soon that they pay for no further call.
    pub fn charges(&self, least: Amount, now: Time) -> Vec<MsgCharge> {
        self.pages().charges(least, now)
    }

    /// As [`Book::charges`], of those alone that end so soon.
    pub fn last_charges(&self, now: Time) -> Vec<MsgCharge> {
        self.charges(Amount::new(u64::MAX), now)
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pages {
    fn charges(&self, least: Amount, now: Time) -> Vec<MsgCharge> {
        let soon = later(now, self.margin);
        let mut charges = Vec::new();
        for entry in self.entries.values().filter(|entry| entry.listed) {
            if entry.owed_in_all() < least && entry.escrow.expires_at > soon {
                continue;
            }
            let owed: Vec<Total> = entry.owed().collect();
            for totals in owed.chunks(MAX_RECORD) {
                charges.push(MsgCharge {
                    gateway: self.gateway,
                    escrow: entry.escrow.id,
                    // A record is shorter than the list that it goes into.
                    totals: List::new(totals.to_vec()).unwrap_or_default(),
                    voucher: None,
                });
            }
        }
        charges
    }

    fn follow(&mut self, escrows: Vec<Escrow>, now: Time) {
        let mut known = std::mem::take(&mut self.entries);
        let mut of_user: BTreeMap<String, Vec<EscrowKey>> = BTreeMap::new();
        for escrow in escrows {
            if escrow.gateway != self.gateway {
                continue;
            }
            let key = (escrow.id, escrow.expires_at);
            let (mut earned, reserved) = match known.remove(&key) {
                Some(entry) => (entry.earned, entry.reserved),
                None => (
                    self.before.remove(&key).unwrap_or_default(),
                    BTreeMap::new(),
                ),
            };
            for paid in &escrow.totals {
                let total = earned.entry(paid.payee).or_default();
                *total = (*total).max(paid.amount);
            }
            of_user
                .entry(escrow.user.to_string())
                .or_default()
                .push(key);
            let entry = Entry {
                escrow,
                listed: true,
                earned,
                reserved,
            };
            self.entries.insert(key, entry);
        }
        for (key, mut entry) in known {
            for owed in entry.owed().filter(|_| entry.listed) {
                let (escrow, payee, total) = (key.0, owed.payee, owed.amount);
                let paid = entry.escrow.paid_to(&payee);
                tracing::warn!(escrow, %payee, %total, %paid, "functions.billing.ended_before_it_was_paid");
            }
            entry.listed = false;
            if key.1 > now {
                self.entries.insert(key, entry);
            }
        }
        self.before.retain(|(_, end), _| *end > now);
        let until = later(now, self.margin);
        for keys in of_user.values_mut() {
            keys.sort_by_key(|key| {
                let entry = self.entries.get(key);
                std::cmp::Reverse(entry.map(|entry| (entry.pays_until(until), entry.left())))
            });
            keys.truncate(MAX_PER_USER);
            keys.sort_by_key(|(_, end)| *end);
        }
        self.of_user = of_user;
        if self.journal.is_long() {
            let earnings = self.earnings();
            if let Err(error) = self.journal.shorten(&earnings) {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, "functions.billing.journal");
            }
        }
    }

    fn earnings(&self) -> Earnings {
        let seen = self.entries.iter();
        let seen = seen.map(|(key, entry)| (*key, entry.earned.clone()));
        self.before.clone().into_iter().chain(seen).collect()
    }

    fn reserve(&mut self, user: &str, price: &Price, end: Moment) -> Result<Bill, String> {
        let (payee, amount) = read(price)?;
        let until = later(Time::from_nanos(end.0.saturating_mul(1_000)), self.margin);
        let keys = self.of_user.get(user).cloned().unwrap_or_default();
        let mut why = BTreeSet::new();
        for key in keys {
            let Some(entry) = self.entries.get_mut(&key) else {
                continue;
            };
            let id = key.0;
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
            } else if !entry.has_room_for(&payee) {
                why.insert(format!("escrow {id} pays {MAX_PAYEES} providers already"));
            } else {
                let reserved = entry.reserved.entry(payee).or_default();
                *reserved = reserved.saturating_add(amount);
                return Ok(Bill {
                    escrow: id,
                    ends_ns: key.1.nanos(),
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
        let key = (escrow, Time::from_nanos(bill.ends_ns));
        let mut entry = self.entries.get_mut(&key);
        if let Some(entry) = &mut entry {
            entry.free(&payee, amount);
        }
        if !owed {
            return;
        }
        if !entry.as_ref().is_some_and(|entry| entry.listed) {
            tracing::warn!(escrow, %payee, %amount, "functions.billing.ended_before_the_call");
        }
        let Some(entry) = entry else {
            return;
        };
        let total = entry.earned.entry(payee).or_default();
        *total = total.saturating_add(amount);
        if let Err(error) = self.journal.add(key, &payee, *total) {
            tracing::error!(escrow, %payee, %amount, error = %error, "functions.billing.journal");
        }
    }
}

fn later(than: Time, by: Duration) -> Time {
    let nanos = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
    Time::from_nanos(than.nanos().saturating_add(nanos))
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

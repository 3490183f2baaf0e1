//! What each escrow has left, and what each provider has earned out of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use r3mes_functions::{
    Moment,
    billing::{Bill, Price, Purse, Unpaid},
};
use r3mes_ledger::bank::MODULES;
use r3mes_types::{
    Address, Amount, Time,
    escrow::{Escrow, MAX_PAYEES, MsgCharge, Total},
    wire::List,
};

use super::{
    entry::Entry,
    journal::{Earnings, EscrowKey, Journal, JournalError},
    refusal::Refusal,
};

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

    /// The ledger refuses to have this escrow charged: a later charge waits, or none is sent any more.
    pub(super) fn refused(&self, escrow: u64, refusal: &Refusal, now: Time) {
        let mut pages = self.pages();
        let Some(entry) = pages.listed(escrow) else {
            return;
        };
        let (owed, ends) = (entry.owed_in_all(), entry.escrow.expires_at);
        let refused = entry.refused.get_or_insert_default();
        refused.add(refusal, now, ends);
        refused.tell(escrow, owed, now);
    }

    /// The ledger has charged this escrow.
    pub(super) fn charged(&self, escrow: u64) {
        if let Some(entry) = self.pages().listed(escrow) {
            entry.refused = None;
        }
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pages {
    /// The open escrow of this number.
    fn listed(&mut self, escrow: u64) -> Option<&mut Entry> {
        let first = (escrow, Time::from_nanos(0));
        let last = (escrow, Time::from_nanos(u64::MAX));
        let mut of_number = self.entries.range_mut(first..=last).map(|(_, entry)| entry);
        of_number.find(|entry| entry.listed)
    }

    fn unpaid(&self) -> Unpaid {
        let mut unpaid = Unpaid::default();
        for entry in self.entries.values().filter(|entry| entry.listed) {
            let owed = entry.owed_in_all().uremes();
            unpaid.uremes = unpaid.uremes.saturating_add(owed);
            if entry.refused.is_some() {
                unpaid.refused_escrows += 1;
                unpaid.refused_uremes = unpaid.refused_uremes.saturating_add(owed);
            }
            if entry.is_given_up() {
                unpaid.given_up_uremes = unpaid.given_up_uremes.saturating_add(owed);
            }
        }
        unpaid
    }

    fn charges(&self, least: Amount, now: Time) -> Vec<MsgCharge> {
        let soon = later(now, self.margin);
        let mut charges = Vec::new();
        let due = |entry: &&Entry| entry.listed && entry.is_due(now);
        for entry in self.entries.values().filter(due) {
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
            let (mut earned, reserved, refused) = match known.remove(&key) {
                Some(entry) => (entry.earned, entry.reserved, entry.refused),
                None => {
                    let earned = self.before.remove(&key).unwrap_or_default();
                    (earned, BTreeMap::new(), None)
                }
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
                refused,
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
            if let Some(refused) = entry.refused.as_ref().filter(|refused| refused.is_final()) {
                why.insert(format!(
                    "the ledger refuses to have escrow {id} charged: {}",
                    refused.why()
                ));
            } else if entry.escrow.expires_at <= until {
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

/// So much after a time.
pub(super) fn later(than: Time, by: Duration) -> Time {
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

    fn unpaid(&self) -> Unpaid {
        self.pages().unpaid()
    }
}

#[cfg(test)]
mod tests;

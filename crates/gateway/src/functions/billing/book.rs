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
use r3mes_types::{
    Address, Amount, Time,
    escrow::{Escrow, MAX_PAYEES, MsgCharge, Total},
    wire::List,
};

use super::journal::{Earnings, Journal, JournalError};

/// Most escrows of one user that are looked at, the largest first: anybody may open one for any user,
/// and small ones must not keep a call from finding those that pay.
const MAX_PER_USER: usize = 64;

/// The escrows of a gateway. Clones are the same ones.
#[derive(Clone, Debug)]
pub struct Book {
    pages: Arc<Mutex<Pages>>,
}

#[derive(Debug)]
struct Pages {
    gateway: Address,
    /// How long an escrow must last beyond a call's beginning to pay for it.
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
        let charges = self.entries.values().filter_map(|entry| {
            let totals: Vec<Total> = entry.owed().collect();
            (!totals.is_empty()).then(|| MsgCharge {
                gateway,
                escrow: entry.escrow.id,
                // An entry has no more payees than fit.
                totals: List::new(totals).unwrap_or_default(),
                voucher: None,
            })
        });
        Ok((charges.collect(), self.journal.handle()?))
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

    fn reserve(&mut self, user: &str, price: &Price, now: Moment) -> Result<Bill, String> {
        let (payee, amount) = read(price)?;
        let until = Time::from_nanos(now.0.saturating_mul(1_000));
        let margin = u64::try_from(self.margin.as_nanos()).unwrap_or(u64::MAX);
        let until = Time::from_nanos(until.nanos().saturating_add(margin));
        let ids = self.of_user.get(user).cloned().unwrap_or_default();
        let mut why = BTreeSet::new();
        for id in ids {
            let Some(entry) = self.entries.get_mut(&id) else {
                continue;
            };
            if entry.escrow.expires_at <= until {
                why.insert(format!("escrow {id} is about to end"));
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
    Ok((payee, Amount::new(price.uremes)))
}

impl Purse for Book {
    fn check(&self, price: &Price) -> Result<(), String> {
        read(price).map(|_| ())
    }

    fn reserve(&mut self, user: &str, price: &Price, now: Moment) -> Result<Bill, String> {
        self.pages().reserve(user, price, now)
    }

    fn settle(&mut self, bill: &Bill, owed: bool) {
        self.pages().settle(bill, owed);
    }
}

#[cfg(test)]
mod tests {
    use r3mes_types::wire::Text;

    use super::*;

    const NOW: Moment = Moment(1_000_000);
    const MARGIN: Duration = Duration::from_secs(60);

    fn gateway() -> Address {
        Address::from([9; 20])
    }

    fn bob() -> Address {
        Address::from([2; 20])
    }

    fn price(uremes: u64) -> Price {
        Price {
            uremes,
            payee: bob().to_string(),
        }
    }

    fn escrow(id: u64, deposit: u64, seconds: u64) -> Escrow {
        Escrow {
            id,
            payer: Address::from([1; 20]),
            gateway: gateway(),
            user: Text::new("alice").unwrap(),
            deposit: Amount::new(deposit),
            charged: Amount::ZERO,
            expires_at: Time::from_nanos(seconds * 1_000_000_000),
            voucher_key: None,
            totals: List::default(),
        }
    }

    /// A book that keeps its journal in a folder.
    fn book(folder: &tempfile::TempDir) -> Book {
        let (journal, before) = Journal::open(&folder.path().join("usage.jsonl")).unwrap();
        Book::new(gateway(), MARGIN, journal, before)
    }

    fn owed(book: &Book) -> Vec<(u64, u64)> {
        let charges = book.charges().unwrap().into_iter();
        charges
            .map(|charge| (charge.escrow, charge.totals[0].amount.uremes()))
            .collect()
    }

    #[test]
    fn no_more_is_set_aside_than_an_escrow_has_and_what_is_not_owed_is_free_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut book = book(&folder);
        assert!(
            book.reserve("alice", &price(10), NOW)
                .unwrap_err()
                .contains("no open escrow")
        );
        book.follow(vec![escrow(1, 25, 1_000)]);
        let first = book.reserve("alice", &price(10), NOW).unwrap();
        let second = book.reserve("alice", &price(10), NOW).unwrap();
        let refused = book.reserve("alice", &price(10), NOW).unwrap_err();
        assert!(refused.contains("escrow 1 has 5uremes left"), "{refused}");
        assert!(refused.contains("r3mes tx escrow open remes1"), "{refused}");
        assert!(owed(&book).is_empty());
        book.settle(&first, true);
        book.settle(&second, false);
        assert_eq!(owed(&book), [(1, 10)]);
        let third = book.reserve("alice", &price(15), NOW).unwrap();
        book.settle(&third, true);
        assert_eq!(owed(&book), [(1, 25)]);
        assert!(book.reserve("alice", &price(1), NOW).is_err());
        assert!(book.reserve("carol", &price(1), NOW).is_err());
    }

    #[test]
    fn what_was_earned_outlasts_the_process_and_is_charged_until_it_is_paid() {
        let folder = tempfile::tempdir().unwrap();
        let mut before = book(&folder);
        before.follow(vec![escrow(1, 100, 1_000)]);
        for _ in 0..3 {
            let bill = before.reserve("alice", &price(10), NOW).unwrap();
            before.settle(&bill, true);
        }
        // Set aside for a call that dies with the process.
        before.reserve("alice", &price(10), NOW).unwrap();
        drop(before);
        let after = book(&folder);
        after.follow(vec![escrow(1, 100, 1_000)]);
        assert_eq!(owed(&after), [(1, 30)]);
        let paid = Escrow {
            charged: Amount::new(30),
            totals: List::new(vec![Total {
                payee: bob(),
                amount: Amount::new(30),
            }])
            .unwrap(),
            ..escrow(1, 100, 1_000)
        };
        after.follow(vec![paid]);
        assert!(owed(&after).is_empty());
    }

    #[test]
    fn an_escrow_of_the_same_number_on_another_chain_owes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut before = book(&folder);
        before.follow(vec![escrow(1, 100, 1_000)]);
        let bill = before.reserve("alice", &price(10), NOW).unwrap();
        before.settle(&bill, true);
        drop(before);
        let after = book(&folder);
        after.follow(vec![escrow(1, 100, 1_001)]);
        assert!(owed(&after).is_empty());
    }

    #[test]
    fn what_the_ledger_has_paid_counts_where_the_journal_was_lost() {
        let folder = tempfile::tempdir().unwrap();
        let mut book = book(&folder);
        let paid = Escrow {
            charged: Amount::new(30),
            totals: List::new(vec![Total {
                payee: bob(),
                amount: Amount::new(30),
            }])
            .unwrap(),
            ..escrow(1, 100, 1_000)
        };
        book.follow(vec![paid]);
        assert!(book.reserve("alice", &price(71), NOW).is_err());
        let bill = book.reserve("alice", &price(70), NOW).unwrap();
        book.settle(&bill, true);
        assert_eq!(owed(&book), [(1, 100)]);
    }

    #[test]
    fn escrows_that_are_about_to_end_ask_for_vouchers_or_are_small_do_not_keep_others_from_paying()
    {
        let folder = tempfile::tempdir().unwrap();
        let mut book = book(&folder);
        let key = r3mes_types::SecretKey::from_bytes(&[3; 32]).unwrap();
        let vouchers = Escrow {
            voucher_key: Some(key.public_key()),
            ..escrow(2, 1_000_000, 900)
        };
        let mut escrows = vec![escrow(1, 1_000_000, 60), vouchers];
        escrows.extend((3..200).map(|id| escrow(id, 5, 700)));
        escrows.push(escrow(200, 100, 1_000));
        book.follow(escrows);
        let bill = book.reserve("alice", &price(50), NOW).unwrap();
        assert_eq!(bill.escrow, 200);
        let refused = book.reserve("alice", &price(60), NOW).unwrap_err();
        assert!(refused.contains("escrow 1 is about to end"), "{refused}");
        assert!(refused.contains("escrow 2 asks for vouchers"), "{refused}");
    }

    #[test]
    fn an_escrow_pays_no_more_providers_than_a_record_has_room_for() {
        let folder = tempfile::tempdir().unwrap();
        let mut book = book(&folder);
        book.follow(vec![escrow(1, 1_000, 1_000)]);
        let of = |index: u8| Price {
            uremes: 1,
            payee: Address::from([index; 20]).to_string(),
        };
        for index in 0..MAX_PAYEES as u8 {
            let bill = book.reserve("alice", &of(index), NOW).unwrap();
            book.settle(&bill, true);
        }
        let refused = book.reserve("alice", &of(200), NOW).unwrap_err();
        assert!(refused.contains("64 providers already"), "{refused}");
        book.reserve("alice", &of(0), NOW).unwrap();
        assert_eq!(book.charges().unwrap()[0].totals.len(), MAX_PAYEES);
    }
}

//! The book without a ledger.

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
fn escrows_that_are_about_to_end_ask_for_vouchers_or_are_small_do_not_keep_others_from_paying() {
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
    assert!(
        refused.contains("escrow 1 ends before the call"),
        "{refused}"
    );
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
    let charges = book.charges().unwrap();
    assert!(
        charges
            .iter()
            .all(|charge| charge.totals.len() == MAX_RECORD)
    );
    let paid: BTreeSet<Address> = charges
        .iter()
        .flat_map(|charge| charge.totals.iter().map(|total| total.payee))
        .collect();
    assert_eq!(paid.len(), MAX_PAYEES);
}

#[test]
fn more_payees_than_an_escrow_may_have_are_charged_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let mut before = book(&folder);
    before.follow(vec![escrow(1, 1_000, 1_000)]);
    for index in 0..MAX_PAYEES as u8 {
        let price = Price {
            uremes: 1,
            payee: Address::from([index; 20]).to_string(),
        };
        let bill = before.reserve("alice", &price, NOW).unwrap();
        before.settle(&bill, true);
    }
    // As where another gateway of this account has charged for somebody else.
    let paid = Escrow {
        totals: List::new(vec![Total {
            payee: Address::from([200; 20]),
            amount: Amount::new(1),
        }])
        .unwrap(),
        ..escrow(1, 1_000, 1_000)
    };
    before.follow(vec![paid]);
    let charges = before.charges().unwrap();
    assert!(charges.iter().all(|charge| !charge.totals.is_empty()));
    assert_eq!(
        charges
            .iter()
            .map(|charge| charge.totals.len())
            .sum::<usize>(),
        MAX_PAYEES
    );
}

#[test]
fn a_price_that_the_ledger_would_pay_to_nobody_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut book = book(&folder);
    book.follow(vec![escrow(1, 1_000, 1_000)]);
    assert_eq!(book.check(&price(1)), Ok(()));
    for module in MODULES {
        let strange = Price {
            uremes: 1,
            payee: module.address().to_string(),
        };
        let refused = book.check(&strange).unwrap_err();
        assert!(refused.contains("an account of the network"), "{refused}");
        assert_eq!(book.reserve("alice", &strange, NOW), Err(refused));
    }
    let refused = book.check(&Price {
        uremes: 1,
        payee: "bob".into(),
    });
    assert!(refused.unwrap_err().contains("names no account"));
}

#[test]
fn an_escrow_must_outlast_the_call_and_its_settlement() {
    let folder = tempfile::tempdir().unwrap();
    let mut book = book(&folder);
    book.follow(vec![escrow(1, 100, 1_000)]);
    let last = Moment(1_000_000_000 - u64::try_from(MARGIN.as_micros()).unwrap());
    let refused = book.reserve("alice", &price(10), last).unwrap_err();
    assert!(
        refused.contains("escrow 1 ends before the call"),
        "{refused}"
    );
    assert!(refused.contains("shorter deadline"), "{refused}");
    let earlier = Moment(last.0 - 1);
    assert!(book.reserve("alice", &price(10), earlier).is_ok());
}

//! The book without a ledger.

mod refusals;

use r3mes_types::wire::Text;

use super::*;

const NOW: Moment = Moment(1_000_000);
/// The same.
const START: Time = Time::from_nanos(1_000_000_000);
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

fn at(second: u64) -> Time {
    Time::from_nanos(second * 1_000_000_000)
}

fn all(book: &Book) -> Vec<MsgCharge> {
    book.charges(Amount::ZERO, START)
}

fn owed(book: &Book) -> Vec<(u64, u64)> {
    let charges = all(book).into_iter();
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
    book.follow(vec![escrow(1, 25, 1_000)], START);
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
    before.follow(vec![escrow(1, 100, 1_000)], START);
    for _ in 0..3 {
        let bill = before.reserve("alice", &price(10), NOW).unwrap();
        before.settle(&bill, true);
    }
    // Set aside for a call that dies with the process.
    before.reserve("alice", &price(10), NOW).unwrap();
    drop(before);
    let after = book(&folder);
    after.follow(vec![escrow(1, 100, 1_000)], START);
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
    after.follow(vec![paid], START);
    assert!(owed(&after).is_empty());
}

#[test]
fn small_sums_wait_until_they_are_worth_a_fee_or_their_escrow_ends() {
    let folder = tempfile::tempdir().unwrap();
    let mut book = book(&folder);
    let mut escrows: Vec<Escrow> = (1..=50).map(|id| escrow(id, 10, 1_000)).collect();
    escrows.push(escrow(51, 100, 2_000));
    book.follow(escrows, START);
    for _ in 0..50 {
        let bill = book.reserve("alice", &price(10), NOW).unwrap();
        book.settle(&bill, true);
    }
    for _ in 0..2 {
        let bill = book.reserve("alice", &price(20), NOW).unwrap();
        book.settle(&bill, true);
    }
    let charged = |least: u64, second: u64| {
        let now = Time::from_nanos(second * 1_000_000_000);
        let charges = book.charges(Amount::new(least), now).into_iter();
        charges.map(|charge| charge.escrow).collect::<Vec<_>>()
    };
    assert_eq!(charged(40, 1), [51]);
    assert!(charged(41, 1).is_empty());
    // From here on none of the small ones pays for a further call.
    assert!(charged(41, 939).is_empty());
    assert_eq!(charged(41, 940), (1..=50).collect::<Vec<_>>());
    assert_eq!(charged(0, 1).len(), 51);
}

#[test]
fn what_an_ending_escrow_owes_is_charged_until_the_ledger_has_it_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut before = book(&folder);
    before.follow(vec![escrow(1, 100, 1_000)], START);
    let bill = before.reserve("alice", &price(1), NOW).unwrap();
    before.settle(&bill, true);
    let last = |book: &Book, second: u64| {
        let charges = book.last_charges(at(second)).into_iter();
        charges.map(|charge| charge.escrow).collect::<Vec<_>>()
    };
    assert!(last(&before, 939).is_empty());
    assert_eq!(last(&before, 940), [1]);
    // No call begins any more that would owe more, however short.
    let beginning = Moment(940_000_000);
    assert!(before.reserve("alice", &price(1), beginning).is_err());
    before.flush().unwrap();
    drop(before);
    // The ledger was away; it is asked again until the escrow ends.
    let after = book(&folder);
    after.follow(vec![escrow(1, 100, 1_000)], at(970));
    assert_eq!(last(&after, 970), [1]);
    assert_eq!(last(&after, 999), [1]);
    let paid = Escrow {
        charged: Amount::new(1),
        totals: List::new(vec![Total {
            payee: bob(),
            amount: Amount::new(1),
        }])
        .unwrap(),
        ..escrow(1, 100, 1_000)
    };
    after.follow(vec![paid], at(999));
    assert!(last(&after, 999).is_empty());
}

#[test]
fn an_escrow_of_the_same_number_on_another_chain_owes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut before = book(&folder);
    before.follow(vec![escrow(1, 100, 1_000)], START);
    let bill = before.reserve("alice", &price(10), NOW).unwrap();
    before.settle(&bill, true);
    drop(before);
    let after = book(&folder);
    after.follow(vec![escrow(1, 100, 1_001)], START);
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
    book.follow(vec![paid], START);
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
    let mut escrows = vec![escrow(1, 1_000_000, 60), vouchers.clone()];
    escrows.extend((3..200).map(|id| escrow(id, 5, 700)));
    escrows.push(escrow(200, 100, 1_000));
    book.follow(escrows, START);
    let bill = book.reserve("alice", &price(50), NOW).unwrap();
    assert_eq!(bill.escrow, 200);
    // Of a few, each is told why it does not pay.
    book.follow(vec![escrow(1, 1_000_000, 60), vouchers], START);
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
    book.follow(vec![escrow(1, 1_000, 1_000)], START);
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
    let charges = all(&book);
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
    before.follow(vec![escrow(1, 1_000, 1_000)], START);
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
    before.follow(vec![paid], START);
    let charges = all(&before);
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
    book.follow(vec![escrow(1, 1_000, 1_000)], START);
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
    book.follow(vec![escrow(1, 100, 1_000)], START);
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

fn of(index: u8) -> Price {
    Price {
        uremes: 1,
        payee: Address::from([index; 20]).to_string(),
    }
}

#[test]
fn an_answer_without_an_escrow_forgets_nothing_of_it_before_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut book = book(&folder);
    book.follow(vec![escrow(1, 100, 1_000)], START);
    let first = book.reserve("alice", &price(10), NOW).unwrap();
    let second = book.reserve("alice", &price(20), NOW).unwrap();
    book.reserve("alice", &price(30), NOW).unwrap();
    book.settle(&first, true);
    book.follow(Vec::new(), START);
    assert!(owed(&book).is_empty());
    assert!(book.reserve("alice", &price(1), NOW).is_err());
    book.settle(&second, true);
    book.follow(vec![escrow(1, 100, 1_000)], START);
    assert_eq!(owed(&book), [(1, 30)]);
    let refused = book.reserve("alice", &price(41), NOW).unwrap_err();
    assert!(refused.contains("escrow 1 has 40uremes left"), "{refused}");
    book.follow(Vec::new(), Time::from_nanos(1_000_000_000_000));
    assert!(book.pages().entries.is_empty());
}

#[test]
fn a_call_is_paid_out_of_the_escrow_that_it_was_set_aside_in_and_of_no_namesake() {
    let folder = tempfile::tempdir().unwrap();
    let mut book = book(&folder);
    book.follow(vec![escrow(1, 100, 1_000)], START);
    let bill = book.reserve("alice", &price(10), NOW).unwrap();
    book.follow(vec![escrow(1, 100, 1_001)], START);
    book.settle(&bill, true);
    assert!(owed(&book).is_empty());
    book.follow(vec![escrow(1, 100, 1_000)], START);
    assert_eq!(owed(&book), [(1, 10)]);
}

#[test]
fn escrows_that_pay_for_nothing_do_not_take_the_places_of_those_that_pay() {
    let folder = tempfile::tempdir().unwrap();
    let mut book = book(&folder);
    let key = r3mes_types::SecretKey::from_bytes(&[3; 32]).unwrap();
    let places = MAX_PER_USER as u64;
    let mut escrows = vec![escrow(1_000, 100, 1_000)];
    escrows.extend((0..places).map(|id| escrow(id, 1_000_000, 61)));
    escrows.extend((places..2 * places).map(|id| Escrow {
        voucher_key: Some(key.public_key()),
        ..escrow(id, 1_000_000, 900)
    }));
    book.follow(escrows, START);
    let bill = book.reserve("alice", &price(50), NOW).unwrap();
    assert_eq!(bill.escrow, 1_000);
}

#[test]
fn providers_whose_calls_fail_take_no_places_of_others() {
    let folder = tempfile::tempdir().unwrap();
    let mut book = book(&folder);
    book.follow(vec![escrow(1, 1_000, 1_000)], START);
    let bills: Vec<Bill> = (0..MAX_PAYEES as u8)
        .map(|index| book.reserve("alice", &of(index), NOW).unwrap())
        .collect();
    // The first has another call.
    book.reserve("alice", &of(0), NOW).unwrap();
    assert!(book.reserve("alice", &of(200), NOW).is_err());
    book.settle(&bills[0], false);
    assert!(book.reserve("alice", &of(200), NOW).is_err());
    book.settle(&bills[1], false);
    book.reserve("alice", &of(200), NOW).unwrap();
    assert!(book.reserve("alice", &of(1), NOW).is_err());
}

#[test]
fn what_was_earned_before_is_forgotten_when_its_escrow_must_have_ended() {
    let folder = tempfile::tempdir().unwrap();
    let mut before = book(&folder);
    before.follow(vec![escrow(1, 100, 1_000)], START);
    let bill = before.reserve("alice", &price(10), NOW).unwrap();
    before.settle(&bill, true);
    drop(before);
    let after = book(&folder);
    after.follow(Vec::new(), START);
    assert_eq!(after.pages().before.len(), 1);
    after.follow(Vec::new(), Time::from_nanos(1_000_000_000_000));
    assert!(after.pages().before.is_empty());
}

#[test]
fn a_long_journal_is_written_anew_when_the_ledger_is_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    let book = book(&folder);
    book.follow(vec![escrow(1, 100, 1_000)], START);
    let key = (1, Time::from_nanos(1_000_000_000_000));
    let mut total = 0;
    while !book.pages().journal.is_long() {
        total += 1;
        let mut pages = book.pages();
        pages.journal.add(key, &bob(), Amount::new(total)).unwrap();
    }
    let path = folder.path().join("usage.jsonl");
    assert!(std::fs::metadata(&path).unwrap().len() > 0);
    book.follow(vec![escrow(1, 100, 1_000)], START);
    // Nothing of it is in the book.
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
    assert!(!book.pages().journal.is_long());
}

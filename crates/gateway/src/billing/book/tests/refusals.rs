//! Charges that the ledger refuses.

use r3mes_ledger::escrow::EscrowError;

use super::*;

fn refusal(codespace: &str, code: u32, log: &str) -> Refusal {
    Refusal {
        codespace: codespace.into(),
        code,
        log: log.into(),
    }
}

#[test]
fn a_charge_that_is_refused_waits_and_is_sent_again_until_the_ledger_takes_it() {
    let folder = tempfile::tempdir().unwrap();
    let book = super::book(&folder);
    let follow = |second: u64| {
        book.follow(
            vec![escrow(1, 100, 1_000), escrow(2, 100, 1_000)],
            at(second),
        )
    };
    let charged = |second: u64| {
        let charges = book.charges(Amount::ZERO, at(second)).into_iter();
        charges.map(|charge| charge.escrow).collect::<Vec<_>>()
    };
    follow(1);
    let bills = [60, 60].map(|uremes| book.clone().reserve("alice", &price(uremes), NOW).unwrap());
    for bill in &bills {
        book.clone().settle(bill, true);
    }
    assert_eq!(charged(1), [1, 2]);
    book.refused(1, &refusal("sdk", 5, "no coins for the fee"), at(1));
    follow(2);
    assert_eq!(
        (charged(2), charged(10), charged(11)),
        (vec![2], vec![2], vec![1, 2])
    );
    book.refused(1, &refusal("sdk", 5, "no coins for the fee"), at(11));
    assert_eq!((charged(30), charged(31)), (vec![2], vec![1, 2]));
    let unpaid = Unpaid {
        uremes: 120,
        refused_escrows: 1,
        refused_uremes: 60,
        given_up_uremes: 0,
    };
    assert_eq!(book.unpaid(), unpaid);
    // Calls that both pay for go on meanwhile.
    let more = book.clone().reserve("alice", &price(40), NOW).unwrap();
    book.clone().settle(&more, false);
    book.charged(1);
    assert_eq!(charged(31), [1, 2]);
    assert_eq!(book.unpaid().refused_escrows, 0);
}

#[test]
fn a_charge_that_is_refused_for_good_is_given_up_and_its_escrow_pays_for_nothing_more() {
    let folder = tempfile::tempdir().unwrap();
    let mut book = super::book(&folder);
    book.follow(vec![escrow(1, 100, 1_000)], START);
    let bill = book.reserve("alice", &price(60), NOW).unwrap();
    book.settle(&bill, true);
    let error = EscrowError::Payees { escrow: 1 };
    let final_one = refusal(EscrowError::CODESPACE, error.code(), &error.to_string());
    book.refused(1, &final_one, START);
    book.follow(vec![escrow(1, 100, 1_000)], at(5));
    for second in [5, 500, 999] {
        assert!(book.charges(Amount::ZERO, at(second)).is_empty());
    }
    assert_eq!(book.unpaid().given_up_uremes, 60);
    let refused = book.reserve("alice", &price(10), NOW).unwrap_err();
    assert!(
        refused.contains("refuses to have escrow 1 charged: escrow 1 pays at most"),
        "{refused}"
    );
    // A gateway that starts anew asks once more.
    drop(book);
    let again = super::book(&folder);
    again.follow(vec![escrow(1, 100, 1_000)], at(5));
    assert_eq!(again.charges(Amount::ZERO, at(5)).len(), 1);
}

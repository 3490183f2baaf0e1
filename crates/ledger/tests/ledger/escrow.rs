//! Escrows: opened, charged by totals, bounded by deposits and vouchers, and given back.

use r3mes_ledger::bank::Module;
use r3mes_ledger::escrow::{MAX_LIFETIME, MIN_DEPOSIT};
use r3mes_ledger::export::{self, OpenRounds, Plan};
use r3mes_ledger::{Genesis, Ledger};
use r3mes_types::escrow::{
    Escrow, MAX_PAYEES, MsgCharge, MsgClose, MsgOpen, QueryEscrow, QueryEscrows, Total, Voucher,
    VoucherContent,
};
use r3mes_types::query::PageRequest;
use r3mes_types::tx::Fee;
use r3mes_types::wire::{List, Text};
use r3mes_types::{Address, Amount, Message, Millis, SecretKey, Time};

use crate::chain::{CHAIN_ID, Chain, FEE, START, address, development, key};

const PAYER: u8 = 1;
const GATEWAY: u8 = 2;
const DEPOSIT: Amount = Amount::remes(10);
const HOUR: Millis = Millis::seconds(3_600);

fn opening(chain: &Chain) -> MsgOpen {
    MsgOpen {
        payer: address(PAYER),
        gateway: address(GATEWAY),
        user: Text::new("alice").unwrap(),
        deposit: DEPOSIT,
        expires_at: chain.time.after(HOUR),
        voucher_key: None,
    }
}

/// A chain with escrow 1, as `change` has it.
fn with_escrow(change: impl FnOnce(MsgOpen) -> MsgOpen) -> Chain {
    let mut chain = Chain::new();
    let message = change(opening(&chain));
    chain.must(PAYER, message);
    chain
}

fn charge(totals: &[(Address, u64)]) -> MsgCharge {
    let totals = totals.iter().map(|&(payee, amount)| Total {
        payee,
        amount: Amount::new(amount),
    });
    let mut totals: Vec<Total> = totals.collect();
    totals.sort_by_key(|total| total.payee);
    MsgCharge {
        gateway: address(GATEWAY),
        escrow: 1,
        totals: List::new(totals).unwrap(),
        voucher: None,
    }
}

fn close(escrow: u64) -> MsgClose {
    MsgClose {
        gateway: address(GATEWAY),
        escrow,
    }
}

fn escrow(chain: &Chain) -> Option<Escrow> {
    chain.query(&QueryEscrow { escrow: 1 }).escrow
}

fn held(chain: &Chain) -> Amount {
    chain.balance(&Module::Escrow.address())
}

#[track_caller]
fn refused(chain: &mut Chain, sender: u8, message: impl Into<Message>, code: u32) {
    let result = chain.send(sender, message);
    let found = (result.codespace.as_str(), result.code);
    assert_eq!(found, ("escrow", code), "{}", result.log);
}

#[test]
fn what_is_charged_is_paid_out_and_the_rest_goes_back_when_the_gateway_closes() {
    let mut chain = with_escrow(|open| open);
    assert_eq!(held(&chain), DEPOSIT);
    chain.must(GATEWAY, charge(&[(address(3), 100), (address(4), 30)]));
    chain.must(GATEWAY, charge(&[(address(3), 150)]));
    let open = escrow(&chain).unwrap();
    assert_eq!(open.charged, Amount::new(180));
    assert_eq!(open.paid_to(&address(3)), Amount::new(150));
    chain.must(GATEWAY, close(1));
    let plus = |amount| START.checked_add(Amount::new(amount)).unwrap();
    assert_eq!(chain.balance(&address(3)), plus(150));
    assert_eq!(chain.balance(&address(4)), plus(30));
    // One fee, and what was charged.
    let spent = FEE.checked_add(Amount::new(180)).unwrap();
    assert_eq!(
        chain.balance(&address(PAYER)),
        START.checked_sub(spent).unwrap()
    );
    assert_eq!(held(&chain), Amount::ZERO);
    assert_eq!(escrow(&chain), None);
    refused(&mut chain, GATEWAY, charge(&[(address(3), 200)]), 2);
}

#[test]
fn records_that_come_twice_late_or_after_one_that_was_lost_pay_once() {
    let mut chain = with_escrow(|open| open);
    let payee = address(3);
    let paid = |chain: &Chain| chain.balance(&payee).checked_sub(START).unwrap();
    // The record of 10 was lost.
    for (total, expected) in [(20, 20), (20, 20), (10, 20), (35, 35), (20, 35)] {
        chain.must(GATEWAY, charge(&[(payee, total)]));
        assert_eq!(paid(&chain), Amount::new(expected));
    }
    assert_eq!(escrow(&chain).unwrap().charged, Amount::new(35));
}

#[test]
fn no_more_than_the_deposit_is_charged_and_a_record_above_it_pays_nobody() {
    let mut chain = with_escrow(|open| open);
    let all = DEPOSIT.uremes();
    let over = charge(&[(address(3), all), (address(4), 1)]);
    refused(&mut chain, GATEWAY, over, 5);
    let beyond = charge(&[(address(3), u64::MAX), (address(4), u64::MAX)]);
    refused(&mut chain, GATEWAY, beyond, 5);
    assert_eq!(held(&chain), DEPOSIT);
    chain.must(GATEWAY, charge(&[(address(3), all)]));
    assert_eq!(held(&chain), Amount::ZERO);
    chain.must(GATEWAY, close(1));
}

#[test]
fn what_is_left_goes_back_by_itself_at_the_end_and_nothing_is_charged_from_then_on() {
    let mut chain = with_escrow(|open| open);
    let end = escrow(&chain).unwrap().expires_at;
    assert_eq!(Ledger::next_deadline(&chain.state).unwrap(), Some(end));
    chain.must(GATEWAY, charge(&[(address(3), 5)]));
    // In the very block of its end a charge comes before the refund, and is late.
    chain.time = Time::from_nanos(end.nanos() - 1_000_000);
    refused(&mut chain, GATEWAY, charge(&[(address(3), 6)]), 2);
    assert_eq!(chain.time, end);
    assert_eq!(escrow(&chain), None);
    let spent = FEE.checked_add(Amount::new(5)).unwrap();
    assert_eq!(
        chain.balance(&address(PAYER)),
        START.checked_sub(spent).unwrap()
    );
    assert_eq!(Ledger::next_deadline(&chain.state).unwrap(), None);
}

#[test]
fn a_block_ends_a_bounded_number_of_escrows_and_asks_for_the_next() {
    let mut chain = Chain::new();
    let message = opening(&chain);
    let many: Vec<_> = (0..32).map(|_| message.clone().into()).collect();
    for _ in 0..3 {
        let fee = Fee::of(Amount::new(20_000), 20_000_000);
        let tx = chain.sign_with(PAYER, many.clone(), fee);
        assert_eq!(chain.block(vec![tx])[0].log, "");
    }
    let before = chain.balance(&address(PAYER));
    chain.wait(HOUR);
    let next = Ledger::next_deadline(&chain.state).unwrap().unwrap();
    assert!(next <= chain.time);
    assert_eq!(held(&chain), DEPOSIT.mul_div(32, 1).unwrap());
    chain.block(Vec::new());
    assert_eq!(held(&chain), Amount::ZERO);
    let back = DEPOSIT.mul_div(96, 1).unwrap();
    let after = before.checked_add(back).unwrap();
    assert_eq!(chain.balance(&address(PAYER)), after);
}

#[test]
fn only_its_gateway_charges_and_closes_an_escrow() {
    let mut chain = with_escrow(|open| open);
    let stranger = MsgCharge {
        gateway: address(3),
        ..charge(&[(address(3), 5)])
    };
    refused(&mut chain, 3, stranger, 3);
    let payer = MsgClose {
        gateway: address(PAYER),
        escrow: 1,
    };
    refused(&mut chain, PAYER, payer, 3);
    // Whoever signs for another account is told so by admission.
    let result = chain.send(3, charge(&[(address(3), 5)]));
    assert_eq!(
        (result.codespace.as_str(), result.code),
        ("sdk", 4),
        "{}",
        result.log
    );
    let unknown = MsgCharge {
        escrow: 2,
        ..charge(&[(address(3), 5)])
    };
    refused(&mut chain, GATEWAY, unknown, 2);
    assert_eq!(held(&chain), DEPOSIT);
}

#[test]
fn an_escrow_that_cannot_work_is_not_opened() {
    let mut chain = Chain::new();
    let good = opening(&chain);
    let bad = [
        MsgOpen {
            gateway: address(PAYER),
            ..good.clone()
        },
        MsgOpen {
            user: Text::default(),
            ..good.clone()
        },
        MsgOpen {
            deposit: MIN_DEPOSIT.checked_sub(Amount::new(1)).unwrap(),
            ..good.clone()
        },
        MsgOpen {
            expires_at: chain.time,
            ..good.clone()
        },
        MsgOpen {
            expires_at: chain.time.after(MAX_LIFETIME).after(HOUR),
            ..good.clone()
        },
    ];
    for message in bad {
        refused(&mut chain, PAYER, message, 1);
    }
    let poor = MsgOpen {
        deposit: START,
        ..good
    };
    let result = chain.send(PAYER, poor);
    assert_eq!(
        (result.codespace.as_str(), result.code),
        ("bank", 1),
        "{}",
        result.log
    );
    assert_eq!(held(&chain), Amount::ZERO);
}

#[test]
fn a_record_whose_totals_are_out_of_order_empty_or_for_the_network_itself_is_refused() {
    let mut chain = with_escrow(|open| open);
    let mut descending = charge(&[(address(3), 1), (address(4), 1)]);
    descending.totals.swap(0, 1);
    let twice = charge(&[(address(3), 1), (address(3), 2)]);
    let bad = [
        charge(&[]),
        charge(&[(address(3), 0)]),
        charge(&[(Module::Treasury.address(), 1)]),
        descending,
        twice,
    ];
    for message in bad {
        refused(&mut chain, GATEWAY, message, 4);
    }
}

#[test]
fn an_escrow_pays_a_bounded_number_of_accounts() {
    let mut chain = with_escrow(|open| open);
    let payees: Vec<(Address, u64)> = (0..MAX_PAYEES as u8)
        .map(|index| (Address::from([index + 1; 20]), 1))
        .collect();
    chain.must(GATEWAY, charge(&payees));
    refused(
        &mut chain,
        GATEWAY,
        charge(&[(Address::from([0xff; 20]), 1)]),
        7,
    );
    let more: Vec<(Address, u64)> = payees.iter().map(|(payee, _)| (*payee, 3)).collect();
    chain.must(GATEWAY, charge(&more));
    assert_eq!(
        escrow(&chain).unwrap().charged,
        Amount::new(3 * MAX_PAYEES as u64)
    );
}

fn voucher(key: &SecretKey, total: u64) -> Option<Voucher> {
    let content = VoucherContent {
        chain_id: Text::new(CHAIN_ID).unwrap(),
        escrow: 1,
        total: Amount::new(total),
    };
    Some(content.sign(key))
}

#[test]
fn where_the_payer_holds_a_key_no_more_is_charged_than_it_signed_for() {
    let spending = key(5);
    let mut chain = with_escrow(|open| MsgOpen {
        voucher_key: Some(spending.public_key()),
        ..open
    });
    let ten = charge(&[(address(3), 10)]);
    refused(&mut chain, GATEWAY, ten.clone(), 6);
    for voucher in [
        voucher(&spending, 9),
        // By another key.
        voucher(&key(4), 10),
    ] {
        let message = MsgCharge {
            voucher,
            ..ten.clone()
        };
        refused(&mut chain, GATEWAY, message, 6);
    }
    // A signature for 9 is none for 10.
    let raised = voucher(&spending, 9).map(|voucher| Voucher {
        total: Amount::new(10),
        ..voucher
    });
    let forged = MsgCharge {
        voucher: raised,
        ..ten.clone()
    };
    refused(&mut chain, GATEWAY, forged, 6);
    let signed = voucher(&spending, 12);
    chain.must(
        GATEWAY,
        MsgCharge {
            voucher: signed,
            ..ten
        },
    );
    let more = MsgCharge {
        voucher: signed,
        ..charge(&[(address(3), 10), (address(4), 3)])
    };
    refused(&mut chain, GATEWAY, more, 6);
    let rest = MsgCharge {
        voucher: signed,
        ..charge(&[(address(3), 10), (address(4), 2)])
    };
    chain.must(GATEWAY, rest);
    assert_eq!(escrow(&chain).unwrap().charged, Amount::new(12));
}

#[test]
fn both_sides_find_their_open_escrows_by_pages() {
    let mut chain = with_escrow(|open| open);
    for _ in 0..2 {
        let message = opening(&chain);
        chain.must(PAYER, message);
    }
    let ids = |chain: &Chain, index: u8, page: Option<PageRequest>| {
        let account = address(index);
        let answer = chain.query(&QueryEscrows { account, page });
        let ids: Vec<u64> = answer.escrows.iter().map(|escrow| escrow.id).collect();
        (ids, answer.next)
    };
    for side in [PAYER, GATEWAY] {
        assert_eq!(ids(&chain, side, None).0, [1, 2, 3]);
    }
    assert!(ids(&chain, 3, None).0.is_empty());
    let two = PageRequest {
        limit: 2,
        ..PageRequest::default()
    };
    let (first, next) = ids(&chain, GATEWAY, Some(two));
    assert_eq!(first, [1, 2]);
    let rest = PageRequest {
        after: next,
        limit: 0,
    };
    assert_eq!(ids(&chain, GATEWAY, Some(rest)).0, [3]);
    chain.must(GATEWAY, close(2));
    assert_eq!(ids(&chain, PAYER, None).0, [1, 3]);
}

#[test]
fn open_escrows_go_on_in_an_exported_chain() {
    let mut chain = with_escrow(|open| open);
    chain.must(GATEWAY, charge(&[(address(3), 5)]));
    let plan = Plan {
        chain_id: "r3mes-next".into(),
        time: chain.time,
        validators: development().validators.to_vec(),
        open_rounds: OpenRounds::Refuse,
    };
    let exported: Genesis = export::export(&chain.state, &plan).unwrap();
    let mut next = Chain::from(&exported);
    assert_eq!(escrow(&next), escrow(&chain));
    next.must(GATEWAY, charge(&[(address(3), 5), (address(4), 2)]));
    next.must(GATEWAY, close(1));
    assert_eq!(held(&next), Amount::ZERO);
}

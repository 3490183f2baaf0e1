//! Escrows against a model so simple that it is obviously right: plain maps of what everybody has.

use std::collections::BTreeMap;

use proptest::prelude::*;
use r3mes_ledger::bank::{Module, SUPPLY};
use r3mes_types::escrow::{
    MsgCharge, MsgClose, MsgOpen, QueryEscrow, QueryEscrows, Total, VoucherContent,
};
use r3mes_types::wire::{List, Text};
use r3mes_types::{Address, Amount, Message, Millis};

use super::config;
use crate::chain::{CHAIN_ID, Chain, FEE, START, address, key};

const ACCOUNTS: u8 = 4;
/// The account whose key signs vouchers.
const SIGNER: u8 = 5;
/// Escrows that steps name; some of them are never opened.
const ESCROWS: u64 = 4;
const SECOND: u64 = 1_000;

#[derive(Clone, Debug)]
enum Step {
    Open {
        payer: u8,
        gateway: u8,
        deposit: u64,
        seconds: u64,
        vouchers: bool,
    },
    Charge {
        gateway: u8,
        escrow: u64,
        totals: BTreeMap<u8, u64>,
        /// What a voucher that comes with it is for.
        voucher: Option<u64>,
    },
    Close {
        gateway: u8,
        escrow: u64,
    },
    Wait {
        seconds: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let who = 1..=ACCOUNTS;
    // Few accounts may charge, or hardly any charge would be by the right one.
    let gateway = 1..=2u8;
    let amount = prop_oneof![1 => Just(u64::MAX), 20 => 0..3_000u64];
    let open = (
        who.clone(),
        gateway.clone(),
        0..6_000u64,
        0..200u64,
        any::<bool>(),
    );
    let totals = prop::collection::btree_map(who, amount, 0..4);
    let escrow = 1..=ESCROWS;
    let voucher = prop_oneof![1 => Just(None), 2 => (0..6_000u64).prop_map(Some)];
    prop_oneof![
        3 => open.prop_map(|(payer, gateway, deposit, seconds, vouchers)| Step::Open {
            payer, gateway, deposit, seconds, vouchers,
        }),
        8 => (gateway.clone(), escrow.clone(), totals, voucher)
            .prop_map(|(gateway, escrow, totals, voucher)| Step::Charge {
                gateway, escrow, totals, voucher,
            }),
        1 => (gateway, escrow).prop_map(|(gateway, escrow)| Step::Close { gateway, escrow }),
        1 => (0..80u64).prop_map(|seconds| Step::Wait { seconds }),
    ]
}

#[derive(Clone, Debug)]
struct NaiveEscrow {
    payer: u8,
    gateway: u8,
    left: u64,
    until: u64,
    vouchers: bool,
    paid: BTreeMap<u8, u64>,
}

#[derive(Debug)]
struct Naive {
    now: u64,
    balances: BTreeMap<u8, u64>,
    fees: u64,
    opened: u64,
    escrows: BTreeMap<u64, NaiveEscrow>,
}

impl Naive {
    fn new() -> Self {
        Self {
            now: 0,
            balances: (1..=ACCOUNTS).map(|who| (who, START.uremes())).collect(),
            fees: 0,
            opened: 0,
            escrows: BTreeMap::new(),
        }
    }

    /// Whether a step is a message that may be sent at all; then its fee is paid.
    fn admit(&mut self, step: &Step) -> bool {
        let (sender, good) = match step {
            Step::Open {
                payer,
                gateway,
                deposit,
                ..
            } => (*payer, payer != gateway && *deposit >= 1_000),
            Step::Charge {
                gateway, totals, ..
            } => (
                *gateway,
                !totals.is_empty() && totals.values().all(|total| *total > 0),
            ),
            Step::Close { gateway, .. } => (*gateway, true),
            Step::Wait { .. } => return true,
        };
        if good {
            *self.balances.get_mut(&sender).unwrap() -= FEE.uremes();
            self.fees += FEE.uremes();
        }
        good
    }

    /// Whether the step succeeds.
    fn apply(&mut self, step: &Step) -> bool {
        match step {
            Step::Open {
                payer,
                gateway,
                deposit,
                seconds,
                vouchers,
            } => {
                // Blocks are a millisecond apart, and what ends with this one has ended.
                let until = self.now - 1 + seconds * SECOND;
                let balance = self.balances.get_mut(payer).unwrap();
                if until <= self.now || *balance < *deposit {
                    return false;
                }
                *balance -= deposit;
                self.opened += 1;
                let escrow = NaiveEscrow {
                    payer: *payer,
                    gateway: *gateway,
                    left: *deposit,
                    until,
                    vouchers: *vouchers,
                    paid: BTreeMap::new(),
                };
                self.escrows.insert(self.opened, escrow);
                true
            }
            Step::Charge {
                gateway,
                escrow,
                totals,
                voucher,
            } => {
                let now = self.now;
                let Some(escrow) = self.escrows.get_mut(escrow) else {
                    return false;
                };
                if escrow.gateway != *gateway || now >= escrow.until {
                    return false;
                }
                let before = u128::from(escrow.paid.values().sum::<u64>());
                let mut after = escrow.paid.clone();
                for (who, total) in totals {
                    let paid = after.entry(*who).or_default();
                    *paid = (*paid).max(*total);
                }
                let charged: u128 = after.values().map(|paid| u128::from(*paid)).sum();
                if charged == before {
                    return true;
                }
                let signed = voucher.is_some_and(|voucher| u128::from(voucher) >= charged);
                let due = charged - before;
                if due > u128::from(escrow.left) || escrow.vouchers && !signed {
                    return false;
                }
                escrow.left -= due as u64;
                for (who, paid) in &after {
                    let more = paid - escrow.paid.get(who).copied().unwrap_or(0);
                    *self.balances.get_mut(who).unwrap() += more;
                }
                escrow.paid = after;
                true
            }
            Step::Close { gateway, escrow } => {
                let found = self.escrows.get(escrow);
                let may =
                    found.is_some_and(|found| found.gateway == *gateway && self.now < found.until);
                if may {
                    self.end(*escrow);
                }
                may
            }
            Step::Wait { .. } => true,
        }
    }

    fn end(&mut self, escrow: u64) {
        let ended = self.escrows.remove(&escrow).unwrap();
        *self.balances.get_mut(&ended.payer).unwrap() += ended.left;
    }

    fn end_block(&mut self) {
        let over = self
            .escrows
            .iter()
            .filter(|(_, escrow)| escrow.until <= self.now);
        for escrow in over.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.end(escrow);
        }
    }
}

/// Who sends a step, and as what.
fn message(chain: &Chain, step: &Step) -> Option<(u8, Message)> {
    Some(match step {
        Step::Open {
            payer,
            gateway,
            deposit,
            seconds,
            vouchers,
        } => {
            let open = MsgOpen {
                payer: address(*payer),
                gateway: address(*gateway),
                user: Text::new("alice").unwrap(),
                deposit: Amount::new(*deposit),
                expires_at: chain.time.after(Millis::seconds(*seconds)),
                voucher_key: vouchers.then(|| key(SIGNER).public_key()),
            };
            (*payer, open.into())
        }
        Step::Charge {
            gateway,
            escrow,
            totals,
            voucher,
        } => {
            let mut totals: Vec<Total> = totals
                .iter()
                .map(|(who, amount)| Total {
                    payee: address(*who),
                    amount: Amount::new(*amount),
                })
                .collect();
            totals.sort_by_key(|total| total.payee);
            let voucher = voucher.map(|total| {
                let content = VoucherContent {
                    chain_id: Text::new(CHAIN_ID).unwrap(),
                    escrow: *escrow,
                    total: Amount::new(total),
                };
                content.sign(&key(SIGNER))
            });
            let charge = MsgCharge {
                gateway: address(*gateway),
                escrow: *escrow,
                totals: List::new(totals).unwrap(),
                voucher,
            };
            (*gateway, charge.into())
        }
        Step::Close { gateway, escrow } => {
            let close = MsgClose {
                gateway: address(*gateway),
                escrow: *escrow,
            };
            (*gateway, close.into())
        }
        Step::Wait { .. } => return None,
    })
}

/// Runs one step on the ledger; whether it succeeded.
fn run(chain: &mut Chain, step: &Step) -> bool {
    match (message(chain, step), step) {
        (Some((sender, message)), _) => chain.send(sender, message).code == 0,
        (None, Step::Wait { seconds }) => {
            chain.wait(Millis::seconds(*seconds));
            true
        }
        (None, _) => unreachable!("only waiting is no message"),
    }
}

fn compare(chain: &Chain, naive: &Naive) {
    for (who, balance) in &naive.balances {
        let found = chain.balance(&address(*who)).uremes();
        assert_eq!(found, *balance, "balance of {who}");
    }
    let module = |module: Module| chain.balance(&module.address()).uremes();
    assert_eq!(module(Module::Treasury), naive.fees, "fees");
    let left: u64 = naive.escrows.values().map(|escrow| escrow.left).sum();
    assert_eq!(module(Module::Escrow), left, "what is left of escrows");
    let supply = SUPPLY.get(&chain.view()).unwrap().unwrap();
    assert_eq!(supply, START.mul_div(6, 1).unwrap(), "the supply");
    let ids = |of: &dyn Fn(&NaiveEscrow) -> bool| -> Vec<u64> {
        let found = naive.escrows.iter().filter(|(_, escrow)| of(escrow));
        found.map(|(id, _)| *id).collect()
    };
    for who in 1..=ACCOUNTS {
        let account = address(who);
        let page = None;
        let answer = chain.query(&QueryEscrows { account, page });
        let found: Vec<u64> = answer.escrows.iter().map(|escrow| escrow.id).collect();
        let expected = ids(&|escrow| escrow.payer == who || escrow.gateway == who);
        assert_eq!(found, expected, "escrows of {who}");
    }
    for id in 1..=naive.opened {
        let found = chain.query(&QueryEscrow { escrow: id }).escrow;
        let found = found.map(|escrow| {
            let paid = escrow
                .totals
                .iter()
                .map(|total| (total.payee, total.amount.uremes()));
            (escrow.left().uremes(), paid.collect::<BTreeMap<_, _>>())
        });
        let expected = naive.escrows.get(&id).map(|escrow| {
            let paid = escrow.paid.iter().map(|(who, paid)| (address(*who), *paid));
            (escrow.left, paid.collect::<BTreeMap<Address, u64>>())
        });
        assert_eq!(found, expected, "escrow {id}");
    }
}

proptest! {
    #![proptest_config(config(48))]

    #[test]
    fn escrows_do_what_the_naive_model_does(steps in prop::collection::vec(step(), 1..60)) {
        let mut chain = Chain::new();
        let start = chain.time;
        let mut naive = Naive::new();
        for step in steps {
            let height = chain.height;
            let done = run(&mut chain, &step);
            naive.now = chain.time.since(start).millis();
            prop_assert!(chain.height == height + 1);
            let expected = naive.admit(&step) && naive.apply(&step);
            prop_assert_eq!(done, expected, "{:?}", step);
            naive.end_block();
            compare(&chain, &naive);
        }
    }
}

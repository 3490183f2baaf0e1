//! Rewards: what is issued and vests, what slashes take of it, appeals, and trust.

pub(super) mod model;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use proptest::prelude::*;
use r3mes_ledger::bank::{Module, SUPPLY};
use r3mes_ledger::genesis::Genesis;
use r3mes_ledger::nodes;
use r3mes_ledger::rewards::{self, Deed};
use r3mes_types::governance::{Change, MsgPropose, SlashDecision};
use r3mes_types::nodes::{MsgAppeal, MsgLeave, MsgRegister, QuerySlashes, SlashStatus};
use r3mes_types::rewards::{QueryTrust, QueryVesting, RewardsParams};
use r3mes_types::wire::{List, Text};
use r3mes_types::{Amount, Message, Millis, Role};

use self::model::{Naive, Record};
use super::config;
use crate::chain::{Chain, START, address, development, spec};

/// Nodes; the last account is none.
const NODES: RangeInclusive<u8> = 1..=3;
const EVERYBODY: RangeInclusive<u8> = 1..=4;
const STAKE: Amount = Amount::remes(5);
/// How long a slash may be appealed.
const APPEALS: Millis = Millis::seconds(30);
const VESTING: Millis = Millis::seconds(160);
/// Coins at genesis, and how many may be issued at first.
const GENESIS: u64 = 6 * START.uremes();
const ROOM: u64 = 30_000_000;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// A round has closed.
    Issue {
        amount: u64,
    },
    Pay {
        who: u8,
        amount: u64,
    },
    Slash {
        who: u8,
        amount: u64,
    },
    Appeal {
        who: u8,
        slash: u64,
        statement: u8,
    },
    /// The authority decides on an appeal.
    Decide {
        slash: u64,
        revert: bool,
    },
    Note {
        who: u8,
        deed: Deed,
    },
    /// The authority changes the parameters.
    Params {
        max_supply: u64,
        vesting: u64,
    },
    Leave {
        who: u8,
    },
    Wait {
        millis: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let amount = || 1..4_000_000u64;
    let deed = prop_oneof![
        6 => Just(Deed::Kept),
        2 => Just(Deed::Missed),
        1 => Just(Deed::Broken),
    ];
    let vesting = prop_oneof![1 => Just(0), 1 => 1..5u64, 4 => 1..200_000u64];
    let appeal = (NODES, 0..8u64, 1..=2u8);
    prop_oneof![
        3 => (0..12_000_000u64).prop_map(|amount| Step::Issue { amount }),
        8 => (EVERYBODY, amount()).prop_map(|(who, amount)| Step::Pay { who, amount }),
        4 => (EVERYBODY, amount()).prop_map(|(who, amount)| Step::Slash { who, amount }),
        4 => appeal.prop_map(|(who, slash, statement)| Step::Appeal { who, slash, statement }),
        3 => (0..8u64, any::<bool>()).prop_map(|(slash, revert)| Step::Decide { slash, revert }),
        4 => (EVERYBODY, deed).prop_map(|(who, deed)| Step::Note { who, deed }),
        1 => (GENESIS..GENESIS + 2 * ROOM, vesting)
            .prop_map(|(max_supply, vesting)| Step::Params { max_supply, vesting }),
        1 => NODES.prop_map(|who| Step::Leave { who }),
        4 => (0..60_000u64).prop_map(|millis| Step::Wait { millis }),
    ]
}

fn founding() -> Genesis {
    let mut genesis = development();
    genesis.params.rewards.max_supply = Amount::new(GENESIS + ROOM);
    genesis.params.rewards.vesting = VESTING;
    let nodes = NODES.map(|who| MsgRegister {
        address: address(who),
        spec: spec(&[Role::Miner], STAKE),
    });
    genesis.nodes = List::new(nodes.collect()).unwrap();
    genesis
}

/// Who sends a step, and as what; the rest is done by other domains.
fn message(step: Step) -> Option<(u8, Message)> {
    let decided = |change| {
        let message = MsgPropose {
            proposer: address(0),
            title: Text::new("decided").unwrap(),
            change,
        };
        Some((0, message.into()))
    };
    match step {
        Step::Appeal {
            who,
            slash,
            statement,
        } => {
            let message = MsgAppeal {
                address: address(who),
                slash,
                statement: Text::new(format!("statement {statement}")).unwrap(),
            };
            Some((who, message.into()))
        }
        Step::Leave { who } => {
            let address = address(who);
            Some((who, MsgLeave { address }.into()))
        }
        Step::Decide { slash, revert } => decided(Change::Slash(SlashDecision { slash, revert })),
        Step::Params {
            max_supply,
            vesting,
        } => decided(Change::Rewards(RewardsParams {
            max_supply: Amount::new(max_supply),
            vesting: Millis::new(vesting),
        })),
        Step::Issue { .. }
        | Step::Pay { .. }
        | Step::Slash { .. }
        | Step::Note { .. }
        | Step::Wait { .. } => None,
    }
}

/// Does on the ledger what other domains do; whether it succeeded.
fn act(chain: &mut Chain, step: Step) -> bool {
    let done = chain.act(|ctx| match step {
        Step::Issue { amount } => rewards::issue(ctx, Amount::new(amount)).map(|_| ()),
        Step::Pay { who, amount } => {
            rewards::pay(ctx, Module::Rewards, &address(who), Amount::new(amount))
        }
        Step::Slash { who, amount } => {
            nodes::slash(ctx, &address(who), Amount::new(amount), "test").map(|_| ())
        }
        Step::Note { who, deed } => rewards::note(ctx, &address(who), deed),
        _ => unreachable!("every other step makes a block"),
    });
    done.is_ok()
}

/// Does one step on the ledger and in the model; whether each succeeded.
fn run(chain: &mut Chain, naive: &mut Naive, step: Step, start: u64) -> (bool, bool) {
    let sent = message(step);
    if sent.is_none() && !matches!(step, Step::Wait { .. }) {
        return (act(chain, step), naive.apply(step));
    }
    let done = match (&sent, step) {
        (Some((who, message)), _) => chain.send(*who, message.clone()).code == 0,
        (None, Step::Wait { millis }) => {
            chain.wait(Millis::new(millis));
            true
        }
        (None, _) => unreachable!("every other step is no block"),
    };
    naive.now = chain.time.nanos();
    naive.accounts.now = (naive.now - start) / 1_000_000;
    if let Some((who, _)) = sent {
        naive.charge(who);
    }
    let expected = naive.apply(step);
    naive.end_block();
    (done, expected)
}

fn compare(chain: &Chain, naive: &Naive) {
    let module = |module: Module| chain.balance(&module.address()).uremes();
    assert_eq!(
        module(Module::Treasury),
        naive.accounts.treasury,
        "the treasury"
    );
    assert_eq!(module(Module::Rewards), naive.issued, "what is issued");
    assert_eq!(
        module(Module::Slashed),
        naive.held_slashes(),
        "what is slashed"
    );
    let supply = SUPPLY.get(&chain.view()).unwrap().unwrap();
    assert_eq!(supply.uremes(), naive.supply);
    for who in EVERYBODY {
        let address = address(who);
        let balance = chain.balance(&address).uremes();
        assert_eq!(balance, naive.accounts.balances[&who], "balance of {who}");
        let found = chain.query(&QueryVesting { address }).parts;
        let found = found
            .iter()
            .map(|part| (part.due.nanos(), part.amount.uremes()));
        let expected = naive.held.get(&who).cloned().unwrap_or_default();
        assert_eq!(
            found.collect::<BTreeMap<_, _>>(),
            expected,
            "vesting of {who}"
        );
        let trust = chain.query(&QueryTrust { address });
        let record = trust.record;
        let found = Record {
            counts: [record.kept, record.missed, record.broken],
            trust: record.trust,
        };
        let expected = naive.records.get(&who).copied().unwrap_or_default();
        assert_eq!(
            (found, trust.tier),
            (expected, expected.tier()),
            "trust of {who}"
        );
        let node = nodes::get(&chain.view(), &address).unwrap();
        let node = node.map(|node| (node.bonded.uremes(), node.status));
        let expected = naive.accounts.nodes.get(&who);
        assert_eq!(
            node,
            expected.map(|node| (node.bonded, node.status)),
            "node {who}"
        );
    }
    let found = chain.query(&QuerySlashes::default()).slashes;
    let found = found
        .iter()
        .map(|slash| (slash.amount.uremes(), slash.status));
    let expected = naive
        .slashes
        .iter()
        .map(|slash| (slash.amount, slash.status));
    let expected: Vec<(u64, SlashStatus)> = expected.collect();
    assert_eq!(found.collect::<Vec<_>>(), expected);
}

proptest! {
    #![proptest_config(config(32))]

    #[test]
    fn rewards_do_what_the_naive_model_does(steps in prop::collection::vec(step(), 1..80)) {
        let mut chain = Chain::from(&founding());
        let start = chain.time.nanos();
        let mut naive = Naive::new(start, GENESIS, GENESIS + ROOM, VESTING.millis());
        for step in steps {
            let (done, expected) = run(&mut chain, &mut naive, step, start);
            prop_assert_eq!(done, expected, "{:?}", step);
            compare(&chain, &naive);
        }
    }
}

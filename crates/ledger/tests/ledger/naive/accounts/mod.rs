//! Accounts and nodes: transfers, grants, fees, registration, stake, jail.

pub(super) mod model;
pub(super) mod nodes;
pub(super) mod steps;

use proptest::prelude::*;
use r3mes_ledger::bank::Module;
use r3mes_ledger::{auth, nodes as ledger_nodes};
use r3mes_types::nodes::NodeStatus;
use r3mes_types::tx::Fee;
use r3mes_types::{Amount, Millis};

use self::model::Naive;
use self::steps::{Envelope, GRANTED, Step, envelope, message, step};
use super::config;
use crate::chain::{Chain, GAS, address};

const ACCOUNTS: u8 = 4;
const SECOND: u64 = 1_000;
const UNBONDING: u64 = 60 * SECOND;
const JAIL: u64 = 30 * SECOND;

/// Runs one step on the ledger; whether it succeeded.
fn run(chain: &mut Chain, step: Step, envelope: Envelope) -> bool {
    if let Some(message) = message(chain, step) {
        let signer = envelope.signer.unwrap_or(step.actor());
        let mut fee = match envelope.fee {
            0 => Fee::none(GAS),
            fee => Fee::of(Amount::new(fee), GAS),
        };
        fee.payer = envelope.payer.map(address);
        fee.granter = envelope.granter.map(address);
        let tx = chain.sign_with(signer, vec![message], fee);
        return chain.block(vec![tx])[0].code == 0;
    }
    match step {
        Step::Slash { who, amount } => {
            let amount = Amount::new(amount);
            chain
                .act(|ctx| ledger_nodes::slash(ctx, &address(who), amount, "test"))
                .is_ok()
        }
        Step::Jail { who } => chain
            .act(|ctx| ledger_nodes::jail(ctx, &address(who), "test"))
            .is_ok(),
        _ => true,
    }
}

fn compare_auth(chain: &Chain, naive: &Naive) {
    let view = chain.view();
    // What was slashed waits for appeals before it goes to the treasury.
    let [treasury, slashed] =
        [Module::Treasury, Module::Slashed].map(|module| chain.balance(&module.address()).uremes());
    assert_eq!(treasury + slashed, naive.treasury, "fees and slashes");
    for from in 1..=ACCOUNTS {
        let account = auth::ACCOUNTS.get(&view, &address(from)).unwrap().unwrap();
        assert_eq!(account.sequence, naive.sequences[&from], "{from}");
        for to in 1..=ACCOUNTS {
            let pair = (address(from), address(to));
            let grant = auth::GRANTS.get(&view, &pair).unwrap();
            let types = grant.map(|grant| {
                let is_granted = |url: &str| grant.type_urls.iter().any(|held| &**held == url);
                let held = GRANTED.iter().filter(|(_, url)| is_granted(url));
                held.map(|(number, _)| number).sum::<u8>()
            });
            let expected = naive.grants.get(&(from, to)).map(|(types, _)| *types);
            assert_eq!(types, expected, "grant of {from} to {to}");
            let left = auth::FEE_GRANTS.get(&view, &pair).unwrap();
            let left = left.map(|grant| grant.remaining.uremes());
            let expected = naive.fee_grants.get(&(from, to)).map(|(left, _)| *left);
            assert_eq!(left, expected, "fee grant of {from} to {to}");
        }
    }
}

fn compare(chain: &Chain, naive: &Naive) {
    compare_auth(chain, naive);
    for who in 1..=ACCOUNTS {
        let balance = chain.balance(&address(who)).uremes();
        assert_eq!(balance, naive.balances[&who], "balance of {who}");
        let node = ledger_nodes::get(&chain.view(), &address(who)).unwrap();
        let expected = naive.nodes.get(&who);
        assert_eq!(node.is_some(), expected.is_some(), "node {who}");
        let (Some(node), Some(expected)) = (node, expected) else {
            continue;
        };
        assert_eq!(node.bonded.uremes(), expected.bonded, "stake of {who}");
        assert_eq!(node.status, expected.status, "status of {who}");
        let unbonding: Vec<u64> = node
            .unbonding
            .iter()
            .map(|part| part.amount.uremes())
            .collect();
        let parts: Vec<u64> = expected.unbonding.iter().map(|part| part.0).collect();
        assert_eq!(unbonding, parts, "unbonding of {who}");
        let listed = ledger_nodes::active(&chain.view(), expected.role).unwrap();
        let is_listed = listed.iter().any(|node| node.address == address(who));
        assert_eq!(
            is_listed,
            expected.status == NodeStatus::Active,
            "listing of {who}"
        );
    }
}

proptest! {
    #![proptest_config(config(32))]

    #[test]
    fn the_ledger_does_what_the_naive_model_does(
        steps in prop::collection::vec((step(), envelope()), 1..60),
    ) {
        let mut chain = Chain::new();
        let start = chain.time;
        let mut naive = Naive::new();
        for (step, envelope) in steps {
            if let Step::Wait { millis } = step {
                chain.wait(Millis::new(millis));
            }
            let is_sent = message(&chain, step).is_some();
            let done = run(&mut chain, step, envelope);
            naive.now = chain.time.since(start).millis();
            // What is not admitted costs nothing, and nothing of it happens.
            let expected = (!is_sent || naive.admit(step, envelope)) && naive.apply(step);
            prop_assert_eq!(done, expected, "{:?} in {:?}", step, envelope);
            if is_sent || matches!(step, Step::Wait { .. }) {
                naive.end_block();
            }
            compare(&chain, &naive);
        }
    }
}

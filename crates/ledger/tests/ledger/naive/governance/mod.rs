//! Governance, data and models: proposals, votes by stake, parameters, and what is registered.

mod model;
mod steps;

use std::ops::RangeInclusive;

use proptest::prelude::*;
use r3mes_ledger::bank::Module;
use r3mes_ledger::genesis::Genesis;
use r3mes_ledger::models::{NewVersion, VERSIONS, register_version};
use r3mes_ledger::nodes;
use r3mes_types::data::{DatasetStatus, QueryDataset, QueryDatasets};
use r3mes_types::governance::{ProposalStatus, QueryParams, QueryProposals};
use r3mes_types::models::QueryModels;
use r3mes_types::nodes::MsgRegister;
use r3mes_types::wire::List;
use r3mes_types::{Amount, Cid, Hash, Millis, Role};

use self::model::{Naive, Params};
use self::steps::{Step, dataset_name, message, model_id, model_name, step};
use super::accounts::steps::{Step as AccountStep, message as account_message};
use super::config;
use crate::chain::{Chain, address, development, spec};

/// The authority, four that may be validators, and one that is nobody.
const EVERYBODY: RangeInclusive<u8> = 0..=5;
const VALIDATORS: RangeInclusive<u8> = 1..=4;
/// Who is a validator from the start, with what stake.
const STAKES: [(u8, u64); 3] = [(1, 100_000_000), (2, 150_000_000), (3, 200_000_000)];
const SECOND: u64 = 1_000;

fn founding() -> Genesis {
    let mut genesis = development();
    genesis.params.governance.voting = Millis::seconds(60);
    genesis.params.data.voting = Millis::seconds(60);
    let nodes = STAKES.map(|(who, stake)| MsgRegister {
        address: address(who),
        spec: spec(&[Role::Validator], Amount::new(stake)),
    });
    genesis.nodes = List::new(nodes.to_vec()).unwrap();
    genesis
}

fn params(chain: &Chain) -> Params {
    let found = chain.query(&QueryParams {});
    let authority = found.governance.authority;
    Params {
        faucet: found.bank.faucet_limit.uremes(),
        authority: EVERYBODY
            .into_iter()
            .find(|who| Some(address(*who)) == authority),
        voting: found.governance.voting.millis(),
        threshold: found.governance.threshold.millionths(),
        data_voting: found.data.voting.millis(),
        max_supply: found.rewards.max_supply.uremes(),
        vesting: found.rewards.vesting.millis(),
    }
}

/// Runs one step on the ledger; whether it succeeded. Steps that are sent are admitted in the model.
fn run(chain: &mut Chain, naive: &mut Naive, step: Step, start: u64) -> (bool, bool) {
    let (proposals, datasets) = (naive.proposals.len() as u64, naive.datasets.len() as u64);
    let sent = match step {
        Step::Stake { who, stake } => {
            account_message(chain, naive.stake(who, stake)).map(|message| (who, message))
        }
        Step::Leave { who } => {
            account_message(chain, AccountStep::Leave { who }).map(|message| (who, message))
        }
        _ => message(step, proposals, datasets),
    };
    let is_block = sent.is_some() || matches!(step, Step::Wait { .. });
    let done = match (sent, step) {
        (Some((who, message)), _) => {
            let done = chain.send(who, message).code == 0;
            naive.accounts.now = chain.time.nanos() / 1_000_000 - start;
            let expected = naive.admit(who, step) && naive.apply(step);
            (done, expected)
        }
        (None, Step::Version { id }) => {
            let new = NewVersion {
                model: model_id(id),
                run: 1,
                round: 0,
                adapter: Cid::raw(b"adapter"),
                adapter_hash: Hash::of(b"adapter"),
            };
            let done = chain.act(|ctx| register_version(ctx, &new)).is_ok();
            (done, naive.apply(step))
        }
        (None, Step::Wait { millis }) => {
            chain.wait(Millis::new(millis));
            naive.accounts.now = chain.time.nanos() / 1_000_000 - start;
            (true, naive.apply(step))
        }
        (None, _) => unreachable!("every other step is a message"),
    };
    if is_block {
        naive.end_block();
    }
    done
}

fn compare(chain: &Chain, naive: &Naive) {
    assert_eq!(params(chain), naive.params);
    for who in EVERYBODY {
        let balance = chain.balance(&address(who)).uremes();
        assert_eq!(balance, naive.accounts.balances[&who], "balance of {who}");
        let node = nodes::get(&chain.view(), &address(who)).unwrap();
        let node = node.map(|node| (node.bonded.uremes(), node.status));
        let expected = naive.accounts.nodes.get(&who);
        assert_eq!(
            node,
            expected.map(|node| (node.bonded, node.status)),
            "node {who}"
        );
    }
    let treasury = chain.balance(&Module::Treasury.address()).uremes();
    assert_eq!(treasury, naive.accounts.treasury, "fees and spending");
    let found = chain.query(&QueryProposals { page: None }).proposals;
    let found: Vec<(u64, ProposalStatus)> = found.iter().map(|p| (p.id, p.status)).collect();
    let expected = (1..).zip(naive.proposals.iter().map(|proposal| proposal.status));
    assert_eq!(found, expected.collect::<Vec<_>>());
    compare_assets(chain, naive);
}

fn compare_assets(chain: &Chain, naive: &Naive) {
    let found = chain.query(&QueryDatasets { page: None }).datasets;
    assert_eq!(found.len(), naive.datasets.len());
    for (dataset, expected) in found.iter().zip(&naive.datasets) {
        let name = dataset_name(expected.kind);
        assert_eq!(
            (dataset.status, &*dataset.name),
            (expected.status, name.as_str())
        );
        let shards = chain.query(&QueryDataset { id: dataset.id }).shards.len();
        let rejected = expected.status == DatasetStatus::Rejected;
        let kept = if rejected { 0 } else { expected.kind.shards };
        assert_eq!(
            shards,
            usize::from(kept),
            "shards of dataset {}",
            dataset.id
        );
    }
    let found = chain.query(&QueryModels { page: None }).models;
    assert_eq!(found.len(), naive.models.len());
    for (id, (kind, versions)) in &naive.models {
        let id = model_id(*id);
        let model = found.iter().find(|model| model.spec.id == id).unwrap();
        let name = model_name(kind.name);
        assert_eq!(
            (&*model.spec.name, model.versions),
            (name.as_str(), *versions)
        );
        for number in 0..=versions + 1 {
            let is_there = VERSIONS.contains(&chain.view(), &(id, number)).unwrap();
            assert_eq!(
                is_there,
                (1..=*versions).contains(&number),
                "version {number}"
            );
        }
    }
}

proptest! {
    #![proptest_config(config(32))]

    #[test]
    fn governance_data_and_models_do_what_the_naive_model_does(
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let mut chain = Chain::from(&founding());
        let start = chain.time.nanos() / 1_000_000;
        let mut naive = Naive::new(params(&chain), &STAKES);
        compare(&chain, &naive);
        for step in steps {
            let (done, expected) = run(&mut chain, &mut naive, step, start);
            prop_assert_eq!(done, expected, "{:?}", step);
            compare(&chain, &naive);
        }
    }
}

use r3mes_types::bank::BankParams;
use r3mes_types::data::{
    DataParams, DataShard, DatasetSpec, DatasetStatus, MsgProposeDataset, MsgVoteDataset,
    QueryDataset, QueryDatasets,
};
use r3mes_types::governance::{
    Change, GovernanceParams, MsgPropose, MsgVote, ProposalStatus, QueryParams, QueryProposals,
    Spend,
};
use r3mes_types::models::{MsgRegisterModel, QueryModel, QueryModels, QueryVersions};
use r3mes_types::wire::{List, Text};
use r3mes_types::{Amount, Cid, Hash, MIN_WINDOW, Millis, Ppm, Role};

use crate::chain::{Chain, address, register};
use crate::lane;
use crate::messages::model;

pub(crate) fn dataset(name: &str) -> DatasetSpec {
    let shard = |text: &str| DataShard {
        cid: Cid::raw(text.as_bytes()),
        tokens: 1_000,
    };
    DatasetSpec {
        name: Text::new(name).unwrap(),
        licence: Text::new("public-domain").unwrap(),
        source: Text::new("a library").unwrap(),
        tokenizer_hash: Hash::of(b"tokenizer"),
        shards: List::new(vec![shard("one"), shard("two")]).unwrap(),
        held_out: Some(shard("held out")),
    }
}

fn validators() -> Chain {
    let mut chain = Chain::new();
    for index in 1..=3 {
        chain.must(
            index,
            register(index, &[Role::Validator], Amount::remes(100)),
        );
    }
    chain
}

fn propose(index: u8, change: Change) -> MsgPropose {
    MsgPropose {
        proposer: address(index),
        title: Text::new("a change").unwrap(),
        change,
    }
}

fn status(chain: &Chain, index: usize) -> ProposalStatus {
    chain.query(&QueryProposals { page: None }).proposals[index].status
}

#[test]
fn more_than_two_thirds_of_the_stake_pass_a_proposal() {
    let mut chain = validators();
    let limit = BankParams {
        faucet_limit: Amount::remes(7),
    };
    chain.must(1, propose(1, Change::Bank(limit)));
    chain.must(1, propose(1, Change::Bank(limit)));
    assert_eq!(
        chain.query(&QueryProposals { page: None }).proposals.len(),
        1
    );
    let vote = |voter, approve| MsgVote {
        voter: address(voter),
        proposal: 1,
        approve,
    };
    chain.must(1, vote(1, true));
    chain.must(2, vote(2, true));
    assert_eq!(chain.send(2, vote(2, false)).code, 3);
    assert_eq!(
        status(&chain, 0),
        ProposalStatus::Open,
        "two thirds exactly are not enough"
    );
    assert_eq!(chain.send(4, vote(4, true)).code, 1, "not a validator");
    chain.must(3, vote(3, true));
    assert_eq!(status(&chain, 0), ProposalStatus::Passed);
    assert_eq!(chain.query(&QueryParams {}).bank, limit);
    assert_eq!(chain.send(1, vote(1, true)).code, 2, "the vote is over");
}

#[test]
fn a_third_against_rejects_and_time_rejects_too() {
    let mut chain = validators();
    chain.must(4, register(4, &[Role::Validator], Amount::remes(100)));
    let spend = Spend {
        to: address(5),
        amount: Amount::new(1),
    };
    chain.must(1, propose(1, Change::Spend(spend)));
    chain.must(
        2,
        MsgVote {
            voter: address(2),
            proposal: 1,
            approve: false,
        },
    );
    assert_eq!(status(&chain, 0), ProposalStatus::Open);
    chain.must(
        3,
        MsgVote {
            voter: address(3),
            proposal: 1,
            approve: false,
        },
    );
    assert_eq!(status(&chain, 0), ProposalStatus::Rejected);
    chain.must(1, propose(1, Change::Spend(spend)));
    let due = r3mes_ledger::Ledger::next_deadline(&chain.state).unwrap();
    let proposals = chain.query(&QueryProposals { page: None }).proposals;
    assert_eq!(due, Some(proposals[1].voting_ends_at));
    chain.wait(Millis::seconds(3 * 24 * 3600));
    assert_eq!(status(&chain, 1), ProposalStatus::Rejected);
}

#[test]
fn an_accepted_change_that_cannot_be_done_has_failed() {
    let mut chain = validators();
    let spend = Spend {
        to: address(5),
        amount: Amount::remes(1_000),
    };
    chain.must(1, propose(1, Change::Spend(spend)));
    for voter in 1..=3 {
        chain.must(
            voter,
            MsgVote {
                voter: address(voter),
                proposal: 1,
                approve: true,
            },
        );
    }
    assert_eq!(status(&chain, 0), ProposalStatus::Failed);
}

#[test]
fn parameters_that_do_not_work_together_are_refused() {
    let mut chain = Chain::new();
    let params = chain.query(&QueryParams {});
    let mut hasty = params.nodes.clone();
    hasty.unbonding = Millis::new(1);
    let minority = GovernanceParams {
        threshold: Ppm::percent(10),
        ..params.governance
    };
    // Without an authority there may be no faucet, and unbonding must outlast evidence.
    let grown_up = GovernanceParams {
        authority: None,
        ..params.governance
    };
    for change in [
        Change::Nodes(hasty),
        Change::Governance(minority),
        Change::Governance(grown_up),
    ] {
        let result = chain.send(0, propose(0, change));
        assert_eq!((result.codespace.as_str(), result.code), ("governance", 4));
    }
    assert_eq!(chain.query(&QueryParams {}), params);
}

#[test]
fn nobody_is_given_less_time_to_answer_than_four_blocks_take() {
    let mut chain = Chain::from(&lane::genesis());
    let params = chain.query(&QueryParams {});
    let with = |window: Millis| {
        let mut run = lane::run_params();
        run.windows.serve = window;
        let mut nodes = params.nodes.clone();
        nodes.appeal_window = window;
        let governance = GovernanceParams {
            voting: window,
            ..params.governance
        };
        [
            (Change::Nodes(nodes), "governance"),
            (Change::Governance(governance), "governance"),
            (Change::Data(DataParams { voting: window }), "governance"),
            (Change::Run(run), "training"),
        ]
    };
    for (change, codespace) in with(Millis::new(MIN_WINDOW.millis() - 1)) {
        let refused = chain.send(0, propose(0, change));
        assert_eq!(refused.codespace, codespace, "{}", refused.log);
        assert!(refused.log.contains("four blocks"), "{}", refused.log);
    }
    for (change, _) in with(MIN_WINDOW) {
        chain.must(0, propose(0, change));
    }
}

#[test]
fn validators_adopt_a_dataset_and_the_authority_does_so_alone() {
    let mut chain = validators();
    let by = |index: u8| MsgProposeDataset {
        proposer: address(index),
        spec: dataset("voted"),
    };
    assert_eq!(chain.send(4, by(4)).code, 1);
    chain.must(1, by(1));
    chain.must(1, by(1));
    for voter in 1..=3 {
        chain.must(
            voter,
            MsgVoteDataset {
                voter: address(voter),
                dataset: 1,
                approve: true,
            },
        );
    }
    let spec = dataset("decided");
    chain.must(
        0,
        MsgProposeDataset {
            proposer: address(0),
            spec,
        },
    );
    let datasets = chain.query(&QueryDatasets { page: None }).datasets;
    let found: Vec<_> = datasets
        .iter()
        .map(|entry| (&*entry.name, entry.status))
        .collect();
    let adopted = DatasetStatus::Adopted;
    assert_eq!(found, [("voted", adopted), ("decided", adopted)]);
    let answer = chain.query(&QueryDataset { id: 1 });
    assert_eq!(
        (answer.shards.len(), answer.dataset.unwrap().tokens),
        (2, 2_000)
    );
}

#[test]
fn a_rejected_dataset_leaves_no_shards_and_can_be_proposed_again() {
    let mut chain = validators();
    let message = MsgProposeDataset {
        proposer: address(1),
        spec: dataset("texts"),
    };
    chain.must(1, message.clone());
    chain.wait(Millis::seconds(3 * 24 * 3600));
    let answer = chain.query(&QueryDataset { id: 1 });
    assert_eq!(answer.dataset.unwrap().status, DatasetStatus::Rejected);
    assert!(answer.shards.is_empty());
    chain.must(1, message);
    let again = chain.query(&QueryDataset { id: 2 }).dataset.unwrap();
    assert_eq!(again.status, DatasetStatus::Proposed);
}

#[test]
fn held_out_text_cannot_be_trained_on() {
    let mut chain = Chain::new();
    let mut spec = dataset("leaky");
    spec.held_out = Some(spec.shards[0]);
    let result = chain.send(
        0,
        MsgProposeDataset {
            proposer: address(0),
            spec,
        },
    );
    assert_eq!((result.codespace.as_str(), result.code), ("data", 4));
}

#[test]
fn models_are_registered_once_and_get_versions() {
    let mut chain = Chain::new();
    let register = |authority: u8, name: &str, id: &[u8]| MsgRegisterModel {
        authority: address(authority),
        spec: model(name, id),
    };
    assert_eq!(chain.send(1, register(1, "tiny", b"a")).code, 1);
    chain.must(0, register(0, "tiny", b"a"));
    chain.must(0, register(0, "tiny", b"a"));
    assert_eq!(chain.send(0, register(0, "tiny", b"b")).code, 2);
    assert_eq!(chain.send(0, register(0, "other", b"a")).code, 2);
    let id = Hash::of(b"a");
    for round in 0..3 {
        let new = r3mes_ledger::models::NewVersion {
            model: id,
            run: 1,
            round,
            adapter: Cid::raw(b"adapter"),
            adapter_hash: Hash::of(b"adapter"),
        };
        chain
            .act(|ctx| r3mes_ledger::models::register_version(ctx, &new))
            .unwrap();
    }
    assert_eq!(chain.query(&QueryModel { id }).newest.unwrap().number, 3);
    assert_eq!(chain.query(&QueryModels { page: None }).models.len(), 1);
    let versions = chain
        .query(&QueryVersions {
            model: id,
            page: None,
        })
        .versions;
    assert_eq!(
        versions
            .iter()
            .map(|version| version.round)
            .collect::<Vec<_>>(),
        [0, 1, 2]
    );
}

//! What is proposed, voted and registered, as the test generates it and as the ledger is sent it.

use proptest::prelude::*;
use r3mes_types::bank::BankParams;
use r3mes_types::data::{DataParams, DataShard, DatasetSpec, MsgProposeDataset, MsgVoteDataset};
use r3mes_types::governance::{Change, GovernanceParams, MsgPropose, MsgVote, Spend};
use r3mes_types::models::{ModelSpec, MsgRegisterModel};
use r3mes_types::rewards::RewardsParams;
use r3mes_types::wire::{List, Text};
use r3mes_types::{Amount, Cid, Hash, Message, Millis, Ppm};

use super::{EVERYBODY, SECOND, VALIDATORS};
use crate::chain::address;
use crate::messages;

const DAY: u64 = 24 * 3600 * SECOND;

/// A model: its name, its file, and whether its description holds together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ModelKind {
    pub(super) name: u8,
    pub(super) id: u8,
    pub(super) good: bool,
}

/// A dataset: what it is, and whether what is held out is trained on too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DatasetKind {
    pub(super) name: u8,
    pub(super) shards: u8,
    pub(super) leaky: bool,
}

/// What a proposal would change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    Faucet(u64),
    Governance {
        authority: Option<u8>,
        voting: u64,
        /// In millionths.
        threshold: u32,
    },
    /// How long a vote on a dataset may take.
    Data(u64),
    Rewards {
        max_supply: u64,
        vesting: u64,
    },
    Spend {
        to: u8,
        amount: u64,
    },
    Model(ModelKind),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Propose {
        who: u8,
        title: u8,
        plan: Plan,
    },
    /// On the newest proposal, or so many before it.
    Vote {
        who: u8,
        back: u64,
        approve: bool,
    },
    ProposeDataset {
        who: u8,
        dataset: DatasetKind,
    },
    VoteDataset {
        who: u8,
        back: u64,
        approve: bool,
    },
    RegisterModel {
        who: u8,
        model: ModelKind,
    },
    /// A round has closed with an adapter of this model.
    Version {
        id: u8,
    },
    /// Becomes a validator with so much at stake, or changes its stake.
    Stake {
        who: u8,
        stake: u64,
    },
    Leave {
        who: u8,
    },
    Wait {
        millis: u64,
    },
}

fn model() -> impl Strategy<Value = ModelKind> {
    let good = prop::bool::weighted(0.9);
    (0..3u8, 0..3u8, good).prop_map(|(name, id, good)| ModelKind { name, id, good })
}

fn plan() -> impl Strategy<Value = Plan> {
    let voting = || {
        prop_oneof![
            8 => 8 * SECOND..200 * SECOND,
            1 => prop::sample::select(vec![0, 8 * SECOND - 1]),
            1 => prop::sample::select(vec![30 * DAY, 30 * DAY + 1]),
        ]
    };
    let threshold = prop_oneof![
        4 => 500_000..1_000_000u32,
        1 => prop::sample::select(vec![0, 499_999, 1_000_000]),
    ];
    let authority = prop_oneof![8 => Just(Some(0)), 1 => Just(Some(1)), 1 => Just(None)];
    let vesting =
        prop_oneof![3 => 0..1_000 * SECOND, 1 => Just(365 * DAY), 1 => Just(365 * DAY + 1)];
    // Fees of a few transactions.
    let amount = prop_oneof![1 => Just(0), 6 => 1..40_000u64];
    prop_oneof![
        (0..1_000_000u64).prop_map(Plan::Faucet),
        (authority, voting(), threshold).prop_map(|(authority, voting, threshold)| {
            Plan::Governance {
                authority,
                voting,
                threshold,
            }
        }),
        voting().prop_map(Plan::Data),
        (any::<u64>(), vesting).prop_map(|(max_supply, vesting)| Plan::Rewards {
            max_supply,
            vesting
        }),
        (EVERYBODY, amount).prop_map(|(to, amount)| Plan::Spend { to, amount }),
        model().prop_map(Plan::Model),
    ]
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let who = || prop_oneof![6 => VALIDATORS, 1 => EVERYBODY];
    let back = || prop_oneof![4 => Just(0), 1 => 0..4u64];
    let approve = || prop::bool::weighted(0.7);
    let dataset = (0..2u8, 0..3u8, prop::bool::weighted(0.1));
    let dataset = dataset.prop_map(|(name, shards, leaky)| DatasetKind {
        name,
        shards,
        leaky,
    });
    let stake = prop_oneof![1 => 0..100_000_000u64, 4 => 100_000_000..400_000_000u64];
    let proposer = prop_oneof![2 => Just(0), 5 => VALIDATORS, 1 => Just(5)];
    prop_oneof![
        4 => (proposer.clone(), 0..2u8, plan())
            .prop_map(|(who, title, plan)| Step::Propose { who, title, plan }),
        8 => (who(), back(), approve())
            .prop_map(|(who, back, approve)| Step::Vote { who, back, approve }),
        2 => (proposer, dataset)
            .prop_map(|(who, dataset)| Step::ProposeDataset { who, dataset }),
        5 => (who(), back(), approve())
            .prop_map(|(who, back, approve)| Step::VoteDataset { who, back, approve }),
        2 => (prop_oneof![4 => Just(0), 1 => EVERYBODY], model())
            .prop_map(|(who, model)| Step::RegisterModel { who, model }),
        1 => (0..3u8).prop_map(|id| Step::Version { id }),
        1 => (VALIDATORS, stake).prop_map(|(who, stake)| Step::Stake { who, stake }),
        1 => VALIDATORS.prop_map(|who| Step::Leave { who }),
        2 => (0..80 * SECOND).prop_map(|millis| Step::Wait { millis }),
    ]
}

pub(super) fn model_id(id: u8) -> Hash {
    Hash::of(&[id])
}

pub(super) fn model_name(name: u8) -> String {
    format!("model-{name}")
}

fn model_spec(model: ModelKind) -> ModelSpec {
    let mut spec = messages::model(&model_name(model.name), &[model.id]);
    if !model.good {
        spec.base_bytes = 0;
    }
    spec
}

pub(super) fn dataset_name(dataset: DatasetKind) -> String {
    format!("texts {}", dataset.name)
}

fn dataset_spec(dataset: DatasetKind) -> DatasetSpec {
    let shard = |index: u8| DataShard {
        cid: Cid::raw(&[dataset.name, index]),
        tokens: 1_000,
    };
    let held_out = if dataset.leaky { 0 } else { 200 };
    DatasetSpec {
        name: Text::new(dataset_name(dataset)).unwrap(),
        licence: Text::new("public-domain").unwrap(),
        source: Text::new("a library").unwrap(),
        tokenizer_hash: Hash::of(b"tokenizer"),
        shards: List::new((0..dataset.shards).map(shard).collect()).unwrap(),
        held_out: Some(shard(held_out)),
    }
}

fn change(plan: Plan) -> Change {
    match plan {
        Plan::Faucet(limit) => Change::Bank(BankParams {
            faucet_limit: Amount::new(limit),
        }),
        Plan::Governance {
            authority,
            voting,
            threshold,
        } => Change::Governance(GovernanceParams {
            authority: authority.map(address),
            voting: Millis::new(voting),
            threshold: Ppm::new(threshold).unwrap(),
        }),
        Plan::Data(voting) => Change::Data(DataParams {
            voting: Millis::new(voting),
        }),
        Plan::Rewards {
            max_supply,
            vesting,
        } => Change::Rewards(RewardsParams {
            max_supply: Amount::new(max_supply),
            vesting: Millis::new(vesting),
        }),
        Plan::Spend { to, amount } => Change::Spend(Spend {
            to: address(to),
            amount: Amount::new(amount),
        }),
        Plan::Model(model) => Change::Model(model_spec(model)),
    }
}

/// Who sends a step, and as what: `proposals` and `datasets` are there so far. The stake's steps are
/// those of [accounts](crate::naive::accounts).
pub(super) fn message(step: Step, proposals: u64, datasets: u64) -> Option<(u8, Message)> {
    Some(match step {
        Step::Propose { who, title, plan } => {
            let message = MsgPropose {
                proposer: address(who),
                title: Text::new(format!("title {title}")).unwrap(),
                change: change(plan),
            };
            (who, message.into())
        }
        Step::Vote { who, back, approve } => {
            let message = MsgVote {
                voter: address(who),
                proposal: proposals.saturating_sub(back),
                approve,
            };
            (who, message.into())
        }
        Step::ProposeDataset { who, dataset } => {
            let message = MsgProposeDataset {
                proposer: address(who),
                spec: dataset_spec(dataset),
            };
            (who, message.into())
        }
        Step::VoteDataset { who, back, approve } => {
            let message = MsgVoteDataset {
                voter: address(who),
                dataset: datasets.saturating_sub(back),
                approve,
            };
            (who, message.into())
        }
        Step::RegisterModel { who, model } => {
            let message = MsgRegisterModel {
                authority: address(who),
                spec: model_spec(model),
            };
            (who, message.into())
        }
        Step::Version { .. } | Step::Stake { .. } | Step::Leave { .. } | Step::Wait { .. } => {
            return None;
        }
    })
}

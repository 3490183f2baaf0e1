//! Proposals and votes, parameters, datasets and models: the model.

use std::collections::BTreeMap;

use r3mes_types::Role;
use r3mes_types::data::DatasetStatus;
use r3mes_types::governance::ProposalStatus;
use r3mes_types::nodes::NodeStatus;

use super::steps::{DatasetKind, ModelKind, Plan, Step};
use super::{EVERYBODY, SECOND};
use crate::chain::{FEE, START};
use crate::naive::accounts::model::Naive as Accounts;
use crate::naive::accounts::steps::Step as AccountStep;

const DAY: u64 = 24 * 3600 * SECOND;
/// Time for four blocks, in milliseconds.
const SHORTEST_VOTE: u64 = 8_000;
const LONGEST_VOTE: u64 = 30 * DAY;
const LONGEST_VESTING: u64 = 365 * DAY;

/// The parameters that proposals change here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Params {
    pub(super) faucet: u64,
    pub(super) authority: Option<u8>,
    pub(super) voting: u64,
    pub(super) threshold: u32,
    pub(super) data_voting: u64,
    pub(super) max_supply: u64,
    pub(super) vesting: u64,
}

impl Params {
    /// Whether they may stand together. The network's stake unbonds too soon for one without an
    /// authority, whatever else changes.
    fn good(&self) -> bool {
        self.authority.is_some()
            && (SHORTEST_VOTE..=LONGEST_VOTE).contains(&self.voting)
            && (SHORTEST_VOTE..=LONGEST_VOTE).contains(&self.data_voting)
            && (500_000..1_000_000).contains(&self.threshold)
            && self.vesting <= LONGEST_VESTING
    }
}

#[derive(Clone, Debug)]
pub(super) struct Vote {
    ends: u64,
    votes: BTreeMap<u8, bool>,
}

/// How a vote ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    For,
    Against,
}

#[derive(Clone, Debug)]
pub(super) struct Proposal {
    by: u8,
    title: u8,
    plan: Plan,
    pub(super) status: ProposalStatus,
    vote: Vote,
}

#[derive(Clone, Debug)]
pub(super) struct Dataset {
    pub(super) kind: DatasetKind,
    pub(super) status: DatasetStatus,
    vote: Vote,
}

/// What is registered under an id: the model, and how many versions it has.
pub(super) type Registered = (ModelKind, u32);

pub(super) struct Naive {
    pub(super) accounts: Accounts,
    pub(super) params: Params,
    /// Numbered from 1.
    pub(super) proposals: Vec<Proposal>,
    /// Numbered from 1.
    pub(super) datasets: Vec<Dataset>,
    pub(super) models: BTreeMap<u8, Registered>,
}

impl Naive {
    /// With these parameters, and validators with these stakes.
    pub(super) fn new(params: Params, stakes: &[(u8, u64)]) -> Self {
        let mut accounts = Accounts::new();
        for who in EVERYBODY {
            accounts.balances.insert(who, START.uremes());
        }
        for (who, stake) in stakes {
            assert!(accounts.register(*who, Role::Validator, *stake));
        }
        Self {
            accounts,
            params,
            proposals: Vec::new(),
            datasets: Vec::new(),
            models: BTreeMap::new(),
        }
    }

    /// Whether a step is a message that may be sent at all; then its fee is paid.
    pub(super) fn admit(&mut self, who: u8, step: Step) -> bool {
        let malformed = match step {
            Step::Propose { plan, .. } => matches!(plan, Plan::Spend { amount: 0, .. }),
            Step::ProposeDataset { dataset, .. } => dataset.shards == 0 || dataset.leaky,
            Step::RegisterModel { model, .. } => !model.good,
            _ => false,
        };
        !malformed && self.accounts.charge(who, FEE.uremes())
    }

    /// Whether the step succeeds.
    pub(super) fn apply(&mut self, step: Step) -> bool {
        match step {
            Step::Propose { who, title, plan } => self.propose(who, title, plan),
            Step::Vote { who, back, approve } => self.vote(who, back, approve),
            Step::ProposeDataset { who, dataset } => self.propose_dataset(who, dataset),
            Step::VoteDataset { who, back, approve } => self.vote_dataset(who, back, approve),
            Step::RegisterModel { who, model } => {
                self.params.authority == Some(who) && self.register_model(model)
            }
            Step::Version { id } => match self.models.get_mut(&id) {
                Some((_, versions)) => {
                    *versions += 1;
                    true
                }
                None => false,
            },
            Step::Stake { who, stake } => self.accounts.apply(self.stake(who, stake)),
            Step::Leave { who } => self.accounts.apply(AccountStep::Leave { who }),
            Step::Wait { .. } => true,
        }
    }

    /// Who is a node already asks for another stake; others register.
    pub(super) fn stake(&self, who: u8, stake: u64) -> AccountStep {
        let role = Role::Validator;
        let node = self.accounts.nodes.get(&who);
        if node.is_some_and(|node| node.status != NodeStatus::Left) {
            AccountStep::Update { who, role, stake }
        } else {
            AccountStep::Register { who, role, stake }
        }
    }

    /// The stake of an active validator.
    fn power(&self, who: u8) -> Option<u64> {
        let node = self.accounts.nodes.get(&who)?;
        (node.status == NodeStatus::Active).then_some(node.bonded)
    }

    /// Where a vote stands: more than the threshold of all active validators' stake is for it, or so
    /// much is against it that this cannot be reached any more.
    fn count(&self, vote: &Vote) -> Option<End> {
        let (mut all, mut yes, mut no) = (0, 0, 0);
        for who in EVERYBODY {
            let power = u128::from(self.power(who).unwrap_or(0));
            all += power;
            match vote.votes.get(&who) {
                Some(true) => yes += power,
                Some(false) => no += power,
                None => {}
            }
        }
        let needed = all * u128::from(self.params.threshold);
        if yes * 1_000_000 > needed {
            Some(End::For)
        } else if (all - no) * 1_000_000 <= needed {
            Some(End::Against)
        } else {
            None
        }
    }

    fn new_vote(&self, millis: u64) -> Vote {
        Vote {
            ends: self.accounts.now + millis,
            votes: BTreeMap::new(),
        }
    }

    fn propose(&mut self, by: u8, title: u8, plan: Plan) -> bool {
        let mut proposal = Proposal {
            by,
            title,
            plan,
            status: ProposalStatus::Open,
            vote: self.new_vote(self.params.voting),
        };
        if self.params.authority == Some(by) {
            if !self.change(plan) {
                return false;
            }
            proposal.status = ProposalStatus::Passed;
            self.proposals.push(proposal);
            return true;
        }
        if self.power(by).is_none() {
            return false;
        }
        let same = |other: &Proposal| {
            let is_open = other.status == ProposalStatus::Open;
            is_open && (other.by, other.title, other.plan) == (by, title, plan)
        };
        if !self.proposals.iter().any(same) {
            self.proposals.push(proposal);
        }
        true
    }

    fn vote(&mut self, who: u8, back: u64, approve: bool) -> bool {
        let Some(index) = self.proposals.len().checked_sub(1 + back as usize) else {
            return false;
        };
        let mut proposal = self.proposals[index].clone();
        if self.power(who).is_none() || proposal.status != ProposalStatus::Open {
            return false;
        }
        // The same vote again does nothing: what is decided is counted when somebody votes.
        if let Some(earlier) = proposal.vote.votes.insert(who, approve) {
            return earlier == approve;
        }
        proposal.status = match self.count(&proposal.vote) {
            None => ProposalStatus::Open,
            Some(End::Against) => ProposalStatus::Rejected,
            Some(End::For) if self.change(proposal.plan) => ProposalStatus::Passed,
            Some(End::For) => ProposalStatus::Failed,
        };
        self.proposals[index] = proposal;
        true
    }

    /// Does what was decided, if it can be done.
    fn change(&mut self, plan: Plan) -> bool {
        let mut params = self.params;
        match plan {
            Plan::Spend { to, amount } => {
                let enough = self.accounts.treasury >= amount;
                if enough {
                    self.accounts.treasury -= amount;
                    *self.accounts.balances.get_mut(&to).unwrap() += amount;
                }
                return enough;
            }
            Plan::Model(model) => return model.good && self.register_model(model),
            Plan::Faucet(limit) => params.faucet = limit,
            Plan::Data(voting) => params.data_voting = voting,
            Plan::Governance {
                authority,
                voting,
                threshold,
            } => {
                params.authority = authority;
                params.voting = voting;
                params.threshold = threshold;
            }
            Plan::Rewards {
                max_supply,
                vesting,
            } => {
                params.max_supply = max_supply;
                params.vesting = vesting;
            }
        }
        if params.good() {
            self.params = params;
        }
        params.good()
    }

    fn propose_dataset(&mut self, who: u8, kind: DatasetKind) -> bool {
        let decides = self.params.authority == Some(who);
        if !decides && self.power(who).is_none() {
            return false;
        }
        let same = |other: &Dataset| other.kind == kind && other.status != DatasetStatus::Rejected;
        if !self.datasets.iter().any(same) {
            let status = if decides {
                DatasetStatus::Adopted
            } else {
                DatasetStatus::Proposed
            };
            let vote = self.new_vote(self.params.data_voting);
            self.datasets.push(Dataset { kind, status, vote });
        }
        true
    }

    fn vote_dataset(&mut self, who: u8, back: u64, approve: bool) -> bool {
        let Some(index) = self.datasets.len().checked_sub(1 + back as usize) else {
            return false;
        };
        let mut dataset = self.datasets[index].clone();
        if self.power(who).is_none() || dataset.status != DatasetStatus::Proposed {
            return false;
        }
        // The same vote again does nothing: what is decided is counted when somebody votes.
        if let Some(earlier) = dataset.vote.votes.insert(who, approve) {
            return earlier == approve;
        }
        dataset.status = match self.count(&dataset.vote) {
            None => DatasetStatus::Proposed,
            Some(End::For) => DatasetStatus::Adopted,
            Some(End::Against) => DatasetStatus::Rejected,
        };
        self.datasets[index] = dataset;
        true
    }

    /// The same model again changes nothing; another with the same id or name is refused.
    fn register_model(&mut self, model: ModelKind) -> bool {
        if self.models.values().any(|(other, _)| *other == model) {
            return true;
        }
        let alike = |other: &ModelKind| other.id == model.id || other.name == model.name;
        let taken = self.models.values().any(|(other, _)| alike(other));
        if !taken {
            self.models.insert(model.id, (model, 0));
        }
        !taken
    }

    pub(super) fn end_block(&mut self) {
        self.accounts.end_block();
        let now = self.accounts.now;
        for proposal in &mut self.proposals {
            if proposal.status == ProposalStatus::Open && proposal.vote.ends <= now {
                proposal.status = ProposalStatus::Rejected;
            }
        }
        for dataset in &mut self.datasets {
            if dataset.status == DatasetStatus::Proposed && dataset.vote.ends <= now {
                dataset.status = DatasetStatus::Rejected;
            }
        }
    }
}

//! Governance: what the validators decide together.

use crate::auth::AuthParams;
use crate::bank::BankParams;
use crate::data::DataParams;
use crate::models::ModelSpec;
use crate::nodes::NodesParams;
use crate::query::{MAX_PAGE, MAX_PAGE_KEY, PageRequest};
use crate::rewards::RewardsParams;
use crate::training::RunParams;
use crate::wire::{Blob, List, Text};
use crate::{
    Address, Amount, Hash, Millis, Ppm, Time, messages, queries, schema, wire_enum, wire_oneof,
};

/// Longest title of a proposal, in bytes.
pub const MAX_TITLE: usize = 128;

messages! {
    /// Messages of governance.
    pub enum GovernanceMessage {
        "/r3mes.governance.v1.MsgPropose" => Propose(MsgPropose) by proposer,
        "/r3mes.governance.v1.MsgVote" => Vote(MsgVote) by voter,
    }
}

wire_enum! {
    /// Where a proposal stands.
    pub enum ProposalStatus {
        /// The validators vote.
        Open = 1 => "open",
        /// Accepted and done.
        Passed = 2 => "passed",
        /// Voted down, or not enough votes in time.
        Rejected = 3 => "rejected",
        /// Accepted, but it could not be done.
        Failed = 4 => "failed",
    }
}

wire_oneof! {
    /// What a proposal does when it is accepted.
    pub enum Change {
        /// Replaces the bank's parameters.
        1 => Bank(BankParams),
        /// Replaces the parameters of auth.
        2 => Auth(AuthParams),
        /// Replaces the parameters of the nodes.
        3 => Nodes(NodesParams),
        /// Replaces the parameters of data.
        4 => Data(DataParams),
        /// Replaces the parameters of governance itself.
        5 => Governance(GovernanceParams),
        /// Registers a model.
        6 => Model(ModelSpec),
        /// Decides on a slash that was appealed.
        7 => Slash(SlashDecision),
        /// Pays from the treasury.
        8 => Spend(Spend),
        /// Replaces the parameters of rewards.
        9 => Rewards(RewardsParams),
        /// Starts a training run.
        10 => Run(RunParams),
        /// Pauses or resumes a training run.
        11 => RunSwitch(RunSwitch),
        /// Finishes a training run before all its rounds are done.
        12 => RunEnd(RunEnd),
    }
}

schema! {
    /// Decides on a slash that was appealed.
    #[derive(Copy)]
    pub struct SlashDecision {
        /// Number of the slash.
        1 => slash: u64,
        /// Whether the node gets the amount back.
        2 => revert: bool,
    }

    /// Pauses or resumes a training run.
    #[derive(Copy)]
    pub struct RunSwitch {
        /// Which.
        1 => run: u64,
        /// Whether it opens no further rounds.
        2 => paused: bool,
    }

    /// Finishes a training run before all its rounds are done, for good; the open one closes as usual.
    #[derive(Copy)]
    pub struct RunEnd {
        /// Which.
        1 => run: u64,
    }

    /// Pays from the treasury.
    #[derive(Copy)]
    pub struct Spend {
        /// Who is paid.
        1 => to: Address,
        /// How much.
        2 => amount: Amount,
    }

    /// Proposes a change. Done at once if the proposer is the network's authority.
    pub struct MsgPropose {
        /// Who proposes: a validator's node, or the authority.
        1 => proposer: Address,
        /// For people.
        2 => title: Text<MAX_TITLE>,
        /// What to do.
        3 => change: Change,
    }

    /// A validator's vote on a proposal.
    #[derive(Copy)]
    pub struct MsgVote {
        /// The validator's node.
        1 => voter: Address,
        /// Number of the proposal.
        2 => proposal: u64,
        /// For or against.
        3 => approve: bool,
    }

    /// Parameters of governance.
    #[derive(Copy)]
    pub struct GovernanceParams {
        /// An account that decides alone, on development networks only.
        1 => authority: Option<Address>,
        /// How long validators can vote on a proposal.
        2 => voting: Millis,
        /// A vote passes when more than this share of all stake is for it.
        3 => threshold: Ppm,
    }

    /// A proposal as the ledger keeps it.
    pub struct Proposal {
        /// Its number.
        1 => id: u64,
        /// Hash of what was proposed and by whom.
        2 => content: Hash,
        /// Who proposed it.
        3 => proposer: Address,
        /// For people.
        4 => title: Text<MAX_TITLE>,
        /// What to do.
        5 => change: Change,
        /// Where it stands.
        6 => status: ProposalStatus,
        /// When voting ends.
        7 => voting_ends_at: Time,
    }

    /// Asks for proposals, ascending by number.
    #[derive(Default)]
    pub struct QueryProposals {
        /// Which part.
        1 => page: Option<PageRequest>,
    }

    /// A page of proposals.
    pub struct Proposals {
        /// The proposals.
        1 => proposals: List<Proposal, MAX_PAGE>,
        /// Where the next page begins; empty at the end.
        2 => next: Blob<MAX_PAGE_KEY>,
    }

    /// Asks for the parameters of all domains.
    #[derive(Copy, Default)]
    pub struct QueryParams {}

    /// The parameters of all domains.
    pub struct Params {
        /// Of the bank.
        1 => bank: BankParams,
        /// Of auth.
        2 => auth: AuthParams,
        /// Of the nodes.
        3 => nodes: NodesParams,
        /// Of data.
        4 => data: DataParams,
        /// Of governance.
        5 => governance: GovernanceParams,
        /// Of rewards.
        6 => rewards: RewardsParams,
    }
}

queries! {
    "/r3mes.governance.v1.Query/Proposals" => QueryProposals: Proposals,
    "/r3mes.governance.v1.Query/Params" => QueryParams: Params,
}

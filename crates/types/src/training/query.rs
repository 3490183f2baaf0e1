//! What nodes and users ask. Agents plan from [`Obligations`] alone.

use super::limits::{MAX_AUDITED, MAX_MINERS, MAX_OBLIGATIONS, MAX_VALIDATORS};
use super::run::Run;
use super::{CourtVote, Duty, Entry, Members, Package, Round, RoundSummary, Served};
use crate::query::MAX_PAGE;
use crate::task::{AdapterRef, HyperParameters, Task};
use crate::wire::List;
use crate::{Address, Hash, Time, queries, schema, wire_enum};

/// Most court votes that one answer carries.
pub const MAX_COURT_VOTES: usize = 4096;

wire_enum! {
    /// What a node owes.
    pub enum ObligationKind {
        /// Train, then [`MsgCommitStates`](super::MsgCommitStates).
        Commit = 1 => "commit",
        /// [`MsgRevealPackage`](super::MsgRevealPackage).
        Reveal = 2 => "reveal",
        /// Fetch, then [`MsgAttestPackages`](super::MsgAttestPackages).
        AttestPackages = 3 => "attest packages",
        /// [`MsgServeStates`](super::MsgServeStates).
        Serve = 4 => "serve",
        /// Re-run, then [`MsgCommitVerdict`](super::MsgCommitVerdict).
        CommitVerdict = 5 => "commit verdict",
        /// [`MsgRevealVerdict`](super::MsgRevealVerdict).
        RevealVerdict = 6 => "reveal verdict",
        /// [`MsgOpenLeaves`](super::MsgOpenLeaves).
        Open = 7 => "open",
        /// Replay, then [`MsgVoteCourt`](super::MsgVoteCourt).
        Court = 8 => "court",
        /// Aggregate, then [`MsgProposeAggregate`](super::MsgProposeAggregate).
        Propose = 9 => "propose",
        /// Aggregate, then [`MsgAttestAggregate`](super::MsgAttestAggregate).
        AttestAggregate = 10 => "attest aggregate",
    }
}

schema! {
    /// A miner with what it published.
    pub struct MinerPackage {
        /// Who.
        1 => miner: Address,
        /// What.
        2 => package: Package,
    }

    /// What defines an aggregate besides its packages.
    pub struct Aggregation {
        /// What the packages are changes to.
        1 => start: AdapterRef,
        /// The base model.
        2 => model: Hash,
        /// Version of the exact arithmetic.
        3 => exact_version: u32,
        /// Seed of the adapter that the run's first round starts from.
        4 => adapter_seed: Hash,
        /// How the packages were made.
        5 => hyper: HyperParameters,
    }

    /// What one address owes now, with all it needs to do it. Fields that the kind does not need are
    /// empty.
    pub struct Obligation {
        /// What is owed.
        1 => kind: ObligationKind,
        /// In which run.
        2 => run: u64,
        /// In which round.
        3 => round: u32,
        /// Block time by which it is due.
        4 => deadline: Time,
        /// The miner's task: its own, or the one to be verified. Absent for aggregation and availability.
        5 => task: Option<Task>,
        /// The commitment already made: the miner's root, or the validator's to its verdict.
        6 => commitment: Option<Hash>,
        /// The miner's package, once it is revealed.
        7 => package: Option<Package>,
        /// The audited steps, ascending.
        8 => steps: List<u32, MAX_AUDITED>,
        /// What the audited miner served.
        9 => served: Option<Served>,
        /// For availability: all revealed packages; for aggregation: the accepted ones. Ascending by
        /// miner.
        10 => packages: List<MinerPackage, MAX_MINERS>,
        /// For aggregation: how and from where, the same for every miner of the round.
        11 => aggregation: Option<Aggregation>,
        /// Whether this is about the second audit of a package.
        12 => second: bool,
    }

    /// Asks what an address owes in all open rounds and second audits.
    pub struct QueryObligations {
        /// Whose.
        1 => address: Address,
    }

    /// What it owes.
    pub struct Obligations {
        /// Those of open rounds, ascending by run; then those of second audits.
        1 => obligations: List<Obligation, MAX_OBLIGATIONS>,
    }

    /// Asks for one run.
    pub struct QueryRun {
        /// Which.
        1 => run: u64,
    }

    /// Asks for the runs after one.
    pub struct QueryRuns {
        /// The run to begin after; absent: from the first.
        1 => after: Option<u64>,
        /// At most so many; 0: as many as an answer holds.
        2 => limit: u32,
    }

    /// Some runs.
    pub struct Runs {
        /// Ascending.
        1 => runs: List<Run, MAX_PAGE>,
    }

    /// Asks for one round in full.
    pub struct QueryRound {
        /// Which run.
        1 => run: u64,
        /// Which round.
        2 => round: u32,
    }

    /// A round in full, or what is kept of it.
    pub struct RoundRecord {
        /// Its summary, once it is closed.
        1 => summary: Option<RoundSummary>,
        /// Its head; absent when only the summary is kept, as is all that follows.
        2 => head: Option<Round>,
        /// Who takes part.
        3 => members: Option<Members>,
        /// The miners' parts, ascending by address.
        4 => entries: List<Entry, MAX_MINERS>,
        /// The validators' parts, ascending by address.
        5 => duties: List<Duty, MAX_VALIDATORS>,
        /// The votes in court, ascending by miner and validator.
        6 => court: List<CourtVote, MAX_COURT_VOTES>,
        /// The votes in the courts of second audits, likewise.
        7 => second_court: List<CourtVote, MAX_COURT_VOTES>,
    }

    /// Asks for summaries of closed rounds.
    pub struct QueryRounds {
        /// Which run.
        1 => run: u64,
        /// The round to begin after; absent: from the first.
        2 => after: Option<u32>,
        /// At most so many; 0: as many as an answer holds.
        3 => limit: u32,
    }

    /// Some summaries.
    pub struct RoundSummaries {
        /// Ascending.
        1 => rounds: List<RoundSummary, MAX_PAGE>,
    }

    /// Asks for a miner's task.
    pub struct QueryTask {
        /// Which run.
        1 => run: u64,
        /// Which round.
        2 => round: u32,
        /// Whose.
        3 => miner: Address,
    }
}

queries! {
    "/r3mes.training.v1.Query/Obligations" => QueryObligations: Obligations,
    "/r3mes.training.v1.Query/Run" => QueryRun: Run,
    "/r3mes.training.v1.Query/Runs" => QueryRuns: Runs,
    "/r3mes.training.v1.Query/Round" => QueryRound: RoundRecord,
    "/r3mes.training.v1.Query/Rounds" => QueryRounds: RoundSummaries,
    "/r3mes.training.v1.Query/Task" => QueryTask: Task,
}

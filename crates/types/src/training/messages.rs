//! What nodes send. Each message answers one obligation: an identical repeat is accepted and changes
//! nothing, a different second answer is refused.

use super::limits::{MAX_MINERS, MAX_OPENINGS, MAX_PROOF};
use super::run::RunParams;
use super::{Package, Served, Verdict};
use crate::task::AdapterRef;
use crate::wire::{List, Text};
use crate::{Address, Hash, messages, schema};

messages! {
    /// Messages of training.
    pub enum TrainingMessage {
        "/r3mes.training.v1.MsgCreateRun" => CreateRun(MsgCreateRun) by authority,
        "/r3mes.training.v1.MsgPauseRun" => PauseRun(MsgPauseRun) by authority,
        "/r3mes.training.v1.MsgResumeRun" => ResumeRun(MsgResumeRun) by authority,
        "/r3mes.training.v1.MsgEndRun" => EndRun(MsgEndRun) by authority,
        "/r3mes.training.v1.MsgCommitStates" => CommitStates(MsgCommitStates) by miner,
        "/r3mes.training.v1.MsgRevealPackage" => RevealPackage(MsgRevealPackage) by miner,
        "/r3mes.training.v1.MsgAttestPackages" => AttestPackages(MsgAttestPackages) by validator,
        "/r3mes.training.v1.MsgServeStates" => ServeStates(MsgServeStates) by miner,
        "/r3mes.training.v1.MsgCommitVerdict" => CommitVerdict(MsgCommitVerdict) by validator,
        "/r3mes.training.v1.MsgRevealVerdict" => RevealVerdict(MsgRevealVerdict) by validator,
        "/r3mes.training.v1.MsgOpenLeaves" => OpenLeaves(MsgOpenLeaves) by miner,
        "/r3mes.training.v1.MsgVoteCourt" => VoteCourt(MsgVoteCourt) by validator,
        "/r3mes.training.v1.MsgProposeAggregate" => ProposeAggregate(MsgProposeAggregate) by proposer,
        "/r3mes.training.v1.MsgAttestAggregate" => AttestAggregate(MsgAttestAggregate) by validator,
    }
}

schema! {
    /// Starts a run. Sent by the training authority of the chain.
    pub struct MsgCreateRun {
        /// Who.
        1 => authority: Address,
        /// The run's rules.
        2 => params: RunParams,
    }

    /// Keeps a run from opening further rounds; the open one closes as usual.
    pub struct MsgPauseRun {
        /// Who.
        1 => authority: Address,
        /// Which.
        2 => run: u64,
        /// Why, for people.
        3 => reason: Text<256>,
    }

    /// Lets a paused run open rounds again.
    pub struct MsgResumeRun {
        /// Who.
        1 => authority: Address,
        /// Which.
        2 => run: u64,
    }

    /// Finishes a run before all its rounds are done, for good; the open one closes as usual.
    #[derive(Copy)]
    pub struct MsgEndRun {
        /// Who.
        1 => authority: Address,
        /// Which.
        2 => run: u64,
    }

    /// A miner has trained and commits to its states.
    pub struct MsgCommitStates {
        /// Who.
        1 => miner: Address,
        /// Which run.
        2 => run: u64,
        /// Which round.
        3 => round: u32,
        /// Merkle root over H + 2 leaves.
        4 => root: Hash,
        /// The miner lost its error feedback and started from zero.
        5 => feedback_lost: bool,
    }

    /// One salted leaf with its path to the committed root.
    pub struct Opening {
        /// Index of the leaf.
        1 => index: u32,
        /// Its salt.
        2 => salt: Hash,
        /// The state in it.
        3 => state: Hash,
        /// Siblings, from the leaf up.
        4 => path: List<Hash, MAX_PROOF>,
    }

    /// A miner publishes its package. The leaves of the start state and of the package are opened at
    /// once: both are public, and the ledger checks them itself.
    pub struct MsgRevealPackage {
        /// Who.
        1 => miner: Address,
        /// Which run.
        2 => run: u64,
        /// Which round.
        3 => round: u32,
        /// The package.
        4 => package: Package,
        /// Leaf 0: the start state.
        5 => start: Opening,
        /// Leaf H + 1: the package.
        6 => end: Opening,
    }

    /// A validator says which packages it holds, checked against their hashes.
    pub struct MsgAttestPackages {
        /// Who.
        1 => validator: Address,
        /// Which run.
        2 => run: u64,
        /// Which round.
        3 => round: u32,
        /// The miners whose packages it holds, ascending.
        4 => held: List<Address, MAX_MINERS>,
    }

    /// An audited miner serves what its panel needs.
    pub struct MsgServeStates {
        /// Who.
        1 => miner: Address,
        /// Which run.
        2 => run: u64,
        /// Which round.
        3 => round: u32,
        /// States and error feedback.
        4 => served: Served,
        /// Whether this is about the second audit of the package.
        5 => second: bool,
    }

    /// A panel member has re-run the drawn steps and commits to its verdict.
    pub struct MsgCommitVerdict {
        /// Who.
        1 => validator: Address,
        /// Which run.
        2 => run: u64,
        /// Which round.
        3 => round: u32,
        /// About whom.
        4 => miner: Address,
        /// See `Verdict::commitment`.
        5 => commitment: Hash,
        /// Whether this is about the second audit of the package.
        6 => second: bool,
    }

    /// A panel member reveals its verdict.
    pub struct MsgRevealVerdict {
        /// Who.
        1 => validator: Address,
        /// Which run.
        2 => run: u64,
        /// Which round.
        3 => round: u32,
        /// About whom.
        4 => miner: Address,
        /// What made the commitment secret.
        5 => nonce: Hash,
        /// The verdict committed to.
        6 => verdict: Verdict,
        /// Whether this is about the second audit of the package.
        7 => second: bool,
    }

    /// An audited miner opens the leaves before and after each audited step.
    pub struct MsgOpenLeaves {
        /// Who.
        1 => miner: Address,
        /// Which run.
        2 => run: u64,
        /// Which round.
        3 => round: u32,
        /// Exactly the leaves of [`Audit::leaves`](super::Audit::leaves), ascending.
        4 => openings: List<Opening, MAX_OPENINGS>,
        /// Whether this is about the second audit of the package.
        5 => second: bool,
    }

    /// A validator has replayed a disputed miner from the public start.
    pub struct MsgVoteCourt {
        /// Who.
        1 => validator: Address,
        /// Which run.
        2 => run: u64,
        /// Which round.
        3 => round: u32,
        /// The disputed miner.
        4 => miner: Address,
        /// What it computed.
        5 => verdict: Verdict,
        /// Whether this is about the second audit of the package.
        6 => second: bool,
    }

    /// The proposer whose turn it is posts the aggregate.
    pub struct MsgProposeAggregate {
        /// Who.
        1 => proposer: Address,
        /// Which run.
        2 => run: u64,
        /// Which round.
        3 => round: u32,
        /// The aggregate; it must have a CID.
        4 => aggregate: AdapterRef,
    }

    /// A validator says which aggregate it computed from the fixed list of packages. It holds the bytes:
    /// the CID is a function of them.
    pub struct MsgAttestAggregate {
        /// Who.
        1 => validator: Address,
        /// Which run.
        2 => run: u64,
        /// Which round.
        3 => round: u32,
        /// What it computed.
        4 => aggregate: AdapterRef,
    }
}

//! What miners, validators and proposers do next, decided purely.
//!
//! An agent asks the ledger what it owes ([`Obligation`]s), looks at what it has ready on its own
//! machine ([`Facts`]), and gets a list of [`Action`]s. The ledger lists an obligation until it is
//! answered, and every answer can be made again from what the ledger and the agent's secret fix; so an
//! agent that is killed at any point plans again and goes on. Whoever runs the actions, a process with
//! a real model or a simulation, runs the same plan.
//!
//! ```
//! use r3mes_training::agent::{Facts, plan};
//!
//! let facts = Facts::new([7; 20].into(), [0; 32]);
//! assert!(plan(&facts, &[]).is_empty(), "who owes nothing does nothing");
//! ```

mod facts;
mod miner;
mod proposer;
mod validator;

use r3mes_types::task::Task;
use r3mes_types::training::{MinerPackage, Obligation, ObligationKind, TrainingMessage};

pub use facts::{AuditKey, Facts, Fetched, RoundKey, Trained};

/// What an agent does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Answer an obligation.
    Send(Box<TrainingMessage>),
    /// Train a round and keep it as [`Facts::trained`].
    Train(Box<Task>),
    /// Say that a round is lost beyond repair, and keep it in [`Facts::given_up`]: the ledger has another
    /// root than what was trained again gives.
    GiveUp {
        /// The round.
        round: RoundKey,
    },
    /// Put the states before these steps, and the error feedback that the round began with, into the
    /// blob store, and keep their CIDs in [`Trained::served`] and [`Trained::feedback_cid`].
    Publish {
        /// The round.
        round: RoundKey,
        /// Steps whose state before is wanted; may be none.
        steps: Vec<u32>,
        /// Whether the error feedback is wanted.
        feedback: bool,
    },
    /// Fetch packages, check their hashes, pin them, and keep the outcome as [`Facts::fetched`].
    Fetch {
        /// The round.
        round: RoundKey,
        /// The packages that were neither fetched nor given up yet.
        packages: Vec<MinerPackage>,
    },
    /// Re-run the audited steps from what the miner served, and keep the verdict as
    /// [`Facts::verdicts`]. What it did not serve is replayed from the public start.
    Audit(Box<Obligation>),
    /// Replay the miner's whole round from the public start, and keep the verdict as
    /// [`Facts::replays`].
    Replay(Box<Obligation>),
    /// Aggregate the accepted packages and keep the result as [`Facts::aggregates`].
    Aggregate(Box<Obligation>),
}

impl Action {
    /// The round that it is about. Agents send no messages that are about none.
    #[must_use]
    pub fn round(&self) -> Option<RoundKey> {
        Some(match self {
            Self::Send(message) => return round_of(message),
            Self::Train(task) => RoundKey {
                run: task.run,
                round: task.round,
            },
            Self::GiveUp { round } | Self::Publish { round, .. } | Self::Fetch { round, .. } => {
                *round
            }
            Self::Audit(owed) | Self::Replay(owed) | Self::Aggregate(owed) => RoundKey::of(owed),
        })
    }
}

/// The round that a message is about, if it is about one.
fn round_of(message: &TrainingMessage) -> Option<RoundKey> {
    use TrainingMessage as Said;
    let (run, round) = match message {
        Said::CommitStates(said) => (said.run, said.round),
        Said::RevealPackage(said) => (said.run, said.round),
        Said::AttestPackages(said) => (said.run, said.round),
        Said::ServeStates(said) => (said.run, said.round),
        Said::CommitVerdict(said) => (said.run, said.round),
        Said::RevealVerdict(said) => (said.run, said.round),
        Said::OpenLeaves(said) => (said.run, said.round),
        Said::VoteCourt(said) => (said.run, said.round),
        Said::ProposeAggregate(said) => (said.run, said.round),
        Said::AttestAggregate(said) => (said.run, said.round),
        Said::CreateRun(_) | Said::PauseRun(_) | Said::ResumeRun(_) | Said::EndRun(_) => {
            return None;
        }
    };
    Some(RoundKey { run, round })
}

/// What to do about everything that is owed, most urgent first. At most one action for each obligation.
#[must_use]
pub fn plan(facts: &Facts, obligations: &[Obligation]) -> Vec<Action> {
    let mut by_deadline: Vec<&Obligation> = obligations.iter().collect();
    by_deadline.sort_by_key(|owed| owed.deadline);
    by_deadline
        .into_iter()
        .filter_map(|owed| plan_one(facts, owed))
        .collect()
}

/// What to do about one obligation; nothing if the ledger's record lacks what it needs, which a ledger
/// of this version never does.
fn plan_one(facts: &Facts, owed: &Obligation) -> Option<Action> {
    match owed.kind {
        ObligationKind::Commit => miner::commit(facts, owed),
        ObligationKind::Reveal => miner::reveal(facts, owed),
        ObligationKind::Serve => miner::serve(facts, owed),
        ObligationKind::Open => miner::open(facts, owed),
        ObligationKind::AttestPackages => Some(validator::attest_packages(facts, owed)),
        ObligationKind::CommitVerdict => validator::commit_verdict(facts, owed),
        ObligationKind::RevealVerdict => validator::reveal_verdict(facts, owed),
        ObligationKind::Court => validator::vote(facts, owed),
        ObligationKind::AttestAggregate => Some(validator::attest_aggregate(facts, owed)),
        ObligationKind::Propose => Some(proposer::propose(facts, owed)),
    }
}

fn send(message: impl Into<TrainingMessage>) -> Action {
    Action::Send(Box::new(message.into()))
}

#[cfg(test)]
mod tests;

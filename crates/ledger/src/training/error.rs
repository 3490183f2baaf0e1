//! Why training refuses a message, with numbers that never change.

use r3mes_types::Address;
use r3mes_types::training::{ObligationKind, Phase};

use super::params::ParamsError;
use crate::coded_errors;

coded_errors! {
    /// Why training refuses a message.
    pub enum TrainingError in "training" {
        /// There is no such run.
        #[error("there is no run {run}")]
        1 => UnknownRun {
            /// The number asked for.
            run: u64,
        },
        /// The round is not open.
        #[error("round {round} of run {run} is not open")]
        2 => NotOpen {
            /// The run.
            run: u64,
            /// The round.
            round: u32,
        },
        /// The round is in another phase.
        #[error("{kind} is not due: round {round} of run {run} is in phase {phase}")]
        3 => NotDue {
            /// What was sent.
            kind: ObligationKind,
            /// The run.
            run: u64,
            /// The round.
            round: u32,
            /// The phase it is in.
            phase: Phase,
        },
        /// The sender owes nothing of the kind.
        #[error("{address} does not owe {kind} in this round")]
        4 => NotOwed {
            /// The sender.
            address: Address,
            /// What was sent.
            kind: ObligationKind,
        },
        /// Something else was answered before.
        #[error("{address} has answered {kind} before, and differently: the first answer stands")]
        5 => Conflict {
            /// The sender.
            address: Address,
            /// What was sent.
            kind: ObligationKind,
        },
        /// An opened leaf is not what the miner committed to.
        #[error("leaf {index} does not lead to the committed root: check salt, state and path")]
        6 => WrongOpening {
            /// The leaf.
            index: u32,
        },
        /// Other leaves or steps were asked for.
        #[error("{what} are not the ones asked for: {expected:?} are")]
        7 => WrongSteps {
            /// Leaves or steps.
            what: &'static str,
            /// The numbers asked for.
            expected: Vec<u32>,
        },
        /// The verdict is not the one committed to.
        #[error("the verdict is not the one committed to: check nonce, back end and states")]
        8 => WrongReveal,
        /// The content of a message does not hold together.
        #[error("{why}")]
        9 => Malformed {
            /// What is wrong.
            why: &'static str,
        },
        /// It is another proposer's turn.
        #[error("it is the turn of {turn} to propose")]
        10 => NotYourTurn {
            /// Whose turn it is.
            turn: Address,
        },
        /// The parameters of a run are refused.
        #[error("the run's parameters are refused")]
        11 => Params {
            /// Which and why.
            #[source]
            source: ParamsError,
        },
        /// The sender may not do this.
        #[error("{address} may not do this: only the training authority may")]
        12 => NotAuthority {
            /// The sender.
            address: Address,
        },
        /// A run needs a model or dataset that is not there.
        #[error("{what} is not registered: register it first")]
        13 => Missing {
            /// What is missing.
            what: &'static str,
        },
        /// A finished run cannot go on.
        #[error("run {run} is finished")]
        14 => Finished {
            /// The run.
            run: u64,
        },
        /// Too many runs are under way.
        #[error(
            "{max} runs are under way, paused, or finished with rounds that are still kept in full: \
             end one that nobody needs, and start another once it keeps none"
        )]
        15 => TooManyRuns {
            /// Most runs.
            max: usize,
        },
    }
}

//! How a miner comes by its states: by training, or, in demonstrations, by lying.

use r3mes_training::adversary::Lie;
use r3mes_types::task::Task;

/// How a miner comes by its states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    /// It trains.
    Honest,
    /// It cheats in every step: for demonstrations, and it costs the stake.
    SkipSteps,
    /// It moves the adapter where it wants in one step and forges the optimizer's moments.
    ForgeMoments,
    /// It commits to an error feedback that packaging did not leave.
    WrongFeedback,
}

/// A way to cheat that there is not.
#[derive(Debug, thiserror::Error)]
#[error("unknown lie {name:?}: skip-steps, forge-moments or wrong-feedback")]
pub(super) struct UnknownLie {
    /// What was asked for.
    name: String,
}

impl std::str::FromStr for Method {
    type Err = UnknownLie;

    fn from_str(name: &str) -> Result<Self, UnknownLie> {
        match name {
            "skip-steps" => Ok(Self::SkipSteps),
            "forge-moments" => Ok(Self::ForgeMoments),
            "wrong-feedback" => Ok(Self::WrongFeedback),
            _ => Err(UnknownLie {
                name: name.to_owned(),
            }),
        }
    }
}

impl Method {
    /// The lie to tell about a task; none when honest.
    pub(super) fn lie(self, task: &Task) -> Option<Lie> {
        match self {
            Self::Honest => None,
            Self::SkipSteps => Some(Lie::SkipSteps((0..task.steps).collect())),
            Self::ForgeMoments => Some(Lie::ForgeMoments {
                step: task.steps / 2,
                shift: 1.0 / 1024.0,
            }),
            Self::WrongFeedback => Some(Lie::WrongFeedback),
        }
    }
}

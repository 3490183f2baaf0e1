//! How nodes behave: honestly, or in one of many ways not.

use std::fmt;

/// What a node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Behaviour {
    /// What the protocol asks.
    Honest,
    /// A miner that falsifies so many of its steps, inside a consistent commitment.
    FalsifiedSteps(u32),
    /// A miner that keeps the adapter of one step but forges its moments.
    ForgedMoments,
    /// A miner that sends what another miner sent in the round before.
    CopiedPackage,
    /// A miner that sends again what it sent in the round before.
    StalePackage,
    /// A miner whose CID leads to other bytes than its hash names.
    SwappedCid,
    /// A miner that publishes no bytes.
    WithheldPackage,
    /// A miner that lies in every step, then serves and opens nothing.
    WithheldStates,
    /// A miner that packs with other error feedback than its own.
    WrongFeedback,
    /// A miner that lies in every step and asks for its stake as soon as its package is revealed.
    Leaver,
    /// A miner that falsifies so many of its steps, and asks for its stake once a package of it is
    /// accepted.
    Quitter(u32),
    /// A proposer that posts another aggregate.
    WrongAggregate,
    /// A validator that gives no verdicts and no votes.
    LazyVerdict,
    /// A validator that makes its verdicts up.
    GuessedVerdict,
    /// A validator that accuses everybody.
    FalseAccuser,
    /// A validator that confirms what lying miners claim.
    Accomplice,
    /// A validator that says it holds no package.
    HoldsNothing,
    /// An honest validator whose back end computes everything a little wrong.
    KernelBug,
    /// A node that never says anything.
    Silent,
}

impl Behaviour {
    /// Whether the node keeps to the protocol.
    #[must_use]
    pub fn is_honest(self) -> bool {
        matches!(self, Self::Honest | Self::Quitter(0))
    }

    /// Whether every audit of this miner finds something wrong.
    #[must_use]
    pub fn is_caught_by_every_audit(self, steps: u32) -> bool {
        match self {
            Self::FalsifiedSteps(falsified) | Self::Quitter(falsified) => falsified >= steps,
            Self::CopiedPackage
            | Self::StalePackage
            | Self::WithheldStates
            | Self::WrongFeedback
            | Self::Leaver => true,
            _ => false,
        }
    }
}

impl fmt::Display for Behaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

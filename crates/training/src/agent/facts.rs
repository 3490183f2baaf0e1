//! What an agent has ready on its own machine.

use std::collections::{BTreeMap, BTreeSet};

use r3mes_types::commitment::Work;
use r3mes_types::task::AdapterRef;
use r3mes_types::training::{Obligation, Package, Verdict};
use r3mes_types::{Address, Cid, Hash, Hasher};

use crate::commitment::Commitment;

/// Names a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RoundKey {
    /// Number of the run.
    pub run: u64,
    /// Number of the round.
    pub round: u32,
}

impl RoundKey {
    /// The round that something is owed in.
    #[must_use]
    pub const fn of(owed: &Obligation) -> Self {
        Self {
            run: owed.run,
            round: owed.round,
        }
    }
}

/// Names one audit of a miner's package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AuditKey {
    /// The package's round.
    pub round: RoundKey,
    /// Whose package.
    pub miner: Address,
    /// Whether it is the second audit, before stake is paid back.
    pub second: bool,
}

impl AuditKey {
    /// The audit that something is owed about; none if the obligation names no miner's task.
    #[must_use]
    pub fn of(owed: &Obligation) -> Option<Self> {
        Some(Self {
            round: RoundKey::of(owed),
            miner: owed.task.as_ref()?.miner,
            second: owed.second,
        })
    }
}

/// A round that this miner has trained.
#[derive(Clone, Debug)]
pub struct Trained {
    /// The salted states.
    pub commitment: Commitment,
    /// The package, which is in the blob store.
    pub package: Package,
    /// The round should have begun with error feedback, but it was lost, and it began with zero.
    pub feedback_lost: bool,
    /// Where states before steps are in the blob store, as far as they were published.
    pub served: BTreeMap<u32, Cid>,
    /// Where the error feedback is that the round began with, if it was published.
    pub feedback_cid: Option<Cid>,
}

/// What a validator got of a round's packages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    /// Miners whose packages are held: in the blob store, pinned, with the right hash.
    pub held: BTreeSet<Address>,
    /// Miners whose packages could not be had.
    pub given_up: BTreeSet<Address>,
}

/// Everything an agent knows besides the ledger. Losing any of it costs work, never correctness.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The node's account.
    pub address: Address,
    /// A secret of the node, from which nonces follow, so that a restart gives the same.
    secret: [u8; 32],
    /// Rounds this miner has trained.
    pub trained: BTreeMap<RoundKey, Trained>,
    /// Packages this validator holds.
    pub fetched: BTreeMap<RoundKey, Fetched>,
    /// Rounds of this miner that were lost beyond repair: what can be trained again is not what was
    /// committed to.
    pub given_up: BTreeSet<RoundKey>,
    /// Verdicts of panels that this validator sits in.
    pub verdicts: BTreeMap<AuditKey, Verdict>,
    /// Verdicts for the court.
    pub replays: BTreeMap<AuditKey, Verdict>,
    /// Aggregates computed here.
    pub aggregates: BTreeMap<RoundKey, AdapterRef>,
}

impl Facts {
    /// An agent that has nothing ready yet.
    #[must_use]
    pub const fn new(address: Address, secret: [u8; 32]) -> Self {
        Self {
            address,
            secret,
            trained: BTreeMap::new(),
            given_up: BTreeSet::new(),
            fetched: BTreeMap::new(),
            verdicts: BTreeMap::new(),
            replays: BTreeMap::new(),
            aggregates: BTreeMap::new(),
        }
    }

    /// What hides a verdict until it is revealed. A second audit has a nonce of its own, for the first
    /// one is public by then.
    #[must_use]
    pub fn nonce(&self, work: &Work, second: bool) -> Hash {
        let domain = if second {
            "r3mes training second verdict nonce v1"
        } else {
            "r3mes training verdict nonce v1"
        };
        Hasher::new(domain)
            .part(&self.secret)
            .number(work.run)
            .number(work.round)
            .part(work.miner.as_ref())
            .finish()
    }

    /// Forgets rounds of a run before `round`, which are closed. What is known for second audits of
    /// rounds from `oldest_kept` on, which the ledger keeps in full, stays. A miner keeps the round just
    /// before, whose error feedback the next one begins with.
    pub fn forget_before(&mut self, run: u64, round: u32, oldest_kept: u32) {
        let keep = |key: &RoundKey| key.run != run || key.round >= round;
        let kept = |key: &RoundKey| key.run != run || key.round >= oldest_kept;
        let needed = |key: &AuditKey| keep(&key.round) || (key.second && kept(&key.round));
        self.trained.retain(|key, _| keep(key));
        self.given_up.retain(kept);
        self.fetched.retain(|key, _| keep(key));
        self.verdicts.retain(|key, _| needed(key));
        self.replays.retain(|key, _| needed(key));
        self.aggregates.retain(|key, _| keep(key));
    }
}

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
    /// Verdicts of panels that this validator sits in, by round and miner.
    pub verdicts: BTreeMap<(RoundKey, Address), Verdict>,
    /// Verdicts for the court, by round and miner.
    pub replays: BTreeMap<(RoundKey, Address), Verdict>,
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
            fetched: BTreeMap::new(),
            verdicts: BTreeMap::new(),
            replays: BTreeMap::new(),
            aggregates: BTreeMap::new(),
        }
    }

    /// What hides a verdict until it is revealed.
    #[must_use]
    pub fn nonce(&self, work: &Work) -> Hash {
        Hasher::new("r3mes training verdict nonce v1")
            .part(&self.secret)
            .number(work.run)
            .number(work.round)
            .part(work.miner.as_ref())
            .finish()
    }

    /// Forgets rounds of a run before `round`, which are closed. A miner keeps the round just before,
    /// whose error feedback the next one begins with.
    pub fn forget_before(&mut self, run: u64, round: u32) {
        let keep = |key: &RoundKey| key.run != run || key.round >= round;
        self.trained.retain(|key, _| keep(key));
        self.fetched.retain(|key, _| keep(key));
        self.verdicts.retain(|(key, _), _| keep(key));
        self.replays.retain(|(key, _), _| keep(key));
        self.aggregates.retain(|key, _| keep(key));
    }
}

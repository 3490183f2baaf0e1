//! What stands in for training.
//!
//! The protocol is exercised at scale here, not the arithmetic: a step is a hash of the state before
//! it, so that fifty nodes train a thousand rounds in seconds. Everything else is as with the real
//! step: a state has an adapter and moments, the same task gives the same states everywhere, and any
//! change of a state changes all that follow. The real arithmetic runs in `r3mes demo`.

use r3mes_types::task::{AdapterRef, Task};
use r3mes_types::{Cid, Hash, Hasher};

/// What a simulated node computes with.
pub trait Compute {
    /// The file of the state that a round starts from.
    fn start(&self, adapter: &[u8]) -> Vec<u8>;
    /// The file of the state after step `index`, from the one before.
    fn step(&self, task: &Task, index: u32, before: &[u8]) -> Vec<u8>;
    /// The package and the new error feedback, from the last state and the old feedback.
    fn package(&self, task: &Task, last: &[u8], feedback: Option<&[u8]>) -> (Vec<u8>, Vec<u8>);
    /// The adapter after the round.
    fn aggregate(&self, start: &[u8], packages: &[Vec<u8>]) -> Vec<u8>;
}

/// Training as a chain of hashes.
#[derive(Clone, Copy, Debug, Default)]
pub struct HashChain;

/// Bytes of an adapter, and of the moments after it in a state.
pub const ADAPTER: usize = 32;

impl Compute for HashChain {
    fn start(&self, adapter: &[u8]) -> Vec<u8> {
        [adapter, &[0; ADAPTER]].concat()
    }

    fn step(&self, task: &Task, index: u32, before: &[u8]) -> Vec<u8> {
        let part = |name| {
            Hasher::new(name)
                .number(task.run)
                .number(u64::from(task.round))
                .part(task.miner.as_ref())
                .part(task.beacon.as_ref())
                .number(u64::from(task.shard.index))
                .number(u64::from(index))
                .part(before)
                .finish()
        };
        [part("sim adapter").as_ref(), part("sim moments").as_ref()].concat()
    }

    fn package(&self, task: &Task, last: &[u8], feedback: Option<&[u8]>) -> (Vec<u8>, Vec<u8>) {
        let part = |name| {
            let hash = Hasher::new(name)
                .part(task.start.adapter.as_ref())
                .part(&last[..ADAPTER.min(last.len())])
                .part(feedback.unwrap_or(&[0; ADAPTER]))
                .finish();
            hash.as_ref().to_vec()
        };
        (part("sim package"), part("sim feedback"))
    }

    fn aggregate(&self, start: &[u8], packages: &[Vec<u8>]) -> Vec<u8> {
        let hasher = Hasher::new("sim aggregate").part(start);
        let sum = packages
            .iter()
            .fold(hasher, |sum, package| sum.part(package));
        sum.finish().as_ref().to_vec()
    }
}

/// Names an adapter by its bytes.
#[must_use]
pub fn adapter_ref(compute: &dyn Compute, adapter: &[u8]) -> AdapterRef {
    AdapterRef {
        cid: Some(Cid::raw(adapter)),
        adapter: Hash::of(adapter),
        state: Hash::of(&compute.start(adapter)),
    }
}

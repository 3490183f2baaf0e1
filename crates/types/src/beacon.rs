//! Beacon: randomness that nobody can choose.
//!
//! A block validator makes a chain of hashes `x[0] -> x[1] -> ... -> x[n]`, each the hash of the one
//! before, and registers its end `x[n]`. With each block it proposes it reveals the next element
//! backwards: anyone can check it, and nobody else could have known it.

use crate::query::MAX_PAGE;
use crate::wire::List;
use crate::{Address, ConsensusAddress, Hash, Hasher, messages, queries, schema};

/// Longest hash chain.
pub const MAX_CHAIN: u64 = 1 << 32;

messages! {
    /// Messages of the beacon that accounts send.
    pub enum BeaconMessage {
        "/r3mes.beacon.v1.MsgRegisterChain" => RegisterChain(MsgRegisterChain) by operator,
    }
}

schema! {
    /// Registers a validator's hash chain, or the one to go on with when the present one ends.
    #[derive(Copy)]
    pub struct MsgRegisterChain {
        /// The validator's node.
        1 => operator: Address,
        /// The end of the chain, `x[n]`.
        2 => end: Hash,
        /// How many elements can be revealed, `n`.
        3 => length: u64,
    }

    /// A block's first transaction: the next element of the block proposer's chain.
    #[derive(Copy)]
    pub struct MsgReveal {
        /// Who proposes the block.
        1 => validator: ConsensusAddress,
        /// The element before the one revealed last.
        2 => preimage: Hash,
    }

    /// What is kept of a validator's chain.
    #[derive(Copy)]
    pub struct Chain {
        /// The element revealed last, or the end of the chain.
        1 => last: Hash,
        /// How many elements are left.
        2 => remaining: u64,
        /// End of the chain to go on with.
        3 => next_end: Option<Hash>,
        /// Length of the chain to go on with.
        4 => next_length: u64,
    }

    /// The random value after a block.
    #[derive(Copy)]
    pub struct Mix {
        /// The block.
        1 => height: u64,
        /// The value.
        2 => mix: Hash,
    }

    /// Asks for random values, newest first.
    #[derive(Copy, Default)]
    pub struct QueryBeacon {
        /// The newest block wanted; 0 for the last one.
        1 => height: u64,
        /// How many; 0 for one.
        2 => limit: u32,
    }

    /// The answer to [`QueryBeacon`].
    pub struct Mixes {
        /// Newest first; only recent ones are kept.
        1 => mixes: List<Mix, MAX_PAGE>,
    }

    /// Asks for a validator's chain.
    #[derive(Copy)]
    pub struct QueryChain {
        /// Whose.
        1 => validator: ConsensusAddress,
    }

    /// The answer to [`QueryChain`].
    #[derive(Copy)]
    pub struct ChainAnswer {
        /// The chain, if one is registered.
        1 => chain: Option<Chain>,
    }
}

queries! {
    "/r3mes.beacon.v1.Query/Beacon" => QueryBeacon: Mixes,
    "/r3mes.beacon.v1.Query/Chain" => QueryChain: ChainAnswer,
}

impl MsgReveal {
    /// Type URL inside the block's first transaction.
    pub const TYPE_URL: &'static str = "/r3mes.beacon.v1.MsgReveal";
}

/// One step along a hash chain.
pub fn chain_step(element: &Hash) -> Hash {
    Hasher::new("r3mes beacon chain v1")
        .part(element.as_ref())
        .finish()
}

/// The random value after a block: the one before it and the preimage that the block revealed.
pub fn mix(before: &Hash, preimage: &Hash) -> Hash {
    Hasher::new("r3mes beacon mix v1")
        .part(before.as_ref())
        .part(preimage.as_ref())
        .finish()
}

/// A hash chain with its secret start, as the block validator keeps it.
///
/// Every [`HashChain::STRIDE`]-th element is kept, so an element costs at most so many hashes.
#[derive(Clone)]
pub struct HashChain {
    length: u64,
    checkpoints: Vec<Hash>,
}

impl HashChain {
    /// Distance between the elements kept.
    pub const STRIDE: u64 = 1024;

    /// The chain of `length` elements from a secret; `length` hashes are computed.
    pub fn new(secret: &[u8; 32], length: u64) -> Self {
        let mut element = Hasher::new("r3mes beacon chain start v1")
            .part(secret)
            .finish();
        let mut checkpoints = Vec::new();
        for index in 0..=length {
            if index % Self::STRIDE == 0 || index == length {
                checkpoints.push(element);
            }
            element = chain_step(&element);
        }
        Self {
            length,
            checkpoints,
        }
    }

    /// What is registered: `x[n]`.
    pub fn end(&self) -> Hash {
        self.checkpoints[self.checkpoints.len() - 1]
    }

    /// How many elements can be revealed.
    pub const fn len(&self) -> u64 {
        self.length
    }

    /// Whether nothing can be revealed.
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The element to reveal while `remaining` are left on the ledger.
    ///
    /// `None` when the chain is used up, or was never that long.
    pub fn preimage(&self, remaining: u64) -> Option<Hash> {
        if remaining == 0 || remaining > self.length {
            return None;
        }
        let index = remaining - 1;
        let checkpoint = usize::try_from(index / Self::STRIDE).ok()?;
        let start = *self.checkpoints.get(checkpoint)?;
        Some((0..index % Self::STRIDE).fold(start, |element, _| chain_step(&element)))
    }
}

impl std::fmt::Debug for HashChain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "HashChain of {} elements ending in {}",
            self.length,
            self.end()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_revealed_element_hashes_to_the_one_before() {
        for length in [1, 2, 1023, 1024, 1025, 2049] {
            let chain = HashChain::new(&[9; 32], length);
            let mut last = chain.end();
            for remaining in (1..=length).rev() {
                let preimage = chain.preimage(remaining).unwrap();
                assert_eq!(chain_step(&preimage), last);
                last = preimage;
            }
            assert_eq!(chain.preimage(0), None);
            assert_eq!(chain.preimage(length + 1), None);
        }
    }
}

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
        /// Registers the chain to go on with; refused while one is registered already.
        3 => next: Option<NextChain>,
    }

    /// The chain to go on with when the present one is used up.
    #[derive(Copy)]
    pub struct NextChain {
        /// Its end, `x[n]`.
        1 => end: Hash,
        /// How many elements can be revealed, `n`.
        2 => length: u64,
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

impl HashChain {
    /// Whether it is the chain that is registered: its next element is due, or it is just used up.
    fn is_registered(&self, registered: &Chain) -> bool {
        match self.preimage(registered.remaining) {
            Some(next) => chain_step(&next) == registered.last,
            None => registered.remaining == 0 && self.checkpoints.first() == Some(&registered.last),
        }
    }
}

/// All hash chains of a block validator, one after another, from one secret: the registered one and
/// the one to go on with are kept, further ones are computed when their time comes.
#[derive(Clone)]
pub struct HashChains {
    secret: [u8; 32],
    /// Number of the older of the two kept.
    number: u64,
    kept: [HashChain; 2],
}

impl HashChains {
    /// Most chains that [`HashChains::follow`] looks through.
    const MAX_FOLLOWED: u64 = 1024;

    /// Chains of `length` elements each, of which at least two are needed: the second registers the
    /// next chain. The first one is that of the secret itself.
    pub fn new(secret: [u8; 32], length: u64) -> Self {
        let kept = [0, 1].map(|number| nth_chain(&secret, number, length));
        Self {
            secret,
            number: 0,
            kept,
        }
    }

    /// The two chains kept, in order.
    pub const fn kept(&self) -> &[HashChain] {
        &self.kept
    }

    /// Goes on to the chain that is registered, so that the one after it is kept too; `false`, and
    /// nothing changes, when the registered chain is none of this secret's.
    pub fn follow(&mut self, registered: &Chain) -> bool {
        if self.kept[0].is_registered(registered) {
            return true;
        }
        let mut later = self.clone();
        for _ in 0..Self::MAX_FOLLOWED {
            later.number += 1;
            let length = later.kept[0].len();
            later.kept.swap(0, 1);
            later.kept[1] = nth_chain(&later.secret, later.number + 1, length);
            if later.kept[0].is_registered(registered) {
                *self = later;
                return true;
            }
        }
        false
    }
}

impl std::fmt::Debug for HashChains {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(&self.kept).finish()
    }
}

/// The chain of a number, from 0.
fn nth_chain(secret: &[u8; 32], number: u64, length: u64) -> HashChain {
    if number == 0 {
        return HashChain::new(secret, length);
    }
    let seed = Hasher::new("r3mes beacon seed v1")
        .part(secret)
        .number(number)
        .finish();
    HashChain::new(seed.as_bytes(), length)
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

    #[test]
    fn chains_follow_the_one_that_is_registered_and_no_foreign_one() {
        let mut chains = HashChains::new([9; 32], 3);
        let all: Vec<HashChain> = (0..4).map(|n| nth_chain(&[9; 32], n, 3)).collect();
        let registered = |number: usize, remaining: u64| Chain {
            last: match remaining {
                3 => all[number].end(),
                left => all[number].preimage(left + 1).unwrap(),
            },
            remaining,
            next_end: None,
            next_length: 0,
        };
        let ends = |chains: &HashChains| [0, 1].map(|at| chains.kept()[at].end());
        for number in 0..3 {
            for remaining in (0..=3).rev() {
                assert!(chains.follow(&registered(number, remaining)));
                assert_eq!(ends(&chains), [all[number].end(), all[number + 1].end()]);
            }
        }
        let foreign = Chain {
            last: Hash::of(b"foreign"),
            ..registered(0, 2)
        };
        assert!(!chains.follow(&foreign));
        assert_eq!(ends(&chains), [all[2].end(), all[3].end()]);
    }
}

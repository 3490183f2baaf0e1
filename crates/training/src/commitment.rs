//! What a miner commits to: every state of its round, salted, under one root.

use r3mes_types::commitment::{Work, leaf_salt, state_leaf};
use r3mes_types::training::Opening;
use r3mes_types::{Hash, merkle};

/// The states of a round as one Merkle tree: leaf 0 is the start state, leaf
/// `i` the state after step `i`, leaf `H + 1` the package and the error
/// feedback. The salts follow from the miner's secret, so that a restarted
/// miner commits to the same root and can open any leaf.
#[derive(Clone, Debug)]
pub struct Commitment {
    salts: Vec<Hash>,
    states: Vec<Hash>,
    leaves: Vec<Hash>,
}

impl Commitment {
    /// Commits to all `H + 2` states of a round, in order.
    #[must_use]
    pub fn new(work: &Work, secret: &[u8; 32], states: Vec<Hash>) -> Self {
        let indices = 0..states.len() as u64;
        let salts: Vec<_> = indices
            .clone()
            .map(|index| leaf_salt(secret, work, index))
            .collect();
        let leaves = indices.zip(salts.iter().zip(&states));
        let leaves = leaves
            .map(|(index, (salt, state))| state_leaf(work, index, salt, state))
            .collect();
        Self {
            salts,
            states,
            leaves,
        }
    }

    /// The root that the ledger keeps.
    #[must_use]
    pub fn root(&self) -> Hash {
        merkle::root(&self.leaves)
    }

    /// Salt, state and path of one leaf; none past the last.
    #[must_use]
    pub fn opening(&self, index: u32) -> Option<Opening> {
        let at = index as usize;
        let path = merkle::proof(&self.leaves, at)?;
        let path = path
            .try_into()
            .expect("a proof is as short as the depth of a tree");
        Some(Opening {
            index,
            salt: self.salts[at],
            state: self.states[at],
            path,
        })
    }

    /// The states committed to.
    #[must_use]
    pub fn states(&self) -> &[Hash] {
        &self.states
    }
}

//! Hashes by which nodes commit to what they will reveal: the states of training steps.

use crate::{Address, Hash, Hasher};

/// Names a miner's work: one miner in one round of one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// Number of the run.
    pub run: u64,
    /// Number of the round within the run.
    pub round: u64,
    /// Who did the work.
    pub miner: Address,
}

/// Leaf `index` of a miner's commitment over the states of its steps.
///
/// Leaf 0 is the state the round starts from, leaf `i` the state after step `i`, and leaf `H + 1`
/// the [`package_state`]. The salt hides the state until the miner opens the leaf.
pub fn state_leaf(work: &Work, index: u64, salt: &Hash, state: &Hash) -> Hash {
    work_hasher("r3mes training state leaf v1", work)
        .number(index)
        .part(salt.as_ref())
        .part(state.as_ref())
        .finish()
}

/// The salt of leaf `index`, derived from a miner's secret, so that a restart gives the same root.
pub fn leaf_salt(secret: &[u8; 32], work: &Work, index: u64) -> Hash {
    work_hasher("r3mes training leaf salt v1", work)
        .number(index)
        .part(secret)
        .finish()
}

/// The state that leaf `H + 1` commits to: the package and the error feedback left behind.
pub fn package_state(package: &Hash, feedback: &Hash) -> Hash {
    Hasher::new("r3mes training package state v1")
        .part(package.as_ref())
        .part(feedback.as_ref())
        .finish()
}

fn work_hasher(domain: &str, work: &Work) -> Hasher {
    Hasher::new(domain)
        .number(work.run)
        .number(work.round)
        .part(work.miner.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commitments_are_pinned() {
        let work = Work {
            run: 1,
            round: 2,
            miner: Address::from([3; 20]),
        };
        let salt = leaf_salt(&[4; 32], &work, 5);
        let leaf = state_leaf(&work, 5, &salt, &Hash::of(b"state"));
        let package = package_state(&Hash::of(b"package"), &Hash::of(b"feedback"));
        assert_eq!(
            [salt, leaf, package].map(|hash| hash.to_string()),
            [
                "fe2f75e1f8e74f23f6b8202483137a4d7303a927e6c5e78e3573d234a3470c7d",
                "31c569ceaa3049f2e1c79de2496d948b4ecd1f3ef3f6992fe3373c8251e67fd6",
                "74c7a822c77a834e2642ad46b51501831bbce60c03b6339ab3aaaf2afab0eb06",
            ]
        );
    }
}

//! Merkle trees over BLAKE3 with separated domains for leaves and nodes.
//!
//! A leaf is already a [hash](crate::Hash); it is hashed once more under the leaf domain together
//! with its index and the number of leaves, so that a proof binds the position and the size of the
//! tree. A level with an odd number of nodes carries its last node up unchanged.

use crate::{Hash, Hasher};

const LEAF: &str = "r3mes merkle leaf v1";
const NODE: &str = "r3mes merkle node v1";

/// Most leaves of a tree.
pub const MAX_LEAVES: usize = 1 << 20;

/// Longest proof: the depth of the largest tree.
pub const MAX_PROOF: usize = 20;

/// The root over `leaves`; the root of no leaves is [`Hash::ZERO`].
///
/// # Panics
/// Above [`MAX_LEAVES`].
pub fn root(leaves: &[Hash]) -> Hash {
    let mut level = leaf_level(leaves);
    while level.len() > 1 {
        level = parents(&level);
    }
    level.first().copied().unwrap_or(Hash::ZERO)
}

/// The siblings on the way from leaf `index` to the root, from the bottom up.
///
/// `None` when there is no such leaf.
///
/// # Panics
/// Above [`MAX_LEAVES`].
pub fn proof(leaves: &[Hash], index: usize) -> Option<Vec<Hash>> {
    if index >= leaves.len() {
        return None;
    }
    let mut path = Vec::new();
    let mut level = leaf_level(leaves);
    let mut position = index;
    while level.len() > 1 {
        path.extend(level.get(position ^ 1));
        level = parents(&level);
        position /= 2;
    }
    Some(path)
}

/// Whether `path` proves that `leaf` is at `index` in the tree of `count` leaves with this root.
pub fn verify(root: &Hash, count: usize, index: usize, leaf: &Hash, path: &[Hash]) -> bool {
    if index >= count || count > MAX_LEAVES {
        return false;
    }
    let mut siblings = path.iter();
    let mut hash = hash_leaf(count, index, leaf);
    let (mut width, mut position) = (count, index);
    while width > 1 {
        if position ^ 1 < width {
            let Some(sibling) = siblings.next() else {
                return false;
            };
            hash = if position % 2 == 0 {
                hash_node(&hash, sibling)
            } else {
                hash_node(sibling, &hash)
            };
        }
        position /= 2;
        width = width.div_ceil(2);
    }
    siblings.next().is_none() && hash == *root
}

fn leaf_level(leaves: &[Hash]) -> Vec<Hash> {
    assert!(
        leaves.len() <= MAX_LEAVES,
        "a tree has at most {MAX_LEAVES} leaves"
    );
    leaves
        .iter()
        .enumerate()
        .map(|(index, leaf)| hash_leaf(leaves.len(), index, leaf))
        .collect()
}

fn parents(level: &[Hash]) -> Vec<Hash> {
    level
        .chunks(2)
        .map(|pair| match pair {
            [left, right] => hash_node(left, right),
            single => single[0],
        })
        .collect()
}

fn hash_leaf(count: usize, index: usize, leaf: &Hash) -> Hash {
    Hasher::new(LEAF)
        .number(count as u64)
        .number(index as u64)
        .part(leaf.as_ref())
        .finish()
}

fn hash_node(left: &Hash, right: &Hash) -> Hash {
    Hasher::new(NODE)
        .part(left.as_ref())
        .part(right.as_ref())
        .finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(count: usize) -> Vec<Hash> {
        (0..count)
            .map(|index| Hash::of(&index.to_le_bytes()))
            .collect()
    }

    #[test]
    fn every_leaf_of_every_small_tree_has_a_proof_for_its_own_place_only() {
        for count in 1..=17 {
            let leaves = leaves(count);
            let root = root(&leaves);
            for index in 0..count {
                let path = proof(&leaves, index).unwrap();
                for place in 0..count + 1 {
                    for leaf in &leaves {
                        let expected = place == index && *leaf == leaves[index];
                        assert_eq!(verify(&root, count, place, leaf, &path), expected);
                    }
                }
                assert!(!verify(&root, count + 1, index, &leaves[index], &path));
                let longer = [path.as_slice(), &[Hash::ZERO]].concat();
                assert!(!verify(&root, count, index, &leaves[index], &longer));
            }
            assert_eq!(proof(&leaves, count), None);
        }
    }

    #[test]
    fn the_root_of_ten_leaves_is_pinned() {
        assert_eq!(
            root(&leaves(10)).to_string(),
            "84684f6d45936edd308f9c2925d7743ffe71545bb9f7b1b74d1e5ec65d05220b"
        );
        assert_eq!(root(&[]), Hash::ZERO);
    }
}

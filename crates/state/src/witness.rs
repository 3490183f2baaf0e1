//! What a computation read, and the same reads for somebody who has only the root.
//!
//! Whoever has the state runs a computation over a [`Recorder`] and proves every key that it read.
//! Whoever has only the root makes a [`Witness`] of the proofs and runs the same computation over that:
//! the result is his own, and nothing that he was told besides counts.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use ics23::commitment_proof::Proof;
use ics23::{CommitmentProof, HostFunctionsManager};

use crate::read::{Entries, Read, ReadError, lower_bound};
use crate::snapshot::proof_spec;

/// A state that remembers which keys were read.
pub struct Recorder<'a> {
    base: &'a dyn Read,
    keys: RefCell<BTreeSet<Vec<u8>>>,
}

impl<'a> Recorder<'a> {
    /// Nothing read yet.
    pub fn new(base: &'a dyn Read) -> Self {
        Self {
            base,
            keys: RefCell::default(),
        }
    }

    /// The keys that were read, there or not, ascending.
    pub fn into_keys(self) -> BTreeSet<Vec<u8>> {
        self.keys.into_inner()
    }
}

impl Read for Recorder<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        self.keys.borrow_mut().insert(key.to_vec());
        self.base.get(key)
    }

    fn scan(
        &self,
        prefix: &[u8],
        start_after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Entries, ReadError> {
        let entries = self.base.scan(prefix, start_after, limit)?;
        let keys = entries.iter().map(|(key, _)| key.clone());
        self.keys.borrow_mut().extend(keys);
        Ok(entries)
    }
}

/// Entries of a state, each proved against its root.
///
/// A read of a key that was not proved fails. A scan gives what was proved: that every entry is there
/// is certain, that no other is there is not, since the tree orders keys by their hashes and has no
/// proof for a range.
#[derive(Clone, Debug, Default)]
pub struct Witness {
    entries: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

/// A proof does not show what it should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WitnessError {
    /// It does not lead to the root.
    #[error("the proof of key {key} does not lead to the app hash {root}")]
    Root {
        /// The key, printable.
        key: String,
        /// The root that it should lead to, hexadecimal.
        root: String,
    },
    /// It is none of one key.
    #[error("a proof is neither one of a key that is there nor one of a key that is not")]
    Kind,
}

impl Witness {
    /// What the proofs show of the state with this root.
    ///
    /// # Errors
    /// [`WitnessError`] names the first proof that does not hold.
    pub fn verify<'a>(
        root: &[u8; 32],
        proofs: impl IntoIterator<Item = &'a CommitmentProof>,
    ) -> Result<Self, WitnessError> {
        let (spec, expected) = (proof_spec(), root.to_vec());
        let mut entries = BTreeMap::new();
        for proof in proofs {
            let (key, value, holds) = match &proof.proof {
                Some(Proof::Exist(exist)) => (
                    &exist.key,
                    Some(exist.value.clone()),
                    ics23::verify_membership::<HostFunctionsManager>(
                        proof,
                        &spec,
                        &expected,
                        &exist.key,
                        &exist.value,
                    ),
                ),
                Some(Proof::Nonexist(absent)) => (
                    &absent.key,
                    None,
                    ics23::verify_non_membership::<HostFunctionsManager>(
                        proof,
                        &spec,
                        &expected,
                        &absent.key,
                    ),
                ),
                _ => return Err(WitnessError::Kind),
            };
            if !holds {
                return Err(WitnessError::Root {
                    key: key.escape_ascii().to_string(),
                    root: hex(root),
                });
            }
            entries.insert(key.clone(), value);
        }
        Ok(Self { entries })
    }
}

impl Read for Witness {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        let proved = self.entries.get(key).cloned();
        proved.ok_or_else(|| ReadError::Unproved {
            key: key.escape_ascii().to_string(),
        })
    }

    fn scan(
        &self,
        prefix: &[u8],
        start_after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Entries, ReadError> {
        let from = (lower_bound(prefix, start_after), std::ops::Bound::Unbounded);
        let proved = self.entries.range::<[u8], _>(from);
        let proved = proved.take_while(|(key, _)| key.starts_with(prefix));
        let there = proved.filter_map(|(key, value)| Some((key.clone(), value.clone()?)));
        Ok(there.take(limit).collect())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

//! Versioned, authenticated key-value state with ICS-23 proofs.
//!
//! The ledger reads through [`Read`] and writes into a [`Delta`], which is nothing but [`Changes`] laid
//! over what it reads; it never touches a disk.
//!
//! ```
//! use r3mes_state::{Changes, Delta, Read};
//! use std::collections::BTreeMap;
//!
//! let base = BTreeMap::from([(b"bank/a".to_vec(), b"5".to_vec())]);
//! let mut block = Delta::new(&base);
//! let mut tx = Delta::new(&block);
//! tx.put(*b"bank/b", *b"1");
//! let changes = tx.into_changes(); // a failed transaction drops its delta instead
//! block.apply(changes);
//! assert_eq!(block.scan(b"bank/", None, 10)?.len(), 2);
//! # Ok::<(), r3mes_state::ReadError>(())
//! ```
//!
//! A [`Storage`] keeps versions of a state. Each commit makes the next one and its root hash; a
//! [`Snapshot`] reads a version and proves to anyone who knows the root what a key holds, or that it
//! holds nothing:
//!
//! ```
//! use r3mes_state::{Options, Read, Storage, proof_spec};
//!
//! let storage = Storage::memory(Options::default())?;
//! let root = storage.commit(1, [(b"a".to_vec(), Some(b"5".to_vec()))].into())?;
//! let snapshot = storage.latest()?;
//! let proof = snapshot.prove(b"a")?;
//! assert!(ics23::verify_membership::<ics23::HostFunctionsManager>(
//!     &proof, &proof_spec(), &root.to_vec(), b"a", b"5",
//! ));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod commit;
mod delta;
mod read;
mod snapshot;
mod storage;
mod tables;
mod witness;

pub use delta::{Changes, Delta};
pub use ics23::CommitmentProof;
pub use read::{Entries, Read, ReadError};
pub use snapshot::{ProveError, Snapshot, proof_spec};
pub use storage::{
    CommitError, MAX_KEY_BYTES, MAX_VALUE_BYTES, OpenError, Options, Staged, Storage,
};
pub use witness::{Recorder, Witness, WitnessError};

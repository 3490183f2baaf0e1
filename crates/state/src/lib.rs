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

mod delta;
mod read;

pub use delta::{Changes, Delta};
pub use read::{Entries, Read, ReadError};

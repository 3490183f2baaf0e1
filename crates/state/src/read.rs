//! Reading a key-value state.

use std::collections::BTreeMap;

/// Keys with their values, ascending by key.
pub type Entries = Vec<(Vec<u8>, Vec<u8>)>;

/// A state that can be read: a committed version, or changes laid over one.
///
/// Object safe, so that code above takes `&dyn Read` and never knows which of the two it has.
pub trait Read {
    /// The value under `key`, or `None` if there is none.
    ///
    /// # Errors
    /// [`ReadError`] if the store below cannot be read; never for a missing key.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError>;

    /// At most `limit` entries whose key begins with `prefix`, ascending by key bytes, beginning after
    /// the key `start_after` (exclusive, a full key) if it is given.
    ///
    /// # Errors
    /// [`ReadError`] if the store below cannot be read.
    fn scan(
        &self,
        prefix: &[u8],
        start_after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Entries, ReadError>;
}

/// The store below a [`Read`] failed. The caller stops: a ledger must never go on from a read that
/// did not happen.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The database reported an error (disk, file, page checksum).
    #[error("the state database could not be read: check the disk that holds it")]
    Database {
        /// What the database said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What was read is not what this program writes.
    #[error("the state database holds damaged data ({what}): restore it from a snapshot")]
    Damaged {
        /// The kind of record that did not parse.
        what: &'static str,
    },
    /// A [`Witness`](crate::Witness) was asked for a key that it has no proof of.
    #[error("there is no proof for the key {key}")]
    Unproved {
        /// The key, printable.
        key: String,
    },
}

/// A plain map is a state: the simplest one, for tests and for genesis.
impl Read for BTreeMap<Vec<u8>, Vec<u8>> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        Ok(BTreeMap::get(self, key).cloned())
    }

    fn scan(
        &self,
        prefix: &[u8],
        start_after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Entries, ReadError> {
        Ok(self
            .range::<[u8], _>((lower_bound(prefix, start_after), std::ops::Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .take(limit)
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect())
    }
}

/// Where a scan begins: after `start_after`, but never before `prefix`.
pub(crate) fn lower_bound<'a>(
    prefix: &'a [u8],
    start_after: Option<&'a [u8]>,
) -> std::ops::Bound<&'a [u8]> {
    match start_after {
        Some(key) if key >= prefix => std::ops::Bound::Excluded(key),
        _ => std::ops::Bound::Included(prefix),
    }
}

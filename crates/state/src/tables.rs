//! What lies in the database: tables, and the encodings of their records.

use borsh::{BorshDeserialize, BorshSerialize};
use jmt::storage::NodeKey;
use redb::TableDefinition;

use crate::read::ReadError;

/// Format of the database. A database of another format is refused.
pub(crate) const FORMAT: u64 = 1;

/// `"format"` -> [`FORMAT`].
pub(crate) const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
/// Key -> value, of the newest version.
pub(crate) const VALUES: TableDefinition<&[u8], &[u8]> = TableDefinition::new("values");
/// Version -> borsh of [`VersionRecord`].
pub(crate) const VERSIONS: TableDefinition<u64, &[u8]> = TableDefinition::new("versions");
/// Version -> borsh of `Vec<`[`UndoEntry`]`>`, ascending by key: what leads back to the version before.
pub(crate) const UNDO: TableDefinition<u64, &[u8]> = TableDefinition::new("undo");
/// Encoded node key -> borsh of the tree node.
pub(crate) const NODES: TableDefinition<&[u8], &[u8]> = TableDefinition::new("nodes");
/// Tree version -> borsh of `Vec<Vec<u8>>`: encoded keys of the nodes that it and later ones lack.
pub(crate) const STALE: TableDefinition<u64, &[u8]> = TableDefinition::new("stale");
/// SHA-256 of a key -> borsh of [`Preimage`].
pub(crate) const PREIMAGES: TableDefinition<&[u8; 32], &[u8]> = TableDefinition::new("preimages");

/// What is kept for each version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(crate) struct VersionRecord {
    /// Root of the tree.
    pub(crate) root: [u8; 32],
    /// The tree's own version. It stands still when a version changes nothing; 0 is the empty tree.
    pub(crate) tree_version: u64,
}

impl VersionRecord {
    /// Before anything was committed, with the root that `jmt` gives an empty tree.
    pub(crate) const EMPTY: Self = Self {
        root: *b"SPARSE_MERKLE_PLACEHOLDER_HASH__",
        tree_version: 0,
    };
}

/// One key that a version changed.
#[derive(Clone, Debug, BorshSerialize, BorshDeserialize)]
pub(crate) struct UndoEntry {
    pub(crate) key: Vec<u8>,
    /// Its value before.
    pub(crate) before: Option<Vec<u8>>,
    /// Whether the version removed it.
    pub(crate) removed: bool,
}

/// The key behind a leaf of the tree.
#[derive(Clone, Debug, BorshSerialize, BorshDeserialize)]
pub(crate) struct Preimage {
    pub(crate) key: Vec<u8>,
    /// The version that removed the key last, if it is not there now.
    pub(crate) removed_at: Option<u64>,
}

/// Bytes under which a tree node lies: version (big endian, so that nodes written together lie
/// together), number of nibbles, one byte per nibble.
pub(crate) fn node_key_bytes(key: &NodeKey) -> Vec<u8> {
    let path = key.nibble_path();
    let mut bytes = Vec::with_capacity(9 + path.num_nibbles());
    bytes.extend_from_slice(&key.version().to_be_bytes());
    // A path has at most 64 nibbles, two per byte of a SHA-256 hash.
    bytes.push(path.num_nibbles() as u8);
    bytes.extend(path.nibbles().map(u8::from));
    bytes
}

/// Borsh bytes of a record.
pub(crate) fn encode(record: &impl BorshSerialize) -> Vec<u8> {
    borsh::to_vec(record).expect("borsh writes to memory, which does not fail")
}

/// The record in `bytes`; `what` names it if it does not parse.
pub(crate) fn decode<T: BorshDeserialize>(
    bytes: &[u8],
    what: &'static str,
) -> Result<T, ReadError> {
    T::try_from_slice(bytes).map_err(|_| ReadError::Damaged { what })
}

/// Any of the database's errors, as what a reader sees.
pub(crate) fn read_error(error: impl Into<redb::Error>) -> ReadError {
    ReadError::Database {
        source: Box::new(error.into()),
    }
}

//! One committed version, readable and provable.

use std::fmt;

use ics23::CommitmentProof;
use jmt::storage::{HasPreimage, LeafNode, Node, NodeKey, TreeReader};
use jmt::{KeyHash, OwnedValue, Sha256Jmt, Version};
use redb::{ReadOnlyTable, ReadTransaction, ReadableTable};

use crate::delta::{Changes, scan_overlaid};
use crate::read::{Entries, Read, ReadError};
use crate::tables::{self, Preimage, UndoEntry, VersionRecord, decode, read_error};

/// A committed version of the state. It stays what it is while later versions are committed and
/// pruned; it holds their disk space until it is dropped.
///
/// The newest version reads straight from the table of current values. An older one reads through
/// what has changed since, collected when the snapshot is taken.
pub struct Snapshot {
    version: u64,
    record: VersionRecord,
    values: ReadOnlyTable<&'static [u8], &'static [u8]>,
    nodes: ReadOnlyTable<&'static [u8], &'static [u8]>,
    preimages: ReadOnlyTable<&'static [u8; 32], &'static [u8]>,
    /// Values of this version that differ from the newest one's.
    since: Changes,
}

/// A proof could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ProveError {
    /// ICS-23 has no proof of absence in a state without any key.
    #[error("the state has no keys yet, so there is nothing to prove: ask again after the genesis")]
    Empty,
    /// The store could not be read.
    #[error("the key could not be proved")]
    Read {
        /// Why.
        #[source]
        source: ReadError,
    },
    /// The tree contradicts itself.
    #[error("the state tree is damaged: restore it from a snapshot")]
    Tree {
        /// What the tree said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Snapshot {
    /// The newest version in `transaction`.
    pub(crate) fn latest(transaction: &ReadTransaction) -> Result<Self, ReadError> {
        let versions = transaction
            .open_table(tables::VERSIONS)
            .map_err(read_error)?;
        let (version, record) = match versions.last().map_err(read_error)? {
            Some((version, record)) => (version.value(), decode(record.value(), "version")?),
            None => (0, VersionRecord::EMPTY),
        };
        Self::new(transaction, version, record, Changes::new())
    }

    /// Version `version` in `transaction`, or `None` if it is not kept.
    pub(crate) fn at(
        transaction: &ReadTransaction,
        version: u64,
    ) -> Result<Option<Self>, ReadError> {
        let versions = transaction
            .open_table(tables::VERSIONS)
            .map_err(read_error)?;
        let Some(record) = versions.get(version).map_err(read_error)? else {
            return Ok(None);
        };
        let record = decode(record.value(), "version")?;
        let undo = transaction.open_table(tables::UNDO).map_err(read_error)?;
        let mut since = Changes::new();
        for entry in undo.range(version + 1..).map_err(read_error)? {
            let (_, entries) = entry.map_err(read_error)?;
            for UndoEntry { key, before, .. } in
                decode::<Vec<UndoEntry>>(entries.value(), "undo record")?
            {
                // The first change after this version tells what the version had.
                since.entry(key).or_insert(before);
            }
        }
        Self::new(transaction, version, record, since).map(Some)
    }

    fn new(
        transaction: &ReadTransaction,
        version: u64,
        record: VersionRecord,
        since: Changes,
    ) -> Result<Self, ReadError> {
        Ok(Self {
            version,
            record,
            values: transaction.open_table(tables::VALUES).map_err(read_error)?,
            nodes: transaction.open_table(tables::NODES).map_err(read_error)?,
            preimages: transaction
                .open_table(tables::PREIMAGES)
                .map_err(read_error)?,
            since,
        })
    }

    /// The version; 0 also before anything was committed.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Root hash of the version: what a header carries as app hash, and what proofs lead to.
    pub fn root(&self) -> [u8; 32] {
        self.record.root
    }

    /// A proof that `key` has the value it has, or that there is none, against [`Snapshot::root`]
    /// under [`proof_spec`].
    ///
    /// # Errors
    /// [`ProveError`] if the state is empty or cannot be read.
    pub fn prove(&self, key: &[u8]) -> Result<CommitmentProof, ProveError> {
        if self.record.root == VersionRecord::EMPTY.root {
            return Err(ProveError::Empty);
        }
        Sha256Jmt::new(self)
            .get_with_ics23_proof(key.to_vec(), self.record.tree_version)
            .map(|(_, proof)| proof)
            .map_err(|error| match error.downcast::<ReadError>() {
                Ok(source) => ProveError::Read { source },
                Err(error) => ProveError::Tree {
                    source: error.into(),
                },
            })
    }

    pub(crate) fn record(&self) -> VersionRecord {
        self.record
    }
}

/// How proofs of this state are verified, for any ICS-23 library: a sparse Merkle tree over SHA-256,
/// keys and values hashed before.
pub fn proof_spec() -> ics23::ProofSpec {
    jmt::ics23_spec()
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

impl Read for Snapshot {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        if let Some(value) = self.since.get(key) {
            return Ok(value.clone());
        }
        Newest(&self.values).get(key)
    }

    fn scan(
        &self,
        prefix: &[u8],
        start_after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Entries, ReadError> {
        scan_overlaid(
            &self.since,
            &Newest(&self.values),
            prefix,
            start_after,
            limit,
        )
    }
}

/// The table of current values.
struct Newest<'a>(&'a ReadOnlyTable<&'static [u8], &'static [u8]>);

impl Read for Newest<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        let value = self.0.get(key).map_err(read_error)?;
        Ok(value.map(|value| value.value().to_vec()))
    }

    fn scan(
        &self,
        prefix: &[u8],
        start_after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Entries, ReadError> {
        let range = (
            crate::read::lower_bound(prefix, start_after),
            std::ops::Bound::Unbounded,
        );
        let mut entries = Entries::new();
        for entry in self.0.range::<&[u8]>(range).map_err(read_error)? {
            if entries.len() == limit {
                break;
            }
            let (key, value) = entry.map_err(read_error)?;
            if !key.value().starts_with(prefix) {
                break;
            }
            entries.push((key.value().to_vec(), value.value().to_vec()));
        }
        Ok(entries)
    }
}

impl TreeReader for Snapshot {
    fn get_node_option(&self, node_key: &NodeKey) -> anyhow::Result<Option<Node>> {
        let key = tables::node_key_bytes(node_key);
        let node = self.nodes.get(key.as_slice()).map_err(read_error)?;
        node.map(|node| decode(node.value(), "tree node"))
            .transpose()
            .map_err(Into::into)
    }

    fn get_value_option(
        &self,
        _max_version: Version,
        key_hash: KeyHash,
    ) -> anyhow::Result<Option<OwnedValue>> {
        match self.preimage(key_hash)? {
            Some(key) => Ok(self.get(&key)?),
            None => Ok(None),
        }
    }

    fn get_rightmost_leaf(&self) -> anyhow::Result<Option<(NodeKey, LeafNode)>> {
        anyhow::bail!("the tree is not being restored")
    }
}

impl HasPreimage for Snapshot {
    fn preimage(&self, key_hash: KeyHash) -> anyhow::Result<Option<Vec<u8>>> {
        let preimage = self.preimages.get(&key_hash.0).map_err(read_error)?;
        preimage
            .map(|preimage| decode::<Preimage>(preimage.value(), "preimage").map(|p| p.key))
            .transpose()
            .map_err(Into::into)
    }
}

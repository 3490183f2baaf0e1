//! What one commit writes, and what it prunes.

use jmt::storage::TreeUpdateBatch;
use jmt::{KeyHash, Sha256Jmt};
use redb::{ReadableTable, WriteTransaction};

use crate::delta::Changes;
use crate::read::Read;
use crate::snapshot::Snapshot;
use crate::storage::CommitError;
use crate::tables::{self, Preimage, UndoEntry, VersionRecord, decode, encode, node_key_bytes};

/// How many versions one commit prunes at most, so that a smaller `keep_versions` takes effect
/// gradually and no single block waits for it.
const MAX_PRUNED_PER_COMMIT: usize = 8;

/// Everything that one version writes.
#[derive(Debug)]
pub(crate) struct Update {
    pub(crate) version: u64,
    pub(crate) record: VersionRecord,
    changes: Changes,
    undo: Vec<UndoEntry>,
    tree: TreeUpdateBatch,
}

impl Update {
    pub(crate) fn new(
        latest: &Snapshot,
        version: u64,
        mut changes: Changes,
    ) -> Result<Self, CommitError> {
        let mut undo = Vec::with_capacity(changes.len());
        let mut failed = None;
        changes.retain(|key, value| match latest.get(key) {
            Ok(before) if before == *value => false,
            Ok(before) => {
                undo.push(UndoEntry {
                    key: key.clone(),
                    before,
                    removed: value.is_none(),
                });
                true
            }
            Err(error) => {
                failed = Some(error);
                false
            }
        });
        if let Some(source) = failed {
            return Err(CommitError::Read { version, source });
        }
        let mut record = latest.record();
        let mut tree = TreeUpdateBatch::default();
        if !changes.is_empty() {
            record.tree_version += 1;
            let leaves = changes
                .iter()
                .map(|(key, value)| (KeyHash::with::<sha2::Sha256>(key), value.clone()));
            let (root, batch) = Sha256Jmt::new(latest)
                .put_value_set(leaves, record.tree_version)
                .map_err(|error| CommitError::Tree {
                    version,
                    source: error.into(),
                })?;
            record.root = root.0;
            tree = batch;
        }
        Ok(Self {
            version,
            record,
            changes,
            undo,
            tree,
        })
    }

    pub(crate) fn write(&self, transaction: &WriteTransaction) -> Result<(), redb::Error> {
        let mut values = transaction.open_table(tables::VALUES)?;
        let mut preimages = transaction.open_table(tables::PREIMAGES)?;
        for (undo, (key, value)) in self.undo.iter().zip(&self.changes) {
            match value {
                Some(value) => values.insert(key.as_slice(), value.as_slice())?,
                None => values.remove(key.as_slice())?,
            };
            if undo.before.is_none() || undo.removed {
                let preimage = Preimage {
                    key: key.clone(),
                    removed_at: undo.removed.then_some(self.version),
                };
                let hash = KeyHash::with::<sha2::Sha256>(key).0;
                preimages.insert(&hash, encode(&preimage).as_slice())?;
            }
        }
        let mut nodes = transaction.open_table(tables::NODES)?;
        for (key, node) in self.tree.node_batch.nodes() {
            nodes.insert(node_key_bytes(key).as_slice(), encode(node).as_slice())?;
        }
        if !self.changes.is_empty() {
            let stale: Vec<Vec<u8>> = self
                .tree
                .stale_node_index_batch
                .iter()
                .map(|index| node_key_bytes(&index.node_key))
                .collect();
            transaction
                .open_table(tables::STALE)?
                .insert(self.record.tree_version, encode(&stale).as_slice())?;
        }
        transaction
            .open_table(tables::UNDO)?
            .insert(self.version, encode(&self.undo).as_slice())?;
        transaction
            .open_table(tables::VERSIONS)?
            .insert(self.version, encode(&self.record).as_slice())?;
        Ok(())
    }
}

/// Removes versions before `oldest`, at most [`MAX_PRUNED_PER_COMMIT`] of them, with everything that
/// no version from `oldest` on needs.
pub(crate) fn prune(transaction: &WriteTransaction, oldest: u64) -> Result<(), redb::Error> {
    let mut versions = transaction.open_table(tables::VERSIONS)?;
    for _ in 0..MAX_PRUNED_PER_COMMIT {
        let first = match versions.first()? {
            Some((version, _)) if version.value() < oldest => version.value(),
            _ => break,
        };
        versions.remove(first)?;
        let next = versions.first()?;
        let Some((next, record)) = next.map(|(version, record)| {
            let record = parse::<VersionRecord>(record.value(), "version");
            (version.value(), record)
        }) else {
            break;
        };
        forget_undo(transaction, next)?;
        forget_stale_nodes(transaction, record?.tree_version)?;
    }
    Ok(())
}

/// Drops the way back from `version`, and the preimages of the keys that it removed for good.
fn forget_undo(transaction: &WriteTransaction, version: u64) -> Result<(), redb::Error> {
    let mut undo = transaction.open_table(tables::UNDO)?;
    let mut preimages = transaction.open_table(tables::PREIMAGES)?;
    // The first version has a record as well, which leads back to the empty state.
    while let Some((first, entries)) = pop_up_to(&mut undo, version)? {
        for entry in parse::<Vec<UndoEntry>>(&entries, "undo record")? {
            if !entry.removed {
                continue;
            }
            let hash = KeyHash::with::<sha2::Sha256>(&entry.key).0;
            let removed_at = match preimages.get(&hash)? {
                Some(preimage) => parse::<Preimage>(preimage.value(), "preimage")?.removed_at,
                None => None,
            };
            if removed_at == Some(first) {
                preimages.remove(&hash)?;
            }
        }
    }
    Ok(())
}

/// Drops the nodes that the tree version `oldest` and later ones lack.
fn forget_stale_nodes(transaction: &WriteTransaction, oldest: u64) -> Result<(), redb::Error> {
    let mut stale = transaction.open_table(tables::STALE)?;
    let mut nodes = transaction.open_table(tables::NODES)?;
    while let Some((_, keys)) = pop_up_to(&mut stale, oldest)? {
        for key in parse::<Vec<Vec<u8>>>(&keys, "list of stale nodes")? {
            nodes.remove(key.as_slice())?;
        }
    }
    Ok(())
}

/// Takes the first record out of `table` if its number is at most `last`.
fn pop_up_to(
    table: &mut redb::Table<'_, u64, &'static [u8]>,
    last: u64,
) -> Result<Option<(u64, Vec<u8>)>, redb::Error> {
    let first = match table.first()? {
        Some((number, record)) if number.value() <= last => {
            (number.value(), record.value().to_vec())
        }
        _ => return Ok(None),
    };
    table.remove(first.0)?;
    Ok(Some(first))
}

/// A record read in the middle of writing.
fn parse<T: borsh::BorshDeserialize>(bytes: &[u8], what: &'static str) -> Result<T, redb::Error> {
    decode(bytes, what).map_err(|error| redb::Error::Corrupted(error.to_string()))
}

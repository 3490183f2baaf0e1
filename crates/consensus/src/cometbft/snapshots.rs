//! Snapshots of the state, for nodes that join without executing all blocks.
//!
//! A snapshot is all entries of a height's state in order, each as length and bytes of key and value
//! (lengths of four bytes, little-endian), cut into chunks. CometBFT carries the chunks, and a light
//! client of its says which root the state must have: nothing is kept whose root is another.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use r3mes_state::{Changes, Read};
use sha2::{Digest, Sha256};
use tendermint_proto::v0_38::abci::{
    RequestApplySnapshotChunk, RequestLoadSnapshotChunk, RequestOfferSnapshot,
    ResponseApplySnapshotChunk, ResponseListSnapshots, ResponseLoadSnapshotChunk,
    ResponseOfferSnapshot, Snapshot, response_apply_snapshot_chunk, response_offer_snapshot,
};

use crate::application::{Application, ApplicationError};

/// Form of a snapshot, as CometBFT counts it.
const FORMAT: u32 = 1;
/// Bytes of a chunk; CometBFT carries up to 16 MB.
const CHUNK_BYTES: usize = 4 << 20;
/// Most chunks of a snapshot that is taken over: 2 GiB.
const MAX_CHUNKS: u32 = 512;
/// Bytes of a hash of a chunk.
const HASH_BYTES: usize = 32;
/// Entries that are read from the state at a time.
const PAGE: usize = 1024;
/// Snapshots that are kept.
const KEPT: usize = 2;
/// The file that names the hashes of a snapshot's chunks.
const HASHES: &str = "hashes";

/// When snapshots are made, and where they are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotOptions {
    /// A folder of their own.
    pub folder: PathBuf,
    /// Every how many blocks one is made; at least 1.
    pub every: u64,
}

/// Makes snapshots, hands them out, and takes one over.
pub(super) struct Snapshots {
    options: Option<SnapshotOptions>,
    /// The one that is being made.
    making: Mutex<Option<JoinHandle<()>>>,
    /// The one that is being taken over.
    taking: Mutex<Option<Taking>>,
}

/// A snapshot of which chunks arrive.
struct Taking {
    height: u64,
    app_hash: [u8; 32],
    hashes: Vec<u8>,
    next: u32,
    bytes: Vec<u8>,
}

impl Snapshots {
    pub(super) fn new(options: Option<SnapshotOptions>) -> Self {
        Self {
            options,
            making: Mutex::new(None),
            taking: Mutex::new(None),
        }
    }

    /// Begins a snapshot of a height that was just committed, if its turn has come and no other is being
    /// made. The state is read on a thread beside.
    pub(super) fn committed(
        &self,
        app: &dyn Application,
        height: u64,
    ) -> Result<(), ApplicationError> {
        let due = self
            .options
            .as_ref()
            .filter(|options| height.is_multiple_of(options.every.max(1)));
        let Some(options) = due.cloned() else {
            return Ok(());
        };
        let mut making = lock(&self.making);
        if making.as_ref().is_some_and(|making| !making.is_finished()) {
            tracing::warn!(height, "no snapshot: the one before is still being made");
            return Ok(());
        }
        let Some(state) = app.state_at(height)? else {
            return Ok(());
        };
        *making = Some(std::thread::spawn(move || {
            // Without it, joining takes longer; nothing else depends on it.
            if let Err(error) = make(&options.folder, height, state.as_ref()) {
                tracing::warn!(height, %error, "a snapshot could not be made");
            }
        }));
        Ok(())
    }

    pub(super) fn list(&self) -> ResponseListSnapshots {
        let folder = self
            .options
            .as_ref()
            .map(|options| options.folder.as_path());
        let snapshots = folder.into_iter().flat_map(heights).filter_map(|height| {
            let hashes = fs::read(self.path(height, HASHES)?).ok()?;
            Some(Snapshot {
                height,
                format: FORMAT,
                chunks: u32::try_from(hashes.len() / HASH_BYTES).ok()?,
                hash: sha256(&hashes).to_vec().into(),
                metadata: hashes.into(),
            })
        });
        ResponseListSnapshots {
            snapshots: snapshots.collect(),
        }
    }

    pub(super) fn load(&self, request: &RequestLoadSnapshotChunk) -> ResponseLoadSnapshotChunk {
        let path = self.path(request.height, &request.chunk.to_string());
        let path = path.filter(|_| request.format == FORMAT);
        // One that is gone by now is an empty answer, and CometBFT asks elsewhere.
        let chunk = path
            .and_then(|path| fs::read(path).ok())
            .unwrap_or_default();
        ResponseLoadSnapshotChunk {
            chunk: chunk.into(),
        }
    }

    /// Whether a snapshot is welcome. CometBFT offers one only while it has neither blocks nor a state of
    /// its own. A state that is here all the same came with a snapshot too, and the process was killed
    /// before CometBFT had written that down; or CometBFT's data were removed. Either way what CometBFT
    /// verifies now counts, unless it is older.
    pub(super) fn offer(
        &self,
        app: &dyn Application,
        request: &RequestOfferSnapshot,
    ) -> Result<ResponseOfferSnapshot, ApplicationError> {
        use response_offer_snapshot::Result as Verdict;
        let ours = app.committed()?.map(|committed| committed.height);
        let offered = request.snapshot.as_ref();
        let verdict = match offered.map(|snapshot| taking(snapshot, &request.app_hash)) {
            Some(Ok(begun)) if ours.is_some_and(|ours| ours > begun.height) => {
                tracing::warn!(
                    offered = begun.height,
                    ours,
                    "a snapshot is refused, because the state here is newer: a later one is waited for"
                );
                Verdict::Reject
            }
            Some(Ok(begun)) => {
                if let Some(ours) = ours {
                    tracing::info!(
                        offered = begun.height,
                        ours,
                        "CometBFT has no blocks beside the state here, and takes a snapshot again"
                    );
                }
                *lock(&self.taking) = Some(begun);
                Verdict::Accept
            }
            Some(Err(verdict)) => verdict,
            None => Verdict::Reject,
        };
        Ok(ResponseOfferSnapshot {
            result: verdict.into(),
        })
    }

    /// Takes a chunk; with the last one, the state, whose height is given then.
    pub(super) fn apply(
        &self,
        app: &dyn Application,
        request: &RequestApplySnapshotChunk,
    ) -> Result<(ResponseApplySnapshotChunk, Option<u64>), ApplicationError> {
        use response_apply_snapshot_chunk::Result as Verdict;
        let answer = |verdict: Verdict| ResponseApplySnapshotChunk {
            result: verdict.into(),
            ..ResponseApplySnapshotChunk::default()
        };
        let mut slot = lock(&self.taking);
        let Some(taking) = slot.as_mut().filter(|taking| taking.next == request.index) else {
            return Ok((answer(Verdict::RejectSnapshot), None));
        };
        if request.chunk.len() > CHUNK_BYTES {
            // The snapshot's own hash names this chunk, so nobody has a shorter one.
            *slot = None;
            return Ok((answer(Verdict::RejectSnapshot), None));
        }
        let at = request.index as usize * HASH_BYTES;
        if sha256(&request.chunk) != taking.hashes[at..at + HASH_BYTES] {
            let again = ResponseApplySnapshotChunk {
                refetch_chunks: vec![request.index],
                reject_senders: vec![request.sender.clone()],
                ..answer(Verdict::Retry)
            };
            return Ok((again, None));
        }
        taking.bytes.extend_from_slice(&request.chunk);
        taking.next += 1;
        if (taking.next as usize) * HASH_BYTES < taking.hashes.len() {
            return Ok((answer(Verdict::Accept), None));
        }
        let Some(taken) = slot.take() else {
            return Ok((answer(Verdict::RejectSnapshot), None));
        };
        let restored = match parse(&taken.bytes) {
            Some(state) => app.restore(taken.height, state, taken.app_hash)?,
            None => false,
        };
        Ok(match restored {
            true => (answer(Verdict::Accept), Some(taken.height)),
            false => (answer(Verdict::RejectSnapshot), None),
        })
    }

    fn path(&self, height: u64, file: &str) -> Option<PathBuf> {
        let folder = &self.options.as_ref()?.folder;
        Some(folder.join(height.to_string()).join(file))
    }
}

impl Drop for Snapshots {
    fn drop(&mut self) {
        if let Some(making) = lock(&self.making).take() {
            // Its only failure is a panic, which has told of itself.
            let _ = making.join();
        }
    }
}

fn sha256(bytes: &[u8]) -> [u8; HASH_BYTES] {
    Sha256::digest(bytes).into()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Begins to take a snapshot over, if it can be one.
fn taking(snapshot: &Snapshot, app_hash: &[u8]) -> Result<Taking, response_offer_snapshot::Result> {
    use response_offer_snapshot::Result as Verdict;
    if snapshot.format != FORMAT {
        return Err(Verdict::RejectFormat);
    }
    let hashes = snapshot.metadata.to_vec();
    let fits = (1..=MAX_CHUNKS).contains(&snapshot.chunks)
        && hashes.len() == snapshot.chunks as usize * HASH_BYTES
        && sha256(&hashes) == snapshot.hash[..];
    let app_hash = app_hash.try_into().map_err(|_| Verdict::Reject)?;
    match fits {
        true => Ok(Taking {
            height: snapshot.height,
            app_hash,
            hashes,
            next: 0,
            bytes: Vec::new(),
        }),
        false => Err(Verdict::Reject),
    }
}

/// Writes a snapshot, whole or not at all, and removes the oldest.
fn make(folder: &Path, height: u64, state: &dyn Read) -> io::Result<()> {
    let draft = folder.join("new");
    match fs::remove_dir_all(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => fs::create_dir_all(&draft)?,
    }
    let mut chunks = Chunks {
        folder: draft.clone(),
        hashes: Vec::new(),
        open: Vec::new(),
    };
    let mut after: Option<Vec<u8>> = None;
    loop {
        let page = state.scan(&[], after.as_deref(), PAGE);
        let page = page.map_err(io::Error::other)?;
        let Some((last, _)) = page.last() else {
            break;
        };
        after = Some(last.clone());
        for (key, value) in &page {
            for part in [key, value] {
                let length = u32::try_from(part.len()).map_err(io::Error::other)?;
                chunks.add(&length.to_le_bytes())?;
                chunks.add(part)?;
            }
        }
    }
    let hashes = chunks.finish()?;
    write(&draft.join(HASHES), &hashes)?;
    // On the disk before the name says that it is whole, and the name before an older one goes.
    fs::File::open(&draft)?.sync_all()?;
    fs::rename(&draft, folder.join(height.to_string()))?;
    fs::File::open(folder)?.sync_all()?;
    let mut kept = heights(folder);
    kept.sort_unstable();
    for old in kept.iter().rev().skip(KEPT) {
        fs::remove_dir_all(folder.join(old.to_string()))?;
    }
    Ok(())
}

/// Writes a file that outlives a power failure.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = fs::File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Cuts a stream into files.
struct Chunks {
    folder: PathBuf,
    hashes: Vec<u8>,
    open: Vec<u8>,
}

impl Chunks {
    fn add(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let room = CHUNK_BYTES - self.open.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.open.extend_from_slice(now);
            bytes = later;
            if self.open.len() == CHUNK_BYTES {
                self.close()?;
            }
        }
        Ok(())
    }

    fn close(&mut self) -> io::Result<()> {
        let number = self.hashes.len() / HASH_BYTES;
        self.hashes.extend_from_slice(&sha256(&self.open));
        write(&self.folder.join(number.to_string()), &self.open)?;
        self.open.clear();
        Ok(())
    }

    fn finish(mut self) -> io::Result<Vec<u8>> {
        if !self.open.is_empty() {
            self.close()?;
        }
        Ok(self.hashes)
    }
}

/// Heights of the snapshots in a folder.
fn heights(folder: &Path) -> Vec<u64> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// The entries in a snapshot's bytes; `None` if they are not what [`make`] writes.
fn parse(mut bytes: &[u8]) -> Option<Changes> {
    let mut state = Changes::new();
    while !bytes.is_empty() {
        let key = part(&mut bytes)?;
        let value = part(&mut bytes)?;
        let ascending = state.last_key_value().is_none_or(|(last, _)| *last < key);
        if !ascending {
            return None;
        }
        state.insert(key, Some(value));
    }
    Some(state)
}

fn part(bytes: &mut &[u8]) -> Option<Vec<u8>> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let (part, rest) = rest.split_at_checked(length)?;
    *bytes = rest;
    Some(part.to_vec())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn state() -> BTreeMap<Vec<u8>, Vec<u8>> {
        let long = |number: u8| (vec![number; 40], vec![number; 3 << 20]);
        (1..=3).map(long).chain([(vec![9], vec![0])]).collect()
    }

    #[test]
    fn a_snapshot_s_chunks_give_the_state_again_and_old_ones_go() {
        let folder = tempfile::tempdir().unwrap();
        let options = SnapshotOptions {
            folder: folder.path().join("snapshots"),
            every: 10,
        };
        for height in [10, 20, 30] {
            make(&options.folder, height, &state()).unwrap();
        }
        let snapshots = Snapshots::new(Some(options));
        let mut listed = snapshots.list().snapshots;
        listed.sort_by_key(|snapshot| snapshot.height);
        let heights: Vec<u64> = listed.iter().map(|snapshot| snapshot.height).collect();
        assert_eq!(heights, [20, 30]);
        let begun = taking(&listed[1], &[7; 32]).ok().unwrap();
        let mut bytes = Vec::new();
        for chunk in 0..listed[1].chunks {
            let request = RequestLoadSnapshotChunk {
                height: 30,
                format: FORMAT,
                chunk,
            };
            let loaded = snapshots.load(&request).chunk;
            let at = chunk as usize * HASH_BYTES;
            assert_eq!(sha256(&loaded), begun.hashes[at..at + HASH_BYTES]);
            bytes.extend_from_slice(&loaded);
        }
        let expected: Changes = state().into_iter().map(|(k, v)| (k, Some(v))).collect();
        assert_eq!(parse(&bytes), Some(expected));
    }

    #[test]
    fn what_is_no_snapshot_is_refused() {
        use response_offer_snapshot::Result as Verdict;
        let hashes = vec![1; 64];
        let snapshot = Snapshot {
            height: 5,
            format: FORMAT,
            chunks: 2,
            hash: sha256(&hashes).to_vec().into(),
            metadata: hashes.into(),
        };
        assert!(taking(&snapshot, &[7; 32]).is_ok());
        type Break = fn(&mut Snapshot);
        let broken: [(Break, Verdict); 4] = [
            (|snapshot| snapshot.format = 2, Verdict::RejectFormat),
            (|snapshot| snapshot.chunks = 3, Verdict::Reject),
            (|snapshot| snapshot.chunks = 0, Verdict::Reject),
            (
                |snapshot| snapshot.hash = vec![0; 32].into(),
                Verdict::Reject,
            ),
        ];
        for (break_it, verdict) in broken {
            let mut snapshot = snapshot.clone();
            break_it(&mut snapshot);
            assert_eq!(taking(&snapshot, &[7; 32]).err(), Some(verdict));
        }
        for bytes in [&[1, 0, 0][..], &[9, 0, 0, 0, 1], &[1, 0, 0, 0, 1]] {
            assert_eq!(parse(bytes), None);
        }
    }
}

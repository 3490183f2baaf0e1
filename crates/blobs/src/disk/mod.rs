mod files;
mod folder;

use std::{
    collections::{BTreeSet, HashSet},
    fs::{self, File},
    io::{ErrorKind, Read},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use r3mes_types::Cid;

use self::files::{Temporaries, io_error, list, remove, sync_folder, write_error, write_file};
use crate::{
    AnyCid, BlobStore, Block, BlockError, Collected, MAX_BLOCK_BYTES, Pin, PinName, StoreError,
    Usage,
    buffers::{self, Buffers},
    parallel,
    walk::{self, Reached},
};

/// How long an unpinned block is safe, unless an option says otherwise: ten minutes.
pub(crate) const DEFAULT_GRACE: Duration = Duration::from_secs(600);

/// From this length on, in bytes, blocks are read into memory that is used again.
const LONG_BLOCK: u64 = 64 << 10;

/// Buffers of long blocks that are kept for those that are read next.
const KEPT_BUFFERS: usize = 8;

/// Tells apart the temporary files of one process.
static NEXT_TEMPORARY: AtomicU64 = AtomicU64::new(0);

/// How a [`DiskStore`] behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskOptions {
    /// Most bytes of blocks kept. Unpinned blocks make room, oldest first; when none is left,
    /// new ones are refused.
    pub max_bytes: u64,
    /// How long an unpinned block is kept at least: the time from storing to pinning.
    pub grace: Duration,
    /// Whether blocks and pins are flushed to the disk before they count as stored. Without it a
    /// power failure, but not the end of a process, may take the newest ones; bytes that do not
    /// match their name are never given out either way.
    pub durable: bool,
}

impl Default for DiskOptions {
    /// No size limit, ten minutes of grace, durable.
    fn default() -> Self {
        Self {
            max_bytes: u64::MAX,
            grace: DEFAULT_GRACE,
            durable: true,
        }
    }
}

/// Blocks in a folder, one file each.
///
/// ```text
/// version              "1\n"
/// lock                 shared by writers, exclusive to the garbage collector
/// blocks/XY/CID        a block, by a CID of version 1; XY are the last two characters before the last one
/// pins/CID~NAME        a pin, empty
/// quarantine/CID~N     bytes that no longer matched their name
/// tmp/                 files being written
/// ```
///
/// A block is written to `tmp`, flushed to the disk and renamed, so a file under `blocks` is
/// always whole; without [durable](DiskOptions::durable), as far as the operating system lives on. Several processes may use one folder at once.
#[derive(Debug)]
pub struct DiskStore {
    folder: PathBuf,
    options: DiskOptions,
    /// Bytes stored as far as this process knows; counted anew when the limit seems reached.
    used: AtomicU64,
    buffers: Buffers,
}

impl DiskStore {
    /// Opens the store in `folder`, which is created when missing.
    ///
    /// # Errors
    /// [`StoreError::Foreign`] when the folder holds something else; I/O errors.
    pub fn open(folder: impl Into<PathBuf>, options: DiskOptions) -> Result<Self, StoreError> {
        let store = Self {
            folder: folder.into(),
            options,
            used: AtomicU64::new(0),
            buffers: Buffers::new(KEPT_BUFFERS),
        };
        store.check_version()?;
        for part in ["blocks", "pins", "quarantine", "tmp"] {
            let path = store.folder.join(part);
            fs::create_dir_all(&path).map_err(io_error("create", &path))?;
        }
        store.remove_leftovers()?;
        let used = store.usage()?.bytes;
        store.used.store(used, Ordering::Relaxed);
        Ok(store)
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn block_path(&self, cid: &AnyCid) -> PathBuf {
        let name = cid.key().to_string();
        let shard = &name[name.len() - 3..name.len() - 1];
        self.folder.join("blocks").join(shard).join(name)
    }

    fn pin_path(&self, root: &Cid, name: &PinName) -> PathBuf {
        self.folder.join("pins").join(format!("{root}~{name}"))
    }

    fn temporary_path(&self) -> PathBuf {
        let number = NEXT_TEMPORARY.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{number}", process::id());
        self.folder.join("tmp").join(name)
    }

    /// Makes room for `needed` bytes, or says that there is none.
    fn make_room(&self, needed: u64) -> Result<(), StoreError> {
        let limit = self.options.max_bytes;
        let fits = |used: u64| used.checked_add(needed).is_some_and(|sum| sum <= limit);
        if fits(self.used.load(Ordering::Relaxed)) {
            return Ok(());
        }
        let kept = self.collect_garbage(limit.saturating_sub(needed))?.kept;
        if fits(kept.bytes) {
            return Ok(());
        }
        Err(StoreError::Full {
            used: kept.bytes,
            needed,
            limit,
        })
    }

    /// Whether a whole block of that name is here already; if so its age starts again.
    fn refresh(&self, block: &Block) -> Result<bool, StoreError> {
        let path = self.block_path(block.cid());
        match File::options().write(true).open(&path) {
            Ok(file) => {
                let length = file.metadata().map_err(io_error("read", &path))?.len();
                if length != block.bytes().len() as u64 {
                    return Ok(false);
                }
                let touched = file.set_modified(SystemTime::now());
                touched.map_err(io_error("touch", &path))?;
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(io_error("open", &path)(error)),
        }
    }

    /// Writes blocks: all files, then their flushes, then the names. What is flushed at once shares the
    /// file system's journal commits, which is most of the cost.
    fn write_blocks(&self, blocks: &[&Block]) -> Result<(), StoreError> {
        let mut written = Temporaries::default();
        let mut files = Vec::with_capacity(blocks.len());
        for block in blocks {
            let path = self.temporary_path();
            written.0.push(path.clone());
            files.push((write_file(&path, block.bytes())?, path));
        }
        if self.options.durable {
            parallel::try_each(&files, |(file, path)| {
                file.sync_data().map_err(write_error(path))
            })?;
        }
        drop(files);
        let mut shards = BTreeSet::new();
        for (block, temporary) in blocks.iter().zip(&written.0) {
            let path = self.block_path(block.cid());
            let shard = path.parent().unwrap_or(&self.folder).to_owned();
            match fs::create_dir(&shard) {
                Ok(()) => self.sync_folder(&self.folder.join("blocks"))?,
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(write_error(&shard)(error)),
            }
            fs::rename(temporary, &path).map_err(write_error(&path))?;
            shards.insert(shard);
            let length = block.bytes().len() as u64;
            self.used.fetch_add(length, Ordering::Relaxed);
        }
        let shards: Vec<PathBuf> = shards.into_iter().collect();
        parallel::try_each(&shards, |shard| self.sync_folder(shard))
    }

    /// Flushes names to the disk, where that was asked for.
    fn sync_folder(&self, path: &Path) -> Result<(), StoreError> {
        if self.options.durable {
            sync_folder(path)?;
        }
        Ok(())
    }

    /// Moves damaged bytes out of the way, unless another process has replaced them meanwhile.
    fn quarantine(&self, cid: &AnyCid, path: &Path) -> Result<PathBuf, StoreError> {
        let number = NEXT_TEMPORARY.fetch_add(1, Ordering::Relaxed);
        let name = format!("{cid}~{}-{number}", process::id());
        let aside = self.folder.join("quarantine").join(name);
        match fs::rename(path, &aside) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(aside),
            Err(error) => return Err(io_error("move", path)(error)),
        }
        if self
            .read_block(&aside)?
            .is_some_and(|bytes| cid.matches(&bytes))
        {
            fs::rename(&aside, path).map_err(io_error("move", &aside))?;
        }
        Ok(aside)
    }

    /// One block, or two that are checked together.
    fn several(&self, cids: &[AnyCid]) -> Vec<Result<Option<Block>, StoreError>> {
        let [left, right] = cids else {
            return cids.iter().map(|cid| self.any_block(cid)).collect();
        };
        match (self.find(left), self.find(right)) {
            (Ok(Some(first)), Ok(Some(second))) => {
                let [first, second] = Block::verify_pair([left, right], [first, second]);
                let both = [(left, first), (right, second)];
                let both = both.map(|(cid, block)| self.checked(cid, block).map(Some));
                both.into()
            }
            (first, second) => vec![self.verified(left, first), self.verified(right, second)],
        }
    }

    fn verified(
        &self,
        cid: &AnyCid,
        found: Result<Option<Bytes>, StoreError>,
    ) -> Result<Option<Block>, StoreError> {
        let block = found?.map(|bytes| Block::verify(cid, bytes));
        block.map(|block| self.checked(cid, block)).transpose()
    }

    /// The bytes kept for a block, if there are any.
    fn find(&self, cid: &AnyCid) -> Result<Option<Bytes>, StoreError> {
        match self.read_block(&self.block_path(cid)) {
            Ok(Some(bytes)) => Ok(Some(bytes)),
            Ok(None) => Err(self.damaged(cid)),
            Err(StoreError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A block that was checked; damaged bytes are set aside.
    fn checked(&self, cid: &AnyCid, block: Result<Block, BlockError>) -> Result<Block, StoreError> {
        block.map_err(|_| self.damaged(cid))
    }

    /// Sets damaged bytes aside and says so.
    fn damaged(&self, cid: &AnyCid) -> StoreError {
        match self.quarantine(cid, &self.block_path(cid)) {
            Ok(quarantined) => StoreError::Corrupt {
                cid: cid.clone(),
                quarantined,
            },
            Err(error) => error,
        }
    }

    /// The content of a block's file, or `None` when it is too long to be one.
    fn read_block(&self, path: &Path) -> Result<Option<Bytes>, StoreError> {
        let mut file = File::open(path).map_err(io_error("read", path))?;
        let length = file.metadata().map_err(io_error("read", path))?.len();
        if length > MAX_BLOCK_BYTES as u64 {
            return Ok(None);
        }
        let bytes = if length < LONG_BLOCK {
            let mut bytes = Vec::with_capacity(length as usize);
            file.take(LONG_BLOCK)
                .read_to_end(&mut bytes)
                .map(|_| bytes.into())
        } else {
            let mut buffer = self.buffers.take(length as usize);
            buffers::fill(&mut file, buffer.as_mut()).map(|read| buffer.into_bytes(read))
        };
        bytes.map(Some).map_err(io_error("read", path))
    }

    /// Files under `blocks` with their name, length and age.
    fn stored(&self) -> Result<Vec<Stored>, StoreError> {
        let mut stored = Vec::new();
        for shard in list(&self.folder.join("blocks"))? {
            for entry in list(&shard?.path())? {
                let entry = entry?;
                let path = entry.path();
                // Whatever else lies here is not ours to count or to remove.
                let Some(cid) = entry
                    .file_name()
                    .to_str()
                    .and_then(|name| name.parse().ok())
                else {
                    continue;
                };
                match entry.metadata() {
                    Ok(metadata) => stored.push(Stored {
                        cid,
                        bytes: metadata.len(),
                        since: metadata.modified().map_err(io_error("read", &path))?,
                        path,
                    }),
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => return Err(io_error("read", &path)(error)),
                }
            }
        }
        Ok(stored)
    }

    fn reached_by_pins(&self) -> Result<HashSet<AnyCid>, StoreError> {
        let mut reached = Reached::default();
        for pin in self.pins()? {
            let root = pin.root;
            walk::reach(self, &root.into(), &mut reached).map_err(|source| {
                StoreError::Unreadable {
                    root,
                    source: Box::new(source),
                }
            })?;
        }
        Ok(reached.all)
    }
}

impl BlobStore for DiskStore {
    fn any_block(&self, cid: &AnyCid) -> Result<Option<Block>, StoreError> {
        self.verified(cid, self.find(cid))
    }

    fn blocks(&self, cids: &[AnyCid]) -> Vec<Result<Option<Block>, StoreError>> {
        let pairs: Vec<&[AnyCid]> = cids.chunks(2).collect();
        let read = parallel::map(&pairs, |pair| self.several(pair));
        read.into_iter().flatten().collect()
    }

    fn contains_any(&self, cid: &AnyCid) -> Result<bool, StoreError> {
        let path = self.block_path(cid);
        fs::exists(&path).map_err(io_error("look for", &path))
    }

    fn insert(&self, blocks: &[Block]) -> Result<(), StoreError> {
        let mut new = Vec::new();
        let mut names = HashSet::new();
        let shared = self.lock_shared()?;
        for block in blocks {
            if names.insert(block.cid().key()) && !self.refresh(block)? {
                new.push(block);
            }
        }
        let needed = new.iter().map(|block| block.bytes().len() as u64).sum();
        if needed == 0 && new.is_empty() {
            return Ok(());
        }
        // The collector needs the lock for itself.
        drop(shared);
        self.make_room(needed)?;
        let _shared = self.lock_shared()?;
        self.write_blocks(&new)
    }

    fn pin(&self, root: &Cid, name: &PinName) -> Result<(), StoreError> {
        let _shared = self.lock_shared()?;
        let path = self.pin_path(root, name);
        let file = File::options().create(true).append(true).open(&path);
        let file = file.map_err(write_error(&path))?;
        if self.options.durable {
            file.sync_all().map_err(write_error(&path))?;
        }
        self.sync_folder(&self.folder.join("pins"))
    }

    fn unpin(&self, root: &Cid, name: &PinName) -> Result<bool, StoreError> {
        remove(&self.pin_path(root, name))
    }

    fn pins(&self) -> Result<Vec<Pin>, StoreError> {
        let mut pins = Vec::new();
        for entry in list(&self.folder.join("pins"))? {
            let file_name = entry?.file_name();
            let pin = file_name.to_str().and_then(|name| {
                let (root, name) = name.split_once('~')?;
                let (root, name) = (root.parse().ok()?, name.parse().ok()?);
                Some(Pin { root, name })
            });
            pins.extend(pin);
        }
        pins.sort();
        Ok(pins)
    }

    fn usage(&self) -> Result<Usage, StoreError> {
        Ok(total(&self.stored()?))
    }

    fn collect_garbage(&self, keep_bytes: u64) -> Result<Collected, StoreError> {
        let _exclusive = self.lock_exclusive()?;
        self.clear_temporaries()?;
        let reached = self.reached_by_pins()?;
        let mut stored = self.stored()?;
        stored.sort_by_key(|file| (file.since, file.cid.clone()));
        let mut kept = total(&stored);
        let mut removed = Usage::default();
        let now = SystemTime::now();
        for file in &stored {
            if kept.bytes <= keep_bytes && !(keep_bytes == 0 && file.bytes == 0) {
                break;
            }
            // A time in the future (the clock was set back) counts as recent.
            let age = now.duration_since(file.since).unwrap_or_default();
            if age < self.options.grace || reached.contains(&file.cid) {
                continue;
            }
            remove(&file.path)?;
            kept.blocks -= 1;
            kept.bytes -= file.bytes;
            removed.blocks += 1;
            removed.bytes += file.bytes;
        }
        self.used.store(kept.bytes, Ordering::Relaxed);
        Ok(Collected { removed, kept })
    }
}

/// A file under `blocks`.
struct Stored {
    cid: AnyCid,
    path: PathBuf,
    bytes: u64,
    since: SystemTime,
}

fn total(stored: &[Stored]) -> Usage {
    Usage {
        blocks: stored.len() as u64,
        bytes: stored.iter().map(|file| file.bytes).sum(),
    }
}

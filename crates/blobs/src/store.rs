use std::{
    io::{self, Read},
    path::PathBuf,
};

use r3mes_types::Cid;

use crate::{
    AnyCid, Block, Pin, PinName,
    file::{self, AddError, FileReader, GetError},
    follow::FollowError,
    parallel, walk,
};

/// A place where blocks are kept by CID.
///
/// What is stored is safe from [`collect_garbage`](Self::collect_garbage) for a grace period
/// (ten minutes by default), and for ever while a pin reaches it. So storing a file and then
/// pinning it leaves no gap. Pinning before a download starts is fine too: a pin needs no blocks.
///
/// Calls may come from any number of threads and, for [`DiskStore`](crate::DiskStore), processes.
pub trait BlobStore: Send + Sync {
    /// The block named `cid`, checked against its name, or `None` when it is not here. A store
    /// keeps one block for all CIDs of one [key](AnyCid::key), and need not be asked for those whose
    /// content stands [in the CID](AnyCid::inline): [`find`](crate::find) knows both.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when the bytes kept are no longer the block (they are set aside,
    /// so that the next call says `None` and the block can be fetched again); I/O errors.
    fn any_block(&self, cid: &AnyCid) -> Result<Option<Block>, StoreError>;

    /// Several blocks, each as [`any_block`](Self::any_block) gives it, by all processors.
    fn blocks(&self, cids: &[AnyCid]) -> Vec<Result<Option<Block>, StoreError>> {
        parallel::map(cids, |cid| self.any_block(cid))
    }

    /// Whether a block of that name is here, without reading it.
    ///
    /// # Errors
    /// I/O errors.
    fn contains_any(&self, cid: &AnyCid) -> Result<bool, StoreError>;

    /// As [`any_block`](Self::any_block), of the network's own kinds.
    ///
    /// # Errors
    /// As there.
    fn block(&self, cid: &Cid) -> Result<Option<Block>, StoreError> {
        self.any_block(&cid.into())
    }

    /// As [`contains_any`](Self::contains_any), of the network's own kinds.
    ///
    /// # Errors
    /// I/O errors.
    fn contains(&self, cid: &Cid) -> Result<bool, StoreError> {
        self.contains_any(&cid.into())
    }

    /// Keeps all of `blocks`. When this returns, they survive a crash of the machine. Blocks that
    /// are here already cost almost nothing.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::DiskFull`] or I/O errors. What was stored before
    /// is untouched; some of `blocks` may have been stored.
    fn insert(&self, blocks: &[Block]) -> Result<(), StoreError>;

    /// Keeps `root` and everything below it until [`unpin`](Self::unpin). Pinning twice under one
    /// name is pinning once.
    ///
    /// # Errors
    /// I/O errors.
    fn pin(&self, root: &Cid, name: &PinName) -> Result<(), StoreError>;

    /// Removes a pin and says whether it was there.
    ///
    /// # Errors
    /// I/O errors.
    fn unpin(&self, root: &Cid, name: &PinName) -> Result<bool, StoreError>;

    /// All pins, in order.
    ///
    /// # Errors
    /// I/O errors.
    fn pins(&self) -> Result<Vec<Pin>, StoreError>;

    /// How much is stored.
    ///
    /// # Errors
    /// I/O errors.
    fn usage(&self) -> Result<Usage, StoreError>;

    /// Removes blocks that no pin reaches, oldest first, until at most `keep_bytes` are stored or
    /// only pinned and recent blocks are left. Zero removes all that may be removed.
    ///
    /// # Errors
    /// I/O errors. A pinned node that is corrupt is an error too, since what it keeps is unknown:
    /// nothing is removed then.
    fn collect_garbage(&self, keep_bytes: u64) -> Result<Collected, StoreError>;

    /// Stores a file that is in memory.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    fn put(&self, bytes: &[u8]) -> Result<Cid, AddError> {
        file::add(self, &mut &bytes[..])
    }

    /// Stores a file of any length while it is being read, in bounded memory.
    ///
    /// # Errors
    /// As [`insert`](Self::insert), and when the reader fails.
    fn put_reader(&self, reader: &mut dyn Read) -> Result<Cid, AddError> {
        file::add(self, reader)
    }

    /// The whole of a file of at most `max_bytes`.
    ///
    /// # Errors
    /// [`GetError::Missing`] names the first block that is not here; [`GetError::TooLarge`] is
    /// found from the root alone.
    fn get(&self, cid: &Cid, max_bytes: u64) -> Result<Vec<u8>, GetError> {
        let mut reader = FileReader::open(self, cid)?;
        if reader.size() > max_bytes {
            return Err(GetError::TooLarge {
                cid: cid.into(),
                size: reader.size(),
                limit: max_bytes,
            });
        }
        reader.read_rest()
    }

    /// The blocks at and below `root` that are not here: empty when the blob is complete. Below a
    /// missing block nothing is known, so fetch what is named and ask again.
    ///
    /// # Errors
    /// I/O errors, and nodes that cannot be read.
    fn missing(&self, root: &Cid) -> Result<Vec<AnyCid>, FollowError> {
        walk::missing(self, root)
    }

    /// Removes every pin of that name and says how many there were.
    ///
    /// # Errors
    /// I/O errors.
    fn unpin_all(&self, name: &PinName) -> Result<usize, StoreError> {
        let mut removed = 0;
        for pin in self.pins()?.iter().filter(|pin| pin.name == *name) {
            removed += usize::from(self.unpin(&pin.root, name)?);
        }
        Ok(removed)
    }
}

/// How much a store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Number of blocks.
    pub blocks: u64,
    /// Their bytes, without what a file system adds.
    pub bytes: u64,
}

/// What a garbage collection did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Removed.
    pub removed: Usage,
    /// Still stored.
    pub kept: Usage,
}

/// Why a store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The operating system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was being done, such as "read".
        action: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// No space left on the device or in the quota.
    #[error(
        "the disk that holds {} is full: nothing stored before is lost; free some space, or lower \
         the store's size limit so that it collects garbage earlier, and try again",
        path.display()
    )]
    DiskFull {
        /// File that could not be written.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// The store's own size limit, and nothing that may be removed.
    #[error(
        "the blob store holds {used} bytes of pinned or recent blocks and {needed} more would \
         exceed its limit of {limit}: unpin what is no longer needed or raise the limit"
    )]
    Full {
        /// Bytes stored.
        used: u64,
        /// Bytes that were to be added.
        needed: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// Another program that keeps the blocks did not do what it was asked.
    #[error("{service} cannot {action}: see whether it runs and what it logs, then try again")]
    Service {
        /// Which program, and where.
        service: String,
        /// What was being done, such as "store blocks".
        action: &'static str,
        /// What it said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A block on the disk that is no longer what it was.
    #[error(
        "the stored bytes of {cid} were damaged and have been moved to {}: fetch the blob again",
        quarantined.display()
    )]
    Corrupt {
        /// The block.
        cid: AnyCid,
        /// Where the damaged bytes are now.
        quarantined: PathBuf,
    },
    /// A pinned node that cannot be read, so that what it keeps is unknown.
    #[error("cannot tell what the pin on {root} keeps, so no garbage was removed")]
    Unreadable {
        /// Root of the pin.
        root: Cid,
        /// What is wrong below it.
        #[source]
        source: Box<FollowError>,
    },
    /// A folder that holds something else, or a later version.
    #[error(
        "{} is not a blob store of version {expected} (found {found:?}): choose another folder",
        path.display()
    )]
    Foreign {
        /// The version file.
        path: PathBuf,
        /// Version that this program writes.
        expected: u32,
        /// What the file says.
        found: String,
    },
}

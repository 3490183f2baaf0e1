//! The database of versions.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::backends::InMemoryBackend;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, WriteTransaction};

use crate::commit::{Update, prune};
use crate::delta::Changes;
use crate::read::{Read, ReadError};
use crate::snapshot::Snapshot;
use crate::tables;

/// The longest key, in bytes.
pub const MAX_KEY_BYTES: usize = 1024;
/// The longest value, in bytes.
pub const MAX_VALUE_BYTES: usize = 16 << 20;
/// Entries read at a time.
const PAGE: usize = 1024;

/// How a [`Storage`] keeps its versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How many of the newest versions can be read and proved; at least 1.
    pub keep_versions: u64,
    /// Every how many commits the disk is waited for; at least 1. After a crash of the machine or of
    /// the process, up to `sync_every - 1` of the newest versions are gone, always as a whole: whoever
    /// asks for more than 1 commits them again.
    pub sync_every: u64,
    /// Memory for pages read from disk, in bytes.
    pub cache_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            keep_versions: 128,
            sync_every: 1,
            cache_bytes: 64 << 20,
        }
    }
}

/// A database of versions of one state. Cloning gives another handle to the same database.
///
/// A commit is one transaction of the database: after a crash at any point, the newest version is
/// either the old one or the new one.
#[derive(Clone)]
pub struct Storage {
    inner: Arc<Inner>,
}

struct Inner {
    database: Database,
    options: Options,
    /// Commits since the disk was waited for. Locked for the length of a commit.
    unsynced: Mutex<u64>,
}

/// A database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("the state database {path} is in use by another process: stop that one first")]
    InUse {
        /// The file.
        path: String,
    },
    /// The file cannot be opened, or is not a database.
    #[error(
        "the state database {path} could not be opened: check the path, its permissions and the disk"
    )]
    Database {
        /// The file.
        path: String,
        /// What the database said.
        #[source]
        source: Box<redb::Error>,
    },
    /// The file was written by another version of this program.
    #[error(
        "the state database {path} has format {found}, this program reads {expected}: use the program that wrote it, or start from a snapshot"
    )]
    Format {
        /// The file.
        path: String,
        /// Format in the file.
        found: u64,
        /// Format of this program.
        expected: u64,
    },
}

/// A version could not be committed. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Versions are committed one after another.
    #[error("version {version} cannot follow version {latest}")]
    Version {
        /// The version asked for.
        version: u64,
        /// The newest version there is.
        latest: u64,
    },
    /// A key or a value is longer than the bounds.
    #[error("a {what} of {bytes} bytes is longer than {limit} bytes")]
    TooLong {
        /// `"key"` or `"value"`.
        what: &'static str,
        /// Its length.
        bytes: usize,
        /// The bound.
        limit: usize,
    },
    /// ICS-23 has no proof for an empty key or value, nor of absence beside it.
    #[error("an entry of the state has an empty {what} (key {key:x?})")]
    Empty {
        /// `"key"` or `"value"`.
        what: &'static str,
        /// The key.
        key: Vec<u8>,
    },
    /// The state could not be read.
    #[error("the state before version {version} could not be read")]
    Read {
        /// The version to be committed.
        version: u64,
        /// Why.
        #[source]
        source: ReadError,
    },
    /// The tree contradicts itself.
    #[error("the state tree is damaged before version {version}: restore it from a snapshot")]
    Tree {
        /// The version to be committed.
        version: u64,
        /// What the tree said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The database did not take it.
    #[error("version {version} could not be written: check that the disk is not full")]
    Write {
        /// The version to be committed.
        version: u64,
        /// What the database said.
        #[source]
        source: Box<redb::Error>,
    },
}

impl Storage {
    /// Opens the database in the file `path`, or makes one.
    ///
    /// # Errors
    /// [`OpenError`] if the file is in use, damaged, of another format, or cannot be written.
    pub fn open(path: impl AsRef<Path>, options: Options) -> Result<Self, OpenError> {
        let name = path.as_ref().display().to_string();
        let database = Database::builder()
            .set_cache_size(options.cache_bytes)
            .create(path)
            .map_err(|error| match error {
                redb::DatabaseError::DatabaseAlreadyOpen => OpenError::InUse { path: name.clone() },
                error => OpenError::Database {
                    path: name.clone(),
                    source: Box::new(error.into()),
                },
            })?;
        Self::start(database, name, options)
    }

    /// An empty database in memory.
    ///
    /// # Errors
    /// [`OpenError`] if memory is short.
    pub fn memory(options: Options) -> Result<Self, OpenError> {
        let name = "in memory".to_owned();
        let database = Database::builder()
            .create_with_backend(InMemoryBackend::new())
            .map_err(|error| OpenError::Database {
                path: name.clone(),
                source: Box::new(error.into()),
            })?;
        Self::start(database, name, options)
    }

    fn start(database: Database, path: String, options: Options) -> Result<Self, OpenError> {
        let found = create_tables(&database).map_err(|source| OpenError::Database {
            path: path.clone(),
            source: Box::new(source),
        })?;
        if found != tables::FORMAT {
            return Err(OpenError::Format {
                path,
                found,
                expected: tables::FORMAT,
            });
        }
        let options = Options {
            keep_versions: options.keep_versions.max(1),
            sync_every: options.sync_every.max(1),
            ..options
        };
        let inner = Inner {
            database,
            options,
            unsynced: Mutex::new(0),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// The newest version, or `None` before the first commit.
    ///
    /// # Errors
    /// [`ReadError`] if the database cannot be read.
    pub fn version(&self) -> Result<Option<u64>, ReadError> {
        let transaction = self.begin_read()?;
        let versions = transaction
            .open_table(tables::VERSIONS)
            .map_err(tables::read_error)?;
        let last = versions.last().map_err(tables::read_error)?;
        Ok(last.map(|(version, _)| version.value()))
    }

    /// The newest version's state; the empty state as version 0 before the first commit.
    ///
    /// # Errors
    /// [`ReadError`] if the database cannot be read.
    pub fn latest(&self) -> Result<Snapshot, ReadError> {
        Snapshot::latest(&self.begin_read()?)
    }

    /// The state of `version`, or `None` if that version is pruned or not there yet.
    ///
    /// # Errors
    /// [`ReadError`] if the database cannot be read.
    pub fn snapshot(&self, version: u64) -> Result<Option<Snapshot>, ReadError> {
        Snapshot::at(&self.begin_read()?, version)
    }

    /// Makes `version` of the newest one and `changes`, and gives its root. The first version may be
    /// any; the next ones follow without gaps. Versions beyond `keep_versions` are pruned.
    ///
    /// Changes that change nothing (the same value again, or removing what is not there) leave no
    /// trace: the root depends on what is in the state only.
    ///
    /// # Errors
    /// [`CommitError`]; then nothing was written.
    pub fn commit(&self, version: u64, changes: Changes) -> Result<[u8; 32], CommitError> {
        let staged = self.stage(version, changes)?;
        let root = staged.root();
        self.write(staged)?;
        Ok(root)
    }

    /// Works out the root that [`Storage::commit`] would give, and writes nothing.
    ///
    /// # Errors
    /// As [`Storage::commit`].
    pub fn stage(&self, version: u64, changes: Changes) -> Result<Staged, CommitError> {
        let read = |source| CommitError::Read { version, source };
        let after = self.version().map_err(read)?;
        match after {
            Some(latest) if latest + 1 != version => Err(CommitError::Version { version, latest }),
            _ => self.stage_after(after, version, changes),
        }
    }

    /// As [`Storage::stage`], of a whole state that comes from elsewhere: what `entries` does not name is
    /// not in it. Its version may be any that is later than the newest.
    ///
    /// # Errors
    /// As [`Storage::commit`].
    pub fn stage_whole(&self, version: u64, mut entries: Changes) -> Result<Staged, CommitError> {
        let read = |source| CommitError::Read { version, source };
        let after = self.version().map_err(read)?;
        if let Some(latest) = after.filter(|latest| *latest >= version) {
            return Err(CommitError::Version { version, latest });
        }
        let state = self.latest().map_err(read)?;
        let mut last: Option<Vec<u8>> = None;
        loop {
            let page = state.scan(&[], last.as_deref(), PAGE).map_err(read)?;
            let Some((newest, _)) = page.last() else {
                break;
            };
            last = Some(newest.clone());
            for (key, _) in page {
                entries.entry(key).or_insert(None);
            }
        }
        self.stage_after(after, version, entries)
    }

    fn stage_after(
        &self,
        after: Option<u64>,
        version: u64,
        changes: Changes,
    ) -> Result<Staged, CommitError> {
        check_bounds(&changes)?;
        let latest = self
            .latest()
            .map_err(|source| CommitError::Read { version, source })?;
        let update = Update::new(&latest, version, changes)?;
        Ok(Staged { update, after })
    }

    /// Commits what was staged, if no other version was committed since.
    ///
    /// # Errors
    /// As [`Storage::commit`].
    pub fn write(&self, Staged { update, after }: Staged) -> Result<(), CommitError> {
        let mut unsynced = self.lock();
        let version = update.version;
        let read = |source| CommitError::Read { version, source };
        let newest = self.version().map_err(read)?;
        if let Some(latest) = newest.filter(|_| newest != after) {
            return Err(CommitError::Version { version, latest });
        }
        let sync = *unsynced + 1 >= self.inner.options.sync_every;
        let oldest = (update.version + 1).saturating_sub(self.inner.options.keep_versions);
        self.begin_write(sync)
            .and_then(|transaction| {
                update.write(&transaction)?;
                prune(&transaction, oldest)?;
                Ok(transaction.commit()?)
            })
            .map_err(|source| CommitError::Write {
                version: update.version,
                source: Box::new(source),
            })?;
        *unsynced = if sync { 0 } else { *unsynced + 1 };
        Ok(())
    }

    /// Waits until everything committed is on disk.
    ///
    /// # Errors
    /// [`CommitError::Write`] if the disk fails.
    pub fn sync(&self) -> Result<(), CommitError> {
        let mut unsynced = self.lock();
        if *unsynced > 0 {
            self.begin_write(true)
                .and_then(|transaction| Ok(transaction.commit()?))
                .map_err(|source| CommitError::Write {
                    version: 0,
                    source: Box::new(source),
                })?;
            *unsynced = 0;
        }
        Ok(())
    }

    fn begin_write(&self, sync: bool) -> Result<WriteTransaction, redb::Error> {
        let mut transaction = self.inner.database.begin_write()?;
        transaction.set_durability(if sync {
            Durability::Immediate
        } else {
            Durability::None
        })?;
        Ok(transaction)
    }

    fn begin_read(&self) -> Result<redb::ReadTransaction, ReadError> {
        self.inner.database.begin_read().map_err(tables::read_error)
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        // A panic while it was held left the counter as it was, and redb rolled back.
        self.inner
            .unsynced
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A version worked out but not written.
#[derive(Debug)]
pub struct Staged {
    update: Update,
    /// The newest version when it was worked out.
    after: Option<u64>,
}

impl Staged {
    /// The root that the version will have.
    pub fn root(&self) -> [u8; 32] {
        self.update.record.root
    }
}

impl fmt::Debug for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Storage")
            .field("options", &self.inner.options)
            .finish_non_exhaustive()
    }
}

fn check_bounds(changes: &Changes) -> Result<(), CommitError> {
    for (key, value) in changes {
        let value_bytes = value.as_ref().map_or(1, Vec::len);
        for (what, bytes, limit) in [
            ("key", key.len(), MAX_KEY_BYTES),
            ("value", value_bytes, MAX_VALUE_BYTES),
        ] {
            if bytes == 0 {
                let key = key.clone();
                return Err(CommitError::Empty { what, key });
            }
            if bytes > limit {
                return Err(CommitError::TooLong { what, bytes, limit });
            }
        }
    }
    Ok(())
}

/// Makes what is missing and gives the format of what was there.
fn create_tables(database: &Database) -> Result<u64, redb::Error> {
    let transaction = database.begin_write()?;
    let found = {
        let mut meta = transaction.open_table(tables::META)?;
        let found = meta.get("format")?.map(|format| format.value());
        if found.is_none() {
            meta.insert("format", tables::FORMAT)?;
        }
        found.unwrap_or(tables::FORMAT)
    };
    if found == tables::FORMAT {
        transaction.open_table(tables::VALUES)?;
        transaction.open_table(tables::VERSIONS)?;
        transaction.open_table(tables::UNDO)?;
        transaction.open_table(tables::NODES)?;
        transaction.open_table(tables::STALE)?;
        transaction.open_table(tables::PREIMAGES)?;
    }
    transaction.commit()?;
    Ok(found)
}

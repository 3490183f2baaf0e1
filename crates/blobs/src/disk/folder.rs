//! The folder of a store: its version, its lock, and what a killed process left in it.

use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    process,
    sync::atomic::Ordering,
};

use super::{
    DiskStore, NEXT_TEMPORARY,
    files::{io_error, list, remove, sync_folder, write_error, write_file},
};
use crate::StoreError;

/// Version of the folder's layout.
const VERSION: u32 = 1;

/// How the version file is called while it is written.
const NEW_PREFIX: &str = ".version-";

/// Most bytes of the version file that are read.
const MAX_VERSION_BYTES: u64 = 32;

impl DiskStore {
    pub(super) fn check_version(&self) -> Result<(), StoreError> {
        fs::create_dir_all(&self.folder).map_err(io_error("create", &self.folder))?;
        let path = self.folder.join("version");
        if !fs::exists(&path).map_err(io_error("look for", &path))? {
            self.create_version(&path)?;
        }
        let mut found = String::new();
        let file = File::open(&path).map_err(io_error("open", &path))?;
        let read = file.take(MAX_VERSION_BYTES).read_to_string(&mut found);
        read.map_err(io_error("read", &path))?;
        if found.trim_end() == VERSION.to_string() {
            return Ok(());
        }
        let expected = VERSION;
        Err(StoreError::Foreign {
            path,
            expected,
            found,
        })
    }

    /// Makes an empty folder a store. Another process may be doing the same.
    fn create_version(&self, path: &Path) -> Result<(), StoreError> {
        for entry in list(&self.folder)? {
            let name = entry?.file_name();
            let name = name.to_string_lossy();
            if name == "version" {
                return Ok(());
            }
            if !name.starts_with(NEW_PREFIX) {
                return Err(StoreError::Foreign {
                    path: path.to_owned(),
                    expected: VERSION,
                    found: format!("{name} and no version file"),
                });
            }
        }
        let number = NEXT_TEMPORARY.fetch_add(1, Ordering::Relaxed);
        let name = format!("{NEW_PREFIX}{}-{number}", process::id());
        let temporary = self.folder.join(name);
        let file = write_file(&temporary, format!("{VERSION}\n").as_bytes())?;
        file.sync_all().map_err(write_error(&temporary))?;
        fs::rename(&temporary, path).map_err(write_error(path))?;
        sync_folder(&self.folder)
    }

    /// Writers hold the lock shared, so nothing in `tmp` is in use when it can be had alone.
    pub(super) fn remove_leftovers(&self) -> Result<(), StoreError> {
        let (path, lock) = self.lock_file()?;
        match lock.try_lock() {
            Ok(()) => self.clear_temporaries(),
            Err(fs::TryLockError::WouldBlock) => Ok(()),
            Err(fs::TryLockError::Error(error)) => Err(io_error("lock", &path)(error)),
        }
    }

    pub(super) fn clear_temporaries(&self) -> Result<(), StoreError> {
        for entry in list(&self.folder.join("tmp"))? {
            remove(&entry?.path())?;
        }
        Ok(())
    }

    fn lock_file(&self) -> Result<(PathBuf, File), StoreError> {
        let path = self.folder.join("lock");
        let mut options = File::options();
        let file = options.create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(io_error("open", &path))?;
        Ok((path, file))
    }

    /// Holds off the garbage collectors of all processes until dropped.
    pub(super) fn lock_shared(&self) -> Result<File, StoreError> {
        let (path, file) = self.lock_file()?;
        file.lock_shared().map_err(io_error("lock", &path))?;
        Ok(file)
    }

    /// Waits until no process is writing; dropped, it lets them go on.
    pub(super) fn lock_exclusive(&self) -> Result<File, StoreError> {
        let (path, file) = self.lock_file()?;
        file.lock().map_err(io_error("lock", &path))?;
        Ok(file)
    }
}

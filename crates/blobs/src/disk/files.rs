//! Files and folders, with errors that say which.

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
};

use crate::StoreError;

/// Temporary files, removed when dropped unless they have been renamed.
#[derive(Default)]
pub(super) struct Temporaries(pub(super) Vec<PathBuf>);

impl Drop for Temporaries {
    fn drop(&mut self) {
        for path in &self.0 {
            // Renamed files are gone; others are cleared when the store is opened next.
            let _ = fs::remove_file(path);
        }
    }
}

pub(super) fn write_file(path: &Path, content: &[u8]) -> Result<File, StoreError> {
    let mut options = File::options();
    let file = options.create_new(true).write(true).open(path);
    let mut file = file.map_err(write_error(path))?;
    file.write_all(content).map_err(write_error(path))?;
    Ok(file)
}

pub(super) fn sync_folder(path: &Path) -> Result<(), StoreError> {
    let synced = File::open(path).and_then(|folder| folder.sync_all());
    synced.map_err(write_error(path))
}

/// Removes a file and says whether it was there.
pub(super) fn remove(path: &Path) -> Result<bool, StoreError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(io_error("remove", path)(error)),
    }
}

pub(super) fn list(
    path: &Path,
) -> Result<impl Iterator<Item = Result<fs::DirEntry, StoreError>>, StoreError> {
    let entries = fs::read_dir(path).map_err(io_error("list", path))?;
    Ok(entries.map(move |entry| entry.map_err(io_error("list", path))))
}

pub(super) fn io_error(action: &'static str, path: &Path) -> impl Fn(io::Error) -> StoreError {
    move |source| StoreError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

pub(super) fn write_error(path: &Path) -> impl Fn(io::Error) -> StoreError {
    move |source| {
        let path = path.to_owned();
        match source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                StoreError::DiskFull { path, source }
            }
            _ => StoreError::Io {
                action: "write",
                path,
                source,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_disk_is_told_from_other_faults() {
        // Linux's device that is always full.
        let path = Path::new("/dev/full");
        let mut full = File::options().write(true).open(path).unwrap();
        let error = full.write_all(b"x").map_err(write_error(path)).unwrap_err();
        assert!(matches!(error, StoreError::DiskFull { .. }), "{error:?}");
        assert!(error.to_string().contains("nothing stored before is lost"));
    }
}

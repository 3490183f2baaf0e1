//! One supervisor per home, and where it writes what runs.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind},
    path::PathBuf,
    time::{Duration, Instant},
};

use rustix::fs::{FlockOperation, flock};

use super::Board;
use crate::home::Home;

/// For how long a lock may be that of somebody who only looks whether a supervisor holds it.
const GLANCE: Duration = Duration::from_millis(500);

/// Proof that this process alone supervises a home; released when dropped, or when the process dies.
pub struct HomeLock {
    _file: File,
    status: PathBuf,
}

/// Why a home could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process supervises this home.
    #[error(
        "{home} is in use by process {pid}; stop that one first, or give this one another folder"
    )]
    InUse {
        /// The home.
        home: PathBuf,
        /// Who holds it.
        pid: String,
    },
    /// The lock file could not be used.
    #[error("cannot use {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
}

impl HomeLock {
    /// Takes a home for this process.
    ///
    /// # Errors
    /// [`LockError::InUse`] names who holds it.
    pub fn take(home: &Home) -> Result<Self, LockError> {
        let dir = home.root().join("run");
        let path = dir.join("lock");
        let io_error = |source| LockError::Io {
            path: path.clone(),
            source,
        };
        fs::create_dir_all(&dir).map_err(io_error)?;
        let mut options = OpenOptions::new();
        let file = options
            .create(true)
            .write(true)
            .truncate(false)
            .open(&path)
            .map_err(io_error)?;
        let deadline = Instant::now() + GLANCE;
        while flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            if Instant::now() > deadline {
                return Err(LockError::InUse {
                    home: home.root().to_owned(),
                    pid: fs::read_to_string(&path).unwrap_or_default(),
                });
            }
            std::thread::sleep(GLANCE / 20);
        }
        file.set_len(0).map_err(io_error)?;
        match fs::write(&path, std::process::id().to_string()) {
            // The number is for words only: the home is this process's all the same.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::StorageFull | ErrorKind::QuotaExceeded
                ) => {}
            written => written.map_err(io_error)?,
        }
        Ok(Self {
            _file: file,
            status: status_file(home),
        })
    }

    /// Writes what runs, for `r3mes status`.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn publish(&self, board: &Board) -> io::Result<()> {
        let draft = self.status.with_extension("tmp");
        fs::write(&draft, serde_json::to_vec_pretty(board)?)?;
        fs::rename(&draft, &self.status)
    }
}

/// What runs in a home: the board if it is supervised now, nothing otherwise.
pub fn read_board(home: &Home) -> Option<Board> {
    let lock = File::open(home.root().join("run").join("lock")).ok()?;
    // Shared, so that those who look do not disturb each other; let go when this returns.
    if flock(&lock, FlockOperation::NonBlockingLockShared).is_ok() {
        return None;
    }
    last_board(home)
}

/// What was last written of what runs in a home, whether or not it still does.
pub fn last_board(home: &Home) -> Option<Board> {
    serde_json::from_slice(&fs::read(status_file(home)).ok()?).ok()
}

fn status_file(home: &Home) -> PathBuf {
    home.root().join("run").join("status.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_home_has_one_supervisor_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path());
        let held = HomeLock::take(&home).unwrap();
        let refusal = HomeLock::take(&home).err().unwrap().to_string();
        assert!(
            refusal.contains(&std::process::id().to_string()),
            "{refusal}"
        );
        assert!(read_board(&home).is_none(), "nothing was published");
        held.publish(&Board::new()).unwrap();
        assert_eq!(read_board(&home), Some(Board::new()));
        drop(held);
        assert!(read_board(&home).is_none());
        assert_eq!(last_board(&home), Some(Board::new()));
        HomeLock::take(&home).unwrap();
    }

    #[test]
    fn asking_what_runs_makes_no_home() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path().join("home"));
        assert!(read_board(&home).is_none());
        assert!(!home.root().exists());
    }
}

//! The home directory of a node: where its configuration, keys, data and logs are.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// A node's home directory.
///
/// ```text
/// HOME/config.yaml      what this node runs, checked as a whole at start
/// HOME/genesis.pb       the first state of the network (only where the ledger runs, or to join it)
/// HOME/keys/            mode 0700, files 0600; never logged, never sent
/// HOME/data/<service>/  one folder per process: block store, blobs, resumable work
/// HOME/data/models/     packed models, mapped by the roles; one that is missing is written anew
/// HOME/run/             lock, status, and the sockets between the ledger and CometBFT
/// HOME/logs/<service>.log
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    root: PathBuf,
}

/// Why a home directory could not be used.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// The operating system refused.
    #[error("cannot use {path}: check that the folder exists, is yours and the disk is not full")]
    Io {
        /// The file or folder concerned.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// A file that only its owner may read is open to others.
    #[error("{path} has mode {mode:03o}; others could read it. Run: chmod 600 {path}")]
    TooOpen {
        /// The file concerned.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

impl Home {
    /// A home at `root`; nothing is created.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// `~/.r3mes`, or `.r3mes` in the working directory where there is no `HOME`.
    pub fn default_root() -> PathBuf {
        std::env::home_dir().unwrap_or_default().join(".r3mes")
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The configuration file.
    pub fn config_file(&self) -> PathBuf {
        self.root.join("config.yaml")
    }

    /// The genesis file.
    pub fn genesis_file(&self) -> PathBuf {
        self.root.join("genesis.pb")
    }

    /// The folder of keys.
    pub fn keys(&self) -> PathBuf {
        self.root.join("keys")
    }

    /// The data folder of one service (`ledger`, `gateway`, `miner`, ...).
    pub fn data(&self, service: &str) -> PathBuf {
        self.root.join("data").join(service)
    }

    /// The folder of packed models, which the roles map into memory.
    pub fn models(&self) -> PathBuf {
        self.data("models")
    }

    /// The log file of one service.
    pub fn log(&self, service: &str) -> PathBuf {
        self.root.join("logs").join(format!("{service}.log"))
    }

    /// The newest header that the light client of this home verified.
    pub fn light(&self) -> PathBuf {
        self.root.join("data").join("light.json")
    }

    /// The socket on which the ledger waits for CometBFT.
    pub fn abci(&self) -> PathBuf {
        self.root.join("run").join("abci.sock")
    }

    /// The socket of CometBFT's RPC.
    pub fn cometbft_rpc(&self) -> PathBuf {
        self.root.join("run").join("cometbft.sock")
    }

    /// The socket on which CometBFT waits for tmkms.
    pub fn signer(&self) -> PathBuf {
        self.root.join("run").join("signer.sock")
    }

    /// Whether `r3mes init` has been run here.
    pub fn is_initialised(&self) -> bool {
        self.config_file().is_file()
    }

    /// Creates the directory tree; the keys folder is closed to others.
    ///
    /// # Errors
    /// [`HomeError::Io`] when a folder cannot be made.
    pub fn create(&self) -> Result<(), HomeError> {
        for dir in [self.root.join("data"), self.root.join("logs"), self.keys()] {
            fs::create_dir_all(&dir).map_err(|source| HomeError::Io { path: dir, source })?;
        }
        set_mode(&self.keys(), 0o700)
    }
}

/// Writes a file that only its owner may read, atomically; refuses to replace one.
///
/// # Errors
/// [`HomeError::Io`], with `AlreadyExists` when the file is there.
pub fn write_secret(path: &Path, bytes: &[u8]) -> Result<(), HomeError> {
    use std::io::Write;
    let io_error = |source| HomeError::Io {
        path: path.to_owned(),
        source,
    };
    // For its owner alone from the beginning, and gone if it does not get its name.
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let folder = parent.unwrap_or(Path::new("."));
    let mut draft = tempfile::NamedTempFile::new_in(folder).map_err(io_error)?;
    draft.write_all(bytes).map_err(io_error)?;
    draft.as_file().sync_all().map_err(io_error)?;
    draft
        .persist_noclobber(path)
        .map_err(|refused| io_error(refused.error))?;
    // The name, too, outlives a power failure.
    let folder = fs::File::open(folder).map_err(io_error)?;
    folder.sync_all().map_err(io_error)
}

/// Reads a secret file and refuses one that others may read.
///
/// # Errors
/// [`HomeError::Io`], or [`HomeError::TooOpen`] with the command that mends it.
pub fn read_secret(path: &Path) -> Result<Vec<u8>, HomeError> {
    use std::os::unix::fs::PermissionsExt;
    let io_error = |source| HomeError::Io {
        path: path.to_owned(),
        source,
    };
    let mode = fs::metadata(path).map_err(io_error)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(HomeError::TooOpen {
            path: path.to_owned(),
            mode,
        });
    }
    fs::read(path).map_err(io_error)
}

fn set_mode(path: &Path, mode: u32) -> Result<(), HomeError> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(|source| HomeError::Io {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_written_once_and_only_its_owner_reads_it() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        write_secret(&path, b"x").unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert!(write_secret(&path, b"y").is_err());
        assert_eq!(read_secret(&path).unwrap(), b"x");
        let files = fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(files, 1, "no draft is left behind");
        set_mode(&path, 0o644).unwrap();
        let refusal = read_secret(&path).unwrap_err().to_string();
        assert!(refusal.contains("chmod 600"), "{refusal}");
    }
}

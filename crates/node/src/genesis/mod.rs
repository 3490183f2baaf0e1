//! The genesis: a network's first state as a file of each home, and how one founds a network of one's own.

mod founding;

use std::{io, path::PathBuf};

use r3mes_ledger::genesis::Genesis;
use r3mes_types::{
    Hasher,
    wire::{DecodeError, Wire},
};

pub use founding::{BEACON_CHAIN, Charter, Founder, Founding, SEQUENCE, found};

use crate::{
    home::Home,
    keyring::{KeyError, Keyring},
};

/// Disk that the bootstrap blob store may take, in MiB.
pub const BOOTSTRAP_STORAGE_MB: u64 = 16 << 10;

/// Why a home's genesis is of no use.
#[derive(Debug, thiserror::Error)]
pub enum GenesisError {
    /// There is no file, or it cannot be read.
    #[error(
        "cannot read {}, the first state of the network: put back what `r3mes init` wrote, or what another node of the network has",
        path.display()
    )]
    Unread {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// It is something else.
    #[error("{} is not a genesis", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: DecodeError,
    },
    /// It is of another network than the home.
    #[error(
        "{} is of the network {founded}, but network.chain_id in {} is {configured}: write {founded} there",
        path.display(),
        config.display()
    )]
    OtherNetwork {
        /// The file.
        path: PathBuf,
        /// The configuration.
        config: PathBuf,
        /// The network of the genesis.
        founded: String,
        /// The network that the configuration names.
        configured: String,
    },
    /// Nobody signs blocks in it.
    #[error("the genesis has no validator")]
    NoValidator,
}

/// Reads a home's genesis.
///
/// # Errors
/// When the file is missing or is no genesis.
pub fn read(home: &Home) -> Result<Genesis, GenesisError> {
    let path = home.genesis_file();
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(source) => return Err(GenesisError::Unread { path, source }),
    };
    Genesis::decode(&bytes).map_err(|source| GenesisError::Malformed { path, source })
}

/// Refuses a home whose genesis is of another network than its configuration.
///
/// # Errors
/// As [`read`], and [`GenesisError::OtherNetwork`].
pub fn require_named(home: &Home, chain_id: &str) -> Result<(), GenesisError> {
    let founded = read(home)?.chain_id;
    if *founded == *chain_id {
        return Ok(());
    }
    Err(GenesisError::OtherNetwork {
        path: home.genesis_file(),
        config: home.config_file(),
        founded: founded.to_string(),
        configured: chain_id.to_owned(),
    })
}

/// Blocks that each hash chain of the beacon lasts for: as many as those that the network began with.
///
/// # Errors
/// When the genesis has no validator.
pub fn beacon_chain(genesis: &Genesis) -> Result<u64, GenesisError> {
    let first = genesis.validators.first();
    Ok(first.ok_or(GenesisError::NoValidator)?.chain_length)
}

/// The secret of this node's hash chains on the network of a genesis.
///
/// # Errors
/// When the seed cannot be read.
pub fn beacon_secret(keyring: &Keyring, genesis: &Genesis) -> Result<[u8; 32], KeyError> {
    let seed = keyring.beacon_seed()?;
    Ok(match genesis.continued {
        None => *seed,
        Some(_) => continued_secret(&seed, &genesis.chain_id),
    })
}

/// The secret of hash chains on a network that goes on from another, where elements of the seed's own
/// chains were revealed.
pub fn continued_secret(seed: &[u8; 32], chain_id: &str) -> [u8; 32] {
    let secret = Hasher::new("r3mes continued beacon v1")
        .part(seed)
        .part(chain_id.as_bytes())
        .finish();
    *secret.as_bytes()
}

/// The folder of the ledger's own blob store.
pub fn bootstrap_folder(home: &Home) -> std::path::PathBuf {
    home.data("ledger").join("blobs")
}

//! The files CometBFT starts from: configuration, genesis, keys.
//!
//! Everything is written from the node's own configuration and keys at every start, except what
//! CometBFT itself keeps: `data/`, and above all `data/priv_validator_state.json`, which says what was
//! signed last and so keeps a validator from signing twice.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tendermint::consensus::State;
use zeroize::Zeroizing;

use crate::cometbft::signed;
use crate::key::ValidatorKey;
use crate::mempool::Limits;

/// What a validator that has signed nothing starts from.
const NOTHING_SIGNED: &str = r#"{"height": "0", "round": 0, "step": 0}"#;

/// How CometBFT runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The node's name, for its peers.
    pub moniker: String,
    /// Where the application listens, as in `unix:///home/abci.sock`.
    pub abci: String,
    /// Where CometBFT's RPC listens, as in `unix:///home/rpc.sock`.
    pub rpc: String,
    /// Where peers connect to, as in `tcp://0.0.0.0:26656`.
    pub p2p: String,
    /// How peers reach this node, as in `203.0.113.7:26656`; CometBFT finds out if it is empty.
    pub external_address: String,
    /// Peers to keep connected to, each `ID@HOST:PORT`.
    pub persistent_peers: Vec<String>,
    /// The pause after each block. The ledger's state changes with every block, so CometBFT makes
    /// blocks all the time, and this is how often.
    pub block_interval: Duration,
    /// Bounds of the mempool, the same as the application's.
    pub mempool: Limits,
    /// Where CometBFT waits for the program that signs with the validator's key, as in
    /// `unix:///home/signer.sock`; without it CometBFT signs by itself.
    pub signer: Option<String>,
    /// Where a node without blocks takes a snapshot of the state from, instead of executing all blocks.
    pub state_sync: Option<StateSync>,
}

/// How a snapshot is found and trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateSync {
    /// RPCs of nodes whose headers must agree, as in `http://10.0.0.1:26657`; at least two.
    pub servers: Vec<String>,
    /// A height whose header is trusted.
    pub trust_height: u64,
    /// That header's hash.
    pub trust_hash: [u8; 32],
}

/// A home directory of CometBFT's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CometHome {
    root: PathBuf,
}

impl CometHome {
    /// The home at `root`; nothing is created.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Writes everything CometBFT starts from. `genesis` is CometBFT's genesis file. Without the
    /// validator's key, which somebody else signs with, one from before is removed.
    ///
    /// # Errors
    /// When a file cannot be written, or the record of what was signed is missing beside blocks.
    pub fn write(
        &self,
        settings: &Settings,
        genesis: &[u8],
        validator: Option<&ValidatorKey>,
        node: &ValidatorKey,
    ) -> io::Result<()> {
        let (config, data) = (self.root.join("config"), self.root.join("data"));
        fs::create_dir_all(&config)?;
        fs::create_dir_all(&data)?;
        replace(&config.join("config.toml"), settings.to_toml().as_bytes())?;
        replace(&config.join("genesis.json"), genesis)?;
        replace(
            &config.join("node_key.json"),
            format!("{{\"priv_key\": {}}}", private_key(node).as_str()).as_bytes(),
        )?;
        let key_file = config.join("priv_validator_key.json");
        let Some(validator) = validator else {
            return match fs::remove_file(key_file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        };
        replace(&key_file, validator_file(validator).as_bytes())?;
        match self.record()? {
            Some(_) => Ok(()),
            None => replace(&self.record_file(), NOTHING_SIGNED.as_bytes()),
        }
    }

    /// Whether CometBFT has made or taken blocks here.
    pub fn has_blocks(&self) -> bool {
        self.root.join("data/blockstore.db").exists()
    }

    /// What the validator of this home signed last.
    ///
    /// # Errors
    /// When CometBFT's record of it cannot be read, or is missing beside blocks.
    pub fn signed(&self) -> io::Result<State> {
        let Some(record) = self.record()? else {
            return Ok(signed::nothing());
        };
        signed::read(&record).ok_or_else(|| {
            let what = format!("{} is not understood", self.record_file().display());
            io::Error::new(io::ErrorKind::InvalidData, what)
        })
    }

    fn record_file(&self) -> PathBuf {
        self.root.join("data/priv_validator_state.json")
    }

    /// The record of what was signed, which only a home without blocks may lack.
    fn record(&self) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.record_file()) {
            Ok(record) => Ok(Some(record)),
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Err(_) if !self.has_blocks() => Ok(None),
            Err(_) => {
                let what = format!(
                    "{} is missing although there are blocks: this validator could sign twice. Restore the file from where it is newest, or move {} away and sync again",
                    self.record_file().display(),
                    self.root.join("data").display()
                );
                Err(io::Error::new(io::ErrorKind::NotFound, what))
            }
        }
    }
}

/// How peers name the node that has this key.
pub fn node_id(node: &ValidatorKey) -> String {
    node.address().to_string().to_lowercase()
}

impl Settings {
    /// CometBFT's configuration file. What it does not name is CometBFT's default.
    fn to_toml(&self) -> String {
        let Limits {
            txs,
            bytes,
            tx_bytes,
            ..
        } = self.mempool;
        let peers = self.persistent_peers.join(",");
        let (moniker, abci, rpc, p2p, external, peers) = (
            quoted(&self.moniker),
            quoted(&self.abci),
            quoted(&self.rpc),
            quoted(&self.p2p),
            quoted(&self.external_address),
            quoted(&peers),
        );
        let state_sync = self.state_sync.as_ref().map_or_else(
            || "enable = false".to_owned(),
            |sync| {
                let hash: String = sync.trust_hash.iter().map(|b| format!("{b:02x}")).collect();
                format!(
                    "enable = true\nrpc_servers = {}\ntrust_height = {}\ntrust_hash = \"{hash}\"\ndiscovery_time = \"5s\"",
                    quoted(&sync.servers.join(",")),
                    sync.trust_height
                )
            },
        );
        // Without a key file CometBFT makes a key, which it does not use, and with it a new record of
        // what was signed: under names of their own, so that no true record is lost.
        let signer = self.signer.as_ref().map_or_else(String::new, |signer| {
            format!(
                "priv_validator_laddr = {}\npriv_validator_key_file = \"config/unused_key.json\"\npriv_validator_state_file = \"data/unused_state.json\"\n",
                quoted(signer)
            )
        });
        let (interval, cache) = (self.block_interval.as_millis(), 2 * txs);
        format!(
            r#"# Written at every start from the node's own config.yaml: change that one.
proxy_app = {abci}
abci = "socket"
moniker = {moniker}
log_level = "error"
{signer}
[rpc]
laddr = {rpc}

[p2p]
laddr = {p2p}
external_address = {external}
persistent_peers = {peers}
addr_book_strict = false
allow_duplicate_ip = true

[mempool]
size = {txs}
max_txs_bytes = {bytes}
max_tx_bytes = {tx_bytes}
cache_size = {cache}

[statesync]
{state_sync}

[consensus]
timeout_commit = "{interval}ms"
create_empty_blocks = true

[tx_index]
indexer = "kv"
"#
        )
    }
}

/// A text as TOML and JSON both write it.
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            c if c.is_control() => {
                // Control characters lie below U+00A0, so four digits are enough.
                let _ = write!(quoted, "\\u{:04x}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

fn validator_file(key: &ValidatorKey) -> Zeroizing<String> {
    let address = key.address().to_string().to_uppercase();
    let public = STANDARD.encode(key.public_key().as_bytes());
    let private = private_key(key);
    Zeroizing::new(format!(
        r#"{{
  "address": "{address}",
  "pub_key": {{"type": "tendermint/PubKeyEd25519", "value": "{public}"}},
  "priv_key": {}
}}"#,
        private.as_str()
    ))
}

/// An ed25519 key as CometBFT writes it: seed and public key, in base64.
fn private_key(key: &ValidatorKey) -> Zeroizing<String> {
    let mut bytes = Zeroizing::new([0; 2 * ValidatorKey::LEN]);
    bytes[..ValidatorKey::LEN].copy_from_slice(key.to_seed().as_slice());
    bytes[ValidatorKey::LEN..].copy_from_slice(key.public_key().as_bytes());
    let value = Zeroizing::new(STANDARD.encode(bytes.as_slice()));
    Zeroizing::new(format!(
        r#"{{"type": "tendermint/PrivKeyEd25519", "value": "{}"}}"#,
        value.as_str()
    ))
}

/// Puts a file that only its owner reads in the place of another, whole or not at all.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => (),
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            moniker: "a \"b\" \\ \n".into(),
            abci: "unix:///a".into(),
            rpc: "unix:///r".into(),
            p2p: "tcp://127.0.0.1:0".into(),
            external_address: String::new(),
            persistent_peers: Vec::new(),
            block_interval: Duration::from_millis(100),
            mempool: Limits::default(),
            signer: None,
            state_sync: None,
        }
    }

    #[test]
    fn what_was_signed_is_never_written_over() {
        let directory = tempfile::tempdir().unwrap();
        let home = CometHome::new(directory.path());
        let key = ValidatorKey::from_seed(&[1; 32]);
        let write = || home.write(&settings(), b"{}", Some(&key), &key);
        write().unwrap();
        let signed = directory.path().join("data/priv_validator_state.json");
        fs::write(&signed, "signed up to 7").unwrap();
        write().unwrap();
        assert_eq!(fs::read_to_string(&signed).unwrap(), "signed up to 7");

        fs::create_dir(directory.path().join("data/blockstore.db")).unwrap();
        fs::remove_file(&signed).unwrap();
        let refusal = write().unwrap_err().to_string();
        assert!(refusal.contains("sign twice"), "{refusal}");
        let refusal = home.signed().unwrap_err().to_string();
        assert!(refusal.contains("sign twice"), "{refusal}");
    }

    #[test]
    fn texts_are_escaped() {
        let toml = settings().to_toml();
        assert!(toml.contains(r#"moniker = "a \"b\" \\ \u000a""#), "{toml}");
    }
}

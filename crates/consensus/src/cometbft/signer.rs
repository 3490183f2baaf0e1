//! What tmkms starts from: the program that keeps a validator's key away from its node.

use std::fs;
use std::io;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tendermint::consensus::State;
use zeroize::Zeroizing;

use crate::cometbft::home::{quoted, replace};
use crate::key::ValidatorKey;

/// A validator whose key moves to tmkms.
#[derive(Clone, Copy, Debug)]
pub struct Moving<'a> {
    /// The chain.
    pub chain_id: &'a str,
    /// Where CometBFT waits for tmkms: `unix:///path` or `tcp://host:port`.
    pub node: &'a str,
    /// The key.
    pub key: &'a ValidatorKey,
    /// A secret of tmkms' own, by which it proves itself over `tcp`.
    pub connection: &'a [u8; 32],
    /// What the key signed last.
    pub signed: &'a State,
}

/// Writes the files of tmkms into a folder, readable for its owner only, and gives nothing of what is
/// there away: a folder with a configuration of tmkms' is refused.
///
/// # Errors
/// When a file cannot be written, or there are some already.
pub fn write_tmkms(folder: &Path, moving: &Moving<'_>) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let folder = folder.canonicalize()?;
    let file = |name: &str| folder.join(name);
    if file("tmkms.toml").exists() {
        let what = format!("{} holds the files of a tmkms already", folder.display());
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, what));
    }
    let name = |name: &str| quoted(&file(name).display().to_string());
    let base64 = |bytes: &[u8]| Zeroizing::new(STANDARD.encode(bytes));
    replace(
        &file("consensus.key"),
        base64(moving.key.to_seed().as_slice()).as_bytes(),
    )?;
    replace(
        &file("connection.key"),
        base64(moving.connection).as_bytes(),
    )?;
    // tmkms keeps the same record in this form: it goes on with the next step of the same round.
    let signed = serde_json::to_vec(moving.signed).map_err(io::Error::other)?;
    replace(&file("state.json"), &signed)?;
    let (chain, node) = (quoted(moving.chain_id), quoted(moving.node));
    let config = format!(
        r#"[[chain]]
id = {chain}
key_format = {{ type = "hex" }}
state_file = {state}

[[validator]]
chain_id = {chain}
addr = {node}
secret_key = {connection}
protocol_version = "v0.34"
reconnect = true

[[providers.softsign]]
chain_ids = [{chain}]
key_type = "consensus"
path = {key}
"#,
        state = name("state.json"),
        connection = name("connection.key"),
        key = name("consensus.key"),
    );
    replace(&file("tmkms.toml"), config.as_bytes())
}

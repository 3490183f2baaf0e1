//! CometBFT's blocks while nothing runs, through its own command `inspect`.

use std::process::Stdio;

use anyhow::Context;
use base64::{Engine, engine::general_purpose::STANDARD};
use r3mes_consensus::cometbft::remove_socket;
use r3mes_gateway::rpc::Client;
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use super::cometbft::{find, home as comet_home};
use crate::{config::Ledger, home::Home};

/// CometBFT, answering from what it has stored. It ends when this is dropped.
pub struct Inspected {
    client: Client,
    _program: Child,
}

impl Inspected {
    /// Opens the store of a home whose node is stopped; none if CometBFT has no blocks there.
    ///
    /// # Errors
    /// When the program is missing or cannot be started.
    pub fn open(home: &Home, settings: &Ledger) -> anyhow::Result<Option<Self>> {
        let files = comet_home(home);
        if !files.has_blocks() {
            return Ok(None);
        }
        let program = find(settings.cometbft().program)?;
        let socket = home.cometbft_rpc();
        remove_socket(&socket)?;
        let started = Command::new(&program)
            .args(["inspect", "--home"])
            .arg(files.root())
            .arg("--rpc.laddr")
            .arg(format!("unix://{}", socket.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn();
        Ok(Some(Self {
            _program: started.with_context(|| format!("cannot start {}", program.display()))?,
            client: Client::at_socket(&socket)?,
        }))
    }

    /// Height of the newest block.
    ///
    /// # Errors
    /// When CometBFT does not answer.
    pub async fn height(&self) -> anyhow::Result<u64> {
        let answer = self.client.raw("blockchain", json!({})).await;
        let answer = answer.context("CometBFT cannot read its blocks")?;
        let height = answer["last_height"]
            .as_str()
            .and_then(|digits| digits.parse().ok());
        height.context("CometBFT names no newest block")
    }

    /// The state's root after a block, as the ledger gave it to CometBFT when the block was executed.
    ///
    /// # Errors
    /// When CometBFT does not have it.
    pub async fn root_after(&self, height: u64) -> anyhow::Result<[u8; 32]> {
        let asked = json!({"height": height.to_string()});
        let results = self.client.raw("block_results", asked).await;
        let results =
            results.with_context(|| format!("CometBFT has no results of block {height}"))?;
        root(&results["app_hash"])
            .with_context(|| format!("CometBFT has no root after block {height}"))
    }
}

fn root(written: &Value) -> Option<[u8; 32]> {
    STANDARD.decode(written.as_str()?).ok()?.try_into().ok()
}

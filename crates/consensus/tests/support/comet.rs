//! The real CometBFT as a process of its own.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use r3mes_consensus::block::to_tendermint_time;
use r3mes_consensus::cometbft::home::{CometHome, Settings};
use r3mes_consensus::cometbft::remove_socket;
use r3mes_consensus::key::ValidatorKey;
use r3mes_consensus::mempool::Limits;
use serde_json::{Value, json};

/// Long enough for anything that should happen; only failures wait so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// The program, or `None` if its tests are to be left out.
pub(crate) fn program() -> Option<PathBuf> {
    if std::env::var_os("R3MES_SKIP_COMETBFT").is_some_and(|skip| !skip.is_empty()) {
        eprintln!("left out, because R3MES_SKIP_COMETBFT is set");
        return None;
    }
    let folder = std::env::var_os("R3MES_PROGRAMS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.programs/bin"),
        PathBuf::from,
    );
    let program = folder.join("cometbft");
    assert!(
        program.is_file(),
        "{} is missing: build it with tools/programs (this needs Go), or leave these tests out with R3MES_SKIP_COMETBFT=1",
        program.display()
    );
    Some(program)
}

/// CometBFT in a process of its own, killed when it is dropped.
pub(crate) struct Comet {
    child: Child,
    rpc: String,
}

impl Drop for Comet {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The application at `directory/abci`, the RPC at `directory/rpc`, and no peers.
pub(crate) fn settings(directory: &Path, block_interval: Duration) -> Settings {
    let socket = |name: &str| format!("unix://{}", directory.join(name).display());
    Settings {
        moniker: "test".into(),
        abci: socket("abci"),
        rpc: socket("rpc"),
        p2p: "tcp://127.0.0.1:0".into(),
        external_address: String::new(),
        persistent_peers: Vec::new(),
        block_interval,
        mempool: Limits::default(),
        signer: None,
        state_sync: None,
    }
}

fn genesis_file(genesis: &r3mes_ledger::Genesis) -> String {
    use base64::Engine as _;
    let base64 = base64::engine::general_purpose::STANDARD;
    let validators: Vec<Value> = genesis
        .validators
        .iter()
        .map(|validator| {
            json!({
                "address": validator.key.address().to_string(),
                "pub_key": {
                    "type": "tendermint/PubKeyEd25519",
                    "value": base64.encode(validator.key.as_bytes()),
                },
                "power": validator.power.to_string(),
                "name": "",
            })
        })
        .collect();
    json!({
        "genesis_time": to_tendermint_time(genesis.time).to_rfc3339(),
        "chain_id": genesis.chain_id.to_string(),
        "initial_height": "1",
        "validators": validators,
        "app_hash": "",
    })
    .to_string()
}

impl Comet {
    /// Starts CometBFT in `directory/comet` with the keys that sign blocks and connections.
    pub(crate) fn start(
        program: &Path,
        directory: &Path,
        settings: &Settings,
        genesis: &r3mes_ledger::Genesis,
        [validator, node]: [&ValidatorKey; 2],
    ) -> Self {
        let home = CometHome::new(directory.join("comet"));
        home.write(
            settings,
            genesis_file(genesis).as_bytes(),
            Some(validator),
            node,
        )
        .unwrap();
        remove_socket(&directory.join("rpc")).unwrap();
        let child = Command::new(program)
            .args(["start", "--home"])
            .arg(home.root())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            child,
            rpc: settings.rpc.clone(),
        }
    }

    /// Kills it at once, with SIGKILL.
    pub(crate) fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// What CometBFT's RPC answers.
    pub(crate) fn get(&self, call: &str) -> Value {
        let ask = format!("GET /{call} HTTP/1.0\r\n\r\n");
        let mut answer = String::new();
        if let Some(path) = self.rpc.strip_prefix("unix://") {
            let mut stream = UnixStream::connect(path).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(ask.as_bytes()).unwrap();
            stream.read_to_string(&mut answer).unwrap();
        } else {
            let mut stream = TcpStream::connect(&self.rpc["tcp://".len()..]).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(ask.as_bytes()).unwrap();
            stream.read_to_string(&mut answer).unwrap();
        }
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let body: Value = serde_json::from_str(body).unwrap();
        assert!(body["error"].is_null(), "{call}: {body}");
        body["result"].clone()
    }

    pub(crate) fn broadcast(&self, tx: &[u8]) {
        let answer = self.get(&format!("broadcast_tx_sync?tx=0x{}", hex::encode(tx)));
        assert_eq!(answer["code"], 0, "{answer}");
    }

    pub(crate) fn header(&self, height: u64) -> Value {
        self.get(&format!("header?height={height}"))["header"].clone()
    }
}

//! Services of a node that hold no role: the ledger with its consensus engine, and the public API.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use garde::Validate;
use r3mes_types::MAX_BLOCK_INTERVAL;
use serde::{Deserialize, Serialize};

use super::{
    Functions,
    checks::{is_abci, is_comet_rpc, is_hash, is_host_and_port, is_http_url, is_peer},
    loopback,
};

/// Services of this node that hold no role. One that is absent does not run here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, Validate)]
#[serde(deny_unknown_fields, default)]
pub struct Services {
    /// The ledger.
    #[garde(dive)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ledger: Option<Ledger>,
    /// The public API.
    #[garde(dive)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Gateway>,
    /// The gateway of remote functions.
    #[garde(dive)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub functions: Option<Functions>,
}

/// The ledger: consensus engine, RPC and the network's bootstrap blob store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Validate)]
#[serde(deny_unknown_fields, default)]
pub struct Ledger {
    /// `local`: this machine makes all blocks; `cometbft`: many machines agree on them.
    #[garde(skip)]
    pub engine: Engine,
    /// Address the RPC listens on.
    #[garde(skip)]
    pub rpc_listen: SocketAddr,
    /// Address the Cosmos SDK's gRPC listens on; `null` for none.
    #[garde(skip)]
    pub grpc_listen: Option<SocketAddr>,
    /// Address the Cosmos SDK's REST listens on; `null` for none.
    #[garde(skip)]
    pub rest_listen: Option<SocketAddr>,
    /// Address the blob gateway listens on; `null` for none.
    #[garde(skip)]
    pub blobs_listen: Option<SocketAddr>,
    /// Address Arrow Flight listens on, for whoever has the token; absent for none.
    #[garde(skip)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flight_listen: Option<SocketAddr>,
    /// Milliseconds between blocks, at most a second: under `local` at the least, while something waits
    /// (20 when absent); under `cometbft` always, and the same on all machines (1000 when absent).
    #[garde(inner(custom(is_block_interval)))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block_interval_ms: Option<u64>,
    /// State versions kept for questions and proofs about the past. Nothing else needs them: stake is
    /// slashed by what the newest state says.
    #[garde(range(min = 2))]
    pub keep_versions: u64,
    /// Under `cometbft`: every how many blocks a snapshot of the state is made, for nodes that join; 0
    /// makes none.
    #[garde(skip)]
    pub snapshot_every: u64,
    /// Under `cometbft`: how many of the newest blocks are kept; all of them when absent. Joining
    /// nodes need a snapshot then. No fewer than are made while stake is unbonding on the network.
    #[garde(inner(range(min = 1000)), custom(outlasts_snapshots(self.snapshot_every)))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_blocks: Option<u64>,
    /// How CometBFT runs, if it does.
    #[garde(dive)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cometbft: Option<CometBft>,
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            engine: Engine::Local,
            rpc_listen: loopback(26657),
            grpc_listen: Some(loopback(9090)),
            rest_listen: Some(loopback(1317)),
            blobs_listen: Some(loopback(Self::BLOBS_PORT)),
            flight_listen: None,
            block_interval_ms: None,
            keep_versions: 1000,
            snapshot_every: 1000,
            keep_blocks: None,
            cometbft: None,
        }
    }
}

impl Ledger {
    /// The port that the blob gateway listens on, unless the file names another.
    pub const BLOBS_PORT: u16 = 8090;

    /// The pause between blocks.
    pub fn block_interval(&self) -> Duration {
        let usual = match self.engine {
            Engine::Local => 20,
            Engine::Cometbft => 1000,
        };
        Duration::from_millis(self.block_interval_ms.unwrap_or(usual))
    }

    /// How CometBFT runs; the defaults when the file says nothing.
    pub fn cometbft(&self) -> CometBft {
        self.cometbft.clone().unwrap_or_default()
    }

    /// Whether CometBFT is to be started here: it is the engine, and none that runs elsewhere is named.
    pub fn starts_cometbft(&self) -> bool {
        self.engine == Engine::Cometbft && self.cometbft().attach.is_none()
    }
}

/// A consensus engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// One validator in the ledger's own process
    Local,
    /// The program CometBFT 0.38, on one machine or many
    Cometbft,
}

impl std::fmt::Display for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Local => "local",
            Self::Cometbft => "cometbft",
        })
    }
}

/// How CometBFT runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Validate)]
#[serde(deny_unknown_fields, default)]
pub struct CometBft {
    /// Address that other machines' CometBFT connects to.
    #[garde(skip)]
    pub p2p_listen: SocketAddr,
    /// How they reach it, as HOST:PORT, when that is not the listen address.
    #[garde(inner(custom(is_host_and_port)))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_address: Option<String>,
    /// Peers to keep connected to, each ID@HOST:PORT; `r3mes keys show` prints a node's ID.
    #[garde(length(max = 256), inner(custom(is_peer)))]
    pub peers: Vec<String>,
    /// Where CometBFT waits for tmkms when this home's consensus key is kept there: unix:///path, or
    /// tcp://ADDRESS:PORT; a socket in the home when absent. `r3mes keys tmkms` moves the key.
    #[garde(inner(custom(is_abci)))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signer_listen: Option<String>,
    /// A snapshot to begin with, instead of executing all blocks.
    #[garde(dive)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_sync: Option<StateSync>,
    /// The program; searched for when absent.
    #[garde(skip)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub program: Option<PathBuf>,
    /// A CometBFT that somebody else starts.
    #[garde(dive)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attach: Option<Attach>,
}

impl Default for CometBft {
    fn default() -> Self {
        Self {
            p2p_listen: loopback(26656),
            external_address: None,
            peers: Vec::new(),
            signer_listen: None,
            state_sync: None,
            program: None,
            attach: None,
        }
    }
}

/// Where a node without blocks takes a snapshot of the state from; `r3mes init --witness` writes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Validate)]
#[serde(deny_unknown_fields)]
pub struct StateSync {
    /// RPCs of nodes whose headers must agree.
    #[garde(length(min = 2, max = 16), inner(custom(is_http_url)))]
    pub servers: Vec<String>,
    /// A height whose header is trusted.
    #[garde(range(min = 1))]
    pub trust_height: u64,
    /// That header's hash, 64 hexadecimal digits.
    #[garde(custom(is_hash))]
    pub trust_hash: String,
}

/// How the ledger and a CometBFT that somebody else starts meet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Validate)]
#[serde(deny_unknown_fields)]
pub struct Attach {
    /// Where the ledger waits for CometBFT: unix:///path, or tcp://HOST:PORT, which nobody else may
    /// reach.
    #[garde(custom(is_abci))]
    pub abci: String,
    /// Where CometBFT's RPC listens: unix:///path or http://HOST:PORT.
    #[garde(custom(is_comet_rpc))]
    pub rpc: String,
}

/// The public, OpenAI-compatible API.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Validate)]
#[serde(deny_unknown_fields, default)]
pub struct Gateway {
    /// Address the API listens on.
    #[garde(skip)]
    pub listen: SocketAddr,
    /// Most requests in flight; one more is answered 429.
    #[garde(range(min = 1, max = 100_000))]
    pub max_concurrent: usize,
}

impl Default for Gateway {
    fn default() -> Self {
        Self {
            listen: loopback(8000),
            max_concurrent: 256,
        }
    }
}

/// The network's windows are made for blocks that are no further apart.
fn is_block_interval(millis: &u64, _: &()) -> garde::Result {
    let longest = MAX_BLOCK_INTERVAL.millis();
    match (1..=longest).contains(millis) {
        true => Ok(()),
        false => Err(garde::Error::new(format!(
            "must be 1 to {longest} ms: the shortest windows in which nodes have to answer are made for four blocks, each of at most a second"
        ))),
    }
}

/// Who joins by a snapshot needs the blocks after it.
fn outlasts_snapshots(every: u64) -> impl FnOnce(&Option<u64>, &()) -> garde::Result {
    move |keep, &()| match keep {
        Some(_) if every == 0 => Err(garde::Error::new(
            "needs snapshots, or nobody can join any more: set snapshot_every",
        )),
        Some(keep) if *keep < every.saturating_mul(2) => Err(garde::Error::new(
            "must be at least twice snapshot_every: who joins by a snapshot needs the blocks after it",
        )),
        _ => Ok(()),
    }
}

//! What a node runs: one YAML file, checked as a whole, with line numbers in every complaint.
//!
//! Order of precedence: command line, then environment, then the file, then these defaults.

use std::{fs, net::SocketAddr, path::PathBuf, time::Duration};

use garde::Validate;
use r3mes_gateway::rpc::light;
use r3mes_types::Role;
use serde::{Deserialize, Serialize};

use crate::home::Home;

/// Most bytes a configuration file may have.
const MAX_CONFIG_BYTES: u64 = 1 << 20;
/// Within this time a block follows that proves the newest state, on a network of either engine with
/// its usual pace.
const PROOF_FOLLOWS: Duration = Duration::from_millis(1500);
/// Most kernel threads a process may be told to use.
const MAX_THREADS: usize = 1024;

/// A node's whole configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, Validate)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// This node.
    #[garde(dive)]
    pub node: Node,
    /// The network this node belongs to.
    #[garde(dive)]
    pub network: Network,
    /// Services that hold no role: the ledger and the gateway.
    #[garde(dive)]
    pub services: Services,
    /// Roles this node plays, each in a process of its own.
    #[garde(dive)]
    pub roles: Roles,
    /// Where the roles keep their blobs.
    #[garde(dive)]
    pub blobs: Blobs,
    /// Processor use.
    #[garde(dive)]
    pub compute: Compute,
    /// Logging.
    #[garde(dive)]
    pub log: Log,
}

/// What the node declares of itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, Validate)]
#[serde(deny_unknown_fields, default)]
pub struct Node {
    /// A name for people.
    #[garde(length(max = 64))]
    pub moniker: String,
    /// What it puts at stake, such as `50000000uremes`; the least that its roles need when absent.
    /// What a run locks for each task limits how many tasks the node can take at once.
    #[garde(inner(custom(is_amount)))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stake: Option<String>,
}

/// Which network, and where its ledger answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Validate)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// Chain id, as in the genesis.
    #[garde(length(min = 1, max = 50))]
    pub chain_id: String,
    /// Base URL of the ledger's RPC.
    #[garde(custom(is_http_url))]
    pub rpc: String,
    /// Where blobs are asked for when the ledger names no holder: base URLs.
    #[garde(length(max = 16), inner(custom(is_http_url)))]
    pub bootstrap_blobs: Vec<String>,
    /// How what the RPC answers is checked, where it is not this home's own ledger; believed without
    /// a check when absent. `r3mes init --join` writes it.
    #[garde(dive)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub light: Option<Light>,
}

/// A light client: answers are checked against headers that the network's validators signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Validate)]
#[serde(deny_unknown_fields, default)]
pub struct Light {
    /// A header that is trusted; the block validators of the genesis are when absent.
    #[garde(dive)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trust: Option<TrustedHeader>,
    /// For how many hours a header is trusted, while others are verified by it: less than the time for
    /// which the network's validators can lose their stake for what they signed.
    #[garde(range(min = 1))]
    pub trusting_hours: u64,
    /// How many seconds old the newest block may be. Any age when absent: under engine `local` a quiet
    /// network makes no blocks.
    #[garde(inner(range(min = 1)))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_header_age_s: Option<u64>,
}

impl Default for Light {
    fn default() -> Self {
        Self {
            trust: None,
            trusting_hours: 14 * 24,
            max_header_age_s: None,
        }
    }
}

impl Light {
    /// As the light client takes it, keeping what it verified in `file`.
    ///
    /// # Errors
    /// When the trusted hash is not one.
    pub fn settings(&self, file: Option<PathBuf>) -> anyhow::Result<light::Settings> {
        let root = match &self.trust {
            None => light::Root::Genesis,
            Some(trusted) => {
                let mut hash = [0; 32];
                hex::decode_to_slice(&trusted.hash, &mut hash)?;
                light::Root::Header {
                    height: trusted.height,
                    hash,
                }
            }
        };
        Ok(light::Settings {
            root,
            options: light::TrustOptions {
                period: Duration::from_secs(self.trusting_hours.saturating_mul(3600)),
                ..light::TrustOptions::default()
            },
            max_age: self.max_header_age_s.map(Duration::from_secs),
            first_wait: PROOF_FOLLOWS,
            file,
        })
    }
}

/// A header that is trusted, from a source that is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Validate)]
#[serde(deny_unknown_fields)]
pub struct TrustedHeader {
    /// Its height.
    #[garde(range(min = 1))]
    pub height: u64,
    /// Its hash, 64 hexadecimal digits.
    #[garde(custom(is_hash))]
    pub hash: String,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            chain_id: "r3mes-local".into(),
            rpc: "http://127.0.0.1:26657".into(),
            bootstrap_blobs: vec!["http://127.0.0.1:8090".into()],
            light: None,
        }
    }
}

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
    /// Address the blob gateway listens on.
    #[garde(skip)]
    pub blobs_listen: SocketAddr,
    /// Milliseconds between blocks: under `local` at the least, while something waits (20 when
    /// absent); under `cometbft` always, and the same on all machines (1000 when absent).
    #[garde(inner(range(min = 1, max = 60_000)))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block_interval_ms: Option<u64>,
    /// State versions kept for historical queries and proofs.
    #[garde(range(min = 2))]
    pub keep_versions: u64,
    /// Under `cometbft`: every how many blocks a snapshot of the state is made, for nodes that join; 0
    /// makes none.
    #[garde(skip)]
    pub snapshot_every: u64,
    /// Under `cometbft`: how many of the newest blocks are kept; all of them when absent. Joining
    /// nodes need a snapshot then.
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
            blobs_listen: loopback(8090),
            block_interval_ms: None,
            keep_versions: 1000,
            snapshot_every: 1000,
            keep_blocks: None,
            cometbft: None,
        }
    }
}

impl Ledger {
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

/// The roles of this node. One that is absent does not run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, Validate)]
#[serde(deny_unknown_fields, default)]
pub struct Roles {
    /// Role 1: trains.
    #[garde(dive)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub miner: Option<RoleConfig>,
    /// Role 2: answers.
    #[garde(dive)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serving: Option<RoleConfig>,
    /// Role 3: re-executes and votes.
    #[garde(dive)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validator: Option<RoleConfig>,
    /// Role 4: aggregates.
    #[garde(dive)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proposer: Option<RoleConfig>,
}

/// One role's process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Validate)]
#[serde(deny_unknown_fields, default)]
pub struct RoleConfig {
    /// Address this role's blob gateway listens on.
    #[garde(skip)]
    pub blobs_listen: SocketAddr,
    /// Base URL other machines reach the blob gateway under; the listen address when absent.
    #[garde(inner(custom(is_http_url)))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blobs_url: Option<String>,
    /// Address the answering API listens on (role serving only).
    #[garde(skip)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_listen: Option<SocketAddr>,
    /// Base URL the gateway reaches the answering API under; the listen address when absent.
    #[garde(inner(custom(is_http_url)))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_url: Option<String>,
    /// Memory for activations, in MiB. Bounds the micro-batch and never changes a result.
    #[garde(range(min = 16))]
    pub memory_mb: u64,
    /// Disk for this role's blobs, in MiB; pinned blobs are never evicted. Kubo has its own limit.
    #[garde(range(min = 64))]
    pub storage_mb: u64,
    /// Whether blobs and work are flushed to the disk before they count as written. Without it a
    /// power failure may cost the newest work, and with it the round's pay.
    #[garde(skip)]
    pub durable: bool,
}

impl Default for RoleConfig {
    fn default() -> Self {
        Self {
            blobs_listen: loopback(0),
            blobs_url: None,
            api_listen: None,
            api_url: None,
            memory_mb: 1024,
            storage_mb: 4096,
            durable: true,
        }
    }
}

impl RoleConfig {
    /// The role's defaults, on a port of its own.
    pub fn for_role(role: Role) -> Self {
        Self {
            blobs_listen: loopback(8090 + role.number() as u16),
            api_listen: (role == Role::Serving).then(|| loopback(8100)),
            ..Self::default()
        }
    }

    /// Base URL that others fetch this role's blobs from.
    pub fn public_blobs_url(&self) -> String {
        self.blobs_url
            .clone()
            .unwrap_or_else(|| format!("http://{}", self.blobs_listen))
    }

    /// Base URL that the gateway sends requests to, for the role serving.
    pub fn public_api_url(&self) -> Option<String> {
        self.api_url
            .clone()
            .or_else(|| self.api_listen.map(|address| format!("http://{address}")))
    }
}

/// Where the roles keep their blobs. The ledger's bootstrap store is always a folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Validate)]
#[serde(deny_unknown_fields, default)]
pub struct Blobs {
    /// `own`: a folder for each role; `kubo`: a Kubo node, which all roles share.
    #[garde(skip)]
    pub store: BlobBackEnd,
    /// Base URL of Kubo's RPC, which only this machine should reach.
    #[garde(custom(is_http_url))]
    pub kubo_rpc: String,
}

impl Default for Blobs {
    fn default() -> Self {
        Self {
            store: BlobBackEnd::Own,
            kubo_rpc: "http://127.0.0.1:5001".into(),
        }
    }
}

/// Who keeps blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BlobBackEnd {
    /// Folders of our own.
    Own,
    /// A Kubo node.
    Kubo,
}

/// Processor use of each role's process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Validate)]
#[serde(deny_unknown_fields, default)]
pub struct Compute {
    /// Kernel back end: `auto`, `scalar`, `avx2`, `avx512`, `amx` or `neon`. Every one gives the same bits.
    #[garde(custom(is_kernels))]
    pub kernels: String,
    /// Kernel threads of each process. The result never depends on it.
    #[garde(range(min = 1, max = MAX_THREADS))]
    pub threads: usize,
}

impl Default for Compute {
    fn default() -> Self {
        Self {
            kernels: "auto".into(),
            threads: 1,
        }
    }
}

/// Logging.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Validate)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// A level (`error`, `warn`, `info`, `debug`, `trace`) or a filter such as `info,r3mes_node=debug`.
    #[garde(length(min = 1, max = 1000))]
    pub level: String,
    /// One JSON object a line instead of text.
    #[garde(skip)]
    pub json: bool,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: "info".into(),
            json: false,
        }
    }
}

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// There is no file.
    #[error("there is no {path}; run `r3mes init --home {home}` first")]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
        /// The home directory.
        home: PathBuf,
    },
    /// The file could not be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// Far too long for a configuration.
    #[error("{path} has {bytes} bytes; a configuration has at most {MAX_CONFIG_BYTES}")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// Not valid YAML, an unknown key, or a value out of its range.
    #[error("{path} is not valid:\n{problem}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Every complaint, with line, column and the line itself.
        problem: String,
    },
    /// Two services want the same address.
    #[error(
        "{first} and {second} both listen on {address}; give one of them another port in {path}"
    )]
    AddressClash {
        /// One service's key in the file.
        first: String,
        /// The other's.
        second: String,
        /// The address.
        address: SocketAddr,
        /// The file.
        path: PathBuf,
    },
}

impl Config {
    /// Reads and checks a home's configuration.
    ///
    /// # Errors
    /// See [`ConfigError`]; every complaint says where and what to do.
    pub fn load(home: &Home) -> Result<Self, ConfigError> {
        let path = home.config_file();
        let read_error = |source: std::io::Error| match source.kind() {
            std::io::ErrorKind::NotFound => ConfigError::Missing {
                path: path.clone(),
                home: home.root().to_owned(),
            },
            _ => ConfigError::Read {
                path: path.clone(),
                source,
            },
        };
        let bytes = fs::metadata(&path).map_err(read_error)?.len();
        if bytes > MAX_CONFIG_BYTES {
            return Err(ConfigError::TooLarge { path, bytes });
        }
        let text = fs::read_to_string(&path).map_err(read_error)?;
        Self::parse(&text, path)
    }

    /// Parses and checks a configuration's text; `path` is named in complaints.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] or [`ConfigError::AddressClash`].
    pub fn parse(text: &str, path: PathBuf) -> Result<Self, ConfigError> {
        let config: Self = if text.trim().is_empty() {
            Self::default()
        } else {
            serde_saphyr::from_str_valid(text).map_err(|error| ConfigError::Invalid {
                path: path.clone(),
                problem: error.to_string(),
            })?
        };
        config.refuse_clashes(path)?;
        Ok(config)
    }

    /// The configuration as YAML, for `r3mes init`.
    pub fn to_yaml(&self) -> String {
        serde_saphyr::to_string(self).expect("a configuration holds only plain values")
    }

    /// The roles this node plays, in the order of their numbers.
    pub fn enabled_roles(&self) -> Vec<(Role, &RoleConfig)> {
        Role::ALL
            .iter()
            .copied()
            .filter_map(|role| self.role(role).map(|config| (role, config)))
            .collect()
    }

    /// One role's configuration, if the node plays it.
    pub fn role(&self, role: Role) -> Option<&RoleConfig> {
        match role {
            Role::Miner => self.roles.miner.as_ref(),
            Role::Serving => self.roles.serving.as_ref(),
            Role::Validator => self.roles.validator.as_ref(),
            Role::Proposer => self.roles.proposer.as_ref(),
        }
    }

    /// One role's configuration to change, if the node plays it.
    pub fn role_mut(&mut self, role: Role) -> Option<&mut RoleConfig> {
        match role {
            Role::Miner => self.roles.miner.as_mut(),
            Role::Serving => self.roles.serving.as_mut(),
            Role::Validator => self.roles.validator.as_mut(),
            Role::Proposer => self.roles.proposer.as_mut(),
        }
    }

    /// Switches exactly these roles on, keeping what the file says of them.
    pub fn set_roles(&mut self, roles: &[Role]) {
        for &role in Role::ALL {
            let slot = match role {
                Role::Miner => &mut self.roles.miner,
                Role::Serving => &mut self.roles.serving,
                Role::Validator => &mut self.roles.validator,
                Role::Proposer => &mut self.roles.proposer,
            };
            *slot = roles
                .contains(&role)
                .then(|| slot.take().unwrap_or_else(|| RoleConfig::for_role(role)));
        }
    }

    fn listeners(&self) -> Vec<(String, SocketAddr)> {
        let mut found = Vec::new();
        if let Some(ledger) = &self.services.ledger {
            found.push(("services.ledger.rpc_listen".to_owned(), ledger.rpc_listen));
            found.push((
                "services.ledger.blobs_listen".to_owned(),
                ledger.blobs_listen,
            ));
            let cosmos = [
                ("services.ledger.grpc_listen", ledger.grpc_listen),
                ("services.ledger.rest_listen", ledger.rest_listen),
            ];
            found.extend(
                cosmos
                    .into_iter()
                    .filter_map(|(key, address)| address.map(|address| (key.to_owned(), address))),
            );
        }
        if let Some(ledger) = self
            .services
            .ledger
            .as_ref()
            .filter(|l| l.starts_cometbft())
        {
            found.push((
                "services.ledger.cometbft.p2p_listen".to_owned(),
                ledger.cometbft().p2p_listen,
            ));
        }
        if let Some(gateway) = &self.services.gateway {
            found.push(("services.gateway.listen".to_owned(), gateway.listen));
        }
        for (role, config) in self.enabled_roles() {
            found.push((format!("roles.{role}.blobs_listen"), config.blobs_listen));
            found.extend(
                config
                    .api_listen
                    .map(|address| (format!("roles.{role}.api_listen"), address)),
            );
        }
        found
    }

    fn refuse_clashes(&self, path: PathBuf) -> Result<(), ConfigError> {
        let listeners = self.listeners();
        for (i, (second, address)) in listeners.iter().enumerate() {
            let clash = listeners[..i].iter().find(|(_, other)| other == address);
            if let (Some((first, _)), true) = (clash, address.port() != 0) {
                return Err(ConfigError::AddressClash {
                    first: first.clone(),
                    second: second.clone(),
                    address: *address,
                    path,
                });
            }
        }
        Ok(())
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn is_http_url(value: &str, _: &()) -> garde::Result {
    let rest = value
        .strip_prefix("http://")
        .or_else(|| value.strip_prefix("https://"));
    match rest {
        Some(host) if !host.is_empty() && !host.starts_with('/') => Ok(()),
        _ => Err(garde::Error::new(
            "must be a base URL such as http://127.0.0.1:26657",
        )),
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

fn is_host_and_port(value: &str, _: &()) -> garde::Result {
    let port = value.rsplit_once(':').filter(|(host, _)| !host.is_empty());
    match port.and_then(|(_, port)| port.parse::<u16>().ok()) {
        Some(_) => Ok(()),
        None => Err(garde::Error::new("must be HOST:PORT")),
    }
}

fn is_peer(value: &str, _: &()) -> garde::Result {
    let parts = value.split_once('@');
    let known = |(id, address): &(&str, &str)| {
        id.len() == 40
            && id.bytes().all(|digit| digit.is_ascii_hexdigit())
            && is_host_and_port(address, &()).is_ok()
    };
    match parts.filter(known) {
        Some(_) => Ok(()),
        None => Err(garde::Error::new(
            "must be ID@HOST:PORT, with the 40 digits that `r3mes keys show` prints on that machine",
        )),
    }
}

pub(crate) fn is_hash(value: &str, _: &()) -> garde::Result {
    match hex::decode(value).map(|bytes| bytes.len()) {
        Ok(32) => Ok(()),
        _ => Err(garde::Error::new("must be 64 hexadecimal digits")),
    }
}

fn is_abci(value: &str, _: &()) -> garde::Result {
    let tcp = value.strip_prefix("tcp://");
    let known =
        value.starts_with("unix:///") || tcp.is_some_and(|at| at.parse::<SocketAddr>().is_ok());
    match known {
        true => Ok(()),
        false => Err(garde::Error::new(
            "must be unix:///path or tcp://ADDRESS:PORT with an IP address",
        )),
    }
}

fn is_comet_rpc(value: &str, _: &()) -> garde::Result {
    match value.starts_with("unix:///") || value.starts_with("http://") {
        true => Ok(()),
        false => Err(garde::Error::new(
            "must be unix:///path or http://HOST:PORT",
        )),
    }
}

pub(crate) fn is_amount(value: &str, _: &()) -> garde::Result {
    let parsed = value.parse::<r3mes_types::Amount>();
    parsed
        .map(|_| ())
        .map_err(|error| garde::Error::new(error.to_string()))
}

fn is_kernels(value: &str, _: &()) -> garde::Result {
    if value == "auto" || value.parse::<r3mes_exact::Isa>().is_ok() {
        return Ok(());
    }
    Err(garde::Error::new(
        "must be auto, scalar, avx2, avx512, amx or neon",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(text, "config.yaml".into())
    }

    #[test]
    fn an_empty_file_is_the_default_configuration() {
        assert_eq!(parse("").unwrap(), Config::default());
    }

    #[test]
    fn a_written_configuration_reads_back_the_same() {
        let mut config = Config::default();
        config.services.ledger = Some(Ledger::default());
        config.set_roles(&[Role::Miner, Role::Serving]);
        assert_eq!(parse(&config.to_yaml()).unwrap(), config);
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line() {
        let refusal = parse("network:\n  chain_id: a\n  rcp: http://x\n")
            .unwrap_err()
            .to_string();
        assert!(
            refusal.contains("rcp") && refusal.contains("line 3"),
            "{refusal}"
        );
    }

    #[test]
    fn a_value_out_of_range_is_refused_with_its_line() {
        let refusal = parse("compute:\n  kernels: fast\n")
            .unwrap_err()
            .to_string();
        assert!(
            refusal.contains("line 2") && refusal.contains("avx2"),
            "{refusal}"
        );
    }

    #[test]
    fn blobs_are_kept_in_folders_unless_kubo_is_named() {
        assert_eq!(parse("").unwrap().blobs.store, BlobBackEnd::Own);
        let kubo = parse("blobs:\n  store: kubo\n").unwrap().blobs;
        assert_eq!(kubo.store, BlobBackEnd::Kubo);
        let refusal = parse("blobs:\n  store: kobu\n").unwrap_err().to_string();
        assert!(refusal.contains("line 2"), "{refusal}");
    }

    #[test]
    fn blocks_are_not_dropped_that_joining_nodes_need() {
        let text = |every, keep| {
            format!("services:\n  ledger:\n    snapshot_every: {every}\n    keep_blocks: {keep}\n")
        };
        parse(&text(1000, 2000)).unwrap();
        for (every, keep, named) in [(0, 2000, "needs snapshots"), (1000, 1999, "at least twice")] {
            let refusal = parse(&text(every, keep)).unwrap_err().to_string();
            assert!(refusal.contains(named), "{refusal}");
        }
    }

    #[test]
    fn cometbft_is_chosen_by_name_and_its_peers_are_checked() {
        let text =
            "services:\n  ledger:\n    engine: cometbft\n    cometbft:\n      peers: [PEER]\n";
        let id = "0123456789abcdef0123456789abcdef01234567";
        let config = parse(&text.replace("PEER", &format!("{id}@10.0.0.2:26656"))).unwrap();
        let ledger = config.services.ledger.unwrap();
        assert!(ledger.starts_cometbft());
        assert_eq!(ledger.block_interval(), Duration::from_secs(1));
        for peer in [
            "10.0.0.2:26656",
            "abc@10.0.0.2:26656",
            &format!("{id}@10.0.0.2"),
        ] {
            let refusal = parse(&text.replace("PEER", peer)).unwrap_err().to_string();
            assert!(refusal.contains("ID@HOST:PORT"), "{refusal}");
        }
        let attached = "services:\n  ledger:\n    engine: cometbft\n    cometbft:\n      attach: {abci: 'tcp://127.0.0.1:26658', rpc: 'http://127.0.0.1:36657'}\n";
        let config = parse(attached).unwrap();
        assert!(!config.services.ledger.unwrap().starts_cometbft());
        assert!(parse(&attached.replace("tcp:", "http:")).is_err());
    }

    #[test]
    fn two_services_on_one_port_are_named_both() {
        let refusal = parse("services:\n  gateway:\n    listen: 127.0.0.1:8091\nroles:\n  miner:\n    blobs_listen: 127.0.0.1:8091\n")
            .unwrap_err()
            .to_string();
        assert!(
            refusal.contains("services.gateway.listen")
                && refusal.contains("roles.miner.blobs_listen"),
            "{refusal}"
        );
    }
}

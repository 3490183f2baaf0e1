//! What a node runs: one YAML file, checked as a whole, with line numbers in every complaint.
//!
//! Order of precedence: command line, then environment, then the file, then these defaults.

mod checks;
mod clashes;
mod flight;
mod functions;
mod http;
mod network;
#[cfg(test)]
mod page;
mod roles;
mod services;

use std::{
    fs,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
};

use garde::Validate;
use r3mes_types::Role;
use serde::{Deserialize, Serialize};

use self::checks::{is_kernels, is_log_filter};
pub(crate) use self::{
    checks::{is_amount, is_hash, is_host_and_port, is_http_url},
    functions::is_nats_url,
};
pub use self::{
    flight::Flight,
    functions::{Billing, Functions, Nats, Tls},
    http::Http,
    network::{Light, LongTrust, Network, TrustError, TrustedHeader},
    roles::{BlobBackEnd, Blobs, RoleConfig, Roles},
    services::{Attach, CometBft, Engine, Gateway, Ledger, Services, StateSync},
};
use crate::{home::Home, keyring::Keyring, process::Rotation, yaml};

/// Most bytes a configuration file may have.
const MAX_CONFIG_BYTES: u64 = 1 << 20;
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
    /// Services that hold no role: the ledger and the gateways.
    #[garde(dive)]
    pub services: Services,
    /// Roles this node plays, each in a process of its own.
    #[garde(dive)]
    pub roles: Roles,
    /// Where the roles keep their blobs.
    #[garde(dive)]
    pub blobs: Blobs,
    /// Arrow Flight between nodes that share a token.
    #[garde(dive)]
    pub flight: Flight,
    /// What clients over HTTP are held to.
    #[garde(dive)]
    pub http: Http,
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
    #[garde(length(min = 1, max = 1000), custom(is_log_filter))]
    pub level: String,
    /// One JSON object a line instead of text.
    #[garde(skip)]
    pub json: bool,
    /// MiB from which on the log of a service is set aside, and begun anew.
    #[garde(range(min = 1, max = 1 << 20))]
    pub max_mb: u32,
    /// How many of those are kept of each service: LOG.1 is the newest.
    #[garde(range(max = 1000))]
    pub kept: u32,
}

impl Log {
    /// When logs are set aside.
    pub const fn rotation(&self) -> Rotation {
        Rotation {
            bytes: (self.max_mb as u64) << 20,
            kept: self.kept,
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: "info".into(),
            json: false,
            max_mb: 16,
            kept: 4,
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
    /// There are keys, but no file.
    #[error(
        "there is no {path}, though the home has keys: put the file back. Where there is no copy, `r3mes init --home ANOTHER` with the same flags writes one like it"
    )]
    Lost {
        /// Where it was looked for.
        path: PathBuf,
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
    /// Not valid YAML, an unknown key, a value out of its range, or two services at one address.
    #[error("{path} is not valid:\n{problem}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Every complaint, with line, column and the line itself.
        problem: String,
    },
}

impl Config {
    /// Reads and checks a home's configuration.
    ///
    /// # Errors
    /// See [`ConfigError`]; every complaint says where and what to do.
    pub fn load(home: &Home) -> Result<Self, ConfigError> {
        let path = home.config_file();
        let has_keys = Keyring::new(home).account_address().is_ok();
        let read_error = |source: std::io::Error| match source.kind() {
            std::io::ErrorKind::NotFound if has_keys => ConfigError::Lost { path: path.clone() },
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
    /// [`ConfigError::Invalid`].
    pub fn parse(text: &str, path: PathBuf) -> Result<Self, ConfigError> {
        let read = yaml::read(text).and_then(|config: Self| {
            clashes::refuse(&config, text)?;
            Ok(config)
        });
        read.map_err(|problem| ConfigError::Invalid { path, problem })
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

    /// Base URL of the API by which this machine finds answers: its gateway's, else its serving
    /// role's, else where a gateway listens that nobody configured.
    pub fn api_url(&self) -> String {
        let gateway = self.services.gateway.as_ref().map(|gateway| gateway.listen);
        let serving = self.roles.serving.as_ref();
        let serving = || serving.and_then(|serving| serving.api_listen);
        let listen = gateway.or_else(serving);
        let mut address = listen.unwrap_or_else(|| Gateway::default().listen);
        if address.ip().is_unspecified() {
            address.set_ip(match address {
                SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
        }
        format!("http://{address}")
    }
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
    fn a_home_whose_file_is_gone_keeps_its_keys() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::new(folder.path());
        let refusal = Config::load(&home).unwrap_err().to_string();
        assert!(refusal.contains("run `r3mes init --home"), "{refusal}");
        home.create().unwrap();
        Keyring::new(&home).generate().unwrap();
        let refusal = Config::load(&home).unwrap_err().to_string();
        assert!(refusal.contains("put the file back"), "{refusal}");
        let refusal = Keyring::new(&home).generate().unwrap_err().to_string();
        assert!(refusal.contains("not replaced"), "{refusal}");
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
    fn kernels_that_this_machine_lacks_are_refused_with_their_line() {
        let all = ["scalar", "avx2", "avx512", "amx", "neon"];
        let has = |name: &str| name.parse::<r3mes_exact::Isa>().unwrap().is_available();
        assert!(all.into_iter().any(|name| !has(name)), "x86 has no NEON");
        for name in all {
            match parse(&format!("compute:\n  kernels: {name}\n")) {
                Ok(_) => assert!(has(name), "{name}"),
                Err(refusal) => {
                    let refusal = refusal.to_string();
                    assert!(!has(name), "{refusal}");
                    assert!(
                        refusal.contains("line 2") && refusal.contains("it has: scalar"),
                        "{refusal}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_log_filter_that_does_not_parse_is_refused_with_its_line() {
        parse("log:\n  level: info,r3mes_node=debug\n").unwrap();
        let refusal = parse("log:\n  level: 'la[la'\n").unwrap_err().to_string();
        assert!(
            refusal.contains("line 2") && refusal.contains("r3mes_node=debug"),
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
    fn blocks_are_at_most_a_second_apart() {
        let text = |millis| format!("services:\n  ledger:\n    block_interval_ms: {millis}\n");
        parse(&text(1000)).unwrap();
        for millis in [0, 1001] {
            let refusal = parse(&text(millis)).unwrap_err().to_string();
            assert!(
                refusal.contains("line 3") && refusal.contains("four blocks"),
                "{refusal}"
            );
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
    fn answers_are_looked_up_where_this_home_gives_them() {
        let api = |text| parse(text).unwrap().api_url();
        assert_eq!(api(""), "http://127.0.0.1:8000");
        let gateway = "services:\n  gateway:\n    listen: 0.0.0.0:8123\n";
        assert_eq!(api(gateway), "http://127.0.0.1:8123");
        let serving = "roles:\n  serving:\n    api_listen: 10.0.0.2:8001\n";
        assert_eq!(api(serving), "http://10.0.0.2:8001");
    }

    #[test]
    fn a_role_is_reached_over_flight_where_its_blob_gateway_is_off() {
        let text = "roles:\n  miner:\n    blobs_listen: null\n    flight_listen: 127.0.0.1:8815\n";
        let config = parse(text).unwrap();
        let miner = config.role(Role::Miner).unwrap();
        assert_eq!(miner.public_blobs_url(), "flight://127.0.0.1:8815");
        assert_eq!(parse(&config.to_yaml()).unwrap(), config);
        let neither = text.replace("    flight_listen: 127.0.0.1:8815\n", "");
        let refusal = parse(&neither).unwrap_err().to_string();
        assert!(refusal.contains("flight_listen"), "{refusal}");
        let both = text.replace("null", "127.0.0.1:8815");
        let refusal = parse(&both).unwrap_err().to_string();
        assert!(
            refusal.contains("roles.miner.blobs_listen")
                && refusal.contains("roles.miner.flight_listen"),
            "{refusal}"
        );
    }

    #[test]
    fn peers_are_flight_services_and_blobs_are_had_from_either_kind() {
        let text = |key, value| format!("{key}: ['{value}']\n");
        let peers = |value| parse(&text("flight:\n  peers", value));
        peers("flight://10.0.0.7:8815").unwrap();
        for bad in ["http://10.0.0.7:8815", "flight://10.0.0.7", "10.0.0.7:8815"] {
            let refusal = peers(bad).unwrap_err().to_string();
            assert!(refusal.contains("flight://HOST:PORT"), "{refusal}");
        }
        let blobs = |value| parse(&text("network:\n  bootstrap_blobs", value));
        blobs("flight://10.0.0.7:8815").unwrap();
        blobs("http://10.0.0.7:8090").unwrap();
        let refusal = blobs("flight://10.0.0.7").unwrap_err().to_string();
        assert!(refusal.contains("flight://HOST:PORT"), "{refusal}");
    }
}

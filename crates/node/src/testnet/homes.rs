//! Makes the homes of a network: keys, genesis, peers, configurations.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
};

use anyhow::Context;
use r3mes_types::{Address, Amount, Role, RoleSet, bank::Balance};

use super::{MAX_VALIDATORS, Options};
use crate::{
    agents, clock,
    config::{CometBft, Config, Engine, Gateway, Ledger, RoleConfig},
    genesis::{self, Charter, Founder},
    home::Home,
    keyring::Keyring,
    plan::Plan,
    ports::{free_ports, loopback},
    process::Service,
    services,
};

/// The file that marks a folder as a network's; the homes in it, one name a line.
const MARKER: &str = ".r3mes-testnet";
/// Name of the chain.
const CHAIN_ID: &str = "r3mes-testnet";
/// What each node starts with.
const BALANCE: Amount = Amount::remes(10_000);
/// What each node puts at stake.
const STAKE: Amount = Amount::remes(1_000);
/// Most miners of a round.
const MAX_MINERS: u32 = 64;
/// Most ports that a node on this machine listens on.
const PORTS: usize = 9;

/// A network's homes.
pub struct Testnet {
    /// Its nodes; the first one also aggregates, answers prompts, and has the public API.
    pub nodes: Vec<Node>,
}

/// One node of a network.
#[derive(Clone, Debug)]
pub struct Node {
    /// Name of its home's folder.
    pub name: String,
    /// Its home.
    pub home: Home,
    /// Its configuration.
    pub config: Config,
}

impl Node {
    /// One of its services on the status board.
    pub(super) fn label(&self, service: Service) -> String {
        format!("{}{service}", self.prefix())
    }

    /// What the labels of this node's processes begin with.
    pub(super) fn prefix(&self) -> String {
        format!("{}/", self.name)
    }
}

/// The names of machines in a file: one a line, without ports; `#` begins a remark.
///
/// # Errors
/// Names the line that is no host name or address.
pub fn parse_hosts(text: &str) -> anyhow::Result<Vec<String>> {
    let mut hosts: Vec<String> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let host = line.split('#').next().unwrap_or_default().trim();
        let known = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
        if host.is_empty() {
            continue;
        }
        anyhow::ensure!(
            host.chars().all(known) && !hosts.iter().any(|other| other == host),
            "line {}: {host:?} is no name or IPv4 address of a machine, or stands there twice",
            number + 1
        );
        hosts.push(host.to_owned());
    }
    anyhow::ensure!(
        !hosts.is_empty(),
        "there is no host in it: write one a line"
    );
    Ok(hosts)
}

impl Testnet {
    /// Opens the network that is in the folder, or makes one there. Whether it was made.
    ///
    /// # Errors
    /// When the folder holds something else, or files cannot be written.
    pub fn open_or_make(options: &Options) -> anyhow::Result<(Self, bool)> {
        let dir = &options.dir;
        if dir.join(MARKER).is_file() {
            return Ok((Self::open(dir)?, false));
        }
        let empty = dir
            .read_dir()
            .map_or(true, |mut entries| entries.next().is_none());
        anyhow::ensure!(
            empty,
            "{} holds files that no testnet made; name a new or empty folder with --dir",
            dir.display()
        );
        anyhow::ensure!(
            (1..=MAX_VALIDATORS).contains(&options.validators),
            "a network has 1 to {MAX_VALIDATORS} validators"
        );
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let dir = dir.canonicalize()?;
        Ok((Self::make(&dir, options)?, true))
    }

    fn open(dir: &Path) -> anyhow::Result<Self> {
        let dir = dir.canonicalize()?;
        let names = fs::read_to_string(dir.join(MARKER))?;
        let open = |name: &str| {
            let home = Home::new(dir.join(name));
            let config = Config::load(&home)?;
            let name = name.to_owned();
            anyhow::Ok(Node { name, home, config })
        };
        let nodes = names.lines().map(open).collect::<Result<Vec<_>, _>>()?;
        anyhow::ensure!(
            !nodes.is_empty(),
            "{} names no home",
            dir.join(MARKER).display()
        );
        Ok(Self { nodes })
    }

    fn make(dir: &Path, options: &Options) -> anyhow::Result<Self> {
        let places = places(options)?;
        let mut nodes = Vec::new();
        for (first, place) in (0..).map(|number| number == 0).zip(&places) {
            let home = Home::new(dir.join(&place.name));
            home.create()?;
            Keyring::new(&home).generate()?;
            let mut config = place.config(first, options);
            config.network.bootstrap_blobs = places
                .iter()
                .map(|place| place.url(place.ports.blobs))
                .collect();
            nodes.push(Node {
                name: place.name.clone(),
                home,
                config,
            });
        }
        let peers: Vec<String> = nodes
            .iter()
            .zip(&places)
            .map(|(node, place)| {
                let id = services::cometbft::node_id(&Keyring::new(&node.home))?;
                anyhow::Ok(format!("{id}@{}:{}", place.host, place.ports.p2p))
            })
            .collect::<Result<_, _>>()?;
        for (number, node) in nodes.iter_mut().enumerate() {
            let ledger = node.config.services.ledger.as_mut();
            if let Some(comet) = ledger.and_then(|ledger| ledger.cometbft.as_mut()) {
                let others = peers
                    .iter()
                    .enumerate()
                    .filter(|(other, _)| *other != number);
                comet.peers = others.map(|(_, peer)| peer.clone()).collect();
            }
        }
        found(&nodes, options)?;
        for node in &nodes {
            fs::write(node.home.config_file(), node.config.to_yaml())
                .with_context(|| format!("cannot write {}", node.home.config_file().display()))?;
        }
        // Last, so that a network whose making was broken off does not count as one.
        let names: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
        fs::write(dir.join(MARKER), names.join("\n"))?;
        Ok(Self { nodes })
    }
}

/// Where a node runs.
struct Place {
    name: String,
    /// How others reach it.
    host: String,
    /// What its services listen on that others reach.
    open: IpAddr,
    ports: Ports,
}

struct Ports {
    rpc: u16,
    blobs: u16,
    p2p: u16,
    api: u16,
    /// By role: its blobs, and the answering API.
    roles: Vec<(Role, u16)>,
    answers: u16,
}

impl Place {
    fn url(&self, port: u16) -> String {
        format!("http://{}:{port}", self.host)
    }

    fn config(&self, first: bool, options: &Options) -> Config {
        let mut config = Config::default();
        let ports = &self.ports;
        let here = self.open == IpAddr::V4(Ipv4Addr::LOCALHOST);
        config.node.moniker.clone_from(&self.name);
        config.node.stake = Some(STAKE.to_string());
        config.network.chain_id = CHAIN_ID.to_owned();
        config.network.rpc = format!("http://{}", loopback(ports.rpc));
        let interval = options.block_interval.as_millis();
        let usual = Ledger::default();
        config.services.ledger = Some(Ledger {
            engine: Engine::Cometbft,
            rpc_listen: loopback(ports.rpc),
            // On one machine there is only one port 9090.
            grpc_listen: usual.grpc_listen.filter(|_| !here),
            rest_listen: usual.rest_listen.filter(|_| !here),
            blobs_listen: Some(SocketAddr::new(self.open, ports.blobs)),
            block_interval_ms: Some(u64::try_from(interval).unwrap_or(u64::MAX)),
            cometbft: Some(CometBft {
                p2p_listen: SocketAddr::new(self.open, ports.p2p),
                external_address: (!here).then(|| format!("{}:{}", self.host, ports.p2p)),
                ..CometBft::default()
            }),
            ..Ledger::default()
        });
        config.services.gateway = first.then(|| Gateway {
            listen: loopback(ports.api),
            ..Gateway::default()
        });
        let mut roles = vec![Role::Miner, Role::Validator];
        if first {
            roles.extend([Role::Serving, Role::Proposer]);
        }
        config.set_roles(&roles);
        for &(role, blobs) in &ports.roles {
            let answers = (role == Role::Serving).then_some(ports.answers);
            if let Some(settings) = config.role_mut(role) {
                *settings = RoleConfig {
                    blobs_listen: Some(SocketAddr::new(self.open, blobs)),
                    blobs_url: (!here).then(|| self.url(blobs)),
                    api_listen: answers.map(|port| SocketAddr::new(self.open, port)),
                    api_url: answers.filter(|_| !here).map(|port| self.url(port)),
                    ..RoleConfig::default()
                };
            }
        }
        config
    }
}

fn places(options: &Options) -> anyhow::Result<Vec<Place>> {
    if !options.hosts.is_empty() {
        let usual = |host: &String| Place {
            name: host.clone(),
            host: host.clone(),
            open: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            ports: Ports {
                rpc: Ledger::default().rpc_listen.port(),
                blobs: Ledger::BLOBS_PORT,
                p2p: CometBft::default().p2p_listen.port(),
                api: Gateway::default().listen.port(),
                roles: Role::ALL
                    .iter()
                    .map(|&role| (role, RoleConfig::blobs_port(role)))
                    .collect(),
                answers: RoleConfig::for_role(Role::Serving)
                    .api_listen
                    .map_or(0, |address| address.port()),
            },
        };
        return Ok(options.hosts.iter().map(usual).collect());
    }
    let mut ports = free_ports(PORTS * options.validators, options.port)?.into_iter();
    let mut next = || ports.next().context("too few ports");
    let mut places = Vec::new();
    for number in 1..=options.validators {
        let free = next()?;
        places.push(Place {
            name: format!("node-{number}"),
            host: Ipv4Addr::LOCALHOST.to_string(),
            open: IpAddr::V4(Ipv4Addr::LOCALHOST),
            ports: Ports {
                rpc: next()?,
                blobs: next()?,
                p2p: next()?,
                api: match options.port {
                    0 => free,
                    wanted => wanted,
                },
                roles: Role::ALL
                    .iter()
                    .map(|&role| anyhow::Ok((role, next()?)))
                    .collect::<Result<_, _>>()?,
                answers: next()?,
            },
        });
    }
    Ok(places)
}

fn found(nodes: &[Node], options: &Options) -> anyhow::Result<()> {
    let founders = nodes
        .iter()
        .map(|node| {
            let roles: Vec<Role> = node
                .config
                .enabled_roles()
                .iter()
                .map(|(role, _)| *role)
                .collect();
            let spec = agents::spec(&node.home, &node.config, RoleSet::of(&roles), STAKE)?;
            anyhow::Ok(Founder {
                home: node.home.clone(),
                node: Some(spec),
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    let mut addresses = nodes
        .iter()
        .map(|node| Keyring::new(&node.home).account_address())
        .collect::<Result<Vec<Address>, _>>()?;
    addresses.sort_unstable();
    let balances: Vec<Balance> = addresses
        .into_iter()
        .map(|address| Balance {
            address,
            amount: BALANCE,
        })
        .collect();
    let count = u32::try_from(nodes.len())?;
    genesis::found(&Charter {
        chain_id: CHAIN_ID,
        balances: &balances,
        shards: nodes.len(),
        time: clock::now(),
        beacon_chain: genesis::BEACON_CHAIN,
        founders: &founders,
        run: Some(Plan {
            min_miners: count,
            max_miners: MAX_MINERS.max(count),
            min_validators: count,
            ..Plan::demonstration(options.rounds)
        }),
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_one_a_line_and_named_when_they_are_none() {
        let hosts = parse_hosts("10.0.0.1\n# a remark\n\nb.example # another\n").unwrap();
        assert_eq!(hosts, ["10.0.0.1", "b.example"]);
        for (text, line) in [
            ("a\nb:1\n", "line 2"),
            ("a\n../b\n", "line 2"),
            ("a\na\n", "line 2"),
        ] {
            let refusal = parse_hosts(text).unwrap_err().to_string();
            assert!(refusal.contains(line), "{refusal}");
        }
        assert!(parse_hosts("# nobody\n").is_err());
    }
}

//! Makes the homes of a network: keys, genesis, peers, configurations.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
};

use anyhow::Context;
use r3mes_types::{Address, Amount, Role, RoleSet, bank::Balance};

use super::{Host, MAX_VALIDATORS, Options};
use crate::{
    agents, clock,
    config::{CometBft, Config, Engine, Gateway, Ledger, Light, RoleConfig},
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
/// Most bootstrap stores that a configuration names.
const MAX_BOOTSTRAPS: usize = 16;
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

impl Testnet {
    /// Whether a network is in the folder.
    pub fn is_in(dir: &Path) -> bool {
        dir.join(MARKER).is_file()
    }

    /// Opens the network that is in the folder, or makes one there. Whether it was made.
    ///
    /// # Errors
    /// When the folder holds something else, or files cannot be written.
    pub fn open_or_make(options: &Options) -> anyhow::Result<(Self, bool)> {
        let dir = &options.dir;
        if Self::is_in(dir) {
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
        let ledgers: Vec<&Place> = places.iter().filter(|place| place.validates()).collect();
        let first = ledgers.first().context("nobody signs blocks")?;
        let all_have_one = ledgers.len() == places.len();
        let mut asked = ledgers.iter().cycle();
        let mut nodes = Vec::new();
        for place in &places {
            let home = Home::new(dir.join(&place.name));
            home.create()?;
            Keyring::new(&home).generate()?;
            let mut config = place.config(options);
            if !place.validates() {
                let asked = asked.next().context("nobody has a ledger")?;
                config.network.rpc = asked.url(asked.ports.rpc);
                config.network.light = Some(Light {
                    max_header_age_s: Some(Light::MAX_HEADER_AGE_S),
                    ..Light::default()
                });
            } else if let (false, Some(ledger)) = (all_have_one, &mut config.services.ledger) {
                ledger.rpc_listen = SocketAddr::new(place.open, place.ports.rpc);
            }
            config.services.gateway = (place.name == first.name).then(|| Gateway {
                listen: loopback(place.ports.api),
                ..Gateway::default()
            });
            let stores = ledgers.iter().take(MAX_BOOTSTRAPS);
            config.network.bootstrap_blobs =
                stores.map(|place| place.url(place.ports.blobs)).collect();
            nodes.push(Node {
                name: place.name.clone(),
                home,
                config,
            });
        }
        let peers = nodes.iter().zip(&places);
        let peers = peers.filter(|(_, place)| place.validates());
        let peers: Vec<(String, String)> = peers
            .map(|(node, place)| {
                let id = services::cometbft::node_id(&Keyring::new(&node.home))?;
                let peer = format!("{id}@{}:{}", place.host, place.ports.p2p);
                anyhow::Ok((node.name.clone(), peer))
            })
            .collect::<Result<_, _>>()?;
        for node in &mut nodes {
            let ledger = node.config.services.ledger.as_mut();
            if let Some(comet) = ledger.and_then(|ledger| ledger.cometbft.as_mut()) {
                let others = peers.iter().filter(|(name, _)| *name != node.name);
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
    roles: Vec<Role>,
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

    /// Whether it has a ledger, and signs blocks.
    fn validates(&self) -> bool {
        self.roles.contains(&Role::Validator)
    }

    fn config(&self, options: &Options) -> Config {
        let mut config = Config::default();
        let ports = &self.ports;
        let here = self.open == IpAddr::V4(Ipv4Addr::LOCALHOST);
        config.node.moniker.clone_from(&self.name);
        config.node.stake = Some(STAKE.to_string());
        config.network.chain_id = CHAIN_ID.to_owned();
        config.network.rpc = format!("http://{}", loopback(ports.rpc));
        let interval = options.block_interval.as_millis();
        let usual = Ledger::default();
        config.services.ledger = self.validates().then(|| Ledger {
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
        config.set_roles(&self.roles);
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
        let usual = |host: &Host| Place {
            name: host.name.clone(),
            host: host.name.clone(),
            roles: host.roles.clone(),
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
            roles: match number {
                1 => vec![Role::Miner, Role::Validator, Role::Serving, Role::Proposer],
                _ => vec![Role::Miner, Role::Validator],
            },
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
    let founder = |node: &Node| {
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
    };
    let all = nodes.iter().map(founder).collect::<Result<Vec<_>, _>>()?;
    let plays = |founder: &&Founder, role| {
        let node = founder.node.as_ref();
        node.is_some_and(|node| node.roles.contains(role))
    };
    let miners = all.iter().filter(|one| plays(one, Role::Miner)).count();
    let (founders, others): (Vec<Founder>, Vec<Founder>) = all
        .into_iter()
        .partition(|one| plays(&one, Role::Validator));
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
    let min_miners = u32::try_from(miners)?;
    genesis::found(&Charter {
        chain_id: CHAIN_ID,
        balances: &balances,
        shards: miners,
        time: clock::now(),
        beacon_chain: genesis::BEACON_CHAIN,
        founders: &founders,
        others: &others,
        authority: options.authority,
        run: Some(Plan {
            min_miners,
            max_miners: MAX_MINERS.max(min_miners),
            min_validators: u32::try_from(founders.len())?,
            ..Plan::demonstration(options.rounds)
        }),
    })?;
    Ok(())
}

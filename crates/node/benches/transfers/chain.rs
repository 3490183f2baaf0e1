//! The chains that are measured, each made in a folder of its own and run by the programs that people
//! run: `r3mes start` with engine `local` or `cometbft`, and CometBFT with its example `kvstore`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use r3mes_consensus::cometbft::home::{CometHome, Settings, node_id};
use r3mes_consensus::genesis::Genesis as ChainGenesis;
use r3mes_consensus::key::ValidatorKey;
use r3mes_consensus::mempool::Limits;
use r3mes_gateway::rpc;
use r3mes_node::config::{CometBft, Config, Engine, Ledger};
use r3mes_node::genesis::{Charter, Founder, found};
use r3mes_node::home::Home;
use r3mes_node::keyring::Keyring;
use r3mes_node::ports::{free_ports, loopback};
use r3mes_node::{clock, services};
use r3mes_types::bank::Balance;

use crate::http::{Connection, Endpoint};
use crate::load::height;

/// Name of every chain.
pub(crate) const CHAIN_ID: &str = "r3mes-bench";
/// CometBFT's pause after each block, the same for the ledger and for `kvstore`.
const BLOCK_INTERVAL: Duration = Duration::from_millis(50);
/// Length of the hash chain that each validator reveals from: more blocks than are made.
const BEACON_CHAIN: u64 = 1 << 14;
/// For how long a chain's first blocks are waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between looks at a chain that starts.
const PAUSE: Duration = Duration::from_millis(50);

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// The ledger under engine `local`.
    Local,
    /// The ledger under CometBFT, with so many validators.
    Ledger(usize),
    /// CometBFT's `kvstore` with so many validators.
    KvStore(usize),
}

/// A chain that runs until it is dropped.
pub(crate) struct Chain {
    programs: Vec<Child>,
    /// Where transactions are sent: each node's RPC, CometBFT's own where there is one.
    pub(crate) endpoints: Vec<Endpoint>,
    /// The ledger's own RPC, where accounts can be asked for.
    pub(crate) ledger: Option<String>,
}

impl Drop for Chain {
    fn drop(&mut self) {
        for program in &mut self.programs {
            // One may have ended by itself. The children of `r3mes start` end with it.
            let _ = program.kill();
            let _ = program.wait();
        }
    }
}

impl Chain {
    /// Makes a chain in `dir` and waits for its second block.
    pub(crate) fn start(kind: Kind, dir: &Path, balances: &[Balance]) -> anyhow::Result<Self> {
        let chain = match kind {
            Kind::Local => Self::ledger(Engine::Local, 1, dir, balances)?,
            Kind::Ledger(count) => Self::ledger(Engine::Cometbft, count, dir, balances)?,
            Kind::KvStore(count) => Self::kvstore(count, dir)?,
        };
        let logs = || format!("{kind:?}: see the logs in {}", dir.display());
        let least = if kind == Kind::Local { 0 } else { 2 };
        chain.wait_for(least).with_context(logs)?;
        Ok(chain)
    }

    /// The programs that were started.
    pub(crate) fn ids(&self) -> Vec<u32> {
        self.programs.iter().map(Child::id).collect()
    }

    fn ledger(
        engine: Engine,
        count: usize,
        dir: &Path,
        balances: &[Balance],
    ) -> anyhow::Result<Self> {
        let mut founders = Vec::new();
        for number in 1..=count {
            let home = Home::new(dir.join(format!("node-{number}")));
            home.create()?;
            Keyring::new(&home).generate()?;
            founders.push(Founder { home, node: None });
        }
        found(&Charter {
            chain_id: CHAIN_ID,
            balances,
            shards: 1,
            time: clock::now(),
            beacon_chain: BEACON_CHAIN,
            founders: &founders,
            others: &[],
            authority: true,
            run: None,
        })?;
        let ports = free_ports(3 * count, 0)?;
        let p2p: Vec<u16> = ports.iter().copied().skip(2 * count).collect();
        let ids = founders
            .iter()
            .map(|founder| services::cometbft::node_id(&Keyring::new(&founder.home)))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let mut chain = Self {
            programs: Vec::new(),
            endpoints: Vec::new(),
            ledger: Some(format!("http://{}", loopback(ports[0]))),
        };
        for (number, Founder { home, .. }) in founders.iter().enumerate() {
            let rpc = loopback(ports[number]);
            let mut config = Config::default();
            config.network.chain_id = CHAIN_ID.to_owned();
            config.network.rpc = format!("http://{rpc}");
            config.log.level = "error".to_owned();
            config.set_roles(&[]);
            config.services.ledger = Some(Ledger {
                engine,
                rpc_listen: rpc,
                grpc_listen: None,
                rest_listen: None,
                blobs_listen: Some(loopback(ports[count + number])),
                block_interval_ms: (engine == Engine::Cometbft)
                    .then_some(BLOCK_INTERVAL.as_millis() as u64),
                cometbft: Some(CometBft {
                    p2p_listen: loopback(p2p[number]),
                    peers: peers(&ids, &p2p, number),
                    ..CometBft::default()
                }),
                ..Ledger::default()
            });
            std::fs::write(home.config_file(), config.to_yaml())?;
            let mut start = Command::new(env!("CARGO_BIN_EXE_r3mes"));
            start.arg("--home").arg(home.root()).arg("start");
            chain.run(start, &dir.join(format!("node-{number}.log")))?;
            chain.endpoints.push(match engine {
                Engine::Local => Endpoint::Tcp(rpc),
                Engine::Cometbft => Endpoint::Unix(home.cometbft_rpc()),
            });
        }
        Ok(chain)
    }

    /// `kvstore` keeps its state in memory and runs in CometBFT's own process.
    fn kvstore(count: usize, dir: &Path) -> anyhow::Result<Self> {
        let program = services::cometbft::find(None)?;
        let p2p = free_ports(count, 0)?;
        let keys: Vec<[ValidatorKey; 2]> = (0..count as u8)
            .map(|number| [1, 2].map(|use_of| ValidatorKey::from_seed(&[number * 2 + use_of; 32])))
            .collect();
        let ids: Vec<String> = keys.iter().map(|[_, node]| node_id(node)).collect();
        let genesis = rpc::genesis_file(
            &ChainGenesis::new(CHAIN_ID, clock::now())?,
            keys.iter()
                .map(|[validator, _]| (validator.public_key(), 1)),
            &[],
        );
        let mut chain = Self {
            programs: Vec::new(),
            endpoints: Vec::new(),
            ledger: None,
        };
        for (number, [validator, node]) in keys.iter().enumerate() {
            let home = CometHome::new(dir.join(format!("node-{number}")));
            let socket: PathBuf = dir.join(format!("rpc-{number}.sock"));
            let settings = Settings {
                moniker: format!("node-{number}"),
                abci: "kvstore".to_owned(),
                rpc: format!("unix://{}", socket.display()),
                p2p: format!("tcp://{}", loopback(p2p[number])),
                external_address: String::new(),
                persistent_peers: peers(&ids, &p2p, number),
                block_interval: BLOCK_INTERVAL,
                mempool: Limits::default(),
                signer: None,
                state_sync: None,
            };
            home.write(&settings, genesis.as_bytes(), Some(validator), node)?;
            let mut start = Command::new(&program);
            start.arg("start").arg("--home").arg(home.root());
            chain.run(start, &dir.join(format!("node-{number}.log")))?;
            chain.endpoints.push(Endpoint::Unix(socket));
        }
        Ok(chain)
    }

    fn run(&mut self, mut command: Command, log: &Path) -> anyhow::Result<()> {
        let log = File::create(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {:?}", command.get_program()))?;
        self.programs.push(child);
        Ok(())
    }

    fn wait_for(&self, least: u64) -> anyhow::Result<()> {
        let begin = Instant::now();
        for endpoint in &self.endpoints {
            let reached = || height(&mut Connection::open(endpoint)?);
            loop {
                match reached() {
                    Ok(height) if height >= least => break,
                    Err(error) if begin.elapsed() > PATIENCE => return Err(error),
                    _ if begin.elapsed() > PATIENCE => anyhow::bail!("it makes no blocks"),
                    _ => thread::sleep(PAUSE),
                }
            }
        }
        Ok(())
    }
}

/// How CometBFT finds all other nodes of a network on this machine.
fn peers(ids: &[String], p2p: &[u16], own: usize) -> Vec<String> {
    let all = ids.iter().zip(p2p).enumerate();
    all.filter(|(number, _)| *number != own)
        .map(|(_, (id, port))| format!("{id}@{}", loopback(*port)))
        .collect()
}

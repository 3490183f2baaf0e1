//! The homes of a demonstration: one for the network's services, one for each node.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use r3mes_types::{
    Address, Amount, Hasher, Role, SecretKey, bank::Balance, training::MsgCreateRun,
};

use super::{Options, trouble::free_mib};
use crate::{
    agents, assets, clock,
    config::{CometBft, Config, Gateway, Ledger, RoleConfig},
    genesis::{self, Founder, Founding},
    home::Home,
    keyring::Keyring,
    plan::Plan,
    ports::{free_ports, loopback},
    process::{HomeLock, Service, Spec},
};

/// Name of the chain.
const CHAIN_ID: &str = "r3mes-demo";
/// The file that marks a folder as a demonstration's, which the next one may clear.
const MARKER: &str = ".r3mes-demo";
/// Honest miners. The texts are dealt over so many shards, so that all of them are trained on when a
/// liar's work is thrown away.
const MINERS: usize = 3;
/// Validators.
const VALIDATORS: usize = 2;
/// What each node starts with: more than any role's stake.
const BALANCE: Amount = Amount::remes(1_000);
/// What each node puts at stake.
const STAKE: Amount = Amount::remes(500);
/// Milliseconds between blocks at least: a round is a chain of about a dozen answers, each of which
/// waits for the block of the one before.
const BLOCK_INTERVAL_MS: u64 = 5;
/// Blocks that the beacon's hash chain lasts for: more than the most rounds take.
const BEACON_CHAIN: u64 = 1 << 17;
/// Memory of each role for activations, in MiB.
const MEMORY_MB: u64 = 256;

/// Disk that a demonstration takes: the model in each home, and in each round the states that
/// miners serve to their panels.
const HOMES_MIB: u64 = 128;
const ROUND_MIB: u64 = 64;

/// One node of the demonstration.
#[derive(Clone, Debug)]
pub(super) struct Member {
    /// Name on the status board.
    pub(super) label: String,
    /// Its home.
    pub(super) home: Home,
    /// Its configuration.
    pub(super) config: Config,
    /// Its role.
    pub(super) role: Role,
    /// How it cheats, if it does.
    pub(super) lie: Option<&'static str>,
}

/// One node as the ledger knows it, by its name.
#[derive(Clone, Debug)]
pub(super) struct Participant {
    /// Name on the status board.
    pub(super) label: String,
    /// Its account.
    pub(super) address: Address,
    /// Its role.
    pub(super) role: Role,
    /// Whether it keeps to the protocol.
    pub(super) honest: bool,
}

/// All homes of a demonstration.
pub(super) struct Network {
    dir: PathBuf,
    home: Home,
    config: Config,
    members: Vec<Member>,
    authority: SecretKey,
    founding: Founding,
    child_args: Vec<String>,
}

impl Network {
    /// Makes all homes, keys and the genesis in a clean folder. What was made is removed when that fails.
    pub(super) fn create(options: &Options) -> anyhow::Result<Self> {
        let members = 2 + MINERS + VALIDATORS + usize::from(options.liar);
        let ports = free_ports(6 + 2 * members, options.port)?;
        let dir = clean_folder(options.dir.as_deref())?;
        Self::found(options, dir.clone(), ports).inspect_err(|_| {
            // The first error says more than one about cleaning up.
            let _ = fs::remove_dir_all(&dir);
        })
    }

    fn found(options: &Options, dir: PathBuf, ports: Vec<u16>) -> anyhow::Result<Self> {
        require_space(&dir, options.rounds)?;
        let mut members = members(&dir, options.liar);
        let mut ports = ports.into_iter();
        let config = configure(options, &mut members, || {
            ports.next().context("too few ports")
        })?;
        for member in &members {
            init_home(&member.home, &member.config)?;
        }
        let home = Home::new(dir.join("network"));
        init_home(&home, &config)?;
        let keyring = Keyring::new(&home);
        if let Some(seed) = options.beacon {
            keyring.set_beacon_seed(
                Hasher::new("r3mes demo beacon v1")
                    .number(seed)
                    .finish()
                    .as_bytes(),
            )?;
        }
        let authority = keyring.account()?;
        let balances = balances(&members, authority.address())?;
        let charter = genesis::Charter {
            chain_id: CHAIN_ID,
            balances: &balances,
            shards: MINERS,
            time: clock::now(),
            beacon_chain: BEACON_CHAIN,
            founders: &[Founder {
                home: home.clone(),
                node: None,
            }],
            others: &[],
            authority: true,
            run: None,
        };
        let founding = genesis::found(&charter)?;
        Ok(Self {
            dir,
            home,
            config,
            members,
            authority,
            founding,
            child_args: options.child_args.clone(),
        })
    }

    /// One line for people.
    pub(super) fn describe(&self) -> String {
        let count = |role| {
            self.members
                .iter()
                .filter(|member| member.role == role)
                .count()
        };
        let liars = self
            .members
            .iter()
            .filter(|member| member.lie.is_some())
            .count();
        let liar = if liars > 0 {
            " (one of them a liar)"
        } else {
            ""
        };
        format!(
            "A network on this machine: ledger, gateway, {} miners{liar}, {} validators, a proposer, a serving node.\nIts files: {}",
            count(Role::Miner),
            count(Role::Validator),
            self.dir.display()
        )
    }

    /// How to start one of the network's services.
    pub(super) fn spec(&self, service: Service) -> Spec {
        Spec::of(&self.home, service).with_args(self.child_args.clone())
    }

    /// How to start every node's role.
    pub(super) fn role_specs(&self) -> Vec<Spec> {
        let spec = |member: &Member| {
            let mut extra_args = self.child_args.clone();
            extra_args.extend(
                member
                    .lie
                    .iter()
                    .flat_map(|lie| ["--lie".to_owned(), (*lie).to_owned()]),
            );
            Spec::of(&member.home, Service::Role(member.role))
                .labelled(&member.label)
                .with_args(extra_args)
        };
        self.members.iter().map(spec).collect()
    }

    /// Registers every node with its own key.
    pub(super) async fn register(&self) -> anyhow::Result<()> {
        let mut tasks = tokio::task::JoinSet::new();
        for member in self.members.clone() {
            tasks.spawn(async move { agents::register(&member.home, &member.config).await });
        }
        while let Some(done) = tasks.join_next().await {
            done??;
        }
        Ok(())
    }

    /// Starts the training run.
    pub(super) async fn create_run(&self, options: &Options) -> anyhow::Result<()> {
        let miners = self
            .members
            .iter()
            .filter(|member| member.role == Role::Miner)
            .count();
        let message = MsgCreateRun {
            authority: self.authority.address(),
            params: plan(options, miners as u32).params(&self.founding.subject())?,
        };
        agents::chain::send(&self.client()?, &self.authority, vec![message.into()]).await?;
        Ok(())
    }

    /// The folder that holds everything.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The home of the network's services.
    pub(super) fn home(&self) -> &Home {
        &self.home
    }

    /// A client of the network's ledger.
    pub(super) fn client(&self) -> anyhow::Result<r3mes_gateway::rpc::Client> {
        agents::chain::connect(&self.home, &self.config)
    }

    /// The network's configuration.
    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// What the network was founded with.
    pub(super) fn founding(&self) -> &Founding {
        &self.founding
    }

    /// Base URL of the public API.
    pub(super) fn api_url(&self) -> String {
        self.config.api_url()
    }

    /// All nodes, by their names and accounts.
    pub(super) fn participants(&self) -> anyhow::Result<Vec<Participant>> {
        let participant = |member: &Member| {
            Ok(Participant {
                label: member.label.clone(),
                address: Keyring::new(&member.home).account_address()?,
                role: member.role,
                honest: member.lie.is_none(),
            })
        };
        self.members.iter().map(participant).collect()
    }

    /// Name under which the base model alone is served.
    pub(super) fn base_model(&self) -> String {
        assets::BASE_MODEL_NAME.to_owned()
    }

    /// Name under which the base model with the newest adapter is served.
    pub(super) fn trained_model(&self) -> String {
        format!("{}{}", assets::BASE_MODEL_NAME, agents::serving::TUNED)
    }

    /// Removes the folder, unless it is to be kept.
    pub(super) fn remove(&self, keep: bool) -> anyhow::Result<()> {
        if !keep {
            fs::remove_dir_all(&self.dir)
                .with_context(|| format!("cannot remove {}", self.dir.display()))?;
        }
        Ok(())
    }
}

/// Configures the members, and gives the configuration of the network's services; `next` gives a free
/// port each time.
fn configure(
    options: &Options,
    members: &mut [Member],
    mut next: impl FnMut() -> anyhow::Result<u16>,
) -> anyhow::Result<Config> {
    let mut config = Config::default();
    let (rpc, blobs, api, p2p) = (next()?, next()?, next()?, next()?);
    config.network.chain_id = CHAIN_ID.to_owned();
    config.network.rpc = format!("http://{}", loopback(rpc));
    config.network.bootstrap_blobs = vec![format!("http://{}", loopback(blobs))];
    for member in members {
        member.config.network = config.network.clone();
        member.config.node.moniker = member.label.clone();
        member.config.node.stake = Some(STAKE.to_string());
        let settings = RoleConfig {
            blobs_listen: Some(loopback(next()?)),
            api_listen: (member.role == Role::Serving).then_some(loopback(next()?)),
            memory_mb: MEMORY_MB,
            durable: false,
            ..RoleConfig::default()
        };
        member.config.set_roles(&[member.role]);
        if let Some(role) = member.config.role_mut(member.role) {
            *role = settings;
        }
    }
    config.services.ledger = Some(Ledger {
        rpc_listen: loopback(rpc),
        grpc_listen: Some(loopback(next()?)),
        rest_listen: Some(loopback(next()?)),
        blobs_listen: Some(loopback(blobs)),
        engine: options.engine,
        block_interval_ms: Some(BLOCK_INTERVAL_MS),
        cometbft: Some(CometBft {
            p2p_listen: loopback(p2p),
            ..CometBft::default()
        }),
        ..Ledger::default()
    });
    config.services.gateway = Some(Gateway {
        listen: loopback(if options.port == 0 { api } else { options.port }),
        ..Gateway::default()
    });
    Ok(config)
}

fn members(dir: &Path, liar: bool) -> Vec<Member> {
    let member = |label: String, role, lie| Member {
        home: Home::new(dir.join(&label)),
        config: Config::default(),
        label,
        role,
        lie,
    };
    let mut all: Vec<Member> = (1..=MINERS)
        .map(|n| member(format!("miner-{n}"), Role::Miner, None))
        .collect();
    if liar {
        all.push(member("liar".to_owned(), Role::Miner, Some("skip-steps")));
    }
    all.extend((1..=VALIDATORS).map(|n| member(format!("validator-{n}"), Role::Validator, None)));
    all.push(member("proposer".to_owned(), Role::Proposer, None));
    all.push(member("serving".to_owned(), Role::Serving, None));
    all
}

fn plan(options: &Options, miners: u32) -> Plan {
    let usual = Plan::demonstration(options.rounds);
    Plan {
        audited_share: match options.liar {
            true => 1.0,
            false => usual.audited_share,
        },
        min_miners: MINERS as u32,
        max_miners: miners,
        min_validators: VALIDATORS as u32,
        ..usual
    }
}

fn balances(members: &[Member], authority: Address) -> anyhow::Result<Vec<Balance>> {
    let mut balances = vec![Balance {
        address: authority,
        amount: BALANCE,
    }];
    for member in members {
        balances.push(Balance {
            address: Keyring::new(&member.home).account_address()?,
            amount: BALANCE,
        });
    }
    balances.sort_by_key(|balance| balance.address);
    Ok(balances)
}

fn init_home(home: &Home, config: &Config) -> anyhow::Result<()> {
    home.create()?;
    Keyring::new(home).generate()?;
    fs::write(home.config_file(), config.to_yaml())
        .with_context(|| format!("cannot write {}", home.config_file().display()))
}

/// Refuses a disk on which the network would stop in the middle.
fn require_space(dir: &Path, rounds: u32) -> anyhow::Result<()> {
    let free = free_mib(dir)?;
    let needed = HOMES_MIB + u64::from(rounds) * ROUND_MIB;
    anyhow::ensure!(
        free >= needed,
        "the disk that holds {} has {free} MiB left, and {rounds} rounds take about {needed} MiB; \
         make room, ask for fewer --rounds, or name a folder on another disk with --dir",
        dir.display()
    );
    Ok(())
}

/// An empty folder of our own: a temporary one, or the one named, if it is new, empty or an earlier
/// demonstration's that does not run any more.
fn clean_folder(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    let dir = match named {
        None => tempfile::Builder::new()
            .prefix("r3mes-demo-")
            .tempdir()
            .context("cannot make a folder for the network; name a place with --dir")?
            .keep(),
        Some(dir) => {
            let foreign = dir
                .read_dir()
                .is_ok_and(|mut entries| entries.next().is_some())
                && !dir.join(MARKER).exists();
            anyhow::ensure!(
                !foreign,
                "{} holds files that no demonstration made; name a new or empty folder with --dir",
                dir.display()
            );
            anyhow::ensure!(
                dir.is_dir() || !dir.exists(),
                "{} is a file; name a new or empty folder with --dir",
                dir.display()
            );
            if dir.exists() {
                // A demonstration that still runs there keeps its files.
                let home = Home::new(dir.join("network"));
                if home.root().is_dir() {
                    HomeLock::take(&home)?;
                }
                fs::remove_dir_all(dir)
                    .with_context(|| format!("cannot clear {}", dir.display()))?;
            }
            fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
            dir.canonicalize()?
        }
    };
    fs::write(dir.join(MARKER), "")?;
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_is_too_small_is_named_with_what_is_needed() {
        let folder = tempfile::tempdir().unwrap();
        require_space(folder.path(), 0).unwrap();
        let refusal = require_space(folder.path(), u32::MAX)
            .unwrap_err()
            .to_string();
        let place = folder.path().display().to_string();
        assert!(
            refusal.contains(&place) && refusal.contains("--dir"),
            "{refusal}"
        );
    }

    #[test]
    fn a_folder_is_cleared_only_when_a_demonstration_made_it_and_none_runs_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("demo");
        let made = clean_folder(Some(&dir)).unwrap();
        let home = Home::new(made.join("network"));
        let running = HomeLock::take(&home).unwrap();
        let refusal = clean_folder(Some(&dir)).unwrap_err().to_string();
        let pid = std::process::id().to_string();
        assert!(
            refusal.contains(&pid) && refusal.contains("stop"),
            "{refusal}"
        );
        assert!(home.root().is_dir(), "the running one keeps its files");
        drop(running);
        clean_folder(Some(&dir)).unwrap();
        assert!(!home.root().exists());

        fs::remove_file(dir.join(MARKER)).unwrap();
        fs::write(dir.join("thesis.txt"), "do not touch").unwrap();
        let refusal = clean_folder(Some(&dir)).unwrap_err().to_string();
        assert!(refusal.contains("--dir"), "{refusal}");
        let file = dir.join("thesis.txt");
        let refusal = clean_folder(Some(&file)).unwrap_err().to_string();
        assert!(refusal.contains("is a file"), "{refusal}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "do not touch");
    }
}

//! The program CometBFT: where it is, what it starts from, and where it and the ledger meet.

use std::{
    env,
    os::{fd::AsFd, unix::process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::Context;
use r3mes_consensus::{
    cometbft::{
        Listener,
        home::{CometHome, Settings, StateSync},
        remove_socket,
        signer::{self, Moving},
    },
    genesis::Genesis as ChainGenesis,
    key::ValidatorKey,
    mempool::Limits,
};
use r3mes_gateway::rpc;
use r3mes_types::wire::Wire;
use tokio::net::TcpListener;

use crate::{
    config::{self, Attach, Config, Engine, Ledger},
    genesis,
    home::Home,
    keyring::Keyring,
};

/// The program's name.
const PROGRAM: &str = "cometbft";
/// Folder that tools/programs builds into, from the root of the sources.
const BUILT: &str = ".programs/bin";
/// The versions that speak with the ledger.
const VERSIONS: &str = "0.38.";

/// CometBFT's own folder in a home.
pub fn home(home: &Home) -> CometHome {
    CometHome::new(home.data("cometbft"))
}

/// Where the ledger finds CometBFT's RPC.
pub fn rpc_address(home: &Home, settings: &Ledger) -> String {
    match settings.cometbft().attach {
        Some(Attach { rpc, .. }) => rpc,
        None => unix(&home.cometbft_rpc()),
    }
}

/// Listens for CometBFT. For one that somebody else starts, the files it starts from are written here.
///
/// # Errors
/// When the address is taken or is not one, or a file cannot be written.
pub async fn listen(home: &Home, config: &Config, settings: &Ledger) -> anyhow::Result<Listener> {
    let Some(Attach { abci, .. }) = settings.cometbft().attach else {
        let path = home.abci();
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        return Listener::unix(&path).with_context(|| cannot_listen(&unix(&path)));
    };
    write(home, settings, &config.node.moniker)?;
    tracing::info!(
        "waiting for CometBFT at {abci}: start it with `cometbft start --home {}`",
        self::home(home).root().display()
    );
    Ok(match abci.strip_prefix("unix://") {
        Some(path) => Listener::unix(Path::new(path)).with_context(|| cannot_listen(&abci))?,
        None => {
            let address = abci.trim_start_matches("tcp://");
            let listener = TcpListener::bind(address).await;
            Listener::Tcp(listener.with_context(|| cannot_listen(&abci))?)
        }
    })
}

fn cannot_listen(address: &str) -> String {
    format!("cannot listen for CometBFT on {address}")
}

/// Becomes the program CometBFT. Returns only when that fails.
///
/// # Errors
/// When the program or its files are not there or of no use.
pub fn become_program(home: &Home, config: &Config) -> anyhow::Error {
    let prepared = prepare(home, config);
    let program = match prepared {
        Ok(program) => program,
        Err(error) => return error,
    };
    // Its standard output is a log; ours tells the supervisor things.
    let log = match std::io::stderr().as_fd().try_clone_to_owned() {
        Ok(log) => Stdio::from(log),
        Err(error) => return error.into(),
    };
    let mut command = Command::new(&program);
    command
        .arg("start")
        .arg("--home")
        .arg(self::home(home).root());
    let error = command.stdout(log).exec();
    anyhow::Error::from(error).context(format!("cannot start {}", program.display()))
}

fn prepare(home: &Home, config: &Config) -> anyhow::Result<PathBuf> {
    let settings = config.services.ledger.clone().unwrap_or_default();
    let program = find(settings.cometbft().program)?;
    remove_socket(&home.cometbft_rpc())?;
    remove_socket(&home.signer())?;
    write(home, &settings, &config.node.moniker)?;
    Ok(program)
}

/// Writes what CometBFT starts from, from this node's configuration, genesis and keys.
fn write(home: &Home, settings: &Ledger, moniker: &str) -> anyhow::Result<()> {
    let comet = settings.cometbft();
    let keyring = Keyring::new(home);
    let genesis = genesis::read(home)?;
    let chain = ChainGenesis::of_network(&genesis)?;
    let validators = genesis.validators.iter();
    let validators = validators.map(|validator| (validator.key, validator.power));
    let file = rpc::genesis_file(&chain, validators, &genesis.encode());
    let signer = signer_address(home, settings);
    let abci = match &comet.attach {
        Some(attach) => attach.abci.clone(),
        None => unix(&home.abci()),
    };
    let listens = match &comet.attach {
        // CometBFT writes its own addresses with tcp.
        Some(attach) => attach.rpc.replacen("http://", "tcp://", 1),
        None => unix(&home.cometbft_rpc()),
    };
    let settings = Settings {
        moniker: match moniker {
            "" => node_id(&keyring)?,
            moniker => moniker.to_owned(),
        },
        abci,
        rpc: listens,
        p2p: format!("tcp://{}", comet.p2p_listen),
        external_address: comet.external_address.unwrap_or_default(),
        persistent_peers: comet.peers,
        block_interval: settings.block_interval(),
        mempool: Limits::default(),
        signer: (!keyring.has_consensus_key()).then_some(signer),
        state_sync: comet.state_sync.map(state_sync).transpose()?,
    };
    let validator = match keyring.has_consensus_key() {
        true => Some(ValidatorKey::from_seed(&*keyring.consensus_seed()?)),
        false => None,
    };
    let peer = ValidatorKey::from_seed(&*keyring.peer_seed()?);
    let home = self::home(home);
    home.write(&settings, file.as_bytes(), validator.as_ref(), &peer)
        .with_context(|| format!("cannot write CometBFT's files in {}", home.root().display()))
}

/// Where CometBFT waits for tmkms.
fn signer_address(home: &Home, settings: &Ledger) -> String {
    let configured = settings.cometbft().signer_listen;
    configured.unwrap_or_else(|| unix(&home.signer()))
}

/// Moves the home's consensus key to a folder of tmkms', with what it signed last, and removes it here.
///
/// # Errors
/// When the home's ledger is not under CometBFT, the key is elsewhere already, or a file cannot be
/// written.
pub fn move_key(home: &Home, config: &Config, folder: &Path) -> anyhow::Result<()> {
    let settings = config.services.ledger.clone().unwrap_or_default();
    anyhow::ensure!(
        settings.engine == Engine::Cometbft,
        "engine local signs with the key in its home; only a ledger under engine cometbft can do without"
    );
    let keyring = Keyring::new(home);
    let key = ValidatorKey::from_seed(&*keyring.consensus_seed()?);
    let mut connection = zeroize::Zeroizing::new([0; 32]);
    getrandom::fill(connection.as_mut()).context("the operating system gave no randomness")?;
    let node = signer_address(home, &settings);
    signer::write_tmkms(
        folder,
        &Moving {
            chain_id: &genesis::read(home)?.chain_id,
            node: &node,
            key: &key,
            connection: &connection,
            signed: &self::home(home).signed()?,
        },
    )
    .with_context(|| format!("cannot write tmkms's files in {}", folder.display()))?;
    keyring.give_consensus_key_away()?;
    write(home, &settings, &config.node.moniker)
}

fn state_sync(configured: config::StateSync) -> anyhow::Result<StateSync> {
    let mut trust_hash = [0; 32];
    hex::decode_to_slice(&configured.trust_hash, &mut trust_hash)?;
    Ok(StateSync {
        servers: configured.servers,
        trust_height: configured.trust_height,
        trust_hash,
    })
}

/// How CometBFT's peers name the node with these keys.
///
/// # Errors
/// When its key cannot be made or read.
pub fn node_id(keyring: &Keyring) -> anyhow::Result<String> {
    let key = ValidatorKey::from_seed(&*keyring.peer_seed()?);
    Ok(r3mes_consensus::cometbft::home::node_id(&key))
}

/// The program: as configured, in the folder that R3MES_PROGRAMS names, where tools/programs built it,
/// beside this binary, or in the PATH.
///
/// # Errors
/// When there is none, or one of another version.
pub fn find(configured: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    let candidates = match configured {
        Some(program) => vec![program],
        None => candidates(),
    };
    let program = candidates.iter().find(|program| program.is_file());
    let program = program.with_context(|| {
        let places: Vec<String> = candidates.iter().map(|p| p.display().to_string()).collect();
        format!(
            "there is no program {PROGRAM}. Build it with tools/programs (this needs Go), install CometBFT {VERSIONS}x, \
             or name it as services.ledger.cometbft.program. Looked for: {}",
            places.join(", ")
        )
    })?;
    let answer = Command::new(program)
        .arg("version")
        .output()
        .with_context(|| format!("cannot run {}", program.display()))?;
    let version = String::from_utf8_lossy(&answer.stdout);
    anyhow::ensure!(
        version.trim().starts_with(VERSIONS),
        "{} is version {}, and CometBFT {VERSIONS}x is needed: tools/programs builds it",
        program.display(),
        version.trim()
    );
    Ok(program.clone())
}

fn candidates() -> Vec<PathBuf> {
    let mut folders = Vec::new();
    folders.extend(env::var_os("R3MES_PROGRAMS").map(PathBuf::from));
    let binary = env::current_exe().unwrap_or_default();
    // target/release/r3mes lies below the root of the sources.
    let above = binary.ancestors().skip(1).take(4);
    folders.extend(above.map(|folder| folder.join(BUILT)));
    folders.extend(binary.parent().map(Path::to_owned));
    let path = env::var_os("PATH").unwrap_or_default();
    folders.extend(env::split_paths(&path));
    let mut programs = Vec::new();
    for folder in folders {
        let program = folder.join(PROGRAM);
        if !programs.contains(&program) {
            programs.push(program);
        }
    }
    programs
}

fn unix(path: &Path) -> String {
    format!("unix://{}", path.display())
}

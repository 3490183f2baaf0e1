//! The ledger's process: the state machine under its engine, RPC, and the network's bootstrap blob
//! store.

use std::{path::Path, sync::Arc};

use anyhow::Context;
use r3mes_consensus::{
    app::{LedgerApp, storage_options},
    cometbft,
    genesis::Genesis as ChainGenesis,
    key::ValidatorKey,
    local,
    store::BlockStore,
};
use r3mes_gateway::{
    cosmos, ipfs,
    rpc::{self, Chain, RpcLimits},
};
use r3mes_http::server::serve;
use r3mes_ledger::genesis::Genesis;
use r3mes_state::Storage;
use r3mes_types::{ConsensusKey, Millis, beacon::HashChains, wire::Wire};
use tokio_util::sync::CancellationToken;

use super::cometbft as program;
use crate::{
    agents,
    config::{Config, Engine, Ledger},
    flight,
    genesis::{self, BOOTSTRAP_STORAGE_MB},
    home::Home,
    keyring::Keyring,
    process,
};

/// Runs the ledger until `shutdown`.
///
/// # Errors
/// When the files of the chain cannot be used, or the engine stops.
pub async fn run(home: &Home, config: &Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    let settings = config.services.ledger.clone().unwrap_or_default();
    let opened = {
        let folder = home.data("ledger");
        let (home, config, settings) = (home.clone(), config.clone(), settings.clone());
        let opened = tokio::task::spawn_blocking(move || open(&home, &config, &settings)).await;
        // The block store's library panics where bytes of its file were changed.
        opened.with_context(|| {
            format!(
                "the files in {} are damaged: put back a copy of the folder, or join the network anew",
                folder.display()
            )
        })??
    };
    let (chain, running) = match opened {
        Opened::Local(engine, service) => (Chain::Local(service), Running::Local(engine)),
        Opened::CometBft(engine, handle) => {
            let listener = program::listen(home, config, &settings).await?;
            let upstream = program::rpc_address(home, &settings);
            let relay = rpc::Relay::new(handle, &upstream, RpcLimits::default())?;
            (Chain::CometBft(relay), Running::CometBft(engine, listener))
        }
    };
    let store = agents::open_store(&genesis::bootstrap_folder(home), BOOTSTRAP_STORAGE_MB, true)?;
    let rpc_listener = agents::listen(settings.rpc_listen, "services.ledger.rpc_listen").await?;

    let limits = config.http.limits();
    let mut tasks = tokio::task::JoinSet::new();
    let node = cosmos::Node::new(chain.clone());
    if let Some(address) = settings.grpc_listen {
        let listener = agents::listen(address, "services.ledger.grpc_listen").await?;
        // A call of gRPC has two parts in its path and one of the RPC has one: whoever follows a ledger may
        // name either port.
        let router = cosmos::grpc_router(node.clone())?.merge(rpc::router(chain.clone()));
        tasks.spawn(serve(listener, router, limits, shutdown.clone()));
    }
    if let Some(address) = settings.rest_listen {
        let listener = agents::listen(address, "services.ledger.rest_listen").await?;
        let router = cosmos::rest_router(node);
        tasks.spawn(serve(listener, router, limits, shutdown.clone()));
    }
    let router = rpc::router(chain);
    tasks.spawn(serve(rpc_listener, router, limits, shutdown.clone()));
    if let Some(address) = settings.flight_listen {
        let place = (address, "services.ledger.flight_listen");
        let service = flight::open(home, config, place, Arc::clone(&store)).await?;
        tasks.spawn(service.serve(shutdown.clone()));
    }
    if let Some(address) = settings.blobs_listen {
        let listener = agents::listen(address, "services.ledger.blobs_listen").await?;
        let gateway = ipfs::router(store, ipfs::GatewayLimits::default());
        tasks.spawn(serve(listener, gateway, limits, shutdown.clone()));
    }
    tracing::info!("the ledger is ready");
    process::announce_ready();

    let outcome = running.run(shutdown.clone()).await;
    shutdown.cancel();
    while tasks.join_next().await.is_some() {}
    outcome
}

/// A ledger under its engine, and what its RPC is made of.
enum Opened {
    Local(Box<local::Engine>, rpc::Service),
    CometBft(cometbft::Engine, cometbft::CometHandle),
}

/// An engine that can run.
enum Running {
    Local(Box<local::Engine>),
    CometBft(cometbft::Engine, cometbft::Listener),
}

impl Running {
    async fn run(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        match self {
            Self::Local(engine) => Ok(engine.run(shutdown).await?),
            Self::CometBft(engine, listener) => Ok(engine.run(listener, shutdown).await?),
        }
    }
}

fn open(home: &Home, config: &Config, settings: &Ledger) -> anyhow::Result<Opened> {
    let genesis = genesis::read(home)?;
    let keyring = Keyring::new(home);
    let public = keyring.consensus_key()?;
    let folder = home.data("ledger");
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make {}", folder.display()))?;
    refuse_other_engine(home, settings.engine, &folder)?;
    refuse_early_pruning(settings, genesis.params.nodes.unbonding)?;
    let canonical = genesis.encode().into();
    let chain = match settings.engine {
        Engine::Local => ChainGenesis {
            initial_height: genesis.initial_height(),
            local_power: power(&genesis, &public),
            ..ChainGenesis::new(&genesis.chain_id, genesis.time)?
        },
        Engine::Cometbft => ChainGenesis::of_network(&genesis)?,
    };
    let chains = chains(&keyring, &genesis, &public)?;
    if settings.engine == Engine::Local {
        anyhow::ensure!(
            genesis.validators.iter().any(|ours| ours.key == public),
            "this home's consensus key is not a validator of {}; engine local runs only where the network was founded. \
             To join the network, leave services.ledger out of the configuration",
            home.genesis_file().display()
        );
    }
    let mut options = storage_options();
    options.keep_versions = settings.keep_versions;
    let storage = Storage::open(folder.join("state.redb"), options)?;
    let app = Arc::new(LedgerApp::new(genesis, storage, Some(chains)));
    if settings.engine == Engine::Cometbft {
        let every = settings.snapshot_every;
        let parts = cometbft::Parts {
            snapshots: (every > 0).then(|| cometbft::SnapshotOptions {
                folder: folder.join("snapshots"),
                every,
            }),
            keep_blocks: settings.keep_blocks,
            ..cometbft::Parts::new(chain, app)
        };
        let (engine, handle) = cometbft::open(parts)?;
        return Ok(Opened::CometBft(engine, handle));
    }
    let key = ValidatorKey::from_seed(&*keyring.consensus_seed()?);
    let store = BlockStore::open(folder.join("blocks.redb"))?;
    let pace = local::Config {
        interval: settings.block_interval(),
        ..local::Config::default()
    };
    let (engine, handle) = local::open(local::Parts::new(chain, key, app, store), pace)?;
    let service = rpc::Service {
        handle,
        genesis: canonical,
        moniker: config.network.chain_id.clone(),
        limits: RpcLimits::default(),
    };
    Ok(Opened::Local(Box::new(engine), service))
}

/// The power that the genesis gives a key, which under engine `local` signs alone.
fn power(genesis: &Genesis, public: &ConsensusKey) -> u32 {
    let ours = genesis.validators.iter().find(|ours| ours.key == *public);
    ours.map_or(1, |ours| u32::try_from(ours.power).unwrap_or(u32::MAX))
}

/// A chain goes on under the engine that it began with: only that one has its blocks.
fn refuse_other_engine(home: &Home, engine: Engine, folder: &Path) -> anyhow::Result<()> {
    let (other, blocks) = match engine {
        Engine::Local => {
            let theirs = program::home(home);
            let has_blocks = theirs.has_blocks();
            ("cometbft", has_blocks.then(|| theirs.root().to_owned()))
        }
        Engine::Cometbft => {
            let theirs = folder.join("blocks.redb");
            ("local", theirs.exists().then_some(theirs))
        }
    };
    let Some(blocks) = blocks else {
        return Ok(());
    };
    anyhow::bail!(
        "the chain of this home runs under engine {other}, and {} holds its blocks: set services.ledger.engine to {other}, \
         or begin a new network in another home",
        blocks.display()
    )
}

/// Blocks are kept for as long as stake is unbonding: until then what a validator signed can cost it
/// stake, and a light client may begin with a header as old.
fn refuse_early_pruning(settings: &Ledger, unbonding: Millis) -> anyhow::Result<()> {
    let Some(keep) = settings
        .keep_blocks
        .filter(|_| settings.engine == Engine::Cometbft)
    else {
        return Ok(());
    };
    let interval = u64::try_from(settings.block_interval().as_millis()).unwrap_or(u64::MAX);
    let least = unbonding.millis().div_ceil(interval.max(1));
    anyhow::ensure!(
        keep >= least,
        "services.ledger.keep_blocks is {keep}, which at a block every {interval} ms is less than the {} s for which stake is unbonding on this network: set at least {least}, or leave it out to keep all",
        unbonding.millis() / 1000
    );
    Ok(())
}

/// The beacon chains this home reveals from, each as long as those of the genesis.
fn chains(
    keyring: &Keyring,
    genesis: &Genesis,
    public: &ConsensusKey,
) -> anyhow::Result<HashChains> {
    let secret = genesis::beacon_secret(keyring, genesis)?;
    let chains = HashChains::new(secret, genesis::beacon_chain(genesis)?);
    let ours = genesis
        .validators
        .iter()
        .find(|validator| validator.key == *public);
    anyhow::ensure!(
        ours.is_none_or(|validator| validator.chain_end == chains.kept()[0].end()),
        "this home's beacon seed is not the one that the genesis was made with"
    );
    Ok(chains)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_kept_for_as_long_as_stake_is_unbonding() {
        let week = Millis::seconds(7 * 24 * 3600);
        let settings = |engine, keep_blocks, block_interval_ms| Ledger {
            engine,
            keep_blocks,
            block_interval_ms,
            ..Ledger::default()
        };
        let tried = |settings| refuse_early_pruning(&settings, week);
        tried(settings(Engine::Cometbft, None, None)).unwrap();
        tried(settings(Engine::Cometbft, Some(604_800), None)).unwrap();
        // Which has none to keep.
        tried(settings(Engine::Local, Some(2_000), None)).unwrap();
        let refusal = tried(settings(Engine::Cometbft, Some(604_799), None));
        let refusal = refusal.unwrap_err().to_string();
        assert!(refusal.contains("at least 604800"), "{refusal}");
        let faster = tried(settings(Engine::Cometbft, Some(604_800), Some(500)));
        let refusal = faster.unwrap_err().to_string();
        assert!(refusal.contains("at least 1209600"), "{refusal}");
    }
}

//! The ledger's process: consensus engine, RPC, and the network's bootstrap blob store.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use r3mes_consensus::{
    app::{LedgerApp, storage_options},
    genesis::Genesis as ChainGenesis,
    key::ValidatorKey,
    local,
    store::BlockStore,
};
use r3mes_gateway::{ipfs, rpc, server::serve};
use r3mes_ledger::genesis::Genesis;
use r3mes_state::Storage;
use r3mes_types::{beacon::HashChains, wire::Wire};
use tokio_util::sync::CancellationToken;

use crate::{
    agents,
    config::{Config, Ledger},
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
    let genesis = genesis::read(home)?;
    let genesis_bytes = genesis.encode().into();
    let (engine, handle) = {
        let (home, settings) = (home.clone(), settings.clone());
        tokio::task::spawn_blocking(move || open(&home, &settings, genesis)).await??
    };
    let store = agents::open_store(&genesis::bootstrap_folder(home), BOOTSTRAP_STORAGE_MB, true)?;
    let blobs = agents::listen(settings.blobs_listen, "services.ledger.blobs_listen").await?;
    let rpc_listener = agents::listen(settings.rpc_listen, "services.ledger.rpc_listen").await?;

    let service = rpc::Service {
        handle: handle.clone(),
        genesis: genesis_bytes,
        moniker: config.network.chain_id.clone(),
        limits: rpc::RpcLimits::default(),
    };
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(serve(rpc_listener, rpc::router(service), shutdown.clone()));
    let gateway = ipfs::router(store, ipfs::GatewayLimits::default());
    tasks.spawn(serve(blobs, gateway, shutdown.clone()));
    tracing::info!(height = handle.latest().height, "the ledger is ready");
    process::announce_ready();

    let outcome = engine.run(shutdown.clone()).await;
    shutdown.cancel();
    while tasks.join_next().await.is_some() {}
    Ok(outcome?)
}

fn open(
    home: &Home,
    settings: &Ledger,
    genesis: Genesis,
) -> anyhow::Result<(local::Engine, local::ConsensusHandle)> {
    let keyring = Keyring::new(home);
    let seed = keyring.consensus_seed()?;
    let key = ValidatorKey::from_seed(&seed);
    let ours = genesis
        .validators
        .iter()
        .any(|validator| validator.key == key.public_key());
    anyhow::ensure!(
        ours,
        "this home's consensus key is not a validator of {}; engine local runs only where the network was founded. \
         To join the network, leave services.ledger out of the configuration",
        home.genesis_file().display()
    );
    let folder = home.data("ledger");
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make {}", folder.display()))?;
    let chain = ChainGenesis::new(&genesis.chain_id, genesis.time)?;
    let mut options = storage_options();
    options.keep_versions = settings.keep_versions;
    let storage = Storage::open(folder.join("state.redb"), options)?;
    let chains = chains(&keyring, &genesis)?;
    let app = Arc::new(LedgerApp::new(genesis, storage, Some(chains)));
    let store = BlockStore::open(folder.join("blocks.redb"))?;
    let engine = local::Config {
        interval: Duration::from_millis(settings.block_interval_ms),
        ..local::Config::default()
    };
    Ok(local::open(
        local::Parts::new(chain, key, app, store),
        engine,
    )?)
}

/// The beacon chains this home reveals from, each as long as the one of the genesis, which is the first.
fn chains(keyring: &Keyring, genesis: &Genesis) -> anyhow::Result<HashChains> {
    let length = genesis
        .validators
        .first()
        .context("the genesis has no validator")?
        .chain_length;
    let chains = HashChains::new(*keyring.beacon_seed()?, length);
    let first = chains.kept()[0].end();
    let registered = genesis
        .validators
        .iter()
        .any(|validator| validator.chain_end == first);
    anyhow::ensure!(
        registered,
        "this home's beacon seed is not the one that the genesis was made with"
    );
    Ok(chains)
}

//! A network of several validators under CometBFT: on this machine, or a home for each of many.
//!
//! `hosts` reads for which machines; `homes` makes keys, genesis, peers and configurations; here they are run on one machine; `check`
//! demands what `--check` promises.

mod check;
mod homes;
mod hosts;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::Context;
use r3mes_types::Role;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

pub use homes::Testnet;
pub use hosts::{Host, HostsError, parse_hosts};

use crate::{
    agents,
    demo::figures::Check,
    process::{HomeLock, Service, Spec, Supervisor, publish_board},
    services,
};

/// Most validators of a network that this makes.
pub const MAX_VALIDATORS: usize = 64;
/// For how long the first block is waited for.
const FIRST_BLOCK: Duration = Duration::from_secs(60);

/// What was asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Validators, each with a home of its own.
    pub validators: usize,
    /// Machines that the homes are for; all for this one when empty.
    pub hosts: Vec<Host>,
    /// Where the homes are, or are made.
    pub dir: PathBuf,
    /// Port of the public API on this machine; 0 for a free one.
    pub port: u16,
    /// The pause after each block.
    pub block_interval: Duration,
    /// Training rounds of the run that begins at once.
    pub rounds: u32,
    /// Whether the first validator's account is the network's authority and decides alone.
    pub authority: bool,
    /// For how long each check waits.
    pub within: Duration,
    /// Kernel back end and threads for every process, as typed.
    pub child_args: Vec<String>,
}

/// What runs, for people.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Running {
    /// RPC of each validator's ledger.
    pub rpc: Vec<String>,
    /// Base URL of the public API.
    pub api: Option<SocketAddr>,
}

/// Runs all homes of a network on this machine until `shutdown`, or, with `check`, until everything is
/// checked. `running` is called when everything is ready.
///
/// # Errors
/// When a part cannot be started. A check that does not hold is no error here.
pub async fn run(
    testnet: &Testnet,
    options: &Options,
    check: bool,
    shutdown: CancellationToken,
    running: impl FnOnce(&Running) -> anyhow::Result<()>,
) -> anyhow::Result<Vec<Check>> {
    services::cometbft::find(None)?;
    let stop = shutdown.child_token();
    let mut supervisor = Supervisor::new(stop.clone());
    for node in &testnet.nodes {
        publish_board(&supervisor, HomeLock::take(&node.home)?, &node.prefix());
    }
    let outcome = tokio::select! {
        () = shutdown.cancelled() => Ok(Vec::new()),
        outcome = play(testnet, options, check, &mut supervisor, running) => match outcome {
            // Whoever is stopped has asked processes that had stopped before.
            Err(_) if shutdown.is_cancelled() => Ok(Vec::new()),
            outcome => outcome,
        },
    };
    if outcome.is_ok() && !check {
        shutdown.cancelled().await;
    }
    stop.cancel();
    let stopped = supervisor.run().await;
    let checks = outcome.with_context(|| {
        let dir = options.dir.display();
        format!("the log of each process is in {dir}/*/logs")
    })?;
    stopped?;
    Ok(checks)
}

async fn play(
    testnet: &Testnet,
    options: &Options,
    check: bool,
    supervisor: &mut Supervisor,
    running: impl FnOnce(&Running) -> anyhow::Result<()>,
) -> anyhow::Result<Vec<Check>> {
    let spec = |node: &homes::Node, service: Service| {
        Spec::of(&node.home, service)
            .labelled(node.label(service))
            .with_args(options.child_args.clone())
    };
    for service in [Service::Ledger, Service::CometBft] {
        for node in &testnet.nodes {
            supervisor.add(spec(node, service));
        }
        supervisor.all_ready().await?;
    }
    for node in &testnet.nodes {
        let client = agents::chain::connect(&node.home, &node.config)?;
        let first = timeout(FIRST_BLOCK, agents::chain::caught_up(&client)).await;
        first.with_context(|| format!("{} sees no block", node.name))??;
    }
    let mut registering = tokio::task::JoinSet::new();
    for node in testnet.nodes.clone() {
        registering.spawn(async move { agents::register(&node.home, &node.config).await });
    }
    while let Some(done) = registering.join_next().await {
        done??;
    }
    for node in &testnet.nodes {
        let roles: Vec<Role> = node
            .config
            .enabled_roles()
            .iter()
            .map(|(role, _)| *role)
            .collect();
        for role in roles {
            supervisor.add(spec(node, Service::Role(role)));
        }
        if node.config.services.gateway.is_some() {
            supervisor.add(spec(node, Service::Gateway));
        }
    }
    supervisor.all_ready().await?;
    let rpc = testnet
        .nodes
        .iter()
        .map(|node| node.config.network.rpc.clone());
    let mut gateways = testnet
        .nodes
        .iter()
        .filter_map(|node| node.config.services.gateway.as_ref());
    running(&Running {
        rpc: rpc.collect(),
        api: gateways.next().map(|gateway| gateway.listen),
    })?;
    match check {
        true => check::all(testnet, supervisor, options.within).await,
        false => Ok(Vec::new()),
    }
}

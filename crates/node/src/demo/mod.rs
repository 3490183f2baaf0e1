//! A whole network on one machine, each part a process of its own: the main job.
//!
//! `network` makes the homes and the genesis, `watch` follows the ledger round by round and measures
//! the served adapter on held-out text, `trouble` sees processes end and the disk fill up, `check`
//! demands what `--check` promises.

mod check;
pub mod figures;
mod held_out;
mod network;
mod progress;
mod trouble;
mod watch;

use std::{path::PathBuf, time::Instant};

use anyhow::Context;
use figures::Figures;
use network::Network;
use progress::Progress;
use r3mes_gateway::openai;
use tokio_util::sync::CancellationToken;

use crate::{
    config::Engine,
    process::{HomeLock, Service, Supervisor, publish_board},
    services,
};

/// What both models are asked at the end.
const PROMPT: &str = "The little bear looked at the big fish and";
/// Tokens of each answer.
const ANSWER_TOKENS: u32 = 48;
/// Seed of each answer, so that it can be asked for again.
const ANSWER_SEED: u64 = 7;

/// What is said when the person stops it early.
const STOPPED: &str = "stopped before everything was done";

/// What was asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Training rounds.
    pub rounds: u32,
    /// Whether a fourth miner cheats.
    pub liar: bool,
    /// Whether everything is checked at the end.
    pub check: bool,
    /// Whether the directory stays.
    pub keep: bool,
    /// Where the homes are made; a new temporary folder when absent.
    pub dir: Option<PathBuf>,
    /// Port of the public API; 0 for a free one.
    pub port: u16,
    /// Consensus engine of the ledger.
    pub engine: Engine,
    /// Seed of the beacon; fresh randomness when absent.
    pub beacon: Option<u64>,
    /// Kernel back end and threads for every process, as typed.
    pub child_args: Vec<String>,
    /// Nothing on standard error but errors.
    pub silent: bool,
}

/// Runs the demonstration. `done` is called with the figures when everything asked for has happened;
/// without `check`, the network then stays up until `shutdown`.
///
/// # Errors
/// When any part cannot be started or the rounds do not close. A check that does not hold is no error
/// here: it is in the figures.
pub async fn run(
    options: &Options,
    shutdown: CancellationToken,
    done: impl FnOnce(&Figures) -> anyhow::Result<()>,
) -> anyhow::Result<Figures> {
    let began = Instant::now();
    if options.engine == Engine::Cometbft {
        services::cometbft::find(None)?;
    }
    let progress = Progress::new(options.rounds.into(), options.silent);
    progress.now("making keys and the genesis");
    let network = Network::create(options)?;
    progress.say(&network.describe());

    let stop = shutdown.child_token();
    let mut supervisor = Supervisor::new(stop.clone());
    publish_board(&supervisor, HomeLock::take(network.home())?, "");
    let outcome = tokio::select! {
        () = shutdown.cancelled() => Ok(None),
        outcome = play(options, &network, &mut supervisor, &progress, began, &shutdown) => match outcome {
            // Whoever is stopped has asked processes that had stopped before.
            Err(_) if shutdown.is_cancelled() => Ok(None),
            outcome => outcome.map(Some),
        },
    };
    if let Ok(Some(figures)) = &outcome {
        progress.finish();
        done(figures)?;
        if !options.check {
            shutdown.cancelled().await;
        }
    }
    stop.cancel();
    let stopped = supervisor.run().await;
    if outcome.is_err() {
        return outcome
            .with_context(|| {
                format!(
                    "the demonstration failed; its files, with the log of each process, stay in {}",
                    network.dir().display()
                )
            })?
            .context(STOPPED);
    }
    stopped?;
    network.remove(options.keep)?;
    outcome?.context(STOPPED)
}

async fn play(
    options: &Options,
    network: &Network,
    supervisor: &mut Supervisor,
    progress: &Progress,
    began: Instant,
    shutdown: &CancellationToken,
) -> anyhow::Result<Figures> {
    progress.now("starting the ledger");
    supervisor.add(network.spec(Service::Ledger));
    supervisor.all_ready().await?;
    if options.engine == Engine::Cometbft {
        supervisor.add(network.spec(Service::CometBft));
        supervisor.all_ready().await?;
    }
    progress.now("registering the nodes");
    network.register().await?;
    for spec in network.role_specs() {
        supervisor.add(spec);
    }
    supervisor.add(network.spec(Service::Gateway));
    progress.now("starting the roles");
    supervisor.all_ready().await?;
    network.create_run(options).await?;

    let mut figures = tokio::select! {
        figures = watch::follow(network, options, progress, shutdown) => figures?,
        trouble = trouble::watch(network.dir(), supervisor.board(), progress) => return Err(trouble),
    };
    figures.seconds = began.elapsed().as_secs_f64();
    figures.api = network.api_url();
    answer(network, &mut figures).await?;
    if options.check {
        progress.now("checking");
        figures.checks = check::all(network, options, &figures, supervisor).await?;
    }
    Ok(figures)
}

/// Asks the base and the trained model the same.
async fn answer(network: &Network, figures: &mut Figures) -> anyhow::Result<()> {
    let client = openai::Client::new(&network.api_url())?;
    let ask = |model: String| openai::CompletionAsk {
        model,
        prompt: PROMPT.to_owned(),
        max_tokens: ANSWER_TOKENS,
        temperature: 0.0,
        seed: ANSWER_SEED,
    };
    figures.prompt = PROMPT.to_owned();
    figures.base_answer = client.complete(&ask(network.base_model())).await?.text;
    figures.trained_answer = client.complete(&ask(network.trained_model())).await?.text;
    Ok(())
}

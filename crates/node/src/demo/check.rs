//! What `--check` promises.

use anyhow::Context;
use r3mes_gateway::openai;
use r3mes_types::{nodes::QuerySlashes, training::QueryRun};
use rustix::process::{Pid, Signal, kill_process};

use super::{
    ANSWER_SEED, ANSWER_TOKENS, Options, PROMPT,
    figures::{Check, Figures},
    network::{MINERS, Network},
    watch::RUN,
};
use crate::{
    cli,
    process::{Phase, Service, Supervisor},
};

/// The least share by which the held-out loss must fall.
const LEAST_FALL: f64 = 0.15;

/// Checks everything.
pub(super) async fn all(
    network: &Network,
    options: &Options,
    figures: &Figures,
    supervisor: &Supervisor,
) -> anyhow::Result<Vec<Check>> {
    let mut checks = vec![fall(figures), accepted(figures)];
    if options.liar {
        checks.push(slashed(network).await?);
    }
    checks.push(served(network).await?);
    checks.push(answer(network).await?);
    checks.push(restart(network, supervisor).await?);
    Ok(checks)
}

fn fall(figures: &Figures) -> Check {
    let fall = figures.fall();
    Check {
        name: "the held-out loss fell by at least 15%",
        holds: fall >= LEAST_FALL,
        found: format!(
            "{:.3} to {:.3}, {:.1}%",
            figures.base_loss,
            figures.loss,
            100.0 * fall
        ),
    }
}

fn accepted(figures: &Figures) -> Check {
    let short: Vec<u32> = figures
        .rounds
        .iter()
        .filter(|round| round.accepted as usize != MINERS)
        .map(|round| round.round)
        .collect();
    Check {
        name: "every honest package was accepted, and no other",
        holds: short.is_empty(),
        found: match short.as_slice() {
            [] => format!("{MINERS} in each of {} rounds", figures.rounds.len()),
            rounds => format!("another number in rounds {rounds:?}"),
        },
    }
}

async fn slashed(network: &Network) -> anyhow::Result<Check> {
    let node = network.liar()?.context("there is no liar")?;
    let question = QuerySlashes {
        node: Some(node),
        page: None,
    };
    let slashes = network.client()?.query(&question).await?.slashes;
    Ok(Check {
        name: "the liar was caught and slashed",
        holds: !slashes.is_empty(),
        found: match slashes.first() {
            Some(slash) => format!("{} slashed: {}", slash.amount, slash.reason.as_str()),
            None => "no slash".to_owned(),
        },
    })
}

async fn served(network: &Network) -> anyhow::Result<Check> {
    let newest = network
        .client()?
        .query(&QueryRun { run: RUN })
        .await?
        .adapter
        .adapter;
    let models = openai::Client::new(&network.api_url())?.models().await?;
    let name = network.trained_model();
    let adapter = models
        .iter()
        .find(|model| model.id == name)
        .and_then(|model| model.adapter);
    Ok(Check {
        name: "the adapter that was measured is the one that is served",
        holds: adapter == Some(newest),
        found: adapter.map_or_else(
            || "none is served".to_owned(),
            |adapter| adapter.to_string(),
        ),
    })
}

async fn answer(network: &Network) -> anyhow::Result<Check> {
    let client = openai::Client::new(&network.api_url())?;
    let ask = openai::CompletionAsk {
        model: network.trained_model(),
        prompt: PROMPT.to_owned(),
        max_tokens: ANSWER_TOKENS,
        temperature: 0.8,
        seed: ANSWER_SEED,
    };
    let completion = client.complete(&ask).await?;
    let report = cli::receipt::verify(
        network.home(),
        network.config(),
        &completion.receipt,
        &network.api_url(),
    )
    .await;
    Ok(Check {
        name: "a served answer recomputes from its receipt",
        holds: report.is_ok(),
        found: match report {
            Ok(report) => report.text(),
            Err(error) => cli::explain(&error),
        },
    })
}

/// Kills the ledger without warning; started again, it must have the same app hash.
async fn restart(network: &Network, supervisor: &Supervisor) -> anyhow::Result<Check> {
    let client = network.client()?;
    let (height, before) = client.committed().await?;
    let label = Service::Ledger.to_string();
    let mut board = supervisor.board();
    let (pid, restarts) = {
        let board = board.borrow();
        let status = board.get(&label).context("the ledger is not supervised")?;
        (status.pid, status.restarts)
    };
    let pid = pid
        .and_then(|pid| Pid::from_raw(pid.cast_signed()))
        .context("the ledger does not run")?;
    kill_process(pid, Signal::KILL)?;
    board
        .wait_for(|board| {
            board
                .get(&label)
                .is_some_and(|status| status.restarts > restarts && status.phase == Phase::Ready)
        })
        .await?;
    let after = root_after(&client, height).await?;
    Ok(Check {
        name: "the app hash is the same after the ledger was killed and restarted",
        holds: after == before,
        found: format!("{} at height {height}", hex::encode(after)),
    })
}

/// The state's root after the block of a height: as the ledger has it, or from the next block's header.
async fn root_after(client: &r3mes_gateway::rpc::Client, height: u64) -> anyhow::Result<[u8; 32]> {
    match client.committed().await? {
        (newest, root) if newest == height => Ok(root),
        _ => Ok(client.app_hash_after(height).await?),
    }
}

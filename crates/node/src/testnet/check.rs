//! What `--check` promises.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context;
use r3mes_gateway::rpc;
use r3mes_types::training::{QueryRound, QueryRun};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::time::{Instant, timeout};

use super::{Testnet, homes::Node};
use crate::{
    agents, cli,
    demo::figures::Check,
    process::{Service, Supervisor},
};

/// The run that the genesis begins with.
const RUN: u64 = 1;
/// Blocks that the others go on by while one is away.
const BLOCKS_WITHOUT: u64 = 3;
/// Blocks that one call answers.
const PAGE: u64 = 20;

/// Checks everything; blocks and a round are waited for `within` each.
pub(super) async fn all(
    testnet: &Testnet,
    supervisor: &Supervisor,
    within: Duration,
) -> anyhow::Result<Vec<Check>> {
    let mut checks = vec![outcome(
        "blocks go on while a validator is killed, and it comes back to them",
        kill(testnet, supervisor, within).await,
    )];
    let closed = timeout(within, round(testnet)).await;
    let closed = closed.unwrap_or_else(|_| {
        anyhow::bail!(
            "no round closed within {} s: the logs of the miners and validators say why",
            within.as_secs()
        )
    });
    checks.push(outcome("a training round closes with a package", closed));
    checks.push(outcome(
        "the validators agree on every block and every state",
        agreement(testnet).await,
    ));
    Ok(checks)
}

fn outcome(name: &'static str, found: anyhow::Result<String>) -> Check {
    Check {
        name,
        holds: found.is_ok(),
        found: found.unwrap_or_else(|error| cli::explain(&error)),
    }
}

/// Kills a validator's ledger and its CometBFT without warning, and keeps them down for some blocks of
/// the others.
async fn kill(
    testnet: &Testnet,
    supervisor: &Supervisor,
    within: Duration,
) -> anyhow::Result<String> {
    let (victim, others) = testnet
        .nodes
        .split_last()
        .context("there is no validator")?;
    let first = others.first().context("there is one validator only")?;
    let (there, here) = (client(victim)?, client(first)?);
    let at = there.wait_height_for(0, within).await?;
    let labels = [Service::Ledger, Service::CometBft].map(|service| victim.label(service));
    for label in &labels {
        supervisor.hold(label);
        let pid = supervisor
            .board()
            .borrow()
            .get(label)
            .and_then(|status| status.pid);
        let pid = pid.and_then(|pid| Pid::from_raw(pid.cast_signed()));
        kill_process(
            pid.with_context(|| format!("{label} does not run"))?,
            Signal::KILL,
        )?;
    }
    let gone = here.status().await?.height;
    let without = reach(&here, gone + BLOCKS_WITHOUT, within).await;
    for label in &labels {
        supervisor.release(label);
    }
    // Retries while it starts; CometBFT itself takes a few tries to find the ledger again.
    let there = there.retry_for(within);
    let back = reach(&there, *without.as_ref().unwrap_or(&gone) + 1, within).await;
    let without = without.with_context(|| {
        let name = &victim.name;
        format!("the others made no {BLOCKS_WITHOUT} blocks without {name}: more than two thirds of the power must sign")
    })?;
    back.context("it did not come back")?;
    Ok(format!(
        "{} was killed at height {at}, away until {without}, and goes on",
        victim.name
    ))
}

/// Waits until a node is at a height, and gives the one it is at.
async fn reach(client: &rpc::Client, height: u64, within: Duration) -> anyhow::Result<u64> {
    let deadline = Instant::now() + within;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let newest = client.wait_height_for(height - 1, left).await?;
        if newest >= height {
            return Ok(newest);
        }
        anyhow::ensure!(
            Instant::now() < deadline,
            "{} is at height {newest} and not at {height} after {} s",
            client.url(),
            within.as_secs()
        );
    }
}

async fn round(testnet: &Testnet) -> anyhow::Result<String> {
    let client = client(testnet.nodes.first().context("there is no validator")?)?;
    let mut height = 0;
    loop {
        let run = client.query(&QueryRun { run: RUN }).await?;
        if let Some(round) = run.round.checked_sub(1) {
            let record = client.query(&QueryRound { run: RUN, round }).await?;
            let summary = record.summary.context("the round has no summary")?;
            let found = format!(
                "round {}: {} packages of {} miners, {} audited",
                round, summary.accepted, summary.assigned, summary.audited
            );
            anyhow::ensure!(summary.accepted > 0, "{found}");
            return Ok(found);
        }
        height = client.wait_height(height).await?;
    }
}

/// Compares block ids and app hashes at every height.
async fn agreement(testnet: &Testnet) -> anyhow::Result<String> {
    let mut newest = u64::MAX;
    for node in &testnet.nodes {
        newest = newest.min(client(node)?.status().await?.height);
    }
    let mut first: Option<(&Node, BTreeMap<u64, String>)> = None;
    for node in &testnet.nodes {
        let headers = headers(&client(node)?, newest).await?;
        match &first {
            None => first = Some((node, headers)),
            Some((other, expected)) => {
                let differs = expected
                    .iter()
                    .find(|(height, header)| headers.get(height) != Some(header));
                if let Some((height, header)) = differs {
                    anyhow::bail!(
                        "at height {height} {} has {header}, and {} has {:?}",
                        other.name,
                        node.name,
                        headers.get(height)
                    );
                }
            }
        }
    }
    Ok(format!(
        "{newest} blocks, the same on {} validators",
        testnet.nodes.len()
    ))
}

/// Block id and app hash of every height up to `newest`.
async fn headers(client: &rpc::Client, newest: u64) -> anyhow::Result<BTreeMap<u64, String>> {
    let mut headers = BTreeMap::new();
    for from in (1..=newest).step_by(PAGE as usize) {
        let to = newest.min(from + PAGE - 1);
        let question = json!({"minHeight": from.to_string(), "maxHeight": to.to_string()});
        let answer = client.raw("blockchain", question).await?;
        let metas = answer["block_metas"]
            .as_array()
            .context("no list of blocks")?;
        for meta in metas {
            let height = meta["header"]["height"]
                .as_str()
                .and_then(|height| height.parse().ok());
            let header = format!(
                "block {} on state {}",
                meta["block_id"]["hash"], meta["header"]["app_hash"]
            );
            headers.insert(height.context("a block without a height")?, header);
        }
    }
    anyhow::ensure!(
        headers.len() as u64 == newest,
        "{} has {} of {newest} blocks",
        client.url(),
        headers.len()
    );
    Ok(headers)
}

fn client(node: &Node) -> anyhow::Result<rpc::Client> {
    agents::chain::connect(&node.home, &node.config)
}

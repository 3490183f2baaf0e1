//! Follows the run round by round.

use anyhow::Context;
use r3mes_training::state::StepState;
use r3mes_types::{
    Role,
    training::{QueryRound, QueryRun, RoundRecord, Run, RunStatus},
};
use tokio_util::sync::CancellationToken;

use super::{
    Options,
    figures::{Figures, MinerFigures, RoundFigures},
    held_out::{HeldOut, Part},
    network::{Network, Participant},
    progress::Progress,
};
use crate::agents::{self, depot::Depot};

/// The run that a demonstration starts.
pub(super) const RUN: u64 = 1;
/// Disk for what the demonstration itself fetches, in MiB.
const STORAGE_MB: u64 = 1024;

/// Waits until all rounds are closed, measuring and showing each; measuring is given up at `shutdown`.
pub(super) async fn follow(
    network: &Network,
    options: &Options,
    progress: &Progress,
    shutdown: &CancellationToken,
) -> anyhow::Result<Figures> {
    let client = network.client()?;
    let folder = tempfile::tempdir()?;
    let store = agents::open_store(folder.path(), STORAGE_MB, false)?;
    let depot = Depot::new(network.home(), network.config(), store, client.clone())?;
    let participants = network.participants()?;
    let mut held_out = HeldOut::new(network.config(), shutdown.clone())?;
    let mut run = client.query(&QueryRun { run: RUN }).await?;
    let hyper = run.params.hyper.clone();
    let parameters = held_out.parameters(&hyper)?;
    let mut figures = Figures::default();
    let mut measure = |adapter: Option<&[u8]>, part| {
        tokio::task::block_in_place(|| held_out.loss(network.founding(), &hyper, adapter, part))
    };
    let mut sample = measure(None, Part::Sample)?;
    figures.base_sample = sample.mean();
    sample.add(&measure(None, Part::Rest)?);
    figures.base_loss = sample.mean();
    progress.say(&format!(
        "Held-out loss of the base model, mean of the texts: {:.3}; {:.3} on the quarter that is measured each round",
        figures.base_loss, figures.base_sample
    ));
    progress.heading();

    let mut height = 0;
    for round in 0..options.rounds {
        while run.round <= round && run.status == RunStatus::Active {
            progress.now(&now(&client, &run).await);
            height = client.wait_height(height).await?;
            run = client.query(&QueryRun { run: RUN }).await?;
        }
        anyhow::ensure!(
            run.round > round,
            "the run is paused: {}",
            run.paused_because.as_str()
        );
        let record = client.query(&QueryRound { run: RUN, round }).await?;
        let empty = record
            .summary
            .as_ref()
            .is_some_and(|summary| summary.accepted == 0);
        anyhow::ensure!(
            !empty,
            "round {round} closed without a single accepted package: the miners' and validators' logs say why (a full disk, or a machine too busy to answer within {} s)",
            crate::plan::PATIENCE
        );
        let adapter = adapter_bytes(&depot, &record).await?;
        sample = measure(adapter.as_deref(), Part::Sample)?;
        let closed = round_figures(&run, &record, parameters, sample.mean(), &participants)?;
        figures.rounds.push(closed.clone());
        progress.round(&figures, &closed);
        if round + 1 == options.rounds {
            progress.now("measuring on all held-out text");
            sample.add(&measure(adapter.as_deref(), Part::Rest)?);
            figures.loss = sample.mean();
        }
    }
    Ok(figures)
}

/// What the open round is doing.
async fn now(client: &r3mes_gateway::rpc::Client, run: &Run) -> String {
    if !run.open {
        return format!("waiting for round {} to open", run.round);
    }
    let question = QueryRound {
        run: run.id,
        round: run.round,
    };
    let phase = client
        .query(&question)
        .await
        .ok()
        .and_then(|record| Some(record.head?.phase));
    phase.map_or_else(String::new, |phase| format!("round {}: {phase}", run.round))
}

async fn adapter_bytes(depot: &Depot, record: &RoundRecord) -> anyhow::Result<Option<Vec<u8>>> {
    let summary = record
        .summary
        .as_ref()
        .context("the round closed without a summary")?;
    Ok(agents::bench::fetch_adapter(depot, &summary.adapter, "demo").await?)
}

fn round_figures(
    run: &Run,
    record: &RoundRecord,
    parameters: u64,
    held_out_sample: f64,
    participants: &[Participant],
) -> anyhow::Result<RoundFigures> {
    let summary = record
        .summary
        .as_ref()
        .context("the round closed without a summary")?;
    let head = record
        .head
        .as_ref()
        .context("the round is not kept in full")?;
    let hyper = &run.params.hyper;
    let tokens = u64::from(run.params.steps) * u64::from(hyper.batch) * u64::from(hyper.sequence);
    let nanos = summary
        .closed_at
        .nanos()
        .saturating_sub(summary.opened_at.nanos());
    Ok(RoundFigures {
        round: head.round,
        held_out_sample,
        assigned: summary.assigned,
        accepted: summary.accepted,
        miners: miners(participants, record),
        audited: summary.audited,
        disputed: summary.disputed,
        uploaded_bytes: summary.package_bytes,
        dense_bytes: 4 * parameters * u64::from(summary.accepted),
        verification_bytes: verification_bytes(record, parameters),
        tokens: tokens * u64::from(summary.assigned),
        seconds: nanos as f64 / 1e9,
        paid_uremes: summary.paid.uremes(),
        slashed_uremes: summary.slashed.uremes(),
    })
}

/// What the round made of each miner's work.
fn miners(participants: &[Participant], record: &RoundRecord) -> Vec<MinerFigures> {
    let miners = participants.iter().filter(|one| one.role == Role::Miner);
    let figures = miners.map(|miner| {
        let entry = record
            .entries
            .iter()
            .find(|entry| entry.miner == miner.address);
        MinerFigures {
            name: miner.label.clone(),
            honest: miner.honest,
            outcome: entry.and_then(|entry| entry.outcome),
        }
    });
    figures.collect()
}

/// What audited miners served: states before the drawn steps, and old error feedback.
fn verification_bytes(record: &RoundRecord, parameters: u64) -> u64 {
    let served = record
        .entries
        .iter()
        .filter_map(|entry| entry.audit.as_ref()?.served.as_ref());
    let state = StepState::encoded_len(usize::try_from(parameters).unwrap_or(usize::MAX)) as u64;
    served
        .map(|served| {
            state * served.states.len() as u64 + served.feedback.map_or(0, |_| 4 * parameters)
        })
        .sum()
}

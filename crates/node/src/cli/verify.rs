//! `r3mes verify`: recompute what others claim.

use anyhow::Context;
use r3mes_training::{
    job::{Job, adapter_layout, initial_adapter},
    state::floats_from_bytes,
    step::StepMemory,
    verify::{VerifiedRound, replay_miner, verify_round},
};
use r3mes_types::{
    Cid, Hash,
    training::{Entry, Outcome, QueryRound, QueryRun, QueryTask, Round, Run},
};
use serde::Serialize;

use super::{
    args::{Overrides, Verify, VerifyCommand},
    output::Output,
    proof::{self, Asked},
};
use crate::{
    agents::{self, bench, depot::Depot, models::ModelFiles},
    config::Config,
    home::Home,
};

/// Disk that fetched blobs may take, in MiB.
const STORAGE_MB: u64 = 4096;

pub(super) fn run(
    home: &Home,
    typed: &Verify,
    overrides: &Overrides,
    out: &Output,
) -> anyhow::Result<()> {
    let config = super::load_or_default(home, overrides)?;
    let proved = |asked, from| proof::run(home, &config, &asked, from, out);
    let runtime = super::runtime()?;
    match &typed.command {
        VerifyCommand::Round { round, run, replay } => {
            let report = verify_recorded_round(home, &config, *run, *round, *replay);
            let report = runtime.block_on(report)?;
            out.show(&report, || report.text())
        }
        VerifyCommand::Answer { receipt, api } => {
            let api = match api {
                Some(api) => api.clone(),
                None => config.api_url(),
            };
            let report = super::receipt::verify(home, &config, receipt, &api);
            let report = runtime.block_on(report)?;
            out.show(&report, || report.text())
        }
        VerifyCommand::Block { height, from } => proved(Asked::Block(*height), from),
        VerifyCommand::Balance { address, from } => proved(Asked::Balance(*address), from),
        VerifyCommand::Participants { page_size, from } => {
            proved(Asked::Participants(*page_size), from)
        }
    }
}

/// What recomputing a round found.
#[derive(Debug, Serialize)]
struct RoundReport {
    run: u64,
    round: u32,
    adapter: String,
    packages: usize,
    package_bytes: u64,
    replayed_miners: usize,
}

impl RoundReport {
    fn text(&self) -> String {
        let replayed = match self.replayed_miners {
            0 => "not replayed; add --replay to train each round again".to_owned(),
            count => format!("{count} replayed from the public start, all equal"),
        };
        format!(
            "round {} of run {} recomputes: adapter {}\n{} packages, {} bytes; miners {replayed}",
            self.round, self.run, self.adapter, self.packages, self.package_bytes
        )
    }
}

/// Recomputes a closed round: the aggregate from the packages, and with `replay` every accepted
/// package from the public start.
///
/// # Errors
/// Names the first thing that differs.
async fn verify_recorded_round(
    home: &Home,
    config: &Config,
    run: u64,
    round: u32,
    replay: bool,
) -> anyhow::Result<RoundReport> {
    let folder = tempfile::tempdir()?;
    let store = agents::open_store(folder.path(), STORAGE_MB, false)?;
    let client = agents::chain::connect(home, config)?;
    let depot = Depot::new(home, config, store, client.clone())?;
    let run = client.query(&QueryRun { run }).await?;
    let record = client.query(&QueryRound { run: run.id, round }).await?;
    let head = record.head.as_ref().with_context(|| {
        format!(
            "round {round} of run {} is not kept in full any more; only its summary is",
            run.id
        )
    })?;
    let files = ModelFiles::of_command(&folder);
    let packed = files.open(&depot, &client, run.params.model).await?;
    let layout = adapter_layout(packed.config(), &run.params.hyper)?;
    let initial = initial_adapter(&layout, &run.params.adapter_seed).into_numbers();
    let handle = tokio::runtime::Handle::current();
    let fetch =
        |cid: &Cid, limit: usize| handle.block_on(depot.get(*cid, limit as u64, None, "verify"));
    let verified = tokio::task::block_in_place(|| {
        verify_round(head, &record.entries, &run.params.hyper, &initial, fetch)
    })?;
    let replayed_miners = match replay {
        true => {
            replay_all(
                config,
                (&depot, files),
                &client,
                &run,
                head,
                &record.entries,
                &packed,
            )
            .await?
        }
        false => 0,
    };
    Ok(report(&run, head, &verified, replayed_miners))
}

fn report(
    run: &Run,
    head: &Round,
    verified: &VerifiedRound,
    replayed_miners: usize,
) -> RoundReport {
    RoundReport {
        run: run.id,
        round: head.round,
        adapter: head
            .aggregate
            .as_ref()
            .map_or(Hash::ZERO, |aggregate| aggregate.adapter)
            .to_string(),
        packages: verified.miners.len(),
        package_bytes: verified.package_bytes,
        replayed_miners,
    }
}

async fn replay_all(
    config: &Config,
    (depot, files): (&Depot, ModelFiles),
    client: &r3mes_gateway::rpc::Client,
    run: &Run,
    head: &Round,
    entries: &[Entry],
    packed: &r3mes_model::PackedModel,
) -> anyhow::Result<usize> {
    let mut bench = bench::Bench::new(
        agents::device(config)?,
        crate::config::RoleConfig::default().memory_mb,
        files,
    );
    bench.insert(packed);
    let mut count = 0;
    for entry in entries
        .iter()
        .filter(|entry| entry.outcome == Some(Outcome::Accepted))
    {
        let question = QueryTask {
            run: run.id,
            round: head.round,
            miner: entry.miner,
        };
        let task = client.query(&question).await?;
        bench.prepare(depot, client, &task).await?;
        let adapter = bench::fetch_adapter(depot, &task.start, "verify").await?;
        let adapter = bench.adapter(
            task.model,
            &task.hyper,
            &task.adapter_seed,
            adapter.as_deref(),
        )?;
        let feedback = match task.feedback {
            None => None,
            Some(hash) => Some(old_feedback(depot, entry, hash, adapter.numbers().len()).await?),
        };
        let (job, memory): (Job<'_, _>, &mut StepMemory<_>) = bench.job(&task)?;
        let start = job.start(adapter)?;
        let found = tokio::task::block_in_place(|| replay_miner(&job, start, feedback, memory))?;
        let recorded = entry
            .package
            .as_ref()
            .context("an accepted package is not recorded")?;
        anyhow::ensure!(
            found.package == recorded.hash,
            "the package of {} recomputes to {}, the ledger says {}",
            entry.miner,
            found.package,
            recorded.hash
        );
        count += 1;
    }
    Ok(count)
}

/// The error feedback a miner started from; only audited miners have published it.
async fn old_feedback(
    depot: &Depot,
    entry: &Entry,
    hash: Hash,
    parameters: usize,
) -> anyhow::Result<Vec<f32>> {
    let served = entry
        .audit
        .as_ref()
        .and_then(|audit| audit.served.as_ref()?.feedback);
    let cid = served.with_context(|| {
        format!(
            "{} started from error feedback {hash} that it has not published, since it was not audited; \
             replay an earlier round, or verify without --replay",
            entry.miner
        )
    })?;
    let bytes = depot
        .get(cid, 4 * parameters as u64, Some(entry.miner), "verify")
        .await?;
    anyhow::ensure!(
        Hash::of(&bytes) == hash,
        "the error feedback served by {} is not the one recorded",
        entry.miner
    );
    Ok(floats_from_bytes(&bytes))
}

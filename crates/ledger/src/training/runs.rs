//! How runs are started, paused, resumed and ended.

use r3mes_types::governance::RunSwitch;
use r3mes_types::training::{
    MsgCreateRun, MsgEndRun, MsgPauseRun, MsgResumeRun, Run, RunParams, RunStatus,
};
use r3mes_types::wire::Text;
use r3mes_types::{Address, Event};

use super::error::TrainingError;
use super::params;
use super::state::{LIVE, MAX_LIVE_RUNS, NEXT_RUN, RUNS};
use crate::data;
use crate::error::LedgerError;
use crate::governance;
use crate::models;
use crate::store::{Context, View};

/// Starts a run for the network's authority.
pub(super) fn create(ctx: &mut Context<'_>, message: &MsgCreateRun) -> Result<(), LedgerError> {
    check_authority(ctx, message.authority)?;
    start(ctx, message.params.clone()).map(|_| ())
}

/// Starts a run. Governance and genesis call this too.
///
/// # Errors
/// When the parameters do not hold together, model or dataset are missing, or there are too many runs.
pub fn start(ctx: &mut Context<'_>, params: RunParams) -> Result<u64, LedgerError> {
    params::check(&params).map_err(|source| TrainingError::Params { source })?;
    let model = models::get(ctx, &params.model)?;
    if model.is_none_or(|model| model.spec.exact_version != params.exact_version) {
        let what = "the run's model, under the run's version of the exact arithmetic,";
        return Err(TrainingError::Missing { what }.into());
    }
    if data::adopted(ctx, params.dataset)?.is_none() {
        return Err(TrainingError::Missing {
            what: "the run's dataset",
        }
        .into());
    }
    if LIVE.range(ctx, None, MAX_LIVE_RUNS)?.len() == MAX_LIVE_RUNS {
        return Err(TrainingError::TooManyRuns { max: MAX_LIVE_RUNS }.into());
    }
    let id = NEXT_RUN.next(ctx)?;
    let run = Run {
        id,
        adapter: params.initial.clone(),
        params,
        status: RunStatus::Active,
        round: 0,
        open: false,
        paused_because: Text::default(),
        oldest_kept: 0,
    };
    RUNS.put(ctx, &id, &run)?;
    LIVE.put(ctx, &id, &true)?;
    ctx.emit(
        Event::new("training.create_run")
            .with("run", id)
            .with("name", &run.params.name),
    );
    Ok(id)
}

/// Keeps a run from opening rounds.
pub(super) fn pause_by(ctx: &mut Context<'_>, message: &MsgPauseRun) -> Result<(), LedgerError> {
    check_authority(ctx, message.authority)?;
    pause(ctx, message.run, &message.reason)
}

/// Pauses a run that is active.
pub(super) fn pause(ctx: &mut Context<'_>, run: u64, why: &str) -> Result<(), LedgerError> {
    let mut run = find(ctx, run)?;
    if run.status == RunStatus::Active {
        run.status = RunStatus::Paused;
        run.paused_because = Text::new(why).unwrap_or_default();
        RUNS.put(ctx, &run.id, &run)?;
        ctx.emit(
            Event::new("training.pause_run")
                .with("run", run.id)
                .with("why", why),
        );
    }
    Ok(())
}

/// Lets a paused run open rounds again.
pub(super) fn resume_by(ctx: &mut Context<'_>, message: &MsgResumeRun) -> Result<(), LedgerError> {
    check_authority(ctx, message.authority)?;
    resume(ctx, message.run)
}

/// Pauses or resumes a run by governance.
pub(crate) fn switch(ctx: &mut Context<'_>, switch: &RunSwitch) -> Result<(), LedgerError> {
    if switch.paused {
        pause(ctx, switch.run, "governance decided so")
    } else {
        resume(ctx, switch.run)
    }
}

fn resume(ctx: &mut Context<'_>, run: u64) -> Result<(), LedgerError> {
    let mut run = find(ctx, run)?;
    match run.status {
        RunStatus::Finished => return Err(TrainingError::Finished { run: run.id }.into()),
        RunStatus::Active => return Ok(()),
        RunStatus::Paused => {}
    }
    run.status = RunStatus::Active;
    run.paused_because = Text::default();
    RUNS.put(ctx, &run.id, &run)?;
    ctx.emit(Event::new("training.resume_run").with("run", run.id));
    Ok(())
}

/// Finishes a run for the network's authority.
pub(super) fn end_by(ctx: &mut Context<'_>, message: &MsgEndRun) -> Result<(), LedgerError> {
    check_authority(ctx, message.authority)?;
    end(ctx, message.run)
}

/// Finishes a run, whatever rounds are left: none opens any more, and the open one closes as usual.
pub(crate) fn end(ctx: &mut Context<'_>, run: u64) -> Result<(), LedgerError> {
    let mut run = find(ctx, run)?;
    if run.status == RunStatus::Finished {
        return Err(TrainingError::Finished { run: run.id }.into());
    }
    run.status = RunStatus::Finished;
    run.paused_because = Text::default();
    RUNS.put(ctx, &run.id, &run)?;
    ctx.emit(Event::new("training.end_run").with("run", run.id));
    Ok(())
}

fn find(view: &dyn View, run: u64) -> Result<Run, LedgerError> {
    Ok(RUNS
        .get(view, &run)?
        .ok_or(TrainingError::UnknownRun { run })?)
}

fn check_authority(view: &dyn View, address: Address) -> Result<(), LedgerError> {
    if governance::is_authority(view, &address)? {
        Ok(())
    } else {
        Err(TrainingError::NotAuthority { address }.into())
    }
}

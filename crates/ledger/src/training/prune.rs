//! How rounds shrink to their summaries when nobody can need the rest of them any more.
//!
//! A run keeps its last [`kept_rounds`](r3mes_types::training::RunParams::kept_rounds) rounds in full,
//! and older ones while a package of them is audited a second time, or may be yet. A run that is finished
//! closes no more rounds to count by: each of its rounds goes when as many rounds could have closed, the
//! stake that stood behind it could have been taken back, and what it paid has vested.

use r3mes_types::training::{Run, RunStatus};
use r3mes_types::{Millis, Time};

use super::phases::all_windows;
use super::reaudit;
use super::state::{
    self, DUTIES, ENTRIES, FEEDBACK, JUDGES, LIVE, MEMBERS, PACKAGES, ROUNDS, RUNS, RoundId,
    SECOND_VOTES, VOTES,
};
use crate::error::LedgerError;
use crate::store::{Context, View};
use crate::{LAST_TIME, nodes, rewards};

/// Shrinks rounds of a run of which none is open. `budget` is how many records may go; one that is
/// finished and has no more of them is not looked at again.
pub(super) fn advance(
    ctx: &mut Context<'_>,
    run: &mut Run,
    budget: &mut usize,
) -> Result<(), LedgerError> {
    while let Some(id) = due(ctx, run, ctx.now())? {
        if *budget == 0 {
            return Ok(());
        }
        let removed = shrink(ctx, id, *budget)?;
        if removed < *budget {
            run.oldest_kept += 1;
            RUNS.put(ctx, &run.id, run)?;
        }
        *budget = budget.saturating_sub(removed + 1);
    }
    if run.status == RunStatus::Finished && run.oldest_kept == run.round {
        LIVE.remove(ctx, &run.id)?;
    }
    Ok(())
}

/// The next block time at which [`advance`] can do something for a run of which no round is open.
pub(super) fn next(view: &dyn View, run: &Run) -> Result<Option<Time>, LedgerError> {
    let last = LAST_TIME.require(view)?;
    if due(view, run, last)?.is_some() {
        return Ok(Some(Time::default()));
    }
    let oldest = let_go_at(view, run)?;
    Ok(oldest.map(|(_, at)| at).filter(|at| *at > last))
}

/// The oldest round that is kept in full although nobody needs it at `now`.
fn due(view: &dyn View, run: &Run, now: Time) -> Result<Option<RoundId>, LedgerError> {
    let oldest = let_go_at(view, run)?.filter(|(_, at)| *at <= now);
    Ok(match oldest {
        Some((id, _)) if !reaudit::is_needed(view, id)? => Some(id),
        _ => None,
    })
}

/// The oldest round that is kept in full, and the time from which only a second audit keeps it. Without
/// one there is no such round, or the run decides by closing others.
fn let_go_at(view: &dyn View, run: &Run) -> Result<Option<(RoundId, Time)>, LedgerError> {
    let id = RoundId {
        run: run.id,
        round: run.oldest_kept,
    };
    if id.round >= run.round {
        return Ok(None);
    }
    if id.round.saturating_add(run.params.kept_rounds) < run.round {
        return Ok(Some((id, Time::default())));
    }
    if run.status != RunStatus::Finished {
        return Ok(None);
    }
    let closed_at = state::round(view, id)?.closed_at;
    Ok(Some((id, closed_at.after(kept_for(view, run)?))))
}

/// For how long a finished run keeps a round in full after its close.
fn kept_for(view: &dyn View, run: &Run) -> Result<Millis, LedgerError> {
    let rounds = u64::from(run.params.kept_rounds);
    let windows = all_windows(run).millis().saturating_mul(rounds);
    let unbonding = nodes::PARAMS.require(view)?.unbonding.millis();
    let vesting = rewards::longest_vesting(view)?.millis();
    Ok(Millis::new(windows.max(unbonding).max(vesting)))
}

/// Removes up to `limit` records of a round. Returns how many; fewer than `limit` means that nothing is
/// left.
pub(super) fn shrink(
    ctx: &mut Context<'_>,
    id: RoundId,
    limit: usize,
) -> Result<usize, LedgerError> {
    let votes = VOTES.range_of(ctx, &id, None, limit)?;
    for (key, _) in &votes {
        VOTES.remove(ctx, key)?;
    }
    let mut removed = votes.len();
    let votes = SECOND_VOTES.range_of(ctx, &id, None, limit - removed)?;
    for (key, _) in &votes {
        SECOND_VOTES.remove(ctx, key)?;
    }
    removed += votes.len();
    let judges = JUDGES.range_of(ctx, &id, None, limit - removed)?;
    for (key, _) in &judges {
        JUDGES.remove(ctx, key)?;
    }
    removed += judges.len();
    let duties = DUTIES.range_of(ctx, &id, None, limit - removed)?;
    for (key, _) in &duties {
        DUTIES.remove(ctx, key)?;
    }
    removed += duties.len();
    let entries = ENTRIES.range_of(ctx, &id, None, limit - removed)?;
    for ((_, miner), _) in &entries {
        PACKAGES.remove(ctx, &(*miner, id))?;
        // The round after this one has begun with it, or there is none.
        let feedback = FEEDBACK.get(ctx, &(id.run, *miner))?;
        if feedback.is_some_and(|kept| kept.round == id.round) {
            FEEDBACK.remove(ctx, &(id.run, *miner))?;
        }
        ENTRIES.remove(ctx, &(id, *miner))?;
    }
    removed += entries.len();
    if removed < limit {
        MEMBERS.remove(ctx, &id)?;
        ROUNDS.remove(ctx, &id)?;
    }
    Ok(removed)
}

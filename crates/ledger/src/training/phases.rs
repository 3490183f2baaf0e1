//! What drives a round: after each block, every run goes as far as it can.
//!
//! A phase is over when all who owe something have answered, or at its deadline. Then its entries are
//! settled one by one, at most [`MAX_WORK_PER_BLOCK`] in a block, and the next phase begins. A phase
//! that nobody owes anything in is over at once.

use r3mes_types::training::{Phase, Round, Run, RunStatus};
use r3mes_types::{Millis, Time};

use super::aggregate;
use super::events;
use super::open;
use super::pay;
use super::prune;
use super::reaudit;
use super::settle;
use super::state::{self, RUNS, RoundId, put_round};
use crate::block::BlockInput;
use crate::error::LedgerError;
use crate::store::{Context, View};

/// Entries settled, paid or pruned in one block, over all runs.
pub const MAX_WORK_PER_BLOCK: usize = 256;
/// The draw uses the beacon's mix so many blocks after its phase closed.
pub const DRAW_DELAY: u64 = 2;

/// What may still be done in this block.
struct Budget(usize);

impl Budget {
    fn take(&mut self) -> bool {
        let left = self.0 > 0;
        self.0 = self.0.saturating_sub(1);
        left
    }
}

/// Moves every run and every second audit on.
///
/// # Errors
/// When the state cannot be read.
pub(crate) fn end_block(ctx: &mut Context<'_>, _: &BlockInput) -> Result<(), LedgerError> {
    let mut budget = Budget(MAX_WORK_PER_BLOCK);
    for mut run in state::live_runs(ctx)? {
        advance(ctx, &mut run, &mut budget)?;
    }
    reaudit::advance(ctx)
}

/// The next block time at which something happens by itself. A time that has passed means: as soon as
/// possible.
///
/// # Errors
/// When the state cannot be read.
pub(crate) fn next_deadline(view: &dyn View) -> Result<Option<Time>, LedgerError> {
    let mut next = reaudit::next_deadline(view)?;
    for run in state::live_runs(view)? {
        let deadline = if run.open {
            let round = state::round(
                view,
                RoundId {
                    run: run.id,
                    round: run.round,
                },
            )?;
            Some(if is_waiting(&round) {
                round.deadline
            } else {
                round.opened_at
            })
        } else {
            prune::next(view, &run)?
        };
        next = next.into_iter().chain(deadline).min();
    }
    Ok(next)
}

/// Whether only answers or the deadline can move the round on.
fn is_waiting(round: &Round) -> bool {
    !round.settling && !matches!(round.phase, Phase::Assign | Phase::Draw | Phase::Pay)
}

fn advance(ctx: &mut Context<'_>, run: &mut Run, budget: &mut Budget) -> Result<(), LedgerError> {
    loop {
        if !run.open {
            prune::advance(ctx, run, &mut budget.0)?;
            if run.status != RunStatus::Active || !open::open_round(ctx, run)? {
                return Ok(());
            }
        }
        let id = RoundId {
            run: run.id,
            round: run.round,
        };
        let mut round = state::round(ctx, id)?;
        if !round.settling {
            if !is_over(ctx, &round) {
                return Ok(());
            }
            round.settling = true;
            round.cursor = 0;
            round.pending = 0;
        }
        let done = settle_entries(ctx, run, &mut round, budget)?;
        // The court may have paused the run.
        *run = RUNS.get(ctx, &run.id)?.unwrap_or_else(|| run.clone());
        if done {
            leave(ctx, run, &mut round)?;
        }
        put_round(ctx, &round)?;
        RUNS.put(ctx, &run.id, run)?;
        if !done {
            return Ok(());
        }
        if !run.open {
            // What the round's locks set free, the next round would take.
            reaudit::seat(ctx)?;
        }
    }
}

fn is_over(ctx: &Context<'_>, round: &Round) -> bool {
    match round.phase {
        Phase::Assign | Phase::Pay => true,
        Phase::Draw => round.standing == 0 || ctx.height() >= round.draw_height,
        _ => round.pending == 0 || ctx.now() >= round.deadline,
    }
}

/// Settles entries until all are done (`true`) or the block's budget is used up.
fn settle_entries(
    ctx: &mut Context<'_>,
    run: &Run,
    round: &mut Round,
    budget: &mut Budget,
) -> Result<bool, LedgerError> {
    if round.phase == Phase::Aggregate {
        return Ok(true);
    }
    let members = state::members(ctx, RoundId::of(round))?;
    let everyone = matches!(round.phase, Phase::Assign | Phase::Pay);
    let count = members.miners.len()
        + if everyone {
            members.validators.len()
        } else {
            0
        };
    while (round.cursor as usize) < count {
        if !budget.take() {
            return Ok(false);
        }
        let index = round.cursor as usize;
        match members.miners.get(index) {
            Some(miner) => settle::miner(ctx, run, round, &members, *miner)?,
            None => {
                let member = &members.validators[index - members.miners.len()];
                settle::validator(ctx, run, round, member)?;
            }
        }
        round.cursor += 1;
    }
    Ok(true)
}

/// Leaves a settled phase for the next one.
fn leave(ctx: &mut Context<'_>, run: &mut Run, round: &mut Round) -> Result<(), LedgerError> {
    let next = match round.phase {
        Phase::Assign => Phase::Commit,
        Phase::Commit => Phase::Reveal,
        Phase::Reveal => Phase::Availability,
        Phase::Availability => Phase::Draw,
        Phase::Draw => Phase::Serve,
        Phase::Serve => Phase::Verify,
        Phase::Verify => Phase::Verdict,
        Phase::Verdict => Phase::Open,
        Phase::Open => Phase::Court,
        Phase::Court => Phase::Aggregate,
        Phase::Aggregate => {
            // An overdue proposer makes room for the next; without one the adapter stays.
            if round.aggregate.is_none()
                && round.standing > 0
                && aggregate::next_turn(ctx, run, round)?
            {
                round.settling = false;
                return Ok(());
            }
            Phase::Pay
        }
        Phase::Pay | Phase::Closed => return pay::close(ctx, run, round),
    };
    enter(ctx, run, round, next)
}

fn enter(
    ctx: &mut Context<'_>,
    run: &Run,
    round: &mut Round,
    phase: Phase,
) -> Result<(), LedgerError> {
    round.phase = phase;
    round.settling = false;
    round.deadline = ctx.now().after(window(run, phase));
    match phase {
        Phase::Availability if round.standing > 0 => {
            let members = state::members(ctx, RoundId::of(round))?;
            round.pending = members.validators.len() as u32;
        }
        Phase::Draw => round.draw_height = ctx.height() + DRAW_DELAY,
        Phase::Serve => settle::rank_proposers(ctx, run, round)?,
        Phase::Aggregate if round.standing > 0 => {
            round.pending = aggregate::answers_missing(ctx, round)?;
        }
        Phase::Pay => pay::begin(ctx, run, round)?,
        _ => {}
    }
    ctx.emit(events::phase(RoundId::of(round), phase));
    Ok(())
}

pub(super) fn window(run: &Run, phase: Phase) -> Millis {
    let windows = &run.params.windows;
    match phase {
        Phase::Commit => windows.commit,
        Phase::Reveal => windows.reveal,
        Phase::Availability => windows.availability,
        Phase::Serve => windows.serve,
        Phase::Verify => windows.verify,
        Phase::Verdict => windows.verdict,
        Phase::Open => windows.open,
        Phase::Court => windows.court,
        Phase::Aggregate => windows.aggregate,
        Phase::Assign | Phase::Draw | Phase::Pay | Phase::Closed => Millis::new(0),
    }
}

/// All windows of one round together.
pub(super) fn all_windows(run: &Run) -> Millis {
    let windows = Phase::ALL.iter().map(|phase| window(run, *phase).millis());
    Millis::new(windows.fold(0, u64::saturating_add))
}

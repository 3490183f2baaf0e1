//! Second audits: before stake that a miner takes back is paid out, a random share of its accepted
//! packages that are still kept in full is audited again, by another panel.
//!
//! Whoever begins to take stake back stands on the list of `nodes::leavers`. From there it is taken
//! over here, first in, first out, with the validators of that block, and a dispute holds its stake.
//! [`DRAW_DELAY`] blocks later the beacon draws, package by package, whether there is a second audit,
//! its panel and its steps. Who has no package that could be drawn is let go at once; who takes more
//! back meanwhile stands at the end of the list when the draw is over.
//! A second audit has the phases of the first, from serve to court, with the same windows; before them
//! it stands in the phase of the draw while no validator has stake free for a seat. It is closed when
//! nobody contradicts the miner or the court has spoken. The validators are paid by the treasury.

mod hearing;

use r3mes_types::training::{Phase, Reaudit};
use r3mes_types::{Address, Amount, Hash, Role, Time};

use self::hearing::Hearing;
use super::answers::Asked;
use super::draw::{Audits, PackageDraw};
use super::open;
use super::phases::{self, DRAW_DELAY};
use super::settle::new_audit;
use super::state::{self, JUDGES, Judges, LEAVERS, Leaver, PACKAGES, REAUDITS, RoundId, put_entry};
use crate::beacon;
use crate::error::{Fault, LedgerError};
use crate::nodes;
use crate::store::{Context, View};

/// Second audits that are open at the same time; more have to wait.
pub const MAX_REAUDITS: usize = 16;
/// Miners whose second audits are being drawn at the same time; more have to wait.
pub const MAX_LEAVERS: usize = 16;
/// Nodes that take stake back looked at in one block. More than [`MAX_LEAVERS`], so that those whose
/// draw is under way never fill it.
const MAX_SEEN_PER_BLOCK: usize = 64;
/// Packages looked at in one block.
const MAX_DRAWS_PER_BLOCK: usize = 64;

/// Draws, takes over who leaves, and moves every second audit on.
pub(super) fn advance(ctx: &mut Context<'_>) -> Result<(), LedgerError> {
    draw(ctx)?;
    take_over(ctx)?;
    for ((id, miner), _) in REAUDITS.range(ctx, None, MAX_REAUDITS)? {
        Hearing::find(ctx, id, &miner)?.advance()?;
    }
    Ok(())
}

/// Begins every open second audit anew at `now`, for a chain that goes on from this state: what was not
/// answered before the deadlines of this one is no fault of anybody's there.
pub(crate) fn begin_anew(ctx: &mut Context<'_>, now: Time) -> Result<(), LedgerError> {
    for ((id, miner), _) in REAUDITS.range(ctx, None, MAX_REAUDITS)? {
        Hearing::find(ctx, id, &miner)?.begin_anew(now)?;
    }
    Ok(())
}

/// Tries to seat the panels of second audits that have none yet.
pub(super) fn seat(ctx: &mut Context<'_>) -> Result<(), LedgerError> {
    for ((id, miner), _) in REAUDITS.range(ctx, None, MAX_REAUDITS)? {
        let hearing = Hearing::find(ctx, id, &miner)?;
        if hearing.is_unseated() {
            hearing.advance()?;
        }
    }
    Ok(())
}

/// The next block time at which a second audit moves on by itself, or one is drawn.
///
/// A block is asked for at once only while each block brings the draws nearer to their end: one that
/// waits for its mix does so for [`DRAW_DELAY`] blocks, and after that packages are done with for good.
pub(super) fn next_deadline(view: &dyn View) -> Result<Option<Time>, LedgerError> {
    let open = REAUDITS.range(view, None, MAX_REAUDITS)?;
    let drawing = !LEAVERS.range(view, None, 1)?.is_empty() || !nodes::leavers(view, 1)?.is_empty();
    if open.len() < MAX_REAUDITS && drawing {
        return Ok(Some(Time::from_nanos(0)));
    }
    let mut next = None;
    for ((id, miner), _) in open {
        let reaudit = state::entry(view, id, &miner)?.reaudit;
        next = next
            .into_iter()
            .chain(reaudit.map(|reaudit| reaudit.deadline))
            .min();
    }
    Ok(next)
}

/// Whether a round must stay: a package of it is being audited again, or one of a miner that takes
/// stake back was not drawn for yet.
pub(super) fn is_needed(view: &dyn View, id: RoundId) -> Result<bool, LedgerError> {
    if state::is_reaudited(view, id)? {
        return Ok(true);
    }
    for miner in &state::members(view, id)?.miners {
        let leaves = nodes::is_leaver(view, miner)? || LEAVERS.contains(view, miner)?;
        if leaves && PACKAGES.contains(view, &(*miner, id))? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Takes over nodes that have begun to take stake back, as far as there is room, and lets those go that
/// nothing can be drawn for.
fn take_over(ctx: &mut Context<'_>) -> Result<(), LedgerError> {
    let mut room = MAX_LEAVERS - LEAVERS.range(ctx, None, MAX_LEAVERS)?.len();
    for miner in nodes::leavers(ctx, MAX_SEEN_PER_BLOCK)? {
        if LEAVERS.contains(ctx, &miner)? {
            // It has its turn again when the draw that is under way is over.
            continue;
        }
        if PACKAGES.range_of(ctx, &miner, None, 1)?.is_empty() {
            nodes::leaver_seen(ctx, &miner)?;
        } else if room > 0 {
            room -= 1;
            nodes::leaver_seen(ctx, &miner)?;
            nodes::dispute_opened(ctx, &miner)?;
            await_draw(ctx, &miner)?;
        }
    }
    Ok(())
}

/// Fixes who can be drawn, before the beacon's mix that draws is known.
fn await_draw(ctx: &mut Context<'_>, miner: &Address) -> Result<(), LedgerError> {
    let mut validators = nodes::active(ctx, Role::Validator)?;
    validators.retain(|node| node.address != *miner);
    let leaver = Leaver {
        draw_height: ctx.height() + DRAW_DELAY,
        draw: None,
        validators: open::members(validators),
        run: 0,
        round: 0,
    };
    LEAVERS.put(ctx, miner, &leaver)
}

/// Draws for the packages of those who leave, up to a number per block.
fn draw(ctx: &mut Context<'_>) -> Result<(), LedgerError> {
    let mut left = MAX_DRAWS_PER_BLOCK;
    for (miner, mut leaver) in LEAVERS.range(ctx, None, MAX_LEAVERS)? {
        if ctx.height() < leaver.draw_height {
            continue;
        }
        let mix = match leaver.draw {
            Some(mix) => mix,
            None => *leaver.draw.insert(mix_at(ctx, leaver.draw_height)?),
        };
        if draw_packages(ctx, &miner, &mut leaver, &mix, &mut left)? {
            LEAVERS.remove(ctx, &miner)?;
            nodes::dispute_closed(ctx, &miner)?;
            nodes::leaver_last(ctx, &miner)?;
        } else {
            LEAVERS.put(ctx, &miner, &leaver)?;
        }
    }
    Ok(())
}

fn mix_at(view: &dyn View, height: u64) -> Result<Hash, LedgerError> {
    let missing = || Fault::Damaged {
        table: beacon::MIXES.prefix(),
        why: format!("there is no mix of height {height}"),
    };
    Ok(beacon::mix_at(view, height)?.ok_or_else(missing)?)
}

/// Draws for a miner's packages from where the last block stopped; `false` when there are more left
/// than this block takes.
fn draw_packages(
    ctx: &mut Context<'_>,
    miner: &Address,
    leaver: &mut Leaver,
    mix: &Hash,
    left: &mut usize,
) -> Result<bool, LedgerError> {
    loop {
        let last = RoundId {
            run: leaver.run,
            round: leaver.round,
        };
        let found = PACKAGES.range_of(ctx, miner, Some(&(*miner, last)), 1)?;
        let Some(((_, id), accepted)) = found.into_iter().next() else {
            return Ok(true);
        };
        if *left == 0 || REAUDITS.range(ctx, None, MAX_REAUDITS)?.len() >= MAX_REAUDITS {
            return Ok(false);
        }
        *left -= 1;
        // Whoever knows the mix knows which packages are safe.
        if accepted <= leaver.draw_height {
            let draw = PackageDraw {
                mix,
                id,
                miner,
                audits: Audits::Second,
            };
            draw_package(ctx, &draw, leaver)?;
        }
        leaver.run = id.run;
        leaver.round = id.round;
    }
}

/// Draws for one package, for good.
fn draw_package(
    ctx: &mut Context<'_>,
    draw: &PackageDraw<'_>,
    leaver: &Leaver,
) -> Result<(), LedgerError> {
    let (id, miner) = (draw.id, *draw.miner);
    PACKAGES.remove(ctx, &(miner, id))?;
    let run = Asked::find(ctx, id.run, id.round)?.run;
    let mut entry = state::entry(ctx, id, &miner)?;
    let mut reaudit = Reaudit {
        phase: Phase::Closed,
        deadline: ctx.now(),
        pending: 0,
        audit: None,
        outcome: None,
        slashed: Amount::ZERO,
        paid: Amount::ZERO,
    };
    if draw.is_audited(run.params.reaudited_share) {
        let steps = draw.steps(run.params.steps, run.params.drawn_steps);
        reaudit.phase = Phase::Draw;
        // Long enough for the round that is open to end and set its locks free.
        reaudit.deadline = ctx.now().after(phases::all_windows(&run));
        reaudit.audit = Some(new_audit(steps, Vec::new()));
        let judges = Judges {
            members: leaver.validators.clone(),
            mix: *draw.mix,
        };
        nodes::dispute_opened(ctx, &miner)?;
        REAUDITS.put(ctx, &(id, miner), &true)?;
        JUDGES.put(ctx, &(id, miner), &judges)?;
    }
    entry.reaudit = Some(reaudit);
    put_entry(ctx, id, &entry)
}

//! How training begins.

use r3mes_types::Role;
use r3mes_types::training::Phase;

use super::prune;
use super::runs;
use super::stake::Bond;
use super::state::{self, RUNS, RoundId};
use crate::error::LedgerError;
use crate::export::{ExportError, OpenRounds};
use crate::genesis::Genesis;
use crate::store::Context;

/// Records or runs looked at at once.
const PAGE: usize = 256;

/// Starts the runs that the genesis names.
pub(crate) fn init(ctx: &mut Context<'_>, genesis: &Genesis) -> Result<(), LedgerError> {
    for params in &genesis.runs {
        runs::start(ctx, params.clone())?;
    }
    Ok(())
}

/// Ends the rounds that are open, before another chain goes on: their stake is set free, and their
/// records are forgotten, so that the run opens the same round anew.
///
/// # Errors
/// When there is one and it may not be ended, or one is being paid.
pub(crate) fn end_rounds(ctx: &mut Context<'_>, open: OpenRounds) -> Result<(), ExportError> {
    let mut after = None;
    loop {
        let page = RUNS.range(ctx, after.as_ref(), PAGE)?;
        let Some((last, _)) = page.last() else {
            return Ok(());
        };
        after = Some(*last);
        for (_, mut run) in page.into_iter().filter(|(_, run)| run.open) {
            let id = RoundId {
                run: run.id,
                round: run.round,
            };
            if open == OpenRounds::Refuse {
                return Err(ExportError::OpenRound {
                    run: id.run,
                    round: id.round,
                });
            }
            abort(ctx, id)?;
            run.open = false;
            RUNS.put(ctx, &id.run, &run)?;
        }
    }
}

fn abort(ctx: &mut Context<'_>, id: RoundId) -> Result<(), ExportError> {
    if state::round(ctx, id)?.phase == Phase::Pay {
        return Err(ExportError::Paying {
            run: id.run,
            round: id.round,
        });
    }
    let members = state::members(ctx, id)?;
    let miners = members.miners.iter().map(|node| (Role::Miner, *node));
    let validators = members.validators.iter();
    let validators = validators.map(|member| (Role::Validator, member.validator));
    let proposers = members.proposers.iter().map(|node| (Role::Proposer, *node));
    for (role, node) in miners.chain(validators).chain(proposers) {
        Bond { id, role, node }.release(ctx)?;
    }
    while prune::shrink(ctx, id, PAGE)? == PAGE {}
    Ok(())
}

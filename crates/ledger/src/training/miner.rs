//! What miners answer: commit, reveal, serve, open.

use r3mes_types::commitment::{Work, package_state, state_leaf};
use r3mes_types::merkle;
use r3mes_types::training::{
    MAX_PACKAGE_BYTES, MsgCommitStates, MsgOpenLeaves, MsgRevealPackage, MsgServeStates,
    ObligationKind, OpenedLeaf, Opening, ServedState,
};
use r3mes_types::wire::List;
use r3mes_types::{Address, Hash};

use super::answers::{Asked, Case, CaseId, repeats};
use super::error::TrainingError;
use super::events;
use super::settle::must_serve;
use super::state::{RoundId, put_entry};
use crate::error::LedgerError;
use crate::store::Context;

/// A miner has trained.
pub(super) fn commit(ctx: &mut Context<'_>, message: &MsgCommitStates) -> Result<(), LedgerError> {
    let kind = ObligationKind::Commit;
    let asked = Asked::find(ctx, message.run, message.round)?;
    let mut entry = asked.entry(ctx, message.miner, kind)?;
    if repeats(
        entry.commitment.as_ref(),
        &message.root,
        message.miner,
        kind,
    )? {
        return Ok(());
    }
    asked.due(kind)?;
    if entry.outcome.is_some() {
        return Err(TrainingError::NotOwed {
            address: message.miner,
            kind,
        }
        .into());
    }
    entry.commitment = Some(message.root);
    if message.feedback_lost {
        entry.feedback = None;
    }
    put_entry(ctx, asked.id, &entry)?;
    ctx.emit(events::answer("training.commit", asked.id, &message.miner));
    asked.count(ctx)
}

/// A miner publishes its package.
pub(super) fn reveal(ctx: &mut Context<'_>, message: &MsgRevealPackage) -> Result<(), LedgerError> {
    let kind = ObligationKind::Reveal;
    let asked = Asked::find(ctx, message.run, message.round)?;
    let mut entry = asked.entry(ctx, message.miner, kind)?;
    if repeats(
        entry.package.as_ref(),
        &message.package,
        message.miner,
        kind,
    )? {
        return Ok(());
    }
    asked.due(kind)?;
    let root = match entry.commitment {
        Some(root) if entry.outcome.is_none() => root,
        _ => {
            return Err(TrainingError::NotOwed {
                address: message.miner,
                kind,
            }
            .into());
        }
    };
    let package = &message.package;
    if package.bytes == 0 || package.bytes > MAX_PACKAGE_BYTES {
        return Err(TrainingError::Malformed {
            why: "a package has 1 byte to 1 GiB",
        }
        .into());
    }
    let steps = asked.run.params.steps;
    let ends = [
        (&message.start, 0, asked.round.start.state),
        (
            &message.end,
            steps + 1,
            package_state(&package.hash, &package.feedback),
        ),
    ];
    for (opening, index, state) in ends {
        if opening.index != index || opening.state != state {
            return Err(TrainingError::WrongOpening { index }.into());
        }
        check_opening(opening, &root, asked.id, message.miner, steps)?;
    }
    entry.package = Some(message.package.clone());
    put_entry(ctx, asked.id, &entry)?;
    ctx.emit(
        events::answer("training.reveal", asked.id, &message.miner)
            .with("cid", message.package.cid)
            .with("bytes", message.package.bytes),
    );
    asked.count(ctx)
}

/// An audited miner serves states and error feedback to its panel.
pub(super) fn serve(ctx: &mut Context<'_>, message: &MsgServeStates) -> Result<(), LedgerError> {
    let kind = ObligationKind::Serve;
    let id = CaseId::new(message.run, message.round, message.miner, message.second);
    let mut case = Case::find(ctx, id, message.miner, kind)?;
    let feedback = case.entry.feedback;
    let due = case.asked.due(kind);
    let audit = case.audit(message.miner, kind)?;
    if repeats(audit.served.as_ref(), &message.served, message.miner, kind)? {
        return Ok(());
    }
    due?;
    if !must_serve(audit, feedback) {
        // Counted as an answer, it would end the phase before those have answered who owe one.
        return Err(TrainingError::NotOwed {
            address: message.miner,
            kind,
        }
        .into());
    }
    let expected = audit.served_steps();
    let served = &message.served;
    if !served
        .states
        .iter()
        .map(step_of)
        .eq(expected.iter().copied())
    {
        return Err(TrainingError::WrongSteps {
            what: "served states",
            expected,
        }
        .into());
    }
    if served.feedback.is_some() && feedback.is_none() {
        let why = "there is no error feedback to serve: this round started from zero";
        return Err(TrainingError::Malformed { why }.into());
    }
    audit.served = Some(message.served.clone());
    ctx.emit(events::answer("training.serve", id.round, &message.miner));
    case.count(ctx)
}

/// An audited miner opens the leaves around the audited steps.
pub(super) fn open(ctx: &mut Context<'_>, message: &MsgOpenLeaves) -> Result<(), LedgerError> {
    let kind = ObligationKind::Open;
    let id = CaseId::new(message.run, message.round, message.miner, message.second);
    let mut case = Case::find(ctx, id, message.miner, kind)?;
    let (commitment, steps) = (case.entry.commitment, case.asked.run.params.steps);
    let due = case.asked.due(kind);
    let audit = case.audit(message.miner, kind)?;
    let opened = message
        .openings
        .iter()
        .map(|opening| OpenedLeaf {
            index: opening.index,
            state: opening.state,
        })
        .collect();
    let opened = List::new(opened).map_err(|_| TrainingError::Malformed {
        why: "too many leaves",
    })?;
    let known = (!audit.opened.is_empty()).then_some(&audit.opened);
    if repeats(known, &opened, message.miner, kind)? {
        return Ok(());
    }
    due?;
    let expected = audit.leaves();
    if !message
        .openings
        .iter()
        .map(|opening| opening.index)
        .eq(expected.iter().copied())
    {
        return Err(TrainingError::WrongSteps {
            what: "opened leaves",
            expected,
        }
        .into());
    }
    let root = commitment.ok_or(TrainingError::NotOwed {
        address: message.miner,
        kind,
    })?;
    for opening in &message.openings {
        check_opening(opening, &root, id.round, message.miner, steps)?;
    }
    audit.opened = opened;
    ctx.emit(events::answer("training.open", id.round, &message.miner));
    case.count(ctx)
}

fn step_of(state: &ServedState) -> u32 {
    state.step
}

/// Checks that a leaf leads to the committed root.
fn check_opening(
    opening: &Opening,
    root: &Hash,
    id: RoundId,
    miner: Address,
    steps: u32,
) -> Result<(), LedgerError> {
    let work = Work {
        run: id.run,
        round: u64::from(id.round),
        miner,
    };
    let leaf = state_leaf(
        &work,
        u64::from(opening.index),
        &opening.salt,
        &opening.state,
    );
    let (leaves, index) = (steps as usize + 2, opening.index as usize);
    if merkle::verify(root, leaves, index, &leaf, &opening.path) {
        Ok(())
    } else {
        Err(TrainingError::WrongOpening {
            index: opening.index,
        }
        .into())
    }
}

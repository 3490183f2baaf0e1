//! What validators answer about packages: held, verdict committed, verdict revealed, vote in court.

use r3mes_types::commitment::Work;
use r3mes_types::training::{
    Audit, CourtVote, Held, MsgAttestPackages, MsgCommitVerdict, MsgRevealVerdict, MsgVoteCourt,
    ObligationKind, Seat, Verdict,
};
use r3mes_types::{Address, Hash};

use super::answers::{Asked, Case, CaseId, repeats};
use super::error::TrainingError;
use super::events;
use super::pay::weight;
use super::state::{self, DUTIES, put_duty, put_entry, votes_of};
use crate::error::LedgerError;
use crate::store::{Context, View};

/// A validator says which packages it holds.
pub(super) fn attest(
    ctx: &mut Context<'_>,
    message: &MsgAttestPackages,
) -> Result<(), LedgerError> {
    let kind = ObligationKind::AttestPackages;
    let asked = Asked::find(ctx, message.run, message.round)?;
    let mut duty = asked.duty(ctx, message.validator, kind)?;
    let held = Held {
        miners: message.held.clone(),
    };
    if repeats(duty.held.as_ref(), &held, message.validator, kind)? {
        return Ok(());
    }
    asked.due(kind)?;
    if !message.held.is_sorted_by(|a, b| a < b) {
        return Err(TrainingError::Malformed {
            why: "the miners must be ascending",
        }
        .into());
    }
    for miner in &message.held {
        let mut entry = asked.entry(ctx, *miner, ObligationKind::Reveal)?;
        if entry.package.is_none() {
            return Err(TrainingError::Malformed {
                why: "a miner has revealed no package",
            }
            .into());
        }
        entry.held += duty.power;
        put_entry(ctx, asked.id, &entry)?;
    }
    duty.held = Some(held);
    duty.done += weight::AVAILABILITY;
    put_duty(ctx, asked.id, &duty)?;
    ctx.emit(
        events::answer("training.attest", asked.id, &message.validator)
            .with("held", message.held.len()),
    );
    asked.count(ctx)
}

/// A panel member commits to its verdict.
pub(super) fn commit_verdict(
    ctx: &mut Context<'_>,
    message: &MsgCommitVerdict,
) -> Result<(), LedgerError> {
    let kind = ObligationKind::CommitVerdict;
    let id = CaseId::new(message.run, message.round, message.miner, message.second);
    let mut case = Case::find(ctx, id, message.validator, kind)?;
    let due = case.asked.due(kind);
    let audit = case.audit(message.validator, kind)?;
    let seat = seat(audit, message.validator, kind)?;
    if repeats(
        seat.commitment.as_ref(),
        &message.commitment,
        message.validator,
        kind,
    )? {
        return Ok(());
    }
    due?;
    seat.commitment = Some(message.commitment);
    ctx.emit(
        events::answer("training.commit_verdict", id.round, &message.validator)
            .with("miner", message.miner),
    );
    case.count(ctx)
}

/// A panel member reveals its verdict.
pub(super) fn reveal_verdict(
    ctx: &mut Context<'_>,
    message: &MsgRevealVerdict,
) -> Result<(), LedgerError> {
    let kind = ObligationKind::RevealVerdict;
    let id = CaseId::new(message.run, message.round, message.miner, message.second);
    let mut case = Case::find(ctx, id, message.validator, kind)?;
    let start = case.asked.round.start.state;
    let has_feedback = case.entry.feedback.is_some();
    let due = case.asked.due(kind);
    let audit = case.audit(message.validator, kind)?;
    let steps = audit.steps.to_vec();
    let seat = seat(audit, message.validator, kind)?;
    if repeats(
        seat.verdict.as_ref(),
        &message.verdict,
        message.validator,
        kind,
    )? {
        return Ok(());
    }
    due?;
    let verdict = &message.verdict;
    check_verdict(verdict, &steps, start, has_feedback)?;
    let work = Work {
        run: message.run,
        round: u64::from(message.round),
        miner: message.miner,
    };
    let commitment = verdict.commitment(&work, &message.validator, &message.nonce);
    if seat.commitment != Some(commitment) {
        return Err(TrainingError::WrongReveal.into());
    }
    seat.verdict = Some(message.verdict.clone());
    // A second audit counts what was done when it is over.
    if !verdict.feedback_withheld && !case.is_second() {
        let mut duty = case.asked.duty(ctx, message.validator, kind)?;
        duty.done += weight::VERDICT;
        put_duty(ctx, id.round, &duty)?;
    }
    ctx.emit(
        events::answer("training.verdict", id.round, &message.validator)
            .with("miner", message.miner)
            .with("backend", verdict.backend),
    );
    case.count(ctx)
}

/// A validator votes in court.
pub(super) fn vote(ctx: &mut Context<'_>, message: &MsgVoteCourt) -> Result<(), LedgerError> {
    let kind = ObligationKind::Court;
    let id = CaseId::new(message.run, message.round, message.miner, message.second);
    let not_owed = TrainingError::NotOwed {
        address: message.validator,
        kind,
    };
    let mut case = Case::find(ctx, id, message.validator, kind)?;
    if !may_vote(ctx, &case, message.validator)? {
        return Err(not_owed.into());
    }
    let vote = CourtVote {
        miner: message.miner,
        validator: message.validator,
        verdict: message.verdict.clone(),
    };
    let key = (id.round, message.miner, message.validator);
    let votes = votes_of(message.second);
    if repeats(
        votes.get(ctx, &key)?.as_ref(),
        &vote,
        message.validator,
        kind,
    )? {
        return Ok(());
    }
    case.asked.due(kind)?;
    let start = case.asked.round.start.state;
    let has_feedback = case.entry.feedback.is_some();
    let audit = case.audit(message.validator, kind)?;
    if !audit.disputed || message.miner == message.validator {
        return Err(not_owed.into());
    }
    check_verdict(&message.verdict, &audit.steps, start, has_feedback)?;
    votes.put(ctx, &key, &vote)?;
    ctx.emit(
        events::answer("training.vote", id.round, &message.validator).with("miner", message.miner),
    );
    case.count(ctx)
}

/// Whether a validator sits in the court: of the round, or of the second audit.
fn may_vote(view: &dyn View, case: &Case, validator: Address) -> Result<bool, LedgerError> {
    let id = case.asked.id;
    if !case.is_second() {
        return DUTIES.contains(view, &(id, validator));
    }
    let judges = state::judges(view, id, &case.entry.miner)?;
    Ok(judges.iter().any(|judge| judge.validator == validator))
}

fn seat(
    audit: &mut Audit,
    address: Address,
    kind: ObligationKind,
) -> Result<&mut Seat, LedgerError> {
    let seat = audit
        .panel
        .iter_mut()
        .find(|seat| seat.validator == address);
    Ok(seat.ok_or(TrainingError::NotOwed { address, kind })?)
}

/// Checks that a verdict is about the audited steps and in itself consistent: it begins at the public
/// start, and where one step follows another, it goes on from what the one before gave.
fn check_verdict(
    verdict: &Verdict,
    steps: &[u32],
    start: Hash,
    has_feedback: bool,
) -> Result<(), LedgerError> {
    if !verdict
        .steps
        .iter()
        .map(|step| step.step)
        .eq(steps.iter().copied())
    {
        let expected = steps.to_vec();
        return Err(TrainingError::WrongSteps {
            what: "the verdict's steps",
            expected,
        }
        .into());
    }
    let begins = verdict
        .steps
        .iter()
        .all(|step| step.step > 0 || step.before == start);
    let continues = verdict
        .steps
        .windows(2)
        .all(|pair| pair[0].step + 1 < pair[1].step || pair[0].after == pair[1].before);
    if !begins || !continues {
        let why = "a step must begin where the one before it ends, and step 0 at the public start";
        return Err(TrainingError::Malformed { why }.into());
    }
    if verdict.feedback_withheld {
        let after = verdict.steps.last().map(|step| step.after);
        if !has_feedback || after != Some(Hash::ZERO) {
            let why = "withheld error feedback needs a miner that has one, and a zero state after";
            return Err(TrainingError::Malformed { why }.into());
        }
    }
    Ok(())
}

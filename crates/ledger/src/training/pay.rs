//! The close of a round: the only place that pays, once.

use r3mes_types::task::AdapterRef;
use r3mes_types::training::{Duty, Entry, Outcome, Phase, Round, RoundSummary, Run, RunStatus};
use r3mes_types::{Address, Amount, Cid, Ppm, Role};

use super::events;
use super::stake::Bond;
use super::state::{FEEDBACK, Feedback, PACKAGES, RoundId, SUMMARIES, put_duty, put_entry};
use crate::bank::{self, Module};
use crate::error::LedgerError;
use crate::models::{self, NewVersion};
use crate::nodes;
use crate::rewards::{self, Deed};
use crate::store::Context;

/// What each duty of a validator weighs when the validators' part is divided: roughly what it costs.
pub(super) mod weight {
    /// Holding the packages.
    pub(crate) const AVAILABILITY: u64 = 1;
    /// A revealed verdict, whatever it says.
    pub(crate) const VERDICT: u64 = 4;
    /// A vote in court with the quorum.
    pub(crate) const COURT: u64 = 8;
    /// Recomputing the aggregate.
    pub(crate) const AGGREGATE: u64 = 2;
}

/// Issues the round's reward.
pub(super) fn begin(
    ctx: &mut Context<'_>,
    run: &Run,
    round: &mut Round,
) -> Result<(), LedgerError> {
    round.unpaid = rewards::issue(ctx, run.params.reward)?;
    Ok(())
}

/// Settles a miner for good: its outcome, its pay, its error feedback, its stake.
pub(super) fn miner(
    ctx: &mut Context<'_>,
    run: &Run,
    round: &mut Round,
    mut entry: Entry,
) -> Result<(), LedgerError> {
    let id = RoundId::of(round);
    if let (None, Some(package)) = (entry.outcome, &entry.package) {
        let feedback = Feedback {
            round: id.round,
            hash: package.feedback,
        };
        FEEDBACK.put(ctx, &(id.run, entry.miner), &feedback)?;
        round.package_bytes += package.bytes;
        entry.outcome = Some(Outcome::Accepted);
        ctx.emit(events::outcome(id, &entry.miner, Outcome::Accepted));
        rewards::note(ctx, &entry.miner, Deed::Kept)?;
        let part = part(
            run,
            round,
            run.params.split.miners,
            1,
            u64::from(round.assigned),
        );
        entry.paid = pay(ctx, round, &entry.miner, part)?;
        if run.params.reaudited_share > Ppm::ZERO {
            let height = ctx.height();
            PACKAGES.put(ctx, &(entry.miner, id), &height)?;
        }
        // The stake that stood behind this work may be on its way back.
        nodes::enlist_leaver(ctx, &entry.miner, round.opened_at)?;
    }
    if !entry.locked.is_zero() {
        Bond {
            id,
            role: Role::Miner,
            node: entry.miner,
        }
        .release(ctx)?;
        entry.locked = Amount::ZERO;
    }
    put_entry(ctx, id, &entry)
}

/// Settles a validator for good: its pay by duties done, its stake.
pub(super) fn validator(
    ctx: &mut Context<'_>,
    run: &Run,
    round: &mut Round,
    mut duty: Duty,
) -> Result<(), LedgerError> {
    let id = RoundId::of(round);
    if duty.slashed.is_zero() {
        if duty.aggregate.is_some() && duty.aggregate == round.aggregate {
            duty.done += weight::AGGREGATE;
        }
        let part = part(
            run,
            round,
            run.params.split.validators,
            duty.done,
            round.duties,
        );
        duty.paid = pay(ctx, round, &duty.validator, part)?;
        let deed = if duty.done > 0 {
            Deed::Kept
        } else {
            Deed::Missed
        };
        rewards::note(ctx, &duty.validator, deed)?;
    }
    if !duty.locked.is_zero() {
        Bond {
            id,
            role: Role::Validator,
            node: duty.validator,
        }
        .release(ctx)?;
        duty.locked = Amount::ZERO;
    }
    put_duty(ctx, id, &duty)
}

/// Closes the round when everybody else is settled.
pub(super) fn close(
    ctx: &mut Context<'_>,
    run: &mut Run,
    round: &mut Round,
) -> Result<(), LedgerError> {
    let id = RoundId::of(round);
    if let Some(proposal) = round.proposal.clone().filter(|_| round.aggregate.is_some()) {
        let part = part(run, round, run.params.split.proposer, 1, 1);
        pay(ctx, round, &proposal.proposer, part)?;
        rewards::note(ctx, &proposal.proposer, Deed::Kept)?;
    }
    for proposer in &round.proposers {
        if !round.slashed_proposers.contains(proposer) {
            Bond {
                id,
                role: Role::Proposer,
                node: *proposer,
            }
            .release(ctx)?;
        }
    }
    bank::transfer(ctx, Module::Rewards, Module::Treasury, round.unpaid)?;
    round.unpaid = Amount::ZERO;
    if let Some((aggregate, cid)) = round.aggregate.clone().and_then(with_cid) {
        let version = NewVersion {
            model: run.params.model,
            run: id.run,
            round: u64::from(id.round),
            adapter: cid,
            adapter_hash: aggregate.adapter,
        };
        models::register_version(ctx, &version)?;
        run.adapter = aggregate;
    }
    round.phase = Phase::Closed;
    round.settling = false;
    round.closed_at = ctx.now();
    run.open = false;
    run.round += 1;
    if run.round >= run.params.rounds {
        run.status = RunStatus::Finished;
    }
    SUMMARIES.put(ctx, &id, &summary(run, round))?;
    ctx.emit(
        events::round("training.close_round", id)
            .with("accepted", round.standing)
            .with("adapter", run.adapter.adapter),
    );
    Ok(())
}

/// An attested aggregate always has a CID: messages without are refused.
fn with_cid(aggregate: AdapterRef) -> Option<(AdapterRef, Cid)> {
    let cid = aggregate.cid?;
    Some((aggregate, cid))
}

fn summary(run: &Run, round: &Round) -> RoundSummary {
    RoundSummary {
        run: round.run,
        round: round.round,
        opened_at: round.opened_at,
        closed_at: round.closed_at,
        assigned: round.assigned,
        accepted: round.standing,
        audited: round.audited,
        disputed: round.disputed,
        adapter: run.adapter.clone(),
        paid: round.paid,
        slashed: round.slashed,
        package_bytes: round.package_bytes,
    }
}

/// `count / of` of a part of the reward, rounded down. What was issued bounds it.
fn part(run: &Run, round: &Round, share: Ppm, count: u64, of: u64) -> Amount {
    let pool = run.params.reward.share(share);
    let part = pool.mul_div(count, of).unwrap_or(Amount::ZERO);
    part.min(round.unpaid)
}

fn pay(
    ctx: &mut Context<'_>,
    round: &mut Round,
    to: &Address,
    amount: Amount,
) -> Result<Amount, LedgerError> {
    if amount.is_zero() {
        return Ok(amount);
    }
    rewards::pay(ctx, Module::Rewards, to, amount)?;
    round.unpaid = round.unpaid.saturating_sub(amount);
    round.paid = round.paid.saturating_add(amount);
    ctx.emit(events::paid(RoundId::of(round), to, amount));
    Ok(amount)
}

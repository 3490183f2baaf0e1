//! What proposers and validators answer about the aggregate, and what follows from it.

use r3mes_types::task::AdapterRef;
use r3mes_types::training::{
    MsgAttestAggregate, MsgProposeAggregate, ObligationKind, Proposal, Round, Run, Tally,
};
use r3mes_types::{Address, Role};

use super::answers::{Asked, repeats};
use super::court::is_quorum;
use super::error::TrainingError;
use super::events;
use super::stake::Bond;
use super::state::{self, RoundId, put_duty, put_round};
use crate::error::LedgerError;
use crate::rewards;
use crate::store::Context;

/// The proposer whose turn it is posts the aggregate.
pub(super) fn propose(
    ctx: &mut Context<'_>,
    message: &MsgProposeAggregate,
) -> Result<(), LedgerError> {
    let kind = ObligationKind::Propose;
    let mut asked = Asked::find(ctx, message.run, message.round)?;
    let known = asked.round.proposal.as_ref();
    let mine = known.filter(|known| known.proposer == message.proposer);
    if repeats(
        mine.map(|mine| &mine.aggregate),
        &message.aggregate,
        message.proposer,
        kind,
    )? {
        return Ok(());
    }
    asked.due(kind)?;
    match turn(&asked.round) {
        Some(turn) if turn == message.proposer => {}
        Some(turn) => return Err(TrainingError::NotYourTurn { turn }.into()),
        None => {
            return Err(TrainingError::NotOwed {
                address: message.proposer,
                kind,
            }
            .into());
        }
    }
    check_aggregate(&message.aggregate)?;
    let proposal = Proposal {
        proposer: message.proposer,
        aggregate: message.aggregate.clone(),
    };
    asked.round.proposal = Some(proposal);
    asked.round.pending = asked.round.pending.saturating_sub(1);
    ctx.emit(
        events::answer("training.propose", asked.id, &message.proposer)
            .with("adapter", message.aggregate.adapter),
    );
    settle_quorum(ctx, &asked.run, &mut asked.round)?;
    put_round(ctx, &asked.round)
}

/// A validator says which aggregate it computed.
pub(super) fn attest(
    ctx: &mut Context<'_>,
    message: &MsgAttestAggregate,
) -> Result<(), LedgerError> {
    let kind = ObligationKind::AttestAggregate;
    let mut asked = Asked::find(ctx, message.run, message.round)?;
    let mut duty = asked.duty(ctx, message.validator, kind)?;
    if repeats(
        duty.aggregate.as_ref(),
        &message.aggregate,
        message.validator,
        kind,
    )? {
        return Ok(());
    }
    asked.due(kind)?;
    if asked.round.proposal.is_none() && asked.round.aggregate.is_none() {
        let why = "no proposer has posted an aggregate yet: attest after that";
        return Err(TrainingError::Malformed { why }.into());
    }
    check_aggregate(&message.aggregate)?;
    add_to_tally(&mut asked.round, &message.aggregate, duty.power)?;
    asked.round.pending = asked.round.pending.saturating_sub(1);
    duty.aggregate = Some(message.aggregate.clone());
    put_duty(ctx, asked.id, &duty)?;
    ctx.emit(
        events::answer("training.attest_aggregate", asked.id, &message.validator)
            .with("adapter", message.aggregate.adapter),
    );
    settle_quorum(ctx, &asked.run, &mut asked.round)?;
    put_round(ctx, &asked.round)
}

/// Whose turn it is to propose; nobody's once an aggregate is decided or proposed.
pub(super) fn turn(round: &Round) -> Option<Address> {
    let open = round.aggregate.is_none() && round.proposal.is_none();
    let turn = round.proposers.get(round.attempt as usize).copied();
    turn.filter(|_| open)
}

/// Gives the next backup its turn when the deadline has passed. `false` when there is none left.
pub(super) fn next_turn(
    ctx: &mut Context<'_>,
    run: &Run,
    round: &mut Round,
) -> Result<bool, LedgerError> {
    round.proposal = None;
    round.attempt += 1;
    let Some(next) = round.proposers.get(round.attempt as usize) else {
        return Ok(false);
    };
    round.deadline = ctx.now().after(run.params.windows.aggregate);
    round.pending = answers_missing(ctx, round)?;
    ctx.emit(events::answer("training.backup", RoundId::of(round), next));
    Ok(true)
}

/// What the phase waits for: a proposal, and the attestations of those who have not attested yet.
pub(super) fn answers_missing(ctx: &Context<'_>, round: &Round) -> Result<u32, LedgerError> {
    let duties = state::duties(ctx, RoundId::of(round))?;
    let silent = duties.iter().filter(|duty| duty.aggregate.is_none());
    Ok(1 + silent.count() as u32)
}

fn check_aggregate(aggregate: &AdapterRef) -> Result<(), LedgerError> {
    if aggregate.cid.is_none() {
        return Err(TrainingError::Malformed {
            why: "an aggregate needs a CID",
        }
        .into());
    }
    Ok(())
}

fn add_to_tally(round: &mut Round, aggregate: &AdapterRef, power: u64) -> Result<(), LedgerError> {
    if let Some(tally) = round
        .tallies
        .iter_mut()
        .find(|tally| tally.aggregate == *aggregate)
    {
        tally.power += power;
        return Ok(());
    }
    let tally = Tally {
        aggregate: aggregate.clone(),
        power,
    };
    let full = |_| TrainingError::Malformed {
        why: "there are as many aggregates as validators",
    };
    Ok(round.tallies.push(tally).map_err(full)?)
}

/// Decides as soon as more than 2/3 of the power computed the same; the others may still answer until
/// the deadline. A proposer that posted something else is slashed; what the validators computed stands,
/// and they hold its bytes.
fn settle_quorum(ctx: &mut Context<'_>, run: &Run, round: &mut Round) -> Result<(), LedgerError> {
    let total = round.total_power;
    let decided = round
        .tallies
        .iter()
        .find(|tally| is_quorum(tally.power, total));
    let Some(aggregate) = decided.map(|tally| tally.aggregate.clone()) else {
        return Ok(());
    };
    let wrong = round
        .proposal
        .as_ref()
        .filter(|proposal| proposal.aggregate != aggregate);
    if let Some(proposer) = wrong.map(|proposal| proposal.proposer) {
        slash_proposer(ctx, run, round, proposer)?;
        round.proposal = None;
    }
    round.aggregate = Some(aggregate);
    Ok(())
}

fn slash_proposer(
    ctx: &mut Context<'_>,
    run: &Run,
    round: &mut Round,
    proposer: Address,
) -> Result<(), LedgerError> {
    let id = RoundId::of(round);
    let bond = Bond {
        id,
        role: Role::Proposer,
        node: proposer,
    };
    let reason = "the aggregate does not recompute";
    let taken = bond.forfeit(ctx, run.params.penalties.proposer, reason)?;
    round.slashed = round.slashed.saturating_add(taken);
    let full = |_| TrainingError::Malformed {
        why: "there are no more proposers than ranks",
    };
    round.slashed_proposers.push(proposer).map_err(full)?;
    rewards::note(ctx, &proposer, rewards::Deed::Broken)?;
    ctx.emit(events::slashed(id, &proposer, taken, reason));
    Ok(())
}

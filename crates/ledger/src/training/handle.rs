//! What training does with its messages.

use r3mes_types::training::{ObligationKind, TrainingMessage};

use super::answers::Question;
use super::query::obligations;
use super::state::{DUTIES, ENTRIES, ROUNDS, RoundId, votes_of};
use super::{aggregate, miner, runs, validator};
use crate::error::LedgerError;
use crate::obligations::Standing;
use crate::store::{Context, View};

/// Does what a message says.
pub(crate) fn execute(ctx: &mut Context<'_>, message: &TrainingMessage) -> Result<(), LedgerError> {
    match message {
        TrainingMessage::CreateRun(message) => runs::create(ctx, message),
        TrainingMessage::PauseRun(message) => runs::pause_by(ctx, message),
        TrainingMessage::ResumeRun(message) => runs::resume_by(ctx, message),
        TrainingMessage::EndRun(message) => runs::end_by(ctx, message),
        TrainingMessage::CommitStates(message) => miner::commit(ctx, message),
        TrainingMessage::RevealPackage(message) => miner::reveal(ctx, message),
        TrainingMessage::AttestPackages(message) => validator::attest(ctx, message),
        TrainingMessage::ServeStates(message) => miner::serve(ctx, message),
        TrainingMessage::CommitVerdict(message) => validator::commit_verdict(ctx, message),
        TrainingMessage::RevealVerdict(message) => validator::reveal_verdict(ctx, message),
        TrainingMessage::OpenLeaves(message) => miner::open(ctx, message),
        TrainingMessage::VoteCourt(message) => validator::vote(ctx, message),
        TrainingMessage::ProposeAggregate(message) => aggregate::propose(ctx, message),
        TrainingMessage::AttestAggregate(message) => aggregate::attest(ctx, message),
    }
}

/// How a message stands to what its sender owes: answers that are due, and their repeats, travel free
/// of fees.
pub(crate) fn standing(
    view: &dyn View,
    message: &TrainingMessage,
) -> Result<Standing, LedgerError> {
    let Some(question) = answers(message) else {
        return Ok(Standing::None);
    };
    let Question { round: id, .. } = question;
    let actor = message.actor();
    let name = question.obligation(&actor);
    let owed = obligations(view, actor)?.into_iter().any(|owed| {
        let about = owed.task.as_ref().map(|task| &task.miner);
        let same_round = owed.run == id.run && owed.round == id.round;
        let same_audit = owed.kind == question.kind && owed.second == question.second;
        same_round && same_audit && (question.subject.is_none() || question.subject == about)
    });
    Ok(if owed {
        Standing::Owed(name)
    } else if is_repeat(view, message)? {
        Standing::Answered(name)
    } else {
        Standing::None
    })
}

/// Whether the same was answered before: then doing it again changes nothing.
fn is_repeat(view: &dyn View, message: &TrainingMessage) -> Result<bool, LedgerError> {
    use TrainingMessage as Message;
    let Some(Question {
        round: id,
        kind,
        subject,
        second,
    }) = answers(message)
    else {
        return Ok(false);
    };
    let actor = message.actor();
    let entry = ENTRIES.get(view, &(id, subject.copied().unwrap_or(actor)))?;
    let duty = DUTIES.get(view, &(id, actor))?;
    let audit = entry.as_ref().and_then(|entry| {
        if second {
            entry.reaudit.as_ref()?.audit.as_ref()
        } else {
            entry.audit.as_ref()
        }
    });
    let seat = audit.and_then(|audit| audit.panel.iter().find(|seat| seat.validator == actor));
    Ok(match message {
        Message::CommitStates(m) => entry.is_some_and(|entry| entry.commitment == Some(m.root)),
        Message::RevealPackage(m) => {
            entry.is_some_and(|entry| entry.package.as_ref() == Some(&m.package))
        }
        Message::ServeStates(m) => {
            audit.is_some_and(|audit| audit.served.as_ref() == Some(&m.served))
        }
        Message::OpenLeaves(m) => audit.is_some_and(|audit| {
            let given = m.openings.iter().map(|leaf| (leaf.index, leaf.state));
            audit
                .opened
                .iter()
                .map(|leaf| (leaf.index, leaf.state))
                .eq(given)
        }),
        Message::CommitVerdict(m) => seat.is_some_and(|seat| seat.commitment == Some(m.commitment)),
        Message::RevealVerdict(m) => {
            seat.is_some_and(|seat| seat.verdict.as_ref() == Some(&m.verdict))
        }
        Message::AttestPackages(m) => {
            duty.is_some_and(|duty| duty.held.is_some_and(|held| held.miners == m.held))
        }
        Message::AttestAggregate(m) => {
            duty.is_some_and(|duty| duty.aggregate.as_ref() == Some(&m.aggregate))
        }
        Message::VoteCourt(m) => votes_of(second)
            .get(view, &(id, m.miner, actor))?
            .is_some_and(|vote| vote.verdict == m.verdict),
        Message::ProposeAggregate(m) => {
            debug_assert_eq!(kind, ObligationKind::Propose);
            let round = ROUNDS.get(view, &id)?;
            round
                .and_then(|round| round.proposal)
                .is_some_and(|proposal| {
                    proposal.proposer == actor && proposal.aggregate == m.aggregate
                })
        }
        Message::CreateRun(_)
        | Message::PauseRun(_)
        | Message::ResumeRun(_)
        | Message::EndRun(_) => false,
    })
}

/// What a message answers. `None` for messages that nobody owes.
fn answers(message: &TrainingMessage) -> Option<Question<'_>> {
    use ObligationKind as Kind;
    use TrainingMessage as Message;
    let (run, round, kind, subject) = match message {
        Message::CreateRun(_)
        | Message::PauseRun(_)
        | Message::ResumeRun(_)
        | Message::EndRun(_) => return None,
        Message::CommitStates(m) => (m.run, m.round, Kind::Commit, None),
        Message::RevealPackage(m) => (m.run, m.round, Kind::Reveal, None),
        Message::AttestPackages(m) => (m.run, m.round, Kind::AttestPackages, None),
        Message::ServeStates(m) => (m.run, m.round, Kind::Serve, None),
        Message::CommitVerdict(m) => (m.run, m.round, Kind::CommitVerdict, Some(&m.miner)),
        Message::RevealVerdict(m) => (m.run, m.round, Kind::RevealVerdict, Some(&m.miner)),
        Message::OpenLeaves(m) => (m.run, m.round, Kind::Open, None),
        Message::VoteCourt(m) => (m.run, m.round, Kind::Court, Some(&m.miner)),
        Message::ProposeAggregate(m) => (m.run, m.round, Kind::Propose, None),
        Message::AttestAggregate(m) => (m.run, m.round, Kind::AttestAggregate, None),
    };
    let second = match message {
        Message::ServeStates(m) => m.second,
        Message::CommitVerdict(m) => m.second,
        Message::RevealVerdict(m) => m.second,
        Message::OpenLeaves(m) => m.second,
        Message::VoteCourt(m) => m.second,
        _ => false,
    };
    Some(Question {
        round: RoundId { run, round },
        kind,
        subject,
        second,
    })
}

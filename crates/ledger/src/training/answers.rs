//! What all answers to obligations have in common: an identical repeat changes nothing, a different
//! second answer is refused, and each counts once.

use r3mes_types::training::{Audit, Duty, Entry, ObligationKind, Phase, Round, Run};
use r3mes_types::{Address, Hash};

use super::error::TrainingError;
use super::state::{DUTIES, ENTRIES, ROUNDS, RUNS, RoundId, put_round};
use crate::error::LedgerError;
use crate::store::{Context, View};

/// The round that an answer is about.
pub(super) struct Asked {
    /// Its run.
    pub(super) run: Run,
    /// Its head.
    pub(super) round: Round,
    /// Its name.
    pub(super) id: RoundId,
}

impl Asked {
    /// Finds the round; closed ones too, as long as they are kept, so that repeats are recognised.
    pub(super) fn find(view: &dyn View, run: u64, round: u32) -> Result<Self, LedgerError> {
        let id = RoundId { run, round };
        let not_open = TrainingError::NotOpen { run, round };
        match (RUNS.get(view, &run)?, ROUNDS.get(view, &id)?) {
            (Some(run), Some(round)) => Ok(Self { run, round, id }),
            _ => Err(not_open.into()),
        }
    }

    /// Refuses what is not due now.
    pub(super) fn due(&self, kind: ObligationKind) -> Result<(), LedgerError> {
        if self.round.phase == phase_of(kind) && !self.round.settling {
            return Ok(());
        }
        let RoundId { run, round } = self.id;
        let phase = self.round.phase;
        Err(TrainingError::NotDue {
            kind,
            run,
            round,
            phase,
        }
        .into())
    }

    /// Counts an answer.
    pub(super) fn count(mut self, ctx: &mut Context<'_>) -> Result<(), LedgerError> {
        self.round.pending = self.round.pending.saturating_sub(1);
        put_round(ctx, &self.round)
    }

    /// The sender's part as a miner.
    pub(super) fn entry(
        &self,
        view: &dyn View,
        address: Address,
        kind: ObligationKind,
    ) -> Result<Entry, LedgerError> {
        let found = ENTRIES.get(view, &(self.id, address))?;
        Ok(found.ok_or(TrainingError::NotOwed { address, kind })?)
    }

    /// The sender's part as a validator.
    pub(super) fn duty(
        &self,
        view: &dyn View,
        address: Address,
        kind: ObligationKind,
    ) -> Result<Duty, LedgerError> {
        let found = DUTIES.get(view, &(self.id, address))?;
        Ok(found.ok_or(TrainingError::NotOwed { address, kind })?)
    }

    /// The audit of a miner, which somebody owes something about.
    pub(super) fn audit<'e>(
        &self,
        entry: &'e mut Entry,
        address: Address,
        kind: ObligationKind,
    ) -> Result<&'e mut Audit, LedgerError> {
        let audit = entry.audit.as_mut();
        Ok(audit.ok_or(TrainingError::NotOwed { address, kind })?)
    }
}

/// The phase in which something is owed.
pub(super) const fn phase_of(kind: ObligationKind) -> Phase {
    match kind {
        ObligationKind::Commit => Phase::Commit,
        ObligationKind::Reveal => Phase::Reveal,
        ObligationKind::AttestPackages => Phase::Availability,
        ObligationKind::Serve => Phase::Serve,
        ObligationKind::CommitVerdict => Phase::Verify,
        ObligationKind::RevealVerdict => Phase::Verdict,
        ObligationKind::Open => Phase::Open,
        ObligationKind::Court => Phase::Court,
        ObligationKind::Propose | ObligationKind::AttestAggregate => Phase::Aggregate,
    }
}

/// Whether the answer was given before. A different one is refused.
pub(super) fn repeats<T: PartialEq>(
    known: Option<&T>,
    given: &T,
    address: Address,
    kind: ObligationKind,
) -> Result<bool, LedgerError> {
    match known {
        None => Ok(false),
        Some(known) if known == given => Ok(true),
        Some(_) => Err(TrainingError::Conflict { address, kind }.into()),
    }
}

/// Names one obligation: (run, round, kind, subject, address). The subject is the miner concerned.
pub(super) fn obligation(
    id: RoundId,
    kind: ObligationKind,
    subject: Option<&Address>,
    address: &Address,
) -> Hash {
    r3mes_types::Hasher::new("r3mes training answer v1")
        .number(id.run)
        .number(u64::from(id.round))
        .number(u64::from(kind.number()))
        .part(subject.map_or(&[], |subject| subject.as_ref()))
        .part(address.as_ref())
        .finish()
}

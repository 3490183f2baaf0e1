//! What all answers to obligations have in common: an identical repeat changes nothing, a different
//! second answer is refused, and each counts once.

use r3mes_types::training::{Audit, Duty, Entry, ObligationKind, Phase, Reaudit, Round, Run, Seat};
use r3mes_types::{Address, Hash};

use super::error::TrainingError;
use super::state::{DUTIES, ENTRIES, ROUNDS, RUNS, RoundId, put_entry, put_round};
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
}

/// Names one audit of one miner's package.
#[derive(Clone, Copy)]
pub(super) struct CaseId {
    /// The package's round.
    pub(super) round: RoundId,
    /// Whose package.
    pub(super) miner: Address,
    /// Whether it is the second audit.
    pub(super) second: bool,
}

impl CaseId {
    /// The audit of `miner`'s package of a round: the round's own, or the second.
    pub(super) const fn new(run: u64, round: u32, miner: Address, second: bool) -> Self {
        Self {
            round: RoundId { run, round },
            miner,
            second,
        }
    }
}

/// One audit of one miner's package. A second audit looks like a small round of its own: the head has
/// its phase and deadline, the entry its audit and no outcome.
pub(super) struct Case {
    /// The round.
    pub(super) asked: Asked,
    /// The miner's part in it.
    pub(super) entry: Entry,
    /// In a second audit: the miner's part as the round left it.
    kept: Option<Entry>,
}

impl Case {
    /// The audit that somebody owes something about.
    pub(super) fn find(
        view: &dyn View,
        case: CaseId,
        address: Address,
        kind: ObligationKind,
    ) -> Result<Self, LedgerError> {
        let CaseId { round: id, .. } = case;
        let asked = Asked::find(view, id.run, id.round)?;
        let entry = ENTRIES.get(view, &(id, case.miner))?;
        let not_owed = TrainingError::NotOwed { address, kind };
        let found = match (entry, case.second) {
            (Some(entry), true) => Self::second(asked, entry),
            (entry, _) => entry.map(|entry| Self {
                asked,
                entry,
                kept: None,
            }),
        };
        Ok(found.ok_or(not_owed)?)
    }

    /// The second audit of a package, if there is one.
    pub(super) fn second(mut asked: Asked, kept: Entry) -> Option<Self> {
        let reaudit = kept.reaudit.as_ref()?;
        asked.round.phase = reaudit.phase;
        asked.round.deadline = reaudit.deadline;
        asked.round.pending = reaudit.pending;
        let entry = Entry {
            audit: Some(reaudit.audit.clone()?),
            outcome: None,
            ..kept.clone()
        };
        Some(Self {
            asked,
            entry,
            kept: Some(kept),
        })
    }

    /// Whether it is the second audit.
    pub(super) const fn is_second(&self) -> bool {
        self.kept.is_some()
    }

    /// What was asked and answered so far.
    pub(super) fn audit(
        &mut self,
        address: Address,
        kind: ObligationKind,
    ) -> Result<&mut Audit, LedgerError> {
        let audit = self.entry.audit.as_mut();
        Ok(audit.ok_or(TrainingError::NotOwed { address, kind })?)
    }

    /// The record of a second audit.
    pub(super) fn reaudit(&mut self) -> Option<&mut Reaudit> {
        self.kept.as_mut()?.reaudit.as_mut()
    }

    /// In a second audit: who sat in the panel of the first.
    pub(super) fn first_panel(&self) -> &[Seat] {
        let audit = self.kept.as_ref().and_then(|kept| kept.audit.as_ref());
        audit.map_or(&[], |audit| &audit.panel)
    }

    /// Counts an answer and writes the case.
    pub(super) fn count(mut self, ctx: &mut Context<'_>) -> Result<(), LedgerError> {
        self.asked.round.pending = self.asked.round.pending.saturating_sub(1);
        self.put(ctx)
    }

    /// Writes what has changed: entry and head, or the record of the second audit.
    pub(super) fn put(self, ctx: &mut Context<'_>) -> Result<(), LedgerError> {
        let Asked { round, id, .. } = self.asked;
        let Some(mut kept) = self.kept else {
            put_entry(ctx, id, &self.entry)?;
            return put_round(ctx, &round);
        };
        if let Some(reaudit) = kept.reaudit.as_mut() {
            reaudit.phase = round.phase;
            reaudit.deadline = round.deadline;
            reaudit.pending = round.pending;
            reaudit.audit = self.entry.audit;
        }
        put_entry(ctx, id, &kept)
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

/// What an answer is to.
#[derive(Clone, Copy)]
pub(super) struct Question<'a> {
    /// The round.
    pub(super) round: RoundId,
    /// What is owed.
    pub(super) kind: ObligationKind,
    /// The miner concerned, if it is another than the sender.
    pub(super) subject: Option<&'a Address>,
    /// Whether it is about a second audit.
    pub(super) second: bool,
}

impl Question<'_> {
    /// Names what `address` owes: (run, round, kind, subject, address), and whether it is the second
    /// audit.
    pub(super) fn obligation(&self, address: &Address) -> Hash {
        let domain = if self.second {
            "r3mes training second answer v1"
        } else {
            "r3mes training answer v1"
        };
        r3mes_types::Hasher::new(domain)
            .number(self.round.run)
            .number(u64::from(self.round.round))
            .number(u64::from(self.kind.number()))
            .part(self.subject.map_or(&[], |subject| subject.as_ref()))
            .part(address.as_ref())
            .finish()
    }
}

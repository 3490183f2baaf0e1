//! Audits: who is looked at, what is found, and who loses.

use std::collections::BTreeMap;

use r3mes_types::training::{Outcome, RunStatus};
use r3mes_types::{Address, Ppm, Role};

use super::answers::VERDICT;
use super::court::{Case, Ruling};
use super::model::{Look, Naive};
use super::round::{Audit, Entry, Round};
use super::stakes::Work;

/// What a vote with the court weighs among a validator's duties.
pub(super) const COURT: u64 = 8;

impl Naive {
    /// Takes the ledger's draws, if they are of the kind that may be drawn.
    pub(super) fn draw(&mut self, round: &mut Round, look: Look<'_>) {
        if round.standing() == 0 {
            round.proposers.clear();
            return;
        }
        let record = look(round.number);
        let always = self.params.audited_share == Ppm::ONE;
        for drawn in &record.entries {
            let entry = round.entries.get_mut(&drawn.miner).unwrap();
            if entry.outcome.is_some() {
                continue;
            }
            let others = round
                .duties
                .keys()
                .filter(|who| **who != drawn.miner)
                .count();
            let Some(audit) = &drawn.audit else {
                assert!(!always || others == 0, "every package is audited");
                continue;
            };
            let (steps, panel) = (audit.steps.to_vec(), audit.panel.iter());
            self.check_steps(&steps);
            let panel: BTreeMap<_, _> = panel
                .map(|seat| (seat.validator, Default::default()))
                .collect();
            assert_eq!(panel.len(), others.min(self.params.panel as usize));
            assert!(panel.keys().all(|who| round.duties.contains_key(who)));
            assert!(!panel.contains_key(&drawn.miner), "nobody judges itself");
            round.owed += panel.len() as u64 * VERDICT;
            entry.audit = Some(Audit {
                steps,
                panel,
                ..Audit::default()
            });
        }
        let ranked = record.head.unwrap().proposers.to_vec();
        let most = round.proposers.len().min(self.params.proposers as usize);
        assert!(ranked.iter().all(|who| round.proposers.contains(who)));
        // Who has left or lost its stake since may be missing.
        assert!(ranked.len() <= most, "{ranked:?}");
        let penalty = self.params.penalties.proposer.uremes();
        for who in &ranked {
            let work = Work::Round(round.number, Role::Proposer);
            self.stakes.lock(who, work, penalty);
        }
        round.proposers = ranked;
    }

    /// As many as there should be, each once, and the packaging.
    pub(super) fn check_steps(&self, steps: &[u32]) {
        assert_eq!(steps.len() as u32, self.params.drawn_steps + 1);
        assert!(steps.is_sorted_by(|a, b| a < b));
        assert_eq!(steps.last(), Some(&self.params.steps));
    }

    fn convict(&mut self, number: u32, miner: &Address, entry: &mut Entry) -> u64 {
        entry.outcome = Some(Outcome::Fraudulent);
        self.broken(miner);
        let penalty = self.params.penalties.miner.uremes();
        let work = Work::Round(number, Role::Miner);
        self.stakes.forfeit(miner, work, penalty)
    }

    pub(super) fn compare(&mut self, round: &mut Round) {
        let mut entries = std::mem::take(&mut round.entries);
        for (miner, entry) in &mut entries {
            let Some(audit) = entry.audit.clone().filter(|_| entry.outcome.is_none()) else {
                continue;
            };
            let case = self.case(round, entry, &audit);
            let (lied, disputed) = (case.served_another(), case.is_disputed());
            if lied {
                round.slashed += self.convict(round.number, miner, entry);
            } else if disputed {
                entry.audit.as_mut().unwrap().disputed = true;
                round.owed += COURT * round.court(miner).len() as u64;
            }
        }
        round.entries = entries;
    }

    pub(super) fn case<'a>(&self, round: &Round, entry: &'a Entry, audit: &'a Audit) -> Case<'a> {
        Case {
            entry,
            audit,
            start: round.start.state,
            steps: self.params.steps,
        }
    }

    /// A run whose back ends differ opens no further round.
    pub(super) fn pause_if_split(&mut self, ruling: &Ruling) {
        if *ruling == Ruling::Split && self.status == RunStatus::Active {
            self.status = RunStatus::Paused;
        }
    }

    pub(super) fn rule(&mut self, round: &mut Round) {
        let mut entries = std::mem::take(&mut round.entries);
        for (miner, entry) in &mut entries {
            let disputed = |audit: &Audit| audit.disputed && entry.outcome.is_none();
            let Some(audit) = entry.audit.clone().filter(disputed) else {
                continue;
            };
            let ruling = self.case(round, entry, &audit).rule(&round.court(miner));
            let Ruling::Decided {
                honest,
                refuted,
                upheld,
            } = ruling
            else {
                entry.outcome = Some(Outcome::Undecided);
                self.pause_if_split(&ruling);
                continue;
            };
            for who in &upheld {
                round.duties.get_mut(who).unwrap().done += COURT;
            }
            for (who, seat) in &audit.panel {
                let open = seat
                    .verdict
                    .as_ref()
                    .is_some_and(|verdict| verdict.feedback_withheld);
                if open && !honest {
                    round.duties.get_mut(who).unwrap().done += VERDICT;
                }
            }
            for who in &refuted {
                let duty = round.duties.get_mut(who).unwrap();
                if !std::mem::replace(&mut duty.refuted, true) {
                    let penalty = self.params.penalties.validator.uremes();
                    let work = Work::Round(round.number, Role::Validator);
                    round.slashed += self.stakes.forfeit(who, work, penalty);
                    self.broken(who);
                }
            }
            if !honest {
                round.slashed += self.convict(round.number, miner, entry);
            }
        }
        round.entries = entries;
    }
}

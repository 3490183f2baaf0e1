//! What nodes say: whether it is an answer that is due, the same again, or refused.

use r3mes_types::commitment::{self, package_state, state_leaf};
use r3mes_types::merkle;
use r3mes_types::task::AdapterRef;
use r3mes_types::training::{
    MAX_PACKAGE_BYTES, ObligationKind as Kind, Opening, Phase, TrainingMessage as Message, Verdict,
    opened_leaves, served_steps,
};
use r3mes_types::{Address, Hash, Role};

use super::RUN;
use super::court::is_quorum;
use super::model::Naive;
use super::round::{Audit, Round};
use super::stakes::Work;

/// What a verdict weighs among a validator's duties; see the others in [`Naive::close`].
pub(super) const VERDICT: u64 = 4;

impl Naive {
    /// Whether the message succeeds.
    pub(super) fn answer(&mut self, message: &Message) -> bool {
        let (run, number) = match message {
            Message::CommitStates(m) => (m.run, m.round),
            Message::RevealPackage(m) => (m.run, m.round),
            Message::AttestPackages(m) => (m.run, m.round),
            Message::ServeStates(m) => (m.run, m.round),
            Message::CommitVerdict(m) => (m.run, m.round),
            Message::RevealVerdict(m) => (m.run, m.round),
            Message::OpenLeaves(m) => (m.run, m.round),
            Message::VoteCourt(m) => (m.run, m.round),
            Message::ProposeAggregate(m) => (m.run, m.round),
            Message::AttestAggregate(m) => (m.run, m.round),
            Message::CreateRun(_)
            | Message::PauseRun(_)
            | Message::ResumeRun(_)
            | Message::EndRun(_) => {
                unreachable!("nobody owes these")
            }
        };
        let steps = self.params.steps;
        if run != RUN || number < self.oldest_kept {
            return false;
        }
        let Some(round) = self.rounds.get_mut(number as usize) else {
            return false;
        };
        // What is refused leaves nothing behind.
        let mut after = round.clone();
        let Some(done) = after.answer(message, steps) else {
            return false;
        };
        let decided = done && after.aggregate.is_none();
        *round = after;
        if decided {
            self.decide(number);
        }
        true
    }

    /// The aggregate stands as soon as more than two thirds of the power computed it; a proposer of
    /// another loses its stake.
    fn decide(&mut self, number: u32) {
        let penalty = self.params.penalties.proposer.uremes();
        let round = &mut self.rounds[number as usize];
        let computed = round
            .duties
            .values()
            .filter_map(|duty| duty.aggregate.clone());
        let quorum = computed.into_iter().find(|aggregate| {
            let same = |duty: &&super::round::Duty| duty.aggregate.as_ref() == Some(aggregate);
            let power = round.duties.values().filter(same).map(|duty| duty.power);
            is_quorum(power.sum(), round.all_power())
        });
        let Some(aggregate) = quorum else {
            return;
        };
        let wrong = round
            .proposal
            .take_if(|(_, proposed)| *proposed != aggregate);
        round.aggregate = Some(aggregate);
        if let Some((proposer, _)) = wrong {
            round.wrong.push(proposer);
            round.slashed +=
                self.stakes
                    .forfeit(&proposer, Work::Round(number, Role::Proposer), penalty);
            self.broken(&proposer);
        }
    }
}

impl Round {
    fn owes(&self, who: &Address, kind: Kind, about: Option<Address>) -> Option<()> {
        self.owed_by(who).contains(&(kind, about)).then_some(())
    }

    /// The same about one of the audits of a miner's package.
    fn owes_in(&self, who: &Address, kind: Kind, miner: Address, second: bool) -> Option<()> {
        if second {
            let owed = self.owed_again_by(who);
            owed.contains(&(kind, miner)).then_some(())
        } else {
            self.owes(who, kind, Some(miner))
        }
    }

    fn audit(&self, miner: &Address, second: bool) -> Option<&Audit> {
        self.entries.get(miner)?.audit(second)
    }

    fn audit_mut(&mut self, miner: &Address, second: bool) -> Option<&mut Audit> {
        self.entries.get_mut(miner)?.audit_mut(second)
    }

    /// Takes an answer: `Some(true)` if it is new, `Some(false)` if it is the same again, and nothing if
    /// it is refused.
    fn answer(&mut self, message: &Message, steps: u32) -> Option<bool> {
        match message {
            Message::CommitStates(m) => {
                let entry = self.entries.get(&m.miner)?;
                if entry.commitment == Some(m.root) {
                    return Some(false);
                }
                self.owes(&m.miner, Kind::Commit, Some(m.miner))?;
                let entry = self.entries.get_mut(&m.miner)?;
                entry.commitment = Some(m.root);
                if m.feedback_lost {
                    entry.feedback = None;
                }
            }
            Message::RevealPackage(m) => {
                let entry = self.entries.get(&m.miner)?;
                if entry.package.as_ref() == Some(&m.package) {
                    return Some(false);
                }
                self.owes(&m.miner, Kind::Reveal, Some(m.miner))?;
                let state = package_state(&m.package.hash, &m.package.feedback);
                let ends = [(&m.start, 0, self.start.state), (&m.end, steps + 1, state)];
                let good = ends.into_iter().all(|(opening, index, state)| {
                    opening.index == index
                        && opening.state == state
                        && self.opens(&m.miner, opening, steps)
                });
                let sized = (1..=MAX_PACKAGE_BYTES).contains(&m.package.bytes);
                (good && sized).then_some(())?;
                self.entries.get_mut(&m.miner)?.package = Some(m.package.clone());
            }
            Message::AttestPackages(m) => {
                let duty = self.duties.get(&m.validator)?;
                let held = m.held.to_vec();
                if duty.held.as_ref() == Some(&held) {
                    return Some(false);
                }
                self.owes(&m.validator, Kind::AttestPackages, None)?;
                held.is_sorted_by(|a, b| a < b).then_some(())?;
                let power = duty.power;
                for miner in &held {
                    let entry = self.entries.get_mut(miner)?;
                    entry.package.as_ref()?;
                    entry.held += power;
                }
                let duty = self.duties.get_mut(&m.validator)?;
                duty.held = Some(held);
                duty.done += 1;
            }
            Message::ServeStates(m) => {
                let entry = self.entries.get(&m.miner)?;
                let audit = entry.audit(m.second)?;
                if audit.served.as_ref() == Some(&m.served) {
                    return Some(false);
                }
                self.owes_in(&m.miner, Kind::Serve, m.miner, m.second)?;
                let shown: Vec<u32> = m.served.states.iter().map(|state| state.step).collect();
                let made_up = m.served.feedback.is_some() && entry.feedback.is_none();
                (shown == served_steps(&audit.steps) && !made_up).then_some(())?;
                self.audit_mut(&m.miner, m.second)?.served = Some(m.served.clone());
            }
            Message::CommitVerdict(m) => {
                let audit = self.audit(&m.miner, m.second)?;
                let seat = audit.panel.get(&m.validator)?;
                if seat.commitment == Some(m.commitment) {
                    return Some(false);
                }
                self.owes_in(&m.validator, Kind::CommitVerdict, m.miner, m.second)?;
                let audit = self.audit_mut(&m.miner, m.second)?;
                audit.panel.get_mut(&m.validator)?.commitment = Some(m.commitment);
            }
            Message::RevealVerdict(m) => {
                let audit = self.audit(&m.miner, m.second)?;
                let seat = audit.panel.get(&m.validator)?;
                if seat.verdict.as_ref() == Some(&m.verdict) {
                    return Some(false);
                }
                self.owes_in(&m.validator, Kind::RevealVerdict, m.miner, m.second)?;
                let work = self.work(&m.miner);
                let commitment = m.verdict.commitment(&work, &m.validator, &m.nonce);
                let good = self.is_sound(&m.miner, &audit.steps, &m.verdict);
                (good && seat.commitment == Some(commitment)).then_some(())?;
                // A second audit is no duty of the round.
                if !m.verdict.feedback_withheld && !m.second {
                    self.duties.get_mut(&m.validator)?.done += VERDICT;
                }
                let audit = self.audit_mut(&m.miner, m.second)?;
                audit.panel.get_mut(&m.validator)?.verdict = Some(m.verdict.clone());
            }
            Message::OpenLeaves(m) => {
                let audit = self.audit(&m.miner, m.second)?;
                let given = m.openings.iter().map(|leaf| (leaf.index, leaf.state));
                if !audit.opened.is_empty()
                    && given
                        .clone()
                        .eq(audit.opened.iter().map(|(leaf, state)| (*leaf, *state)))
                {
                    return Some(false);
                }
                self.owes_in(&m.miner, Kind::Open, m.miner, m.second)?;
                let leaves: Vec<u32> = m.openings.iter().map(|leaf| leaf.index).collect();
                let mut openings = m.openings.iter();
                let good = leaves == opened_leaves(&audit.steps)
                    && openings.all(|opening| self.opens(&m.miner, opening, steps));
                good.then_some(())?;
                let given = given.collect();
                self.audit_mut(&m.miner, m.second)?.opened = given;
            }
            Message::VoteCourt(m) => {
                let audit = self.audit(&m.miner, m.second)?;
                if audit.votes.get(&m.validator) == Some(&m.verdict) {
                    return Some(false);
                }
                self.owes_in(&m.validator, Kind::Court, m.miner, m.second)?;
                let good = self.is_sound(&m.miner, &audit.steps, &m.verdict);
                good.then_some(())?;
                let audit = self.audit_mut(&m.miner, m.second)?;
                audit.votes.insert(m.validator, m.verdict.clone());
            }
            Message::ProposeAggregate(m) => {
                if self.proposal.as_ref() == Some(&(m.proposer, m.aggregate.clone())) {
                    return Some(false);
                }
                self.owes(&m.proposer, Kind::Propose, None)?;
                is_reachable(&m.aggregate)?;
                self.proposal = Some((m.proposer, m.aggregate.clone()));
            }
            Message::AttestAggregate(m) => {
                let duty = self.duties.get(&m.validator)?;
                if duty.aggregate.as_ref() == Some(&m.aggregate) {
                    return Some(false);
                }
                self.owes(&m.validator, Kind::AttestAggregate, None)?;
                is_reachable(&m.aggregate)?;
                self.duties.get_mut(&m.validator)?.aggregate = Some(m.aggregate.clone());
            }
            Message::CreateRun(_)
            | Message::PauseRun(_)
            | Message::ResumeRun(_)
            | Message::EndRun(_) => return None,
        }
        Some(self.phase == Phase::Aggregate)
    }

    fn work(&self, miner: &Address) -> commitment::Work {
        commitment::Work {
            run: RUN,
            round: u64::from(self.number),
            miner: *miner,
        }
    }

    /// Whether a leaf leads to the root that the miner has committed to.
    fn opens(&self, miner: &Address, opening: &Opening, steps: u32) -> bool {
        let index = opening.index;
        let leaf = state_leaf(
            &self.work(miner),
            u64::from(index),
            &opening.salt,
            &opening.state,
        );
        let root = self.entries[miner].commitment;
        let (count, index) = (steps as usize + 2, index as usize);
        root.is_some_and(|root| merkle::verify(&root, count, index, &leaf, &opening.path))
    }

    /// Whether a verdict is about the audited steps, begins at the public start, goes on where it stood,
    /// and says of no feedback that it was withheld that is not there.
    fn is_sound(&self, miner: &Address, audited: &[u32], verdict: &Verdict) -> bool {
        let entry = &self.entries[miner];
        let steps: Vec<u32> = verdict.steps.iter().map(|step| step.step).collect();
        let mut pairs = verdict.steps.iter().zip(verdict.steps.iter().skip(1));
        let ends = verdict.steps.last().map(|last| last.after);
        steps == audited
            && verdict
                .steps
                .iter()
                .all(|step| step.step > 0 || step.before == self.start.state)
            && pairs.all(|(one, next)| one.step + 1 < next.step || one.after == next.before)
            && (!verdict.feedback_withheld || entry.feedback.is_some() && ends == Some(Hash::ZERO))
    }
}

fn is_reachable(aggregate: &AdapterRef) -> Option<()> {
    aggregate.cid.map(|_| ())
}

//! Second audits: what stands between a miner and the stake that it takes back.

use std::collections::{BTreeMap, BTreeSet};

use r3mes_ledger::rewards::Deed;
use r3mes_types::training::{Outcome, Phase, Reaudit};
use r3mes_types::{Address, Ppm, Role};

use super::answers::VERDICT;
use super::court::Ruling;
use super::judge::COURT;
use super::model::{Look, Naive, proportion, share};
use super::round::{Audit, Second};
use super::stakes::Work;

/// Blocks from when it is fixed who can be drawn to the draw.
const DELAY: u64 = 2;
/// Miners that are drawn for at the same time, and second audits that are open at the same time. This
/// network has too few nodes for more.
const PLACES: usize = 16;

/// A miner whose packages are to be drawn.
#[derive(Clone, Debug)]
pub(super) struct Drawing {
    /// The draw is by the mix of this height, and of packages that were accepted until then.
    height: u64,
    judges: BTreeMap<Address, u64>,
}

impl Naive {
    /// Whoever has begun to take stake back in this block waits to be looked at.
    pub(super) fn wait_for_draws(&mut self) {
        for (who, node) in &self.stakes.nodes {
            let begins = |part: &super::stakes::Part| part.since == self.stakes.now;
            if node.unbonding.iter().any(begins) {
                self.waiting.entry(*who).or_insert(self.height);
            }
        }
    }

    /// How many disputes a node is a party of: its draw, and each of its second audits.
    pub(super) fn disputes(&self, who: &Address) -> usize {
        let heard = self.rounds.iter().flat_map(|round| round.heard());
        let heard = heard.filter(|miner| miner == who).count();
        heard + usize::from(self.drawing.contains_key(who))
    }

    /// To whom nothing is paid out.
    pub(super) fn held(&self) -> BTreeSet<Address> {
        let nodes = self.stakes.nodes.keys();
        let held = nodes.filter(|who| self.waiting.contains_key(who) || self.disputes(who) > 0);
        held.copied().collect()
    }

    /// The rounds in which a miner has an accepted package that is kept in full and was not drawn for.
    fn undrawn(&self, miner: &Address) -> Vec<u32> {
        let undrawn = self.rounds.iter().filter(|round| {
            let entry = round.entries.get(miner);
            let undrawn =
                entry.is_some_and(|entry| entry.accepted.is_some() && entry.second.is_none());
            undrawn && round.number >= self.oldest_kept
        });
        if self.params.reaudited_share == Ppm::ZERO {
            return Vec::new();
        }
        undrawn.map(|round| round.number).collect()
    }

    /// Whether a package of a round is audited again, or may be yet.
    pub(super) fn is_audited_again(&self, number: u32) -> bool {
        let round = &self.rounds[number as usize];
        let takes_back =
            |who: &Address| self.waiting.contains_key(who) || self.drawing.contains_key(who);
        let mut miners = round.entries.keys();
        !round.heard().is_empty()
            || miners.any(|miner| takes_back(miner) && self.undrawn(miner).contains(&number))
    }

    /// Draws, looks at who waits, and goes on with what is open.
    pub(super) fn audit_again(&mut self, look: Look<'_>) {
        let drawing = self.drawing.iter();
        let due = drawing.filter(|(_, drawing)| drawing.height <= self.height);
        let due: Vec<Address> = due.map(|(miner, _)| *miner).collect();
        for miner in due {
            self.draw_again(&miner, look);
        }
        self.look_at_who_waits();
        let open = self.heard();
        assert!(open.len() <= PLACES && self.drawing.len() <= PLACES);
        for (number, miner) in open {
            self.hear(number, &miner, look);
        }
    }

    /// Tries to seat the panels that are not seated.
    pub(super) fn seat_panels(&mut self, look: Look<'_>) {
        for (number, miner) in self.heard() {
            if self.second(number, &miner).phase == Phase::Draw {
                self.hear(number, &miner, look);
            }
        }
    }

    fn heard(&self) -> Vec<(u32, Address)> {
        let heard = self.rounds.iter().flat_map(|round| {
            let heard = round.heard().into_iter();
            heard.map(|miner| (round.number, miner))
        });
        heard.collect()
    }

    fn draw_again(&mut self, miner: &Address, look: Look<'_>) {
        let drawing = self.drawing.remove(miner).unwrap();
        for number in self.undrawn(miner) {
            let entry = &self.rounds[number as usize].entries[miner];
            if entry.accepted <= Some(drawing.height) {
                self.draw_package(number, miner, &drawing, look);
            }
        }
        // Who takes more back meanwhile stands at the end of the list.
        if let Some(since) = self.waiting.get_mut(miner) {
            *since = self.height;
        }
    }

    /// Takes the ledger's draw, if it is of the kind that may be drawn.
    fn draw_package(&mut self, number: u32, miner: &Address, drawing: &Drawing, look: Look<'_>) {
        let drawn = drawn(number, miner, look);
        let mut second = Second {
            phase: Phase::Closed,
            deadline: self.stakes.now + self.all_windows(),
            audit: None,
            judges: drawing.judges.clone(),
            outcome: None,
            slashed: 0,
            paid: 0,
        };
        match drawn.audit {
            Some(audit) => {
                self.check_steps(&audit.steps);
                second.phase = Phase::Draw;
                second.audit = Some(Audit {
                    steps: audit.steps.to_vec(),
                    ..Audit::default()
                });
            }
            None => assert_ne!(self.params.reaudited_share, Ppm::ONE, "each is drawn"),
        }
        let entries = &mut self.rounds[number as usize].entries;
        entries.get_mut(miner).unwrap().second = Some(second);
    }

    /// First in, first out; who came in the same block, by address.
    fn look_at_who_waits(&mut self) {
        let waiting = self.waiting.iter();
        let waiting: BTreeSet<(u64, Address)> = waiting.map(|(who, at)| (*at, *who)).collect();
        for (_, who) in waiting {
            if self.drawing.contains_key(&who) {
                continue;
            }
            self.waiting.remove(&who);
            if self.undrawn(&who).is_empty() {
                continue;
            }
            let nodes = self.stakes.nodes.iter();
            let judges = nodes
                .filter(|(judge, node)| **judge != who && node.takes_part(Role::Validator))
                .map(|(judge, node)| (*judge, node.bonded));
            let drawing = Drawing {
                height: self.height + DELAY,
                judges: judges.collect(),
            };
            self.drawing.insert(who, drawing);
        }
    }

    fn second(&mut self, number: u32, miner: &Address) -> &mut Second {
        let entries = &mut self.rounds[number as usize].entries;
        entries.get_mut(miner).unwrap().second.as_mut().unwrap()
    }

    /// One second audit goes as far as it can.
    fn hear(&mut self, number: u32, miner: &Address, look: Look<'_>) {
        loop {
            let second = self.second(number, miner);
            let (phase, deadline) = (second.phase, second.deadline);
            if phase == Phase::Closed {
                return;
            }
            let round = &self.rounds[number as usize];
            let mut nodes = self.stakes.nodes.keys();
            let about = |who| round.owed_again_by(who).iter().any(|(_, of)| of == miner);
            if nodes.any(about) && self.stakes.now < deadline {
                return;
            }
            match phase {
                Phase::Draw => {
                    if !self.seat(number, miner, look) {
                        return;
                    }
                }
                Phase::Serve => self.enter(number, miner, Phase::Verify),
                Phase::Verify => self.enter(number, miner, Phase::Verdict),
                Phase::Verdict => self.enter(number, miner, Phase::Open),
                Phase::Open => self.compare_again(number, miner),
                _ => self.rule_again(number, miner),
            }
        }
    }

    fn enter(&mut self, number: u32, miner: &Address, phase: Phase) {
        let deadline = self.stakes.now + self.window(phase);
        let second = self.second(number, miner);
        (second.phase, second.deadline) = (phase, deadline);
    }

    /// As many as a panel has of those with enough free stake, who sat in the first only if there are too
    /// few others; whether it goes on.
    fn seat(&mut self, number: u32, miner: &Address, look: Look<'_>) -> bool {
        let penalty = self.params.penalties.validator.uremes();
        let (judges, deadline) = {
            let second = self.second(number, miner);
            (second.judges.clone(), second.deadline)
        };
        let able = |who: &&Address| self.stakes.nodes[*who].free() >= penalty;
        let able: BTreeSet<Address> = judges.keys().filter(able).copied().collect();
        if able.is_empty() {
            let gives_up = self.stakes.now >= deadline;
            if gives_up {
                self.second(number, miner).audit = None;
                self.enter(number, miner, Phase::Closed);
            }
            return gives_up;
        }
        let seated = drawn(number, miner, look).audit.unwrap().panel;
        let seated: BTreeSet<Address> = seated.iter().map(|seat| seat.validator).collect();
        let first = self.rounds[number as usize].entries[miner].audit.as_ref();
        let sat = |who: &&Address| first.is_some_and(|first| first.panel.contains_key(*who));
        let most = able.len().min(self.params.panel as usize);
        assert_eq!(seated.len(), most, "a panel as large as it can be");
        assert!(seated.is_subset(&able), "{seated:?} of {able:?}");
        let mut fresh = able.iter().filter(|who| !sat(who));
        assert!(
            !seated.iter().any(|who| sat(&who)) || fresh.all(|who| seated.contains(who)),
            "who sat in the first panel comes last"
        );
        for who in &seated {
            let work = Work::Second(number, *miner);
            self.stakes.lock(who, work, penalty);
        }
        let panel = seated.into_iter().map(|who| (who, Default::default()));
        let audit = self.second(number, miner).audit.as_mut();
        audit.unwrap().panel = panel.collect();
        self.enter(number, miner, Phase::Serve);
        true
    }

    fn compare_again(&mut self, number: u32, miner: &Address) {
        let round = &self.rounds[number as usize];
        let entry = &round.entries[miner];
        let audit = entry.audit(true).unwrap();
        let case = self.case(round, entry, audit);
        let (lied, disputed) = (case.served_another(), case.is_disputed());
        if lied {
            self.convict_again(number, miner);
            self.close_second(number, miner, Outcome::Fraudulent, &[], &[]);
        } else if disputed {
            let audit = self.second(number, miner).audit.as_mut();
            audit.unwrap().disputed = true;
            self.enter(number, miner, Phase::Court);
        } else {
            self.close_second(number, miner, Outcome::Accepted, &[], &[]);
        }
    }

    fn rule_again(&mut self, number: u32, miner: &Address) {
        let round = &self.rounds[number as usize];
        let entry = &round.entries[miner];
        let second = entry.second.as_ref().unwrap();
        let audit = second.audit.as_ref().unwrap();
        let ruling = self.case(round, entry, audit).rule(&second.judges);
        let Ruling::Decided {
            honest,
            refuted,
            upheld,
        } = ruling
        else {
            self.pause_if_split(&ruling);
            return self.close_second(number, miner, Outcome::Undecided, &[], &[]);
        };
        let penalty = self.params.penalties.validator.uremes();
        for who in &refuted {
            let work = Work::Second(number, *miner);
            let taken = self.stakes.forfeit(who, work, penalty);
            self.second(number, miner).slashed += taken;
            self.broken(who);
        }
        let outcome = if honest {
            Outcome::Accepted
        } else {
            self.convict_again(number, miner);
            Outcome::Fraudulent
        };
        self.close_second(number, miner, outcome, &refuted, &upheld);
    }

    /// The miner loses its penalty, and what its package left counts no more.
    fn convict_again(&mut self, number: u32, miner: &Address) {
        let penalty = self.params.penalties.miner.uremes();
        let taken = self.stakes.slash(miner, penalty);
        self.second(number, miner).slashed += taken;
        self.broken(miner);
        if self
            .feedback
            .get(miner)
            .is_some_and(|(round, _)| *round == number)
        {
            self.feedback.remove(miner);
        }
    }

    fn close_second(
        &mut self,
        number: u32,
        miner: &Address,
        outcome: Outcome,
        refuted: &[Address],
        upheld: &[Address],
    ) {
        let panel = self
            .second(number, miner)
            .audit
            .as_ref()
            .unwrap()
            .panel
            .clone();
        for (who, seat) in &panel {
            if refuted.contains(who) {
                continue;
            }
            self.stakes.unlock(who, Work::Second(number, *miner));
            let deed = if let Some(verdict) = &seat.verdict {
                // That feedback was withheld is worth something if it was.
                if !verdict.feedback_withheld || outcome == Outcome::Fraudulent {
                    self.pay_for_second(number, miner, who, VERDICT);
                }
                Deed::Kept
            } else {
                Deed::Missed
            };
            self.note(who, deed);
        }
        for who in upheld.iter().filter(|who| !refuted.contains(who)) {
            self.pay_for_second(number, miner, who, COURT);
        }
        self.second(number, miner).outcome = Some(outcome);
        self.enter(number, miner, Phase::Closed);
    }

    /// What the same was worth in the round, as far as the treasury has it.
    fn pay_for_second(&mut self, number: u32, miner: &Address, who: &Address, weight: u64) {
        let pool = share(self.params.reward.uremes(), self.params.split.validators);
        let worth = proportion(pool, weight, self.rounds[number as usize].owed);
        let purse = &mut self.stakes.purse;
        let paid = worth.min(purse.treasury);
        purse.treasury -= paid;
        purse.pay(who, paid, self.stakes.now);
        self.second(number, miner).paid += paid;
    }
}

/// What the ledger says of the second audit of a package.
fn drawn(number: u32, miner: &Address, look: Look<'_>) -> Reaudit {
    let record = look(number);
    let entry = record.entries.iter().find(|entry| entry.miner == *miner);
    let reaudit = entry.and_then(|entry| entry.reaudit.clone());
    reaudit.expect("every package of who takes stake back is drawn for")
}

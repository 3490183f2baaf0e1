//! What leaves, verdicts and votes come to.

use std::collections::{BTreeMap, BTreeSet};

use r3mes_types::commitment::package_state;
use r3mes_types::training::Verdict;
use r3mes_types::{Address, Hash};

use super::round::{Audit, Entry};

/// Whether so much of all power is more than two thirds.
pub(super) fn is_quorum(power: u64, all: u64) -> bool {
    u128::from(power) * 3 > u128::from(all) * 2
}

/// What is found in a leaf; nothing if the feedback that it takes to know it was withheld.
type Finding = Option<Hash>;

/// What somebody computed: each step with the states before and after it.
type Mind = Vec<(u32, Hash, Hash)>;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ruling {
    Undecided,
    /// Back ends differ.
    Split,
    Decided {
        honest: bool,
        refuted: Vec<Address>,
        upheld: Vec<Address>,
    },
}

/// A miner's work before its judges.
pub(super) struct Case<'a> {
    pub(super) entry: &'a Entry,
    pub(super) audit: &'a Audit,
    /// The round's start state.
    pub(super) start: Hash,
    /// H.
    pub(super) steps: u32,
}

impl Case<'_> {
    /// What the miner has bound itself to, as far as it is known.
    fn claim(&self, leaf: u32) -> Option<Hash> {
        let package = self.entry.package.as_ref().unwrap();
        if leaf == 0 {
            Some(self.start)
        } else if leaf == self.steps + 1 {
            Some(package_state(&package.hash, &package.feedback))
        } else {
            self.audit.opened.get(&leaf).copied()
        }
    }

    /// Whether the miner served a state and opened another.
    pub(super) fn served_another(&self) -> bool {
        let served = self.audit.served.iter().flat_map(|served| &served.states);
        let differs =
            |(step, state): (u32, Hash)| self.claim(step).is_some_and(|opened| opened != state);
        served.map(|shown| (shown.step, shown.state)).any(differs)
    }

    /// Whether the court is asked: somebody found something else, or nobody said anything.
    pub(super) fn is_disputed(&self) -> bool {
        let mut verdicts = self
            .audit
            .panel
            .values()
            .filter_map(|seat| seat.verdict.as_ref());
        let silent = self.audit.panel.values().all(|seat| seat.verdict.is_none());
        let differs = |verdict: &Verdict| {
            verdict.steps.iter().any(|step| {
                self.claim(step.step) != Some(step.before)
                    || self.claim(step.step + 1) != Some(step.after)
            })
        };
        silent || verdicts.any(differs)
    }

    fn leaves(&self) -> BTreeSet<u32> {
        let steps = self.audit.steps.iter();
        steps.flat_map(|step| [*step, step + 1]).collect()
    }

    /// What more than two thirds of the power found in each leaf.
    fn truth(&self, powers: &BTreeMap<Address, u64>) -> Option<BTreeMap<u32, Finding>> {
        let all: u64 = powers.values().sum();
        let mut truth = BTreeMap::new();
        for leaf in self.leaves() {
            let mut found: BTreeMap<Finding, u64> = BTreeMap::new();
            for (voter, vote) in &self.audit.votes {
                *found.entry(finding(vote, leaf)).or_default() += powers[voter];
            }
            let (finding, _) = found
                .into_iter()
                .find(|(_, power)| is_quorum(*power, all))?;
            truth.insert(leaf, finding);
        }
        Some(truth)
    }

    pub(super) fn rule(&self, powers: &BTreeMap<Address, u64>) -> Ruling {
        let truth = self.truth(powers);
        if self.is_split(truth.is_some()) {
            return Ruling::Split;
        }
        let Some(truth) = truth else {
            return Ruling::Undecided;
        };
        let honest = truth
            .iter()
            .all(|(leaf, finding)| finding.is_some() && self.claim(*leaf) == *finding);
        let panel = self.audit.panel.iter();
        let refuted = panel.filter(|(_, seat)| {
            let verdict = seat.verdict.as_ref();
            verdict.is_some_and(|verdict| self.is_refuted(verdict, &truth))
        });
        let votes = self.audit.votes.iter();
        let upheld = votes.filter(|(_, vote)| {
            truth
                .iter()
                .all(|(leaf, known)| finding(vote, *leaf) == *known)
        });
        Ruling::Decided {
            honest,
            refuted: refuted.map(|(who, _)| *who).collect(),
            upheld: upheld.map(|(who, _)| *who).collect(),
        }
    }

    /// A wrong state from a right one, or a state before that is neither true nor served. Who was served
    /// a false state is excused.
    fn is_refuted(&self, verdict: &Verdict, truth: &BTreeMap<u32, Finding>) -> bool {
        let is_true = |leaf: u32, state: Hash| truth[&leaf] == Some(state);
        let was_served = |step: u32, state: Hash| {
            let mut served = self.audit.served.iter().flat_map(|served| &served.states);
            served.any(|shown| shown.step == step && shown.state == state)
        };
        let mut wrong = false;
        for step in &verdict.steps {
            let begins_true = is_true(step.step, step.before);
            if !begins_true && was_served(step.step, step.before) {
                return false;
            }
            let says_withheld = verdict.feedback_withheld && step.step == self.steps;
            let is_withheld = truth[&(step.step + 1)].is_none();
            let ends_well = says_withheld || is_withheld || is_true(step.step + 1, step.after);
            wrong |= !begins_true || !ends_well;
        }
        wrong
    }

    /// Each back end is of one mind, they differ, and there is no quorum or two on the smaller side.
    fn is_split(&self, quorum: bool) -> bool {
        let mut minds: BTreeMap<u32, BTreeSet<Mind>> = BTreeMap::new();
        let mut sides: BTreeMap<Mind, usize> = BTreeMap::new();
        for vote in self.audit.votes.values() {
            let steps = vote.steps.iter();
            let mind: Mind = steps
                .map(|step| (step.step, step.before, step.after))
                .collect();
            *sides.entry(mind.clone()).or_default() += 1;
            minds.entry(vote.backend.number()).or_default().insert(mind);
        }
        let unanimous = minds.values().all(|mind| mind.len() == 1);
        let smaller = sides.values().min().copied().unwrap_or(0);
        unanimous && sides.len() > 1 && (!quorum || smaller >= 2)
    }
}

/// What a vote says about a leaf.
fn finding(vote: &Verdict, leaf: u32) -> Finding {
    let last = vote.steps.last().unwrap();
    if vote.feedback_withheld && leaf == last.step + 1 {
        return None;
    }
    let steps = vote.steps.iter();
    let mut said = steps.flat_map(|step| [(step.step, step.before), (step.step + 1, step.after)]);
    said.find(|(said, _)| *said == leaf).map(|(_, state)| state)
}

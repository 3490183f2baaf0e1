//! What verdicts and court votes mean for a miner: pure judgement, nothing is written here.

use std::collections::{BTreeMap, BTreeSet};

use r3mes_types::commitment::package_state;
use r3mes_types::training::{
    Audit, CourtVote, Entry, Member, OpenedLeaf, Package, Served, Verdict,
};
use r3mes_types::{Address, Hash};

/// Votes of this many validators on one back end count as a split even against a quorum. A single
/// voter could claim any back end.
const SPLIT_VOTERS: usize = 2;

/// What a miner has bound itself to, leaf by leaf.
pub(super) struct Claims<'a> {
    /// The start state: leaf 0.
    pub(super) start: Hash,
    /// Number of the last leaf, H + 1.
    pub(super) end: u32,
    /// What that leaf holds.
    pub(super) package: &'a Package,
    /// The leaves opened after the verdicts.
    pub(super) opened: &'a [OpenedLeaf],
}

impl<'a> Claims<'a> {
    /// The claims of an audited miner; none if it has no package or no audit.
    pub(super) fn of(entry: &'a Entry, start: Hash, steps: u32) -> Option<Self> {
        let package = entry.package.as_ref()?;
        let opened = &entry.audit.as_ref()?.opened;
        Some(Self {
            start,
            end: steps + 1,
            package,
            opened,
        })
    }

    /// The state a leaf holds, as far as it is known.
    fn state(&self, leaf: u32) -> Option<Hash> {
        if leaf == 0 {
            Some(self.start)
        } else if leaf == self.end {
            Some(package_state(&self.package.hash, &self.package.feedback))
        } else {
            self.opened
                .iter()
                .find(|opened| opened.index == leaf)
                .map(|opened| opened.state)
        }
    }

    /// Whether a verdict names other states than the miner. A leaf that was not opened counts as
    /// another state.
    fn contradicted_by(&self, verdict: &Verdict) -> bool {
        verdict.steps.iter().any(|step| {
            self.state(step.step) != Some(step.before)
                || self.state(step.step + 1) != Some(step.after)
        })
    }

    /// What the miner opened, held against what it served and what its panel found.
    pub(super) fn compare(&self, audit: &Audit) -> Comparison {
        let mut verdicts = audit.panel.iter().filter_map(|seat| seat.verdict.as_ref());
        if self.served_another_state(audit.served.as_ref()) {
            Comparison::ServedAnotherState
        } else if audit.panel.iter().all(|seat| seat.verdict.is_none())
            || verdicts.any(|verdict| self.contradicted_by(verdict))
        {
            Comparison::Disputed
        } else {
            Comparison::Confirmed
        }
    }

    fn served_another_state(&self, served: Option<&Served>) -> bool {
        served.is_some_and(|served| {
            served.states.iter().any(|state| {
                self.state(state.step)
                    .is_some_and(|committed| committed != state.state)
            })
        })
    }
}

/// What an audit has come to when the miner has opened its leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    /// Every revealed verdict names the miner's states, and there is at least one.
    Confirmed,
    /// The miner served another state than the one it had committed to: its own two signatures
    /// prove that, and no court is needed.
    ServedAnotherState,
    /// A verdict goes against the miner, or the panel revealed none: the court is asked. So a panel
    /// that keeps silent covers for nobody.
    Disputed,
}

/// What more than 2/3 of the power found in one leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Finding {
    /// This state.
    State(Hash),
    /// The error feedback that it takes to know was withheld.
    Withheld,
}

/// What the court says about one miner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ruling {
    /// No quorum: the package is excluded, and nobody is slashed.
    Undecided,
    /// The votes differ by back end: the run stops, and nobody is slashed.
    SplitByBackend,
    /// The quorum decided.
    Decided {
        /// Whether the miner's states are the right ones.
        honest: bool,
        /// Panel members whose verdicts the court refutes, ascending.
        refuted: Vec<Address>,
        /// Those who voted with the court in everything, ascending.
        upheld: Vec<Address>,
    },
}

/// One round's power, by which votes are counted.
pub(super) struct Power {
    /// The power of each validator.
    of: BTreeMap<Address, u64>,
    /// The power of all who may vote.
    total: u64,
}

impl Power {
    /// The power of these judges.
    pub(super) fn of<'m>(judges: impl Iterator<Item = &'m Member>) -> Self {
        let of: BTreeMap<Address, u64> = judges.map(|m| (m.validator, m.power)).collect();
        let total = of.values().sum();
        Self { of, total }
    }

    /// Whether this much is more than two thirds.
    pub(super) fn is_quorum(&self, power: u64) -> bool {
        is_quorum(power, self.total)
    }
}

/// Whether `power` is more than two thirds of `total`.
pub(super) fn is_quorum(power: u64, total: u64) -> bool {
    u128::from(power) * 3 > u128::from(total) * 2
}

/// Judges one miner by the court's votes.
pub(super) fn judge(
    claims: &Claims<'_>,
    audit: &Audit,
    votes: &[CourtVote],
    power: &Power,
) -> Ruling {
    let truth = find_truth(audit, votes, power);
    if split_by_backend(votes, truth.is_some()) {
        return Ruling::SplitByBackend;
    }
    let Some(truth) = truth else {
        return Ruling::Undecided;
    };
    let honest = truth
        .iter()
        .all(|(&leaf, &finding)| claims.state(leaf).map(Finding::State) == Some(finding));
    let refuted = audit
        .panel
        .iter()
        .filter(|seat| {
            seat.verdict
                .as_ref()
                .is_some_and(|verdict| is_refuted(verdict, &truth, audit.served.as_ref()))
        })
        .map(|seat| seat.validator)
        .collect();
    let upheld = votes
        .iter()
        .filter(|vote| {
            findings(&vote.verdict)
                .iter()
                .all(|(leaf, finding)| truth.get(leaf) == Some(finding))
        })
        .map(|vote| vote.validator)
        .collect();
    Ruling::Decided {
        honest,
        refuted,
        upheld,
    }
}

/// What the quorum found in every leaf of the audit; `None` if it is missing for any.
fn find_truth(audit: &Audit, votes: &[CourtVote], power: &Power) -> Option<BTreeMap<u32, Finding>> {
    let mut tallies: BTreeMap<(u32, Finding), u64> = BTreeMap::new();
    for vote in votes {
        let weight = power.of.get(&vote.validator).copied().unwrap_or(0);
        for (leaf, finding) in findings(&vote.verdict) {
            *tallies.entry((leaf, finding)).or_default() += weight;
        }
    }
    let truth: BTreeMap<u32, Finding> = tallies
        .into_iter()
        .filter(|(_, tally)| power.is_quorum(*tally))
        .map(|(found, _)| found)
        .collect();
    let leaves: BTreeSet<u32> = audit
        .steps
        .iter()
        .flat_map(|&step| [step, step + 1])
        .collect();
    leaves
        .iter()
        .all(|leaf| truth.contains_key(leaf))
        .then_some(truth)
}

/// What one vote says about each leaf. Where one step follows another, both name the leaf between
/// them; messages in which they differ are refused.
fn findings(verdict: &Verdict) -> BTreeMap<u32, Finding> {
    let packaging = verdict.steps.last().map(|last| last.step);
    let mut findings = BTreeMap::new();
    for step in &verdict.steps {
        let withheld = verdict.feedback_withheld && Some(step.step) == packaging;
        let after = if withheld {
            Finding::Withheld
        } else {
            Finding::State(step.after)
        };
        findings.insert(step.step, Finding::State(step.before));
        findings.insert(step.step + 1, after);
    }
    findings
}

/// A verdict is refuted when it computed a wrong state from a right one, or names a state that
/// neither the court knows nor the miner served. Who was served a wrong state could only be wrong.
fn is_refuted(verdict: &Verdict, truth: &BTreeMap<u32, Finding>, served: Option<&Served>) -> bool {
    let is_true = |leaf: u32, state: Hash| truth.get(&leaf) == Some(&Finding::State(state));
    let was_served = |step: u32, state: Hash| {
        served.is_some_and(|served| {
            served
                .states
                .iter()
                .any(|shown| shown.step == step && shown.state == state)
        })
    };
    let misled = verdict
        .steps
        .iter()
        .any(|step| !is_true(step.step, step.before) && was_served(step.step, step.before));
    if misled {
        return false;
    }
    let packaging = verdict.steps.last().map(|last| last.step);
    verdict.steps.iter().any(|step| {
        let excused = verdict.feedback_withheld && Some(step.step) == packaging;
        let withheld = truth.get(&(step.step + 1)) == Some(&Finding::Withheld);
        !is_true(step.step, step.before)
            || (!excused && !withheld && !is_true(step.step + 1, step.after))
    })
}

/// Whether every back end is of one mind and they are of different minds. Against a quorum the
/// dissenting back end needs [`SPLIT_VOTERS`].
fn split_by_backend(votes: &[CourtVote], quorum: bool) -> bool {
    let mut minds: BTreeMap<u32, Vec<&Verdict>> = BTreeMap::new();
    for vote in votes {
        minds
            .entry(vote.verdict.backend.number())
            .or_default()
            .push(&vote.verdict);
    }
    let unanimous = minds
        .values()
        .all(|mind| mind.iter().all(|verdict| verdict.steps == mind[0].steps));
    let mut views: BTreeMap<Vec<[Hash; 2]>, usize> = BTreeMap::new();
    for verdicts in minds.values() {
        let view = verdicts[0]
            .steps
            .iter()
            .map(|step| [step.before, step.after])
            .collect();
        *views.entry(view).or_default() += verdicts.len();
    }
    let smallest = views.values().copied().min().unwrap_or(0);
    unanimous && views.len() > 1 && (!quorum || smallest >= SPLIT_VOTERS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use r3mes_types::Cid;
    use r3mes_types::training::{Backend, Seat, ServedState, StepVerdict};
    use r3mes_types::wire::List;

    /// H of the round under test.
    const STEPS: u32 = 8;

    fn address(n: u8) -> Address {
        Address::from([n; 20])
    }

    fn state(n: u8) -> Hash {
        Hash::from([n; 32])
    }

    fn package() -> Package {
        Package {
            cid: Cid::raw(b"p"),
            hash: state(80),
            bytes: 1,
            feedback: state(81),
        }
    }

    /// The truth: leaf n holds state n, the last the package.
    fn truth(backend: Backend) -> Verdict {
        verdict(
            backend,
            [state(3), state(4)],
            package_state(&state(80), &state(81)),
        )
    }

    fn verdict(backend: Backend, around: [Hash; 2], packaged: Hash) -> Verdict {
        let steps = vec![
            StepVerdict {
                step: 3,
                before: around[0],
                after: around[1],
            },
            StepVerdict {
                step: STEPS,
                before: state(8),
                after: packaged,
            },
        ];
        Verdict {
            backend,
            steps: steps.try_into().unwrap(),
            feedback_withheld: false,
        }
    }

    fn wrong(backend: Backend) -> Verdict {
        verdict(
            backend,
            [state(3), state(99)],
            truth(backend).steps[1].after,
        )
    }

    fn opened(states: [u8; 3]) -> Vec<OpenedLeaf> {
        [3, 4, 8]
            .into_iter()
            .zip(states)
            .map(|(index, n)| OpenedLeaf {
                index,
                state: state(n),
            })
            .collect()
    }

    fn audit(verdicts: Vec<Verdict>, served: [u8; 2]) -> Audit {
        let seats = verdicts.into_iter().zip(1..).map(|(verdict, n)| Seat {
            validator: address(n),
            commitment: None,
            verdict: Some(verdict),
        });
        let states = [3, STEPS]
            .into_iter()
            .zip(served)
            .map(|(step, n)| ServedState {
                step,
                state: state(n),
                cid: Cid::raw(b"s"),
            });
        Audit {
            steps: vec![3, STEPS].try_into().unwrap(),
            panel: seats.collect::<Vec<_>>().try_into().unwrap(),
            served: Some(Served {
                states: states.collect::<Vec<_>>().try_into().unwrap(),
                feedback: None,
            }),
            opened: List::default(),
            disputed: false,
        }
    }

    /// Judges over ten validators of equal power that vote as given.
    fn court(opened: &[OpenedLeaf], audit: &Audit, votes: Vec<Verdict>) -> Ruling {
        let package = package();
        let claims = Claims {
            start: state(0),
            end: STEPS + 1,
            package: &package,
            opened,
        };
        let judges: Vec<Member> = (1..=10)
            .map(|n| Member {
                validator: address(n),
                power: 1,
            })
            .collect();
        let votes: Vec<CourtVote> = votes
            .into_iter()
            .zip(1..)
            .map(|(verdict, n)| CourtVote {
                miner: address(50),
                validator: address(n),
                verdict,
            })
            .collect();
        judge(&claims, audit, &votes, &Power::of(judges.iter()))
    }

    /// A decision in which the first `upheld` voters voted with the court.
    fn decided(honest: bool, refuted: &[u8], upheld: u8) -> Ruling {
        let refuted = refuted.iter().copied().map(address).collect();
        Ruling::Decided {
            honest,
            refuted,
            upheld: (1..=upheld).map(address).collect(),
        }
    }

    fn votes(right: usize, wrong_ones: usize) -> Vec<Verdict> {
        let right = std::iter::repeat_n(truth(Backend::Avx2), right);
        right
            .chain(std::iter::repeat_n(wrong(Backend::Avx2), wrong_ones))
            .collect()
    }

    #[test]
    fn a_false_accuser_loses_and_the_miner_stands() {
        let audit = audit(vec![truth(Backend::Avx2), wrong(Backend::Avx2)], [3, 8]);
        let ruling = court(&opened([3, 4, 8]), &audit, votes(7, 3));
        assert_eq!(ruling, decided(true, &[2], 7));
    }

    #[test]
    fn a_liar_loses_and_so_does_a_panel_member_that_covers_for_it() {
        let covering = verdict(
            Backend::Avx2,
            [state(3), state(66)],
            truth(Backend::Avx2).steps[1].after,
        );
        let audit = audit(vec![truth(Backend::Avx2), covering], [3, 8]);
        let ruling = court(&opened([3, 66, 8]), &audit, votes(7, 0));
        assert_eq!(ruling, decided(false, &[2], 7));
    }

    #[test]
    fn two_thirds_are_not_enough() {
        let audit = audit(vec![wrong(Backend::Avx2)], [3, 8]);
        assert_eq!(
            court(&opened([3, 4, 8]), &audit, votes(6, 4)),
            Ruling::Undecided
        );
    }

    #[test]
    fn a_leaf_that_is_not_opened_is_a_lie_when_the_court_decides() {
        let audit = audit(vec![truth(Backend::Avx2)], [3, 8]);
        let ruling = court(&[], &audit, votes(10, 0));
        assert_eq!(ruling, decided(false, &[], 10));
    }

    #[test]
    fn who_was_served_a_false_state_is_not_refuted() {
        // The miner served state 77 before step 3, and opens nothing.
        let misled = verdict(
            Backend::Avx2,
            [state(77), state(78)],
            truth(Backend::Avx2).steps[1].after,
        );
        let audit = audit(vec![misled], [77, 8]);
        let ruling = court(&[], &audit, votes(10, 0));
        assert_eq!(ruling, decided(false, &[], 10));
        let package = package();
        let opened = opened([3, 4, 8]);
        let claims = Claims {
            start: state(0),
            end: STEPS + 1,
            package: &package,
            opened: &opened,
        };
        assert_eq!(claims.compare(&audit), Comparison::ServedAnotherState);
    }

    #[test]
    fn a_panel_that_keeps_silent_is_no_confirmation() {
        let package = package();
        let opened = opened([3, 4, 8]);
        let claims = Claims {
            start: state(0),
            end: STEPS + 1,
            package: &package,
            opened: &opened,
        };
        let mut audit = audit(vec![truth(Backend::Avx2), truth(Backend::Avx2)], [3, 8]);
        let silence = |seats: &[Seat], silent: usize| {
            let mut seats = seats.to_vec();
            seats.iter_mut().take(silent).for_each(|s| s.verdict = None);
            seats.try_into().unwrap()
        };
        let seats = audit.panel.to_vec();
        let mut compared = |silent| {
            audit.panel = silence(&seats, silent);
            claims.compare(&audit)
        };
        assert_eq!(compared(0), Comparison::Confirmed);
        assert_eq!(compared(1), Comparison::Confirmed);
        assert_eq!(compared(2), Comparison::Disputed);
    }

    #[test]
    fn withheld_feedback_costs_the_miner_and_never_the_one_who_says_so() {
        let mut withheld = truth(Backend::Avx2);
        withheld.steps[1].after = Hash::ZERO;
        withheld.feedback_withheld = true;
        let audit = audit(vec![withheld.clone(), truth(Backend::Avx2)], [3, 8]);
        let opened = opened([3, 4, 8]);
        let nobody_got_it = court(&opened, &audit, vec![withheld; 8]);
        assert_eq!(nobody_got_it, decided(false, &[], 8));
        let all_got_it = court(&opened, &audit, votes(9, 0));
        assert_eq!(all_got_it, decided(true, &[], 9));
    }

    #[test]
    fn a_split_along_back_ends_slashes_nobody() {
        let audit = audit(vec![wrong(Backend::Neon)], [3, 8]);
        let split = |right: usize, other: usize| {
            let right = std::iter::repeat_n(truth(Backend::Avx2), right);
            let votes = right
                .chain(std::iter::repeat_n(wrong(Backend::Neon), other))
                .collect();
            court(&opened([3, 4, 8]), &audit, votes)
        };
        assert_eq!(split(5, 5), Ruling::SplitByBackend);
        assert_eq!(split(8, 2), Ruling::SplitByBackend);
        // One voter against a quorum is a liar that claims a back end of its own.
        assert_eq!(split(9, 1), decided(true, &[1], 9));
    }
}

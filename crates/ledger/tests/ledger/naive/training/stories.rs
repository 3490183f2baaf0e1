//! Stories of second audits with each end that there is, so that it is known that the model comes so far.

use r3mes_types::training::{Outcome, Phase, RunStatus};
use r3mes_types::{Millis, Ppm};

use super::round::Second;
use super::steps::{Choice, Mood, Step};
use super::{NODES, Scene, Theatre};
use crate::chain::address;
use crate::play::STEPS;

/// The miner that leaves, and the validators.
const LEAVER: u8 = 1;
const JUDGES: [u8; 4] = [3, 4, 5, 6];

impl Theatre {
    fn second(&self) -> Option<&Second> {
        let entry = &self.naive.rounds[0].entries[&address(LEAVER)];
        entry.second.as_ref()
    }

    /// Everybody answers until the second audit is in this phase.
    fn until(&mut self, phase: Phase) {
        for _ in 0..200 {
            if self.second().is_some_and(|second| second.phase == phase) {
                return;
            }
            self.turn(&[Choice::Answer; NODES.len()]);
        }
        panic!("the second audit does not come to {phase}");
    }

    fn all(&mut self, judges: &[u8], mood: Mood) {
        for who in judges {
            self.step(&Step::Mood { who: *who, mood });
        }
    }
}

/// After a round without first audits, or with one of which nothing came, the miner leaves.
fn left(lie: Option<u32>) -> Theatre {
    let mut theatre = Theatre::new(Scene {
        audited: Ppm::percent(30),
        drawn: STEPS,
        panel: 2,
        reaudited: Ppm::ONE,
        kept_rounds: 2,
        vesting: Millis::seconds(100),
    });
    let who = LEAVER;
    theatre.step(&Step::Lie { who, from: lie });
    theatre.close_a_round();
    theatre.step(&Step::Leave { who });
    theatre
}

fn end(mut theatre: Theatre) -> (Theatre, Second) {
    theatre.until(Phase::Closed);
    let second = theatre.second().cloned().unwrap();
    (theatre, second)
}

#[test]
fn second_audits_come_to_every_end_that_there_is() {
    let (_, honest) = end(left(None));
    assert_eq!(honest.outcome, Some(Outcome::Accepted));
    assert!(honest.slashed == 0 && honest.paid > 0);

    let (theatre, liar) = end(left(Some(2)));
    assert_eq!(liar.outcome, Some(Outcome::Fraudulent));
    assert_eq!(theatre.naive.stakes.slashes.len(), 1);

    let mut accused = left(None);
    accused.all(&JUDGES, Mood::Accuses);
    accused.until(Phase::Court);
    accused.all(&JUDGES, Mood::Honest);
    let (theatre, accused) = end(accused);
    assert_eq!(accused.outcome, Some(Outcome::Accepted));
    assert_eq!(theatre.naive.stakes.slashes.len(), 2, "the panel");

    let mut silent = left(Some(2));
    silent.until(Phase::Court);
    for _ in 0..2 {
        silent.turn(&[Choice::Silent; NODES.len()]);
    }
    let (theatre, silent) = end(silent);
    assert_eq!(silent.outcome, Some(Outcome::Undecided));
    assert_eq!(theatre.naive.stakes.slashes.len(), 0);

    let mut split = left(None);
    split.all(&JUDGES[2..], Mood::Buggy);
    let (theatre, split) = end(split);
    assert_eq!(split.outcome, Some(Outcome::Undecided));
    assert_eq!(theatre.naive.status, RunStatus::Paused);
}

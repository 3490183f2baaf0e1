//! Audits: no lie survives the re-run of the step that it is told in, and no honest miner is
//! contradicted.

use std::collections::BTreeMap;

use r3mes_exact::Cpu;
use r3mes_model::Model;
use r3mes_training::adversary::{Lie, lie};
use r3mes_training::audit::{AuditResult, Evidence, audit};
use r3mes_training::commitment::Commitment;
use r3mes_training::state::StepState;
use r3mes_types::Hash;
use r3mes_types::training::served_steps;

use crate::setup::{Miner, SECRET, STEPS, memory, model};

/// What a miner committed to, and what it hands to its panel.
struct Claim {
    commitment: Commitment,
    states: Vec<StepState>,
    feedback: Option<Vec<f32>>,
}

impl Claim {
    fn honest(miner: &Miner, model: &Model<Cpu>, feedback: Option<Vec<f32>>) -> Self {
        let (finished, states) = miner.honest(model, feedback.clone());
        Self {
            commitment: finished.commitment,
            states,
            feedback,
        }
    }

    fn lying(
        miner: &Miner,
        model: &Model<Cpu>,
        feedback: Option<Vec<f32>>,
        falsehood: &Lie,
    ) -> Self {
        let (job, start) = (miner.job(model), miner.start.clone());
        let kept = feedback.clone();
        let round = lie(&job, start, feedback, &SECRET, falsehood, &mut memory()).unwrap();
        Self {
            commitment: round.finished.commitment,
            states: round.states,
            feedback: kept,
        }
    }

    /// What an obliging miner serves for these steps.
    fn evidence(&self, steps: &[u32]) -> Evidence {
        let states = served_steps(steps)
            .into_iter()
            .map(|step| (step, self.states[step as usize].clone()));
        Evidence {
            states: states.collect(),
            feedback: self.feedback.clone(),
        }
    }
}

/// A panel member's view of `drawn` and of the packaging, which is always audited.
fn inspect(miner: &Miner, model: &Model<Cpu>, drawn: &[u32], evidence: Evidence) -> AuditResult {
    let steps = audited(drawn);
    audit(
        &miner.job(model),
        &miner.start,
        &steps,
        evidence,
        &mut memory(),
    )
    .unwrap()
}

fn audited(drawn: &[u32]) -> Vec<u32> {
    drawn.iter().copied().chain([STEPS]).collect()
}

/// The audited steps in which the leaves committed to are not what the panel computed.
fn contradicted(result: &AuditResult, commitment: &Commitment) -> Vec<u32> {
    let states = commitment.states();
    let wrong = result.steps.iter().filter(|verdict| {
        let leaf = verdict.step as usize;
        verdict.before != states[leaf] || verdict.after != states[leaf + 1]
    });
    wrong.map(|verdict| verdict.step).collect()
}

/// The steps in which an audit of each single step, with all that the miner serves, finds a lie.
fn caught_in(miner: &Miner, model: &Model<Cpu>, claim: &Claim) -> Vec<u32> {
    let mut caught = Vec::new();
    for step in 0..STEPS {
        let result = inspect(miner, model, &[step], claim.evidence(&audited(&[step])));
        for step in contradicted(&result, &claim.commitment) {
            if !caught.contains(&step) {
                caught.push(step);
            }
        }
    }
    caught.sort_unstable();
    caught
}

#[test]
fn an_honest_miner_is_never_contradicted_whatever_it_serves() {
    let model = model();
    let miner = Miner::new(&model, 1);
    let claim = Claim::honest(&miner, &model, None);
    assert_eq!(caught_in(&miner, &model, &claim), [0; 0]);
    // Chained steps, the last step before the packaging, and nothing served at all.
    for drawn in [&[1, 2][..], &[0, STEPS - 1], &[3]] {
        let served = inspect(&miner, &model, drawn, claim.evidence(&audited(drawn)));
        let replayed = inspect(&miner, &model, drawn, Evidence::default());
        assert_eq!(served, replayed);
        assert_eq!(contradicted(&served, &claim.commitment), [0; 0]);
        assert!(!served.feedback_withheld);
    }
}

#[test]
fn a_falsified_step_is_caught_in_that_step_and_in_no_other() {
    let model = model();
    let miner = Miner::new(&model, 1);
    for step in 0..STEPS {
        let claim = Claim::lying(&miner, &model, None, &Lie::SkipSteps(vec![step]));
        // After the last step the packaging is computed from what the panel computed.
        let mut expected = vec![step];
        expected.extend((step + 1 == STEPS).then_some(STEPS));
        assert_eq!(caught_in(&miner, &model, &claim), expected);
    }
    let claim = Claim::lying(&miner, &model, None, &Lie::SkipSteps(vec![1, 3]));
    assert_eq!(caught_in(&miner, &model, &claim), [1, 3]);
}

#[test]
fn a_lie_about_all_steps_is_caught_in_every_one() {
    let model = model();
    let miner = Miner::new(&model, 1);
    let all = Lie::SkipSteps((0..STEPS).collect());
    let claim = Claim::lying(&miner, &model, None, &all);
    assert_eq!(
        caught_in(&miner, &model, &claim),
        (0..=STEPS).collect::<Vec<_>>()
    );
}

#[test]
fn forged_moments_are_caught_where_they_are_forged() {
    let model = model();
    let miner = Miner::new(&model, 1);
    let forged = Lie::ForgeMoments {
        step: 2,
        shift: 0.25,
    };
    let claim = Claim::lying(&miner, &model, None, &forged);
    assert_eq!(caught_in(&miner, &model, &claim), [2]);
}

#[test]
fn forged_moments_under_an_honest_adapter_are_caught_too() {
    let model = model();
    let miner = Miner::new(&model, 1);
    let mut claim = Claim::honest(&miner, &model, None);
    // The adapter after step 2 is the right one; only the optimizer's memory is made up, and every
    // step after it is honest from there.
    let mut states = claim.states[..4].to_vec();
    states[3].first_moment.fill(0.125);
    let job = miner.job(&model);
    for _ in 3..STEPS {
        let last = states.last().unwrap();
        let next = r3mes_training::step::step(&job, last, &mut memory()).unwrap();
        states.push(next.0);
    }
    let end = &states[STEPS as usize].adapter;
    let (package, feedback) =
        r3mes_training::round::compress_round(&job, &miner.start.adapter, end, None).unwrap();
    let mut hashes: Vec<Hash> = states.iter().map(StepState::hash).collect();
    hashes.push(r3mes_types::commitment::package_state(
        &package.hash(),
        &r3mes_training::state::hash_floats(&feedback),
    ));
    assert_eq!(states[3].adapter, claim.states[3].adapter);
    claim.commitment = Commitment::new(&miner.task.work(), &SECRET, hashes);
    claim.states = states;
    assert_eq!(caught_in(&miner, &model, &claim), [2]);
}

#[test]
fn a_copied_and_a_stale_package_are_caught_by_the_packaging() {
    let model = model();
    let mut miner = Miner::new(&model, 1);
    let stale = miner.honest(&model, None).0.package;
    let copied = Miner::new(&model, 2).honest(&model, None).0.package;
    miner.task.round = 1;
    for package in [stale, copied] {
        let claim = Claim::lying(&miner, &model, None, &Lie::SendPackage(package));
        assert_eq!(caught_in(&miner, &model, &claim), [STEPS]);
    }
}

#[test]
fn wrong_error_feedback_is_caught_by_the_packaging() {
    let model = model();
    let miner = Miner::new(&model, 1);
    let claim = Claim::lying(&miner, &model, None, &Lie::WrongFeedback);
    assert_eq!(caught_in(&miner, &model, &claim), [STEPS]);
}

#[test]
fn old_error_feedback_that_is_withheld_or_swapped_is_reported() {
    let model = model();
    let mut miner = Miner::new(&model, 1);
    let old = miner.honest(&model, None).0;
    miner.task.round = 1;
    miner.task.feedback = Some(old.feedback_hash);
    let claim = Claim::honest(&miner, &model, Some(old.feedback.clone()));
    let whole = inspect(&miner, &model, &[1], claim.evidence(&audited(&[1])));
    assert!(!whole.feedback_withheld);
    assert_eq!(contradicted(&whole, &claim.commitment), [0; 0]);

    let mut other = old.feedback;
    other[5] -= 1.0;
    for feedback in [None, Some(other)] {
        let evidence = Evidence {
            feedback,
            ..claim.evidence(&audited(&[1]))
        };
        let result = inspect(&miner, &model, &[1], evidence);
        assert!(result.feedback_withheld);
        assert_eq!(result.steps[1].after, Hash::ZERO);
        assert_eq!(contradicted(&result, &claim.commitment), [STEPS]);
    }
}

#[test]
fn withholding_states_saves_no_liar() {
    let model = model();
    let miner = Miner::new(&model, 1);
    let claim = Claim::lying(&miner, &model, None, &Lie::SkipSteps(vec![1]));
    // The drawn step is honest; replayed from the public start, the lie before it shows.
    let result = inspect(&miner, &model, &[3], Evidence::default());
    assert_eq!(contradicted(&result, &claim.commitment), [3, STEPS]);
}

#[test]
fn a_state_served_instead_of_the_one_committed_to_contradicts_itself() {
    let model = model();
    let miner = Miner::new(&model, 1);
    let liar = Claim::lying(&miner, &model, None, &Lie::SkipSteps(vec![2]));
    let honest = Claim::honest(&miner, &model, None);
    // Honest states are served; the panel computes what the liar did not commit to.
    let result = inspect(&miner, &model, &[3], honest.evidence(&audited(&[3])));
    assert_eq!(contradicted(&result, &liar.commitment), [3, STEPS]);
    assert_ne!(result.steps[0].before, liar.commitment.states()[3]);

    // A state of another step has no state after it.
    let misplaced = Evidence {
        states: BTreeMap::from([(3, honest.states[2].clone())]),
        feedback: None,
    };
    let result = inspect(&miner, &model, &[3], misplaced);
    assert_eq!(result.steps[0].after, Hash::ZERO);
    assert_eq!(contradicted(&result, &honest.commitment), [3]);
}

#[test]
fn a_step_that_diverges_has_no_state_after_it() {
    let model = model();
    let miner = Miner::new(&model, 1);
    let honest = Claim::honest(&miner, &model, None);
    let mut infinite = honest.states[2].clone();
    infinite.adapter[0] = f32::INFINITY;
    let evidence = Evidence {
        states: BTreeMap::from([(2, infinite.clone())]),
        feedback: None,
    };
    let result = inspect(&miner, &model, &[2], evidence);
    assert_eq!(result.steps[0].before, infinite.hash());
    assert_eq!(result.steps[0].after, Hash::ZERO);
}

//! Steps and whole rounds: what they depend on, and what they do not.

use std::ops::ControlFlow;

use r3mes_model::{Batch, MemoryLimit, StepPlan};
use r3mes_training::round::{FinishError, RoundProgress, run_round};
use r3mes_training::state::{StepState, hash_floats};
use r3mes_training::step::{StepError, StepMemory, step};
use r3mes_training::verify::replay_miner;
use r3mes_types::Hash;
use r3mes_types::commitment::{package_state, state_leaf};
use r3mes_types::merkle;

use crate::setup::{Miner, SECRET, STEPS, memory, model};

#[test]
fn a_step_is_a_function_of_every_part_of_the_state() {
    let model = model();
    let miner = Miner::new(&model, 1);
    let job = miner.job(&model);
    let before = step(&job, &miner.start, &mut memory()).unwrap().0;
    let after = |state: &StepState| step(&job, state, &mut memory()).unwrap().0.hash();
    let truth = after(&before);
    assert_eq!(after(&before.clone()), truth);

    let changed = |change: fn(&mut StepState)| {
        let mut state = before.clone();
        change(&mut state);
        assert_ne!(state.hash(), before.hash());
        after(&state)
    };
    let others = [
        changed(|state| state.adapter[3] += 0.5),
        changed(|state| state.first_moment[3] += 0.5),
        changed(|state| state.second_moment[3] += 0.5),
        changed(|state| state.step += 1),
    ];
    assert!(others.iter().all(|other| *other != truth));
}

#[test]
fn a_state_of_another_adapter_is_refused() {
    let model = model();
    let miner = Miner::new(&model, 1);
    let mut state = miner.start.clone();
    state.second_moment.pop();
    let error = step(&miner.job(&model), &state, &mut memory()).unwrap_err();
    assert!(matches!(error, StepError::Moments { .. }), "{error}");
    assert!(!error.is_divergence());
}

#[test]
fn training_lowers_the_loss_of_its_own_batches() {
    let model = model();
    let miner = Miner::new(&model, 1);
    let job = miner.job(&model);
    // The same windows over and over, so that what is measured is what is learnt.
    let mut state = miner.start.clone();
    let mut losses = Vec::new();
    for _ in 0..8 {
        let (next, loss) = step(&job, &state, &mut memory()).unwrap();
        losses.push(loss.mean());
        state = StepState { step: 0, ..next };
    }
    assert!(losses[7] < losses[0] - 0.02, "{losses:?}");
}

#[test]
fn two_memory_limits_give_two_micro_batches_and_one_adapter() {
    let model = model();
    let miner = Miner::new(&model, 1);
    let job = miner.job(&model);
    let batch = Batch::new(model.config(), job.windows(0)).unwrap();
    let limits = [200_000, 1 << 28].map(|bytes| MemoryLimit { bytes });
    let plans =
        limits.map(|limit| StepPlan::new(model.config(), job.layout(), &batch, limit).unwrap());
    assert!(plans[0].rows < plans[1].rows, "{plans:?}");
    assert_eq!(plans[1].rows, batch.targets());

    let finished = limits.map(|limit| {
        let mut progress = RoundProgress::new(miner.start.clone());
        let mut memory = StepMemory::new(limit);
        let end = run_round(&job, &mut progress, &mut memory, |_| {
            ControlFlow::Continue(())
        });
        assert_eq!(end.unwrap(), ControlFlow::Continue(()));
        let finished = progress
            .finish(&job, &miner.start.adapter, None, &SECRET)
            .unwrap();
        (
            hash_floats(&progress.state.adapter),
            finished.commitment.root(),
        )
    });
    assert_eq!(finished[0], finished[1]);
}

#[test]
fn a_sequence_that_does_not_fit_into_memory_is_this_machines_fault() {
    let model = model();
    let miner = Miner::new(&model, 1);
    let mut small = StepMemory::new(MemoryLimit { bytes: 1_000 });
    let error = step(&miner.job(&model), &miner.start, &mut small).unwrap_err();
    assert!(matches!(error, StepError::Loss { step: 0, .. }), "{error}");
    assert!(!error.is_divergence());
}

#[test]
fn a_commitment_binds_the_start_every_step_and_the_package() {
    let model = model();
    let miner = Miner::new(&model, 1);
    let (finished, states) = miner.honest(&model, None);
    let commitment = &finished.commitment;
    let leaves = STEPS as usize + 2;
    assert_eq!(commitment.states().len(), leaves);
    let mut expected: Vec<Hash> = states.iter().map(StepState::hash).collect();
    expected.push(package_state(
        &finished.package_hash,
        &finished.feedback_hash,
    ));
    assert_eq!(commitment.states(), expected);
    assert_eq!(commitment.states()[0], miner.task.start.state);
    assert_eq!(Hash::of(&finished.package_bytes), finished.package_hash);

    let (root, work) = (commitment.root(), miner.task.work());
    for index in 0..leaves {
        let opening = commitment.opening(index as u32).unwrap();
        let leaf = state_leaf(&work, index as u64, &opening.salt, &opening.state);
        assert!(merkle::verify(&root, leaves, index, &leaf, &opening.path));
        // The same state in another place, or another state in this one, has no path.
        assert!(!merkle::verify(
            &root,
            leaves,
            (index + 1) % leaves,
            &leaf,
            &opening.path
        ));
        let other = state_leaf(&work, index as u64, &opening.salt, &Hash::of(b"other"));
        assert!(!merkle::verify(&root, leaves, index, &other, &opening.path));
    }
    assert!(commitment.opening(leaves as u32).is_none());
}

#[test]
fn a_round_killed_after_any_step_resumes_to_the_same_root() {
    let model = model();
    let miner = Miner::new(&model, 1);
    let job = miner.job(&model);
    let whole = miner.honest(&model, None).0;
    for kill_after in 0..=u64::from(STEPS) {
        let mut progress = RoundProgress::new(miner.start.clone());
        while progress.state.step < kill_after {
            progress.advance(&job, &mut memory()).unwrap();
        }
        // What survives is what was stored: the state's bytes and the hashes.
        let stored = (progress.state.encode(), progress.hashes.clone());
        drop(progress);
        let mut resumed = RoundProgress {
            state: StepState::decode(&stored.0, job.layout().len()).unwrap(),
            hashes: stored.1,
            losses: Vec::new(),
        };
        let _ = run_round(&job, &mut resumed, &mut memory(), |_| {
            ControlFlow::Continue(())
        })
        .unwrap();
        let finished = resumed
            .finish(&job, &miner.start.adapter, None, &SECRET)
            .unwrap();
        assert_eq!(finished.commitment.root(), whole.commitment.root());
        assert_eq!(finished.package_bytes, whole.package_bytes);
    }
}

#[test]
fn a_stopped_round_is_not_finished() {
    let model = model();
    let miner = Miner::new(&model, 1);
    let job = miner.job(&model);
    let mut progress = RoundProgress::new(miner.start.clone());
    let stopped = run_round(&job, &mut progress, &mut memory(), |progress| {
        if progress.state.step == 2 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    assert_eq!(stopped.unwrap(), ControlFlow::Break(()));
    let error = progress
        .finish(&job, &miner.start.adapter, None, &SECRET)
        .unwrap_err();
    assert!(matches!(
        error,
        FinishError::Unfinished {
            done: 2,
            steps: STEPS
        }
    ));
}

#[test]
fn miners_of_one_round_do_different_work_and_each_replays_to_its_package() {
    let model = model();
    let mut packages = Vec::new();
    for number in 1..=2 {
        let miner = Miner::new(&model, number);
        let finished = miner.honest(&model, None).0;
        let replayed =
            replay_miner(&miner.job(&model), miner.start.clone(), None, &mut memory()).unwrap();
        assert_eq!(replayed.package, finished.package_hash);
        assert_eq!(replayed.feedback_hash, finished.feedback_hash);
        packages.push(finished.package_hash);
    }
    assert_ne!(packages[0], packages[1]);
}

#[test]
fn error_feedback_goes_from_round_to_round_and_only_the_tasks_own_is_taken() {
    let model = model();
    let mut miner = Miner::new(&model, 1);
    let (first, _) = miner.honest(&model, None);
    assert!(first.feedback.iter().any(|&kept| kept != 0.0));
    miner.task.round = 1;
    let without = miner.honest(&model, None).0;
    miner.task.feedback = Some(first.feedback_hash);
    let with = miner.honest(&model, Some(first.feedback.clone())).0;
    assert_ne!(with.package_hash, without.package_hash);

    let job = miner.job(&model);
    let mut progress = RoundProgress::new(miner.start.clone());
    let _ = run_round(&job, &mut progress, &mut memory(), |_| {
        ControlFlow::Continue(())
    })
    .unwrap();
    let mut wrong = first.feedback;
    wrong[0] += 1.0;
    for feedback in [None, Some(wrong)] {
        let error = progress
            .finish(&job, &miner.start.adapter, feedback, &SECRET)
            .unwrap_err();
        assert!(matches!(error, FinishError::Feedback { .. }), "{error}");
    }
}

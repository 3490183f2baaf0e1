//! A miner's round: H steps, then the package.

use std::ops::ControlFlow;

use r3mes_exact::{Device, undisturbed};
use r3mes_model::Loss;
use r3mes_types::Hash;
use r3mes_types::commitment::package_state;

use crate::commitment::Commitment;
use crate::job::Job;
use crate::package::{CompressError, Package};
use crate::state::{StepState, hash_floats};
use crate::step::{StepError, StepMemory, step};

/// A round under way: the newest state, and the hashes of all so far. It can
/// be stored after any step and taken up again.
#[derive(Clone, Debug, PartialEq)]
pub struct RoundProgress {
    /// The state after the last step done.
    pub state: StepState,
    /// Hashes of the start state and of the state after each step done.
    pub hashes: Vec<Hash>,
    /// Mean loss of each step's batch before its update, as sums.
    pub losses: Vec<Loss>,
}

/// A finished round, before it is committed to.
#[derive(Clone, Debug)]
pub struct FinishedRound {
    /// What is sent.
    pub package: Package,
    /// The canonical bytes of the package.
    pub package_bytes: Vec<u8>,
    /// BLAKE3 of those bytes.
    pub package_hash: Hash,
    /// The error feedback for the next round.
    pub feedback: Vec<f32>,
    /// BLAKE3 of the error feedback's bytes.
    pub feedback_hash: Hash,
    /// The salted commitment over all states.
    pub commitment: Commitment,
}

/// Why a round cannot be finished.
#[derive(Debug, thiserror::Error)]
pub enum FinishError {
    /// Steps are missing.
    #[error("{done} of the round's {steps} steps are done")]
    Unfinished {
        /// Steps done.
        done: u64,
        /// Steps of the task.
        steps: u32,
    },
    /// The start adapter has another length.
    #[error("the start adapter has {start} numbers, the trained one {end}")]
    Start {
        /// Numbers of the start adapter given.
        start: usize,
        /// Numbers of the trained one.
        end: usize,
    },
    /// The error feedback given is not the one that the task names.
    #[error("the error feedback has hash {got:?}, the task says {expected:?}")]
    Feedback {
        /// Hash of the one given; none for zero.
        got: Option<Hash>,
        /// The task's; none for zero.
        expected: Option<Hash>,
    },
    /// The update cannot be compressed.
    #[error("the round's update cannot be sent")]
    Compress(#[from] CompressError),
}

impl RoundProgress {
    /// A round before its first step; `start` comes from [`Job::start`].
    #[must_use]
    pub fn new(start: StepState) -> Self {
        Self {
            hashes: vec![start.hash()],
            state: start,
            losses: Vec::new(),
        }
    }

    /// Whether all steps of the job are done.
    #[must_use]
    pub fn is_complete<D: Device>(&self, job: &Job<'_, D>) -> bool {
        self.state.step >= u64::from(job.task().steps)
    }

    /// Does the next step.
    ///
    /// # Errors
    /// [`StepError`]; nothing has changed then.
    pub fn advance<D: Device>(
        &mut self,
        job: &Job<'_, D>,
        memory: &mut StepMemory<D>,
    ) -> Result<Loss, StepError> {
        let (state, loss) = step(job, &self.state, memory)?;
        self.hashes.push(state.hash());
        self.losses.push(loss);
        self.state = state;
        Ok(loss)
    }

    /// Compresses the round's update and commits to everything.
    ///
    /// `start` is the adapter that the round started from, `feedback` the
    /// error feedback of the round before (none for zero), `secret` what the
    /// salts derive from.
    ///
    /// # Errors
    /// [`FinishError`] when steps are missing or training diverged.
    pub fn finish<D: Device>(
        &self,
        job: &Job<'_, D>,
        start: &[f32],
        feedback: Option<Vec<f32>>,
        secret: &[u8; 32],
    ) -> Result<FinishedRound, FinishError> {
        let steps = job.task().steps;
        if !self.is_complete(job) {
            return Err(FinishError::Unfinished {
                done: self.state.step,
                steps,
            });
        }
        let (package, feedback) = compress_round(job, start, &self.state.adapter, feedback)?;
        let package_bytes = package.encode();
        let package_hash = Hash::of(&package_bytes);
        let feedback_hash = hash_floats(&feedback);
        let mut states = self.hashes.clone();
        states.push(package_state(&package_hash, &feedback_hash));
        let commitment = Commitment::new(&job.task().work(), secret, states);
        Ok(FinishedRound {
            package,
            package_bytes,
            package_hash,
            feedback,
            feedback_hash,
            commitment,
        })
    }
}

/// The package of a round and the error feedback that it leaves, from the
/// adapters before and after it: what leaf `H + 1` commits to.
///
/// # Errors
/// [`FinishError`] when lengths or the old error feedback are not the task's,
/// or training diverged.
pub fn compress_round<D: Device>(
    job: &Job<'_, D>,
    start: &[f32],
    end: &[f32],
    feedback: Option<Vec<f32>>,
) -> Result<(Package, Vec<f32>), FinishError> {
    let (got, expected) = (feedback.as_deref().map(hash_floats), job.task().feedback);
    if got != expected {
        return Err(FinishError::Feedback { got, expected });
    }
    if start.len() != end.len() {
        return Err(FinishError::Start {
            start: start.len(),
            end: end.len(),
        });
    }
    let delta: Vec<f32> = undisturbed(|| {
        let weights = end.iter().zip(start);
        weights.map(|(end, start)| end - start).collect()
    });
    let mut feedback = feedback.unwrap_or_else(|| vec![0.0; delta.len()]);
    let package = Package::compress(job.shape(), job.decay(), &mut feedback, &delta)?;
    Ok((package, feedback))
}

/// Runs all remaining steps. After each, `observe` sees the progress, may
/// store it, and may stop the round; stopped, it can be taken up again.
///
/// # Errors
/// The first step that cannot be computed; `progress` then stands before it.
pub fn run_round<D: Device>(
    job: &Job<'_, D>,
    progress: &mut RoundProgress,
    memory: &mut StepMemory<D>,
    mut observe: impl FnMut(&RoundProgress) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, StepError> {
    while !progress.is_complete(job) {
        progress.advance(job, memory)?;
        if observe(progress).is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// Computes the state before step `step` from the public start of the round:
/// what the court does, and whoever was not served that state.
///
/// # Errors
/// The first step that cannot be computed.
pub fn replay_to<D: Device>(
    job: &Job<'_, D>,
    start: StepState,
    step_number: u64,
    memory: &mut StepMemory<D>,
) -> Result<StepState, StepError> {
    let mut state = start;
    while state.step < step_number {
        state = step(job, &state, memory)?.0;
    }
    Ok(state)
}

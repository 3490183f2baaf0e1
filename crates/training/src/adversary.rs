//! Liars, for demonstrations, simulations and tests: miners that claim work
//! they have not done, inside commitments that are consistent.
//!
//! Nothing else in this crate calls into this module.

use r3mes_exact::Device;
use r3mes_types::commitment::package_state;
use r3mes_types::{Address, Hash};

use crate::commitment::Commitment;
use crate::job::Job;
use crate::package::Package;
use crate::round::{FinishError, FinishedRound, compress_round};
use crate::state::{StepState, hash_floats};
use crate::step::{StepError, StepMemory, step};

/// How a miner lies.
#[derive(Clone, Debug, PartialEq)]
pub enum Lie {
    /// The steps named are not computed: the state after each is the state
    /// before with a small change. All other steps are honest.
    SkipSteps(Vec<u32>),
    /// The step named moves the adapter wherever the liar wants, and its
    /// moments are forged so that an update towards there looks plausible.
    ForgeMoments {
        /// The forged step.
        step: u32,
        /// What every number of the adapter is moved by.
        shift: f32,
    },
    /// All steps are honest; the package sent is somebody else's, or the one
    /// of an earlier round.
    SendPackage(Package),
    /// Steps and package are honest; the new error feedback committed to is
    /// not what packaging left.
    WrongFeedback,
}

/// Why a lie could not even be told.
#[derive(Debug, thiserror::Error)]
pub enum LieError {
    /// An honest step on the way could not be computed.
    #[error("an honest step of the liar failed")]
    Step(#[from] StepError),
    /// Packaging failed.
    #[error("the liar's packaging failed")]
    Finish(#[from] FinishError),
}

/// A liar's round: what it commits to, and the states that it can serve.
#[derive(Clone, Debug)]
pub struct LyingRound {
    /// Consistent in itself: every opening verifies.
    pub finished: FinishedRound,
    /// The states behind the leaves 0 to H.
    pub states: Vec<StepState>,
}

/// Plays a whole round with a lie in it.
///
/// # Errors
/// When the honest part of it cannot be computed.
pub fn lie<D: Device>(
    job: &Job<'_, D>,
    start: StepState,
    feedback: Option<Vec<f32>>,
    secret: &[u8; 32],
    lie: &Lie,
    memory: &mut StepMemory<D>,
) -> Result<LyingRound, LieError> {
    let mut states = vec![start];
    for number in 0..job.task().steps {
        let before = states.last().expect("the start state was put there");
        let after = match lie {
            Lie::SkipSteps(steps) if steps.contains(&number) => skip(before, &job.task().miner),
            Lie::ForgeMoments { step, shift } if *step == number => forge(before, *shift),
            _ => step(job, before, memory)?.0,
        };
        states.push(after);
    }
    let (start, end) = (&states[0], &states[states.len() - 1]);
    let (mut package, mut feedback) = compress_round(job, &start.adapter, &end.adapter, feedback)?;
    match lie {
        Lie::SendPackage(other) => package = other.clone(),
        Lie::WrongFeedback => feedback.iter_mut().for_each(|e| *e = -*e),
        Lie::SkipSteps(_) | Lie::ForgeMoments { .. } => {}
    }
    let package_bytes = package.encode();
    let package_hash = Hash::of(&package_bytes);
    let feedback_hash = hash_floats(&feedback);
    let mut hashes: Vec<Hash> = states.iter().map(StepState::hash).collect();
    hashes.push(package_state(&package_hash, &feedback_hash));
    let commitment = Commitment::new(&job.task().work(), secret, hashes);
    let finished = FinishedRound {
        package,
        package_bytes,
        package_hash,
        feedback,
        feedback_hash,
        commitment,
    };
    Ok(LyingRound { finished, states })
}

/// A step that costs nothing: a change that differs from liar to liar.
fn skip(before: &StepState, miner: &Address) -> StepState {
    let mut after = before.clone();
    after.step += 1;
    let noise = miner.as_ref().iter().cycle();
    for (weight, byte) in after.adapter.iter_mut().zip(noise) {
        *weight += (f32::from(*byte) - 127.5) * (1.0 / 65_536.0);
    }
    after
}

/// A step to wherever the liar wants, with moments that point there.
fn forge(before: &StepState, shift: f32) -> StepState {
    let mut after = before.clone();
    after.step += 1;
    after.adapter.iter_mut().for_each(|weight| *weight += shift);
    after.first_moment.fill(-shift);
    after.second_moment.fill(shift * shift);
    after
}

//! Audits: a panel member re-runs the drawn steps of a miner.

use std::collections::BTreeMap;

use r3mes_exact::Device;
use r3mes_types::Hash;
use r3mes_types::commitment::package_state;
use r3mes_types::training::StepVerdict;

use crate::job::Job;
use crate::round::{FinishError, compress_round, replay_to};
use crate::state::{StepState, hash_floats};
use crate::step::{StepError, StepMemory, step};

/// What a miner served for an audit, fetched and checked against the hashes
/// that it posted. What is missing was withheld.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// States by the step that they stand before.
    pub states: BTreeMap<u32, StepState>,
    /// The error feedback from before the round, where the task names one.
    pub feedback: Option<Vec<f32>>,
}

/// What re-running found: for each step the states around it, as computed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditResult {
    /// One verdict for each audited step, in the order given.
    pub steps: Vec<StepVerdict>,
    /// The old error feedback was withheld, so the packaging is not judged.
    pub feedback_withheld: bool,
}

/// Re-runs `steps`, ascending; step H is the packaging.
///
/// Each step starts from the state just computed where the step before was
/// audited too, else from the state served, else from a replay of the public
/// start: withholding a state saves nobody. A step that leaves the finite
/// numbers, or starts from a state of another step, has no state after it:
/// its verdict is [`Hash::ZERO`], which no honest miner commits to.
///
/// # Errors
/// Only what is this machine's fault, such as a lack of memory.
pub fn audit<D: Device>(
    job: &Job<'_, D>,
    start: &StepState,
    steps: &[u32],
    mut evidence: Evidence,
    memory: &mut StepMemory<D>,
) -> Result<AuditResult, StepError> {
    let mut verdicts = Vec::with_capacity(steps.len());
    let mut feedback_withheld = false;
    let mut computed: Option<StepState> = None;
    for &number in steps {
        let chained = computed
            .take()
            .filter(|state| state.step == u64::from(number));
        let served = chained.or_else(|| evidence.states.remove(&number));
        let before = match served {
            Some(state) => Some(state),
            None => finite(replay_to(job, start.clone(), u64::from(number), memory))?,
        };
        let Some(before) = before else {
            verdicts.push(StepVerdict {
                step: number,
                before: Hash::ZERO,
                after: Hash::ZERO,
            });
            continue;
        };
        let hash = before.hash();
        let after = if before.step != u64::from(number) {
            Hash::ZERO
        } else if number < job.task().steps {
            let next = finite(step(job, &before, memory).map(|(next, _)| next))?;
            let after = next.as_ref().map_or(Hash::ZERO, StepState::hash);
            computed = next;
            after
        } else {
            let packaging = repeat_packaging(job, start, &before, evidence.feedback.take());
            feedback_withheld = packaging.is_none();
            packaging.unwrap_or(Hash::ZERO)
        };
        verdicts.push(StepVerdict {
            step: number,
            before: hash,
            after,
        });
    }
    Ok(AuditResult {
        steps: verdicts,
        feedback_withheld,
    })
}

/// The package state that follows from the final state; none when the old
/// error feedback is missing or not the one that the task names.
fn repeat_packaging<D: Device>(
    job: &Job<'_, D>,
    start: &StepState,
    end: &StepState,
    feedback: Option<Vec<f32>>,
) -> Option<Hash> {
    match compress_round(job, &start.adapter, &end.adapter, feedback) {
        Ok((package, feedback)) => Some(package_state(&package.hash(), &hash_floats(&feedback))),
        Err(FinishError::Feedback { .. }) => None,
        Err(_) => Some(Hash::ZERO),
    }
}

/// Divergence is a finding, everything else an error.
fn finite(result: Result<StepState, StepError>) -> Result<Option<StepState>, StepError> {
    match result {
        Ok(state) => Ok(Some(state)),
        Err(error) if error.is_divergence() => Ok(None),
        Err(error) => Err(error),
    }
}

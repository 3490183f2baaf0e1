//! One optimizer step: miners and validators run this same function.

use r3mes_exact::Device;
use r3mes_model::{
    Adapter, AdapterError, Batch, BatchError, LoadedAdapter, Loss, LossError, MemoryLimit,
    TrainingWorkspace,
};

use crate::job::Job;
use crate::state::StepState;

/// Reused memory of steps. Its limit decides how many sequences are computed
/// at a time, and changes no bit of the result.
pub struct StepMemory<D: Device> {
    workspace: TrainingWorkspace<D>,
    gradient: Option<D::Buffer<f32>>,
}

impl<D: Device> StepMemory<D> {
    /// Memory that holds activations of at most `limit`.
    #[must_use]
    pub fn new(limit: MemoryLimit) -> Self {
        Self {
            workspace: TrainingWorkspace::new(limit),
            gradient: None,
        }
    }
}

/// Why a step could not be computed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The state is not one of this task.
    #[error("the state does not belong to the task's adapter")]
    State(#[source] AdapterError),
    /// The moments have another length than the adapter.
    #[error("the optimizer's moments have {first} and {second} numbers, the adapter {adapter}")]
    Moments {
        /// Length of the first moment.
        first: usize,
        /// Length of the second moment.
        second: usize,
        /// Length of the adapter.
        adapter: usize,
    },
    /// The shard's windows do not fit the model.
    #[error("the batch does not fit the model")]
    Batch(#[from] BatchError),
    /// The loss or its gradient could not be computed.
    #[error("step {step} could not be computed")]
    Loss {
        /// The step, from 0.
        step: u64,
        /// Why.
        #[source]
        source: LossError,
    },
}

impl StepError {
    /// Whether the computation left the finite numbers: on every machine
    /// alike, unlike a lack of memory.
    #[must_use]
    pub fn is_divergence(&self) -> bool {
        matches!(
            self,
            Self::State(AdapterError::NotFinite { .. })
                | Self::Loss {
                    source: LossError::NotFinite(_),
                    ..
                }
        )
    }
}

/// Computes the state after the step that follows `state`, and the loss of
/// that step's batch before its update.
///
/// The result is a function of the job and the state: not of the memory
/// limit, the threads or the kernels (`docs/spec/exact.md`).
///
/// # Errors
/// [`StepError`]; the state given is unchanged.
pub fn step<D: Device>(
    job: &Job<'_, D>,
    state: &StepState,
    memory: &mut StepMemory<D>,
) -> Result<(StepState, Loss), StepError> {
    let (model, layout) = (job.model(), job.layout());
    let device = model.device();
    let parameters = layout.len();
    let (first, second) = (state.first_moment.len(), state.second_moment.len());
    if first != parameters || second != parameters {
        return Err(StepError::Moments {
            first,
            second,
            adapter: parameters,
        });
    }
    let adapter = Adapter::from_numbers(layout, state.adapter.clone()).map_err(StepError::State)?;
    let mut adapter = LoadedAdapter::new(device, layout, &adapter).map_err(StepError::State)?;

    let batch = Batch::new(model.config(), job.windows(state.step))?;
    let StepMemory {
        workspace,
        gradient,
    } = memory;
    let gradient = match gradient {
        Some(held) if device.len(held) == parameters => held,
        other => other.insert(device.zeros(parameters)),
    };
    let loss = model
        .loss_and_gradients(&adapter, &batch, workspace, gradient)
        .map_err(|source| StepError::Loss {
            step: state.step,
            source,
        })?;

    let mut first = device.upload(&state.first_moment);
    let mut second = device.upload(&state.second_moment);
    let optimizer = job.optimizer(state.step);
    device.adamw(
        &optimizer,
        gradient,
        adapter.numbers_mut(),
        [&mut first, &mut second],
    );

    let download = |buffer: &D::Buffer<f32>| {
        let mut numbers = vec![0.0; parameters];
        device.read(buffer, 0, &mut numbers);
        numbers
    };
    let next = StepState {
        adapter: download(adapter.numbers()),
        first_moment: download(&first),
        second_moment: download(&second),
        step: state.step + 1,
    };
    Ok((next, loss))
}

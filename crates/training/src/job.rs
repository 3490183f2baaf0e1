//! A task bound to the model and the data that it names, checked once.

use r3mes_exact::{AdamW, Device, Philox};
use r3mes_model::{
    Adapter, AdapterError, AdapterLayout, LinearSet, LoraConfig, Model, ModelConfig,
};
use r3mes_types::Hash;
use r3mes_types::task::{F32Bits, HyperParameterError, HyperParameters, MAX_STEPS, Task};

use crate::dataset::Shard;
use crate::package::{Shape, ShapeError};
use crate::state::StepState;

/// The version of the exact arithmetic, of the encodings and of the order of
/// operations that this crate computes with.
pub const EXACT_VERSION: u32 = 1;

/// Everything a step needs besides the state: after [`Job::new`] has checked
/// it, a step is a function of the state alone.
pub struct Job<'a, D: Device> {
    model: &'a Model<D>,
    tokens: &'a [u32],
    task: &'a Task,
    layout: AdapterLayout,
    shape: Shape,
}

/// Why a task cannot be worked on with the model and data given.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The task is for another version of the arithmetic.
    #[error(
        "the task is for version {task} of the exact arithmetic, this program computes version {EXACT_VERSION}: update it"
    )]
    Version {
        /// The task's version.
        task: u32,
    },
    /// The task names another model.
    #[error("the task is for model {task}, the model given is {model}")]
    Model {
        /// The task's model id.
        task: Hash,
        /// The id of the model given.
        model: Hash,
    },
    /// The number of steps is out of bounds.
    #[error("a round of {steps} steps is outside 1..={MAX_STEPS}")]
    Steps {
        /// The task's.
        steps: u32,
    },
    /// A hyper-parameter is out of bounds.
    #[error("the task's hyper-parameters are refused")]
    HyperParameters(#[from] HyperParameterError),
    /// The model cannot carry the task's adapter.
    #[error("the task's adapter does not fit the model")]
    Adapter(#[from] AdapterError),
    /// The package's shape is out of bounds.
    #[error("the task's packages are refused")]
    Shape(#[from] ShapeError),
    /// The sequences are longer than the model's context.
    #[error("sequences of {sequence} tokens pass the model's context of {context}")]
    Sequence {
        /// The task's.
        sequence: u32,
        /// The model's.
        context: usize,
    },
    /// The shard is not the one that the task describes.
    #[error("the task's shard has {task} tokens, the one given {shard}")]
    ShardLength {
        /// The task's count.
        task: u64,
        /// Tokens in the shard given.
        shard: usize,
    },
    /// The shard is too short for a single window.
    #[error("a shard of {tokens} tokens has no window of {window}")]
    ShardTooShort {
        /// Tokens in the shard.
        tokens: usize,
        /// Tokens of a window.
        window: usize,
    },
    /// The shard's vocabulary passes the model's.
    #[error("the shard has a vocabulary of {shard}, the model one of {model}")]
    Vocabulary {
        /// The shard's.
        shard: u32,
        /// The model's.
        model: usize,
    },
}

/// Why an adapter is not what a task starts from.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// Its bytes have another hash.
    #[error("the start adapter has hash {got}, the task says {expected}")]
    Adapter {
        /// Hash of the adapter given.
        got: Hash,
        /// The task's.
        expected: Hash,
    },
    /// The state that starts from it has another hash.
    #[error("the start state has hash {got}, the task says {expected}")]
    State {
        /// Hash of the state that the adapter gives.
        got: Hash,
        /// The task's.
        expected: Hash,
    },
}

impl<'a, D: Device> Job<'a, D> {
    /// Binds `task` to the model and the shard that it names. Whoever fetched
    /// the shard has checked its CID.
    ///
    /// # Errors
    /// [`JobError`] says what does not fit.
    pub fn new(model: &'a Model<D>, shard: &'a Shard, task: &'a Task) -> Result<Self, JobError> {
        if task.exact_version != EXACT_VERSION {
            return Err(JobError::Version {
                task: task.exact_version,
            });
        }
        if task.model != model.id() {
            return Err(JobError::Model {
                task: task.model,
                model: model.id(),
            });
        }
        if task.steps == 0 || task.steps > MAX_STEPS {
            return Err(JobError::Steps { steps: task.steps });
        }
        let hyper = &task.hyper;
        hyper.check()?;
        let config = model.config();
        if hyper.sequence as usize > config.context {
            return Err(JobError::Sequence {
                sequence: hyper.sequence,
                context: config.context,
            });
        }
        let (tokens, window) = (shard.tokens(), hyper.sequence as usize + 1);
        if task.shard.tokens != tokens.len() as u64 {
            return Err(JobError::ShardLength {
                task: task.shard.tokens,
                shard: tokens.len(),
            });
        }
        if tokens.len() < window {
            return Err(JobError::ShardTooShort {
                tokens: tokens.len(),
                window,
            });
        }
        if shard.vocabulary() as usize > config.vocab {
            let (shard, model) = (shard.vocabulary(), config.vocab);
            return Err(JobError::Vocabulary { shard, model });
        }
        let layout = adapter_layout(config, hyper)?;
        let shape = Shape::new(layout.len(), hyper.chunk as usize, hyper.top_k as usize)?;
        Ok(Self {
            model,
            tokens,
            task,
            layout,
            shape,
        })
    }

    /// The model that is trained.
    pub fn model(&self) -> &'a Model<D> {
        self.model
    }

    /// The task.
    pub fn task(&self) -> &'a Task {
        self.task
    }

    /// The order of the adapter's numbers.
    pub fn layout(&self) -> &AdapterLayout {
        &self.layout
    }

    /// The form of the round's package.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// What is kept of the error feedback from round to round.
    pub fn decay(&self) -> f32 {
        float(self.task.hyper.decay)
    }

    /// The state before step 0, if `adapter` is the one that the task names.
    ///
    /// # Errors
    /// [`StartError`] when it is another.
    pub fn start(&self, adapter: Adapter) -> Result<StepState, StartError> {
        let (got, expected) = (adapter.hash(), self.task.start.adapter);
        if got != expected {
            return Err(StartError::Adapter { got, expected });
        }
        let state = StepState::start(adapter.into_numbers());
        let (got, expected) = (state.hash(), self.task.start.state);
        if got != expected {
            return Err(StartError::State { got, expected });
        }
        Ok(state)
    }

    /// The windows of `sequence + 1` tokens that step `step` trains on. Nobody
    /// chooses them: they follow from the beacon, the miner and the round.
    pub fn windows(&self, step: u64) -> Vec<&'a [u32]> {
        let task = self.task;
        let window = task.hyper.sequence as usize + 1;
        let random = Philox::derive(
            task.beacon.as_bytes(),
            task.miner.as_ref(),
            u64::from(task.round),
            "training batch",
        );
        // L - S starts, counted from 0: the last window ends with the shard.
        let starts = (self.tokens.len() - window + 1) as u32;
        let batch = u64::from(task.hyper.batch);
        (step * batch..(step + 1) * batch)
            .map(|draw| random.below(draw, starts) as usize)
            .map(|start| &self.tokens[start..start + window])
            .collect()
    }

    /// AdamW's literals for the step that follows `steps_done` steps.
    pub(crate) fn optimizer(&self, steps_done: u64) -> AdamW {
        let hyper = &self.task.hyper;
        AdamW {
            learning_rate: float(hyper.learning_rate),
            beta1: float(hyper.beta1),
            beta2: float(hyper.beta2),
            c1: float(hyper.c1),
            c2: float(hyper.c2),
            epsilon: float(hyper.epsilon),
            weight_decay: float(hyper.weight_decay),
            t: steps_done + 1,
        }
    }
}

/// The order of the numbers of an adapter with these hyper-parameters.
///
/// # Errors
/// When the model cannot carry it.
pub fn adapter_layout(
    model: &ModelConfig,
    hyper: &HyperParameters,
) -> Result<AdapterLayout, AdapterError> {
    let targets = u8::try_from(hyper.targets.bits())
        .ok()
        .and_then(LinearSet::from_bits);
    let targets = targets.expect("both sets have the same seven members");
    let (rank, alpha) = (hyper.rank as usize, float(hyper.alpha));
    AdapterLayout::new(
        model,
        LoraConfig {
            rank,
            alpha,
            targets,
        },
    )
}

/// The adapter that a run starts from: drawn from the run's seed.
#[must_use]
pub fn initial_adapter(layout: &AdapterLayout, seed: &Hash) -> Adapter {
    Adapter::initial(
        layout,
        &Philox::derive(seed.as_bytes(), b"", 0, "initial adapter"),
    )
}

/// The value of a bit pattern.
fn float(bits: F32Bits) -> f32 {
    f32::from_bits(bits.0)
}

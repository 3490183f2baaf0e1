//! Loss of a batch of sequences, and its gradient with respect to an adapter.

mod batch;
mod plan;

use r3mes_exact::{Device, NotFinite};

use crate::adapter::LoadedAdapter;
use crate::block::{BackwardScratch, BlockBackward, ForwardBuffers, ForwardScratch, Tape};
use crate::model::Model;

pub use batch::{Batch, BatchError, MAX_SEQUENCES};
use batch::{MicroBatch, micro_batches};
use plan::bytes_per_row;
pub use plan::{MemoryError, MemoryLimit, StepPlan};

/// Unit of [`Loss::sum`]: losses are summed as integers of 2^-24.
pub const LOSS_UNIT: f64 = 1.0 / 16_777_216.0;

/// A summed cross-entropy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Loss {
    /// Sum over the targets of `rne(loss * 2^24)`.
    pub sum: i64,
    /// Targets that were summed over.
    pub targets: usize,
}

impl Loss {
    /// Mean loss per target, in nats; for people, not for hashing.
    pub fn mean(&self) -> f64 {
        self.sum as f64 * LOSS_UNIT / self.targets as f64
    }
}

/// Why a loss could not be computed.
#[derive(Debug, thiserror::Error)]
pub enum LossError {
    /// The memory limit is too low.
    #[error("the batch does not fit into memory")]
    Memory(#[from] MemoryError),
    /// A value of the computation was infinite or not a number.
    #[error("the model's computation left the finite numbers")]
    NotFinite(#[from] NotFinite),
}

/// Reused memory of training steps on one model.
pub struct TrainingWorkspace<D: Device> {
    limit: MemoryLimit,
    buffers: Option<Buffers<D>>,
}

struct Buffers<D: Device> {
    plan: StepPlan,
    rank: usize,
    /// One for each block, or one for all of them.
    tapes: Vec<Tape<D>>,
    forward: ForwardScratch<D>,
    /// Absent until a gradient is asked for.
    backward: Option<Backward<D>>,
    /// Input of each block, and the last one's output; without a gradient only two, in turn.
    streams: Vec<D::Buffer<f32>>,
    final_codes: D::Codes,
}

struct Backward<D: Device> {
    scratch: BackwardScratch<D>,
    running: D::Buffer<f32>,
}

impl<D: Device> TrainingWorkspace<D> {
    /// A workspace that stays within `limit`.
    pub fn new(limit: MemoryLimit) -> Self {
        Self {
            limit,
            buffers: None,
        }
    }

    fn reserve(
        &mut self,
        model: &Model<D>,
        plan: StepPlan,
        rank: usize,
        gradient: bool,
    ) -> &mut Buffers<D> {
        let fits = self.buffers.as_ref().is_some_and(|held| {
            held.plan == plan && held.rank >= rank && (held.backward.is_some() || !gradient)
        });
        if !fits {
            // The old memory goes before the new comes.
            self.buffers = None;
        }
        self.buffers
            .get_or_insert_with(|| Buffers::new(model, plan, rank, gradient))
    }
}

impl<D: Device> std::fmt::Debug for TrainingWorkspace<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TrainingWorkspace")
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

impl<D: Device> Buffers<D> {
    fn new(model: &Model<D>, plan: StepPlan, rank: usize, gradient: bool) -> Self {
        let (device, config, rows) = (&model.device, &model.config, plan.rows);
        let hidden = || device.zeros(rows * config.hidden);
        let tapes = if gradient && !plan.checkpoint {
            config.layers
        } else {
            1
        };
        let streams = if gradient { config.layers + 1 } else { 2 };
        Self {
            plan,
            rank,
            tapes: (0..tapes)
                .map(|_| Tape::new(device, config, rank, rows))
                .collect(),
            forward: ForwardScratch::new(device, config, rows),
            backward: gradient.then(|| Backward {
                scratch: BackwardScratch::new(device, config, rows),
                running: hidden(),
            }),
            streams: (0..streams).map(|_| hidden()).collect(),
            final_codes: device.codes(rows, config.hidden),
        }
    }
}

impl<D: Device> Model<D> {
    /// The loss of `batch`, with or without an adapter.
    ///
    /// # Errors
    /// When the batch does not fit into memory, or a value leaves the finite numbers.
    pub fn loss(
        &self,
        adapter: Option<&LoadedAdapter<D>>,
        batch: &Batch<'_>,
        workspace: &mut TrainingWorkspace<D>,
    ) -> Result<Loss, LossError> {
        let rank = adapter.map_or(0, |adapter| adapter.layout().config().rank);
        let per_row = bytes_per_row(&self.config, rank, true);
        let rows = (workspace.limit.bytes / per_row).min(batch.targets);
        let longest = batch.longest();
        if rows < longest {
            let (needed, limit) = (longest * per_row, workspace.limit.bytes);
            return Err(MemoryError {
                sequence: longest,
                needed,
                limit,
            }
            .into());
        }
        let plan = StepPlan {
            rows,
            checkpoint: true,
        };
        let buffers = workspace.reserve(self, plan, rank, false);
        let mut sum = 0;
        for windows in micro_batches(&batch.windows, rows) {
            let micro = MicroBatch::new(windows);
            self.forward(adapter, &micro, buffers)?;
            sum += self.head_loss(&micro, batch.targets, buffers, false)?;
        }
        Ok(Loss {
            sum,
            targets: batch.targets,
        })
    }

    /// The loss of `batch`, and in `gradient` the gradient of its mean with respect to the
    /// numbers of `adapter`, in canonical order.
    ///
    /// The result does not depend on the workspace's memory limit.
    ///
    /// # Errors
    /// When the batch does not fit into memory, or a value leaves the finite numbers; `gradient`
    /// is then worthless.
    pub fn loss_and_gradients(
        &self,
        adapter: &LoadedAdapter<D>,
        batch: &Batch<'_>,
        workspace: &mut TrainingWorkspace<D>,
        gradient: &mut D::Buffer<f32>,
    ) -> Result<Loss, LossError> {
        let layout = adapter.layout();
        let plan = StepPlan::new(&self.config, layout, batch, workspace.limit)?;
        let buffers = workspace.reserve(self, plan, layout.config().rank, true);
        self.device.clear(gradient, layout.len());
        let mut sum = 0;
        for windows in micro_batches(&batch.windows, plan.rows) {
            let micro = MicroBatch::new(windows);
            self.forward(Some(adapter), &micro, buffers)?;
            sum += self.head_loss(&micro, batch.targets, buffers, true)?;
            self.backward(adapter, &micro, buffers, gradient)?;
        }
        Ok(Loss {
            sum,
            targets: batch.targets,
        })
    }

    /// Runs the blocks, leaving the stream after the last one and, where there is room, every
    /// block's input and tape.
    fn forward(
        &self,
        adapter: Option<&LoadedAdapter<D>>,
        micro: &MicroBatch,
        buffers: &mut Buffers<D>,
    ) -> Result<(), NotFinite> {
        self.device
            .embed(&self.embedding, &micro.tokens, &mut buffers.streams[0]);
        for layer in 0..self.config.layers {
            let from = layer % buffers.streams.len();
            let to = (layer + 1) % buffers.streams.len();
            let [input, output] = buffers
                .streams
                .get_disjoint_mut([from, to])
                .expect("there are at least two streams");
            let tape = layer % buffers.tapes.len();
            let tape = &mut buffers.tapes[tape];
            let scratch = &mut buffers.forward;
            let memory = ForwardBuffers {
                input,
                tape,
                scratch,
                output,
            };
            self.block_forward(layer, adapter, &mut micro.rows(), memory)?;
        }
        Ok(())
    }

    /// Last norm, head and cross-entropy; with `gradient`, the running gradient becomes that of
    /// the last block's output.
    fn head_loss(
        &self,
        micro: &MicroBatch,
        targets: usize,
        buffers: &mut Buffers<D>,
        gradient: bool,
    ) -> Result<i64, NotFinite> {
        let (device, config, rows) = (&self.device, &self.config, micro.tokens.len());
        let stream = &buffers.streams[config.layers % buffers.streams.len()];
        let normed = &mut buffers.forward.normed;
        device.rms_norm(stream, &self.final_gain, config.norm_epsilon, rows, normed);
        let codes = &mut buffers.final_codes;
        device.quantize(normed, rows, codes)?;
        let Some(backward) = buffers.backward.as_mut().filter(|_| gradient) else {
            return device.head_loss(self.head(), codes, &micro.targets, targets, None);
        };
        let dx = &mut backward.scratch.hidden;
        let sum = device.head_loss(self.head(), codes, &micro.targets, targets, Some(dx))?;
        let running = &mut backward.running;
        device.clear(running, rows * config.hidden);
        let epsilon = config.norm_epsilon;
        device.rms_norm_backward(stream, &self.final_gain, epsilon, dx, rows, running);
        Ok(sum)
    }

    /// Adds the micro-batch's gradient to `gradient`, from the last block down.
    fn backward(
        &self,
        adapter: &LoadedAdapter<D>,
        micro: &MicroBatch,
        buffers: &mut Buffers<D>,
        gradient: &mut D::Buffer<f32>,
    ) -> Result<(), NotFinite> {
        let Buffers {
            plan,
            tapes,
            forward,
            backward,
            streams,
            ..
        } = buffers;
        let backward = backward.as_mut().expect("a gradient was asked for");
        for layer in (0..self.config.layers).rev() {
            let [input, output] = streams
                .get_disjoint_mut([layer, layer + 1])
                .expect("every block has its own input");
            let tape = if plan.checkpoint {
                &mut tapes[0]
            } else {
                &mut tapes[layer]
            };
            // The last block's tape is still there.
            if plan.checkpoint && layer + 1 < self.config.layers {
                let memory = ForwardBuffers {
                    input,
                    tape,
                    scratch: forward,
                    output,
                };
                self.block_forward(layer, Some(adapter), &mut micro.rows(), memory)?;
            }
            let pass = BlockBackward {
                adapter,
                positions: &micro.positions,
                sequences: &micro.lengths,
                input,
                tape,
                scratch: &mut backward.scratch,
                gradient,
                running: &mut backward.running,
            };
            self.block_backward(layer, pass)?;
        }
        Ok(())
    }
}

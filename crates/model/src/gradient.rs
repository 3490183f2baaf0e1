//! Loss of a batch of sequences, and its gradient with respect to an adapter.

use r3mes_exact::{Device, NotFinite};

use crate::adapter::{AdapterLayout, LoadedAdapter};
use crate::block::{BackwardScratch, BlockBackward, ForwardBuffers, ForwardScratch, Rows, Tape};
use crate::config::ModelConfig;
use crate::model::Model;

/// Most sequences in a batch.
pub const MAX_SEQUENCES: usize = 1 << 16;
/// Unit of [`Loss::sum`]: losses are summed as integers of 2^-24.
pub const LOSS_UNIT: f64 = 1.0 / 16_777_216.0;

/// A batch of windows of tokens, checked against a model. Each token of a window is the target
/// of those before it, so a window of S + 1 tokens makes S targets.
#[derive(Clone, Debug)]
pub struct Batch<'a> {
    windows: Vec<&'a [u32]>,
    targets: usize,
}

/// Why a batch is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// There are no windows, or too many.
    #[error("a batch has between 1 and {MAX_SEQUENCES} windows, but {windows} were given")]
    Windows {
        /// How many there are.
        windows: usize,
    },
    /// A window is too short or too long.
    #[error("window {window} has {len} tokens, but must have between 2 and {most}")]
    Length {
        /// Which window.
        window: usize,
        /// Its tokens.
        len: usize,
        /// The model's context and one more.
        most: usize,
    },
    /// A token is not in the vocabulary.
    #[error("token {token} of window {window} is not in the vocabulary of {vocab}")]
    Token {
        /// Which window.
        window: usize,
        /// The token.
        token: u32,
        /// Tokens that the model knows.
        vocab: usize,
    },
}

impl<'a> Batch<'a> {
    /// Checks `windows` against a model of shape `config`.
    ///
    /// # Errors
    /// When there is no window, or one does not fit the model.
    pub fn new(config: &ModelConfig, windows: Vec<&'a [u32]>) -> Result<Self, BatchError> {
        if !(1..=MAX_SEQUENCES).contains(&windows.len()) {
            return Err(BatchError::Windows {
                windows: windows.len(),
            });
        }
        for (window, tokens) in windows.iter().enumerate() {
            let (len, most) = (tokens.len(), config.context + 1);
            if !(2..=most).contains(&len) {
                return Err(BatchError::Length { window, len, most });
            }
            if let Some(&token) = tokens.iter().find(|&&token| token as usize >= config.vocab) {
                return Err(BatchError::Token {
                    window,
                    token,
                    vocab: config.vocab,
                });
            }
        }
        let targets: usize = windows.iter().map(|window| window.len() - 1).sum();
        Ok(Self { windows, targets })
    }

    /// Targets of the whole batch.
    pub fn targets(&self) -> usize {
        self.targets
    }

    /// Rows of the longest sequence.
    fn longest(&self) -> usize {
        self.windows
            .iter()
            .map(|window| window.len() - 1)
            .max()
            .unwrap_or(0)
    }
}

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

/// How much memory a training step may use; it decides the micro-batch, never the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryLimit {
    /// Most bytes of activations and gradients at a time, weights not counted.
    pub bytes: usize,
}

/// How a batch is cut to fit into memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepPlan {
    /// Most rows in a micro-batch; micro-batches are whole sequences.
    pub rows: usize,
    /// Whether only the inputs of blocks are kept, and their insides computed again when the
    /// gradient needs them.
    pub checkpoint: bool,
}

/// The memory limit is too low for even one sequence.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "one sequence of {sequence} tokens needs {needed} bytes of memory, but the limit is {limit}: \
     raise the limit"
)]
pub struct MemoryError {
    /// Tokens of the longest sequence.
    pub sequence: usize,
    /// Bytes it needs with every saving on.
    pub needed: usize,
    /// Bytes allowed.
    pub limit: usize,
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

impl StepPlan {
    /// The fastest plan for `batch` within `limit`: everything kept, as many sequences at a time
    /// as fit; when not even one does, blocks are checkpointed.
    ///
    /// # Errors
    /// When one sequence does not fit even so.
    pub fn new(
        config: &ModelConfig,
        layout: &AdapterLayout,
        batch: &Batch<'_>,
        limit: MemoryLimit,
    ) -> Result<Self, MemoryError> {
        let longest = batch.longest();
        for checkpoint in [false, true] {
            let per_row = bytes_per_row(config, layout.config().rank, checkpoint);
            let rows = (limit.bytes / per_row).min(batch.targets);
            if rows >= longest {
                return Ok(Self { rows, checkpoint });
            }
        }
        let needed = longest * bytes_per_row(config, layout.config().rank, true);
        Err(MemoryError {
            sequence: longest,
            needed,
            limit: limit.bytes,
        })
    }
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

/// Bytes of activations and gradients that a row takes in a training step.
fn bytes_per_row(config: &ModelConfig, rank: usize, checkpoint: bool) -> usize {
    // Written without a device: the sizes are the same on all of them.
    let hidden = size_of::<f32>() * config.hidden;
    let tapes = if checkpoint { 1 } else { config.layers };
    let streams = config.layers + 2;
    tapes * crate::block::tape_bytes_per_row(config, rank)
        + crate::block::scratch_bytes_per_row(config)
        + streams * hidden
        + config.hidden
}

/// Cuts `windows` into runs of at most `rows` rows, each of whole windows.
fn micro_batches<'b, 'a>(
    windows: &'b [&'a [u32]],
    rows: usize,
) -> impl Iterator<Item = &'b [&'a [u32]]> {
    let mut rest = windows;
    std::iter::from_fn(move || {
        let mut taken = 0;
        let fits = |window: &&&[u32]| {
            taken += window.len() - 1;
            taken <= rows
        };
        let count = rest.iter().take_while(fits).count();
        let (now, later) = rest.split_at(count);
        rest = later;
        (!now.is_empty()).then_some(now)
    })
}

/// Windows laid end to end.
struct MicroBatch {
    tokens: Vec<u32>,
    targets: Vec<u32>,
    positions: Vec<u32>,
    lengths: Vec<usize>,
}

impl MicroBatch {
    fn new(windows: &[&[u32]]) -> Self {
        let rows: usize = windows.iter().map(|window| window.len() - 1).sum();
        let mut micro = Self {
            tokens: Vec::with_capacity(rows),
            targets: Vec::with_capacity(rows),
            positions: Vec::with_capacity(rows),
            lengths: Vec::with_capacity(windows.len()),
        };
        for window in windows {
            let len = window.len() - 1;
            micro.tokens.extend_from_slice(&window[..len]);
            micro.targets.extend_from_slice(&window[1..]);
            micro.positions.extend(0..len as u32);
            micro.lengths.push(len);
        }
        micro
    }

    fn rows<D: Device>(&self) -> Rows<'_, D> {
        Rows {
            positions: &self.positions,
            sequences: &self.lengths,
            caches: None,
        }
    }
}

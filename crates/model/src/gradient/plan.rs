//! How a batch is cut so that it fits into memory.

use super::Batch;
use crate::adapter::AdapterLayout;
use crate::config::ModelConfig;

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

/// Bytes of activations and gradients that a row takes in a training step.
pub(super) fn bytes_per_row(config: &ModelConfig, rank: usize, checkpoint: bool) -> usize {
    // Written without a device: the sizes are the same on all of them.
    let hidden = size_of::<f32>() * config.hidden;
    let tapes = if checkpoint { 1 } else { config.layers };
    let streams = config.layers + 2;
    tapes * crate::block::tape_bytes_per_row(config, rank)
        + crate::block::scratch_bytes_per_row(config)
        + streams * hidden
        + config.hidden
}

//! One transformer block: the forward pass that inference and training share, and the backward
//! pass through LoRA.

mod backward;
mod forward;

use r3mes_exact::Device;

use crate::cache::Cache;
use crate::config::ModelConfig;
use crate::linear::Linear;

pub(crate) use backward::BlockBackward;
pub(crate) use forward::ForwardBuffers;

/// What the forward pass of a block leaves for its backward pass, for up to `rows` rows.
pub(crate) struct Tape<D: Device> {
    /// Input of q, k and v.
    attention_input: D::Codes,
    query: D::Buffer<f32>,
    key: D::Buffer<f32>,
    value: D::Buffer<f32>,
    attended: D::Buffer<f32>,
    output_input: D::Codes,
    /// The residual stream between attention and feed-forward network.
    middle: D::Buffer<f32>,
    /// Input of gate and up.
    feed_forward_input: D::Codes,
    gate: D::Buffer<f32>,
    up: D::Buffer<f32>,
    gated: D::Buffer<f32>,
    down_input: D::Codes,
    /// `A x` of each linear, rows x rank.
    lora_hidden: Vec<D::Buffer<f32>>,
}

/// Memory of a forward pass that no backward pass reads.
pub(crate) struct ForwardScratch<D: Device> {
    /// Output of a norm, as wide as the widest.
    pub(crate) normed: D::Buffer<f32>,
}

/// Memory of a backward pass.
pub(crate) struct BackwardScratch<D: Device> {
    pub(crate) hidden: D::Buffer<f32>,
    wide: [D::Buffer<f32>; 3],
    attended: D::Buffer<f32>,
    query: D::Buffer<f32>,
    key: D::Buffer<f32>,
    value: D::Buffer<f32>,
}

/// The rows of one pass: which tokens, in sequences that follow each other.
pub(crate) struct Rows<'a, D: Device> {
    /// Position of each row in its sequence.
    pub(crate) positions: &'a [u32],
    /// Rows of each sequence.
    pub(crate) sequences: &'a [usize],
    /// The sequences' caches; without them, every sequence begins with its rows.
    pub(crate) caches: Option<&'a mut [&'a mut Cache<D>]>,
}

impl<D: Device> Tape<D> {
    pub(crate) fn new(device: &D, config: &ModelConfig, rank: usize, rows: usize) -> Self {
        let (query, key) = widths(config);
        Self {
            attention_input: device.codes(rows, config.hidden),
            query: device.zeros(rows * query),
            key: device.zeros(rows * key),
            value: device.zeros(rows * key),
            attended: device.zeros(rows * query),
            output_input: device.codes(rows, query),
            middle: device.zeros(rows * config.hidden),
            feed_forward_input: device.codes(rows, config.hidden),
            gate: device.zeros(rows * config.ffn),
            up: device.zeros(rows * config.ffn),
            gated: device.zeros(rows * config.ffn),
            down_input: device.codes(rows, config.ffn),
            lora_hidden: Linear::ALL
                .iter()
                .map(|_| device.zeros(rows * rank))
                .collect(),
        }
    }
}

impl<D: Device> ForwardScratch<D> {
    pub(crate) fn new(device: &D, config: &ModelConfig, rows: usize) -> Self {
        Self {
            normed: device.zeros(rows * normed_width(config)),
        }
    }
}

impl<D: Device> BackwardScratch<D> {
    pub(crate) fn new(device: &D, config: &ModelConfig, rows: usize) -> Self {
        let (query, key) = widths(config);
        let wide = || device.zeros(rows * config.ffn);
        Self {
            hidden: device.zeros(rows * config.hidden),
            wide: [wide(), wide(), wide()],
            attended: device.zeros(rows * query),
            query: device.zeros(rows * query),
            key: device.zeros(rows * key),
            value: device.zeros(rows * key),
        }
    }
}

/// Bytes of a [`Tape`] for each row.
pub(crate) fn tape_bytes_per_row(config: &ModelConfig, rank: usize) -> usize {
    let (query, key) = widths(config);
    let codes = 2 * config.hidden + query + config.ffn;
    let numbers = 2 * query + 2 * key + config.hidden + 3 * config.ffn + 7 * rank;
    codes + size_of::<f32>() * numbers
}

/// Bytes of a [`ForwardScratch`] and a [`BackwardScratch`] for each row.
pub(crate) fn scratch_bytes_per_row(config: &ModelConfig) -> usize {
    let (query, key) = widths(config);
    let backward = config.hidden + 3 * config.ffn + 2 * query + 2 * key;
    size_of::<f32>() * (normed_width(config) + backward)
}

/// Widths of queries, and of keys and values.
fn widths(config: &ModelConfig) -> (usize, usize) {
    (
        config.heads * config.head_dim,
        config.kv_heads * config.head_dim,
    )
}

/// The widest output of a norm.
fn normed_width(config: &ModelConfig) -> usize {
    let sub = if config.sub_norm {
        config.ffn.max(widths(config).0)
    } else {
        0
    };
    config.hidden.max(sub)
}

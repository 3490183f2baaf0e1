//! Shapes and settings of operations: plain values without memory of a device.

/// A value was NaN or infinite where the arithmetic requires a finite one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a value in row {row} is NaN or infinite: the model or the task's hyper-parameters diverge"
)]
pub struct NotFinite {
    /// First row that held such a value, or 0 where the device does not know.
    pub row: usize,
}

/// Heads of an attention layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionShape {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`. Query head h reads head `h / (heads / kv_heads)`.
    pub kv_heads: usize,
    /// Values in a head.
    pub head_dim: usize,
}

impl AttentionShape {
    /// Query heads that share one key-value head.
    pub fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Values in a row of queries.
    pub fn q_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Values in a row of keys, and of values.
    pub fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// The factor on scores, `1 / sqrt(head_dim)` in f32.
    pub fn scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }
}

/// Which elements of a head are rotated together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopePairs {
    /// i and i + head_dim/2 (Hugging Face Llama).
    HalfSplit,
    /// 2i and 2i + 1 (original Llama).
    Interleaved,
}

/// Rotary position tables.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RopeShape {
    /// Values in a head; even.
    pub head_dim: usize,
    /// Positions 0..positions are tabulated.
    pub positions: usize,
    /// Base of the angles, usually 10,000.
    pub theta: f64,
    /// Which elements are rotated together.
    pub pairs: RopePairs,
}

/// Direction of a rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopeDirection {
    /// Queries and keys.
    Forward,
    /// Their gradients.
    Backward,
}

/// The non-linearity of a gated feed-forward layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// x * sigmoid(x)
    Silu,
    /// max(x, 0)^2
    Relu2,
}

/// One LoRA pair inside a flat adapter: A (rank x inputs), then B (outputs x rank), row-major.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LoraSite {
    /// Element of the flat adapter where A starts.
    pub a: usize,
    /// Element of the flat adapter where B starts.
    pub b: usize,
    /// Rank.
    pub rank: usize,
    /// Inputs of the linear layer.
    pub inputs: usize,
    /// Outputs of the linear layer.
    pub outputs: usize,
    /// alpha / rank, in f32.
    pub scale: f32,
}

impl LoraSite {
    /// Parameters of the pair.
    pub fn len(&self) -> usize {
        self.rank * (self.inputs + self.outputs)
    }

    /// Whether the pair has no parameters.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Hyper-parameters of one AdamW step (rule 16). All are literals of the task: none is derived
/// from another, because `1 - 0.9` is not `0.1` in f32.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// Learning rate.
    pub learning_rate: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Weight of the gradient in the first moment.
    pub c1: f32,
    /// Weight of the squared gradient in the second moment.
    pub c2: f32,
    /// Added to the root of the second moment.
    pub epsilon: f32,
    /// Weight decay.
    pub weight_decay: f32,
    /// Number of this step, from 1.
    pub t: u64,
}

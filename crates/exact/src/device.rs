//! The seam between what is computed and where: one trait, implemented by each kind of device.

use std::fmt::Debug;

use crate::{
    Activation, AdamW, AttentionShape, Bytes, Isa, LoraSite, NotFinite, RopeDirection, RopeShape,
    Write,
};

/// A type of element that device buffers hold: numbers, any bits of which are a value.
pub trait Element: sealed::Number + Copy + Default + Send + Sync + Debug + PartialEq {}

mod sealed {
    pub trait Number: 'static {}
}

macro_rules! elements {
    ($($number:ty),*) => {$(
        impl sealed::Number for $number {}
        impl Element for $number {}
    )*};
}
elements!(f32, i8, u8, i16, i32, u32, i64, u64);

/// A place where the exact operations run: memory, weights in that memory, and operations on both.
///
/// Every operation gives the same bits on every device (docs/spec/exact.md). Matrices are
/// row-major with one row for each token; a buffer may be longer than the `rows` an operation
/// uses, so that a workspace can be allocated once. Operations see whole layers and never single
/// elements, so that a device may run them asynchronously, in order: [`Device::read`] waits for
/// what it reads.
///
/// # Panics
/// Operations panic when a buffer is too short for the shape given: that is a mistake of the
/// caller, never of outside data.
///
/// # Errors
/// Operations that quantize, and the loss, return [`NotFinite`] when a value is NaN or infinite.
/// A device that runs ahead of its caller may return the error from a later operation, at the
/// latest from [`Device::synchronize`].
pub trait Device: Clone + Send + Sync + 'static {
    /// Memory holding elements of one type.
    type Buffer<T: Element>: Send + Sync;
    /// A packed ternary matrix with one scale (outputs x inputs).
    type Ternary: Send + Sync;
    /// A packed int8 matrix with one scale for each row (outputs x inputs).
    type Int8: Send + Sync;
    /// Activations quantized to int8, with one scale for each row.
    type Codes: Send + Sync;
    /// Rotary tables for positions 0..n.
    type Rope: Send + Sync;
    /// Keys and values of one sequence in one layer.
    type KvCache: Send + Sync;

    /// The kernels for what the processor computes beside the device: choosing tokens.
    fn host_isa(&self) -> Isa;

    // Memory.

    /// A buffer of `len` zeros.
    fn zeros<T: Element>(&self, len: usize) -> Self::Buffer<T>;
    /// A buffer holding a copy of `values`.
    fn upload<T: Element>(&self, values: &[T]) -> Self::Buffer<T>;
    /// Copies `values` into `buffer` from element `offset` on.
    fn write<T: Element>(&self, buffer: &mut Self::Buffer<T>, offset: usize, values: &[T]);
    /// Copies elements of `buffer` from `offset` on into `values`, after all earlier operations.
    fn read<T: Element>(&self, buffer: &Self::Buffer<T>, offset: usize, values: &mut [T]);
    /// Number of elements in `buffer`.
    fn len<T: Element>(&self, buffer: &Self::Buffer<T>) -> usize;
    /// Copies the first `len` elements of `from` to the start of `to`.
    fn copy<T: Element>(&self, from: &Self::Buffer<T>, to: &mut Self::Buffer<T>, len: usize);
    /// Sets the first `len` elements of `buffer` to zero.
    fn clear<T: Element>(&self, buffer: &mut Self::Buffer<T>, len: usize);
    /// Copies the rows named by `indices`, each `cols` long, from `x` to consecutive rows of `out`.
    fn gather_rows(
        &self,
        x: &Self::Buffer<f32>,
        indices: &[u32],
        cols: usize,
        out: &mut Self::Buffer<f32>,
    );
    /// Waits for all operations, and reports an error that one of them met.
    fn synchronize(&self) -> Result<(), NotFinite>;

    // Weights.

    /// A ternary matrix of `rows` outputs and `cols` inputs from panels that
    /// [`crate::ternary::Panels::new`] accepts, kept where they lie when the device can.
    fn ternary(&self, panels: Bytes, rows: usize, cols: usize, scale: f32) -> Self::Ternary;
    /// An int8 matrix of `rows` outputs and `cols` inputs from panels that
    /// [`crate::int8::Panels::new`] accepts; `row_scales` has a value for each row.
    fn int8(&self, panels: Bytes, rows: usize, cols: usize, row_scales: &[f32]) -> Self::Int8;
    /// Space for `rows` quantized rows of `cols` values.
    fn codes(&self, rows: usize, cols: usize) -> Self::Codes;

    // Forward.

    /// Embedding: row `tokens[t]` of `table` times its scale.
    fn embed(&self, table: &Self::Int8, tokens: &[u32], out: &mut Self::Buffer<f32>);
    /// RMSNorm of each row (rule 12): `(x * r) * gain` with `r = 1 / sqrt(mean(x^2) + epsilon)`.
    /// The row length is that of `gain`.
    fn rms_norm(
        &self,
        x: &Self::Buffer<f32>,
        gain: &Self::Buffer<f32>,
        epsilon: f32,
        rows: usize,
        out: &mut Self::Buffer<f32>,
    );
    /// Quantizes each row of `x` to int8 (rule 2).
    fn quantize(
        &self,
        x: &Self::Buffer<f32>,
        rows: usize,
        out: &mut Self::Codes,
    ) -> Result<(), NotFinite>;
    /// Copies the codes of row `row`, as many as it has columns, into `values`; returns its scale.
    fn read_codes(&self, x: &Self::Codes, row: usize, values: &mut [i8]) -> f32;
    /// `y = x W^T` for the rows quantized last into `x`, dequantized (rule 3).
    fn ternary_forward(&self, w: &Self::Ternary, x: &Self::Codes, y: &mut Self::Buffer<f32>);
    /// `y = x W^T` for an int8 matrix: a W8A8 linear, or the logits of the head.
    fn int8_forward(&self, w: &Self::Int8, x: &Self::Codes, y: &mut Self::Buffer<f32>);
    /// LoRA (rule 4): `hidden = A xq`, then `y = y + scale * (B hidden)`. `hidden` (rows x rank)
    /// is kept by the caller for the backward pass.
    fn lora_forward(
        &self,
        site: &LoraSite,
        adapter: &Self::Buffer<f32>,
        x: &Self::Codes,
        hidden: &mut Self::Buffer<f32>,
        y: &mut Self::Buffer<f32>,
    );
    /// [`Device::ternary_forward`], then [`Device::lora_forward`]: the same bits, with fewer ways
    /// through memory.
    fn ternary_lora_forward(
        &self,
        w: &Self::Ternary,
        site: &LoraSite,
        adapter: &Self::Buffer<f32>,
        x: &Self::Codes,
        hidden: &mut Self::Buffer<f32>,
        y: &mut Self::Buffer<f32>,
    );
    /// Tables of cosine and sine (rule 9).
    fn rope(&self, shape: &RopeShape) -> Self::Rope;
    /// Rotates each of the `heads` heads of row t by the angle of `positions[t]`, in place;
    /// backwards for gradients.
    fn rotate(
        &self,
        rope: &Self::Rope,
        direction: RopeDirection,
        heads: usize,
        positions: &[u32],
        x: &mut Self::Buffer<f32>,
    );
    /// Causal attention (rule 13) over whole sequences without a cache. `sequences` are their
    /// lengths; their rows follow each other.
    fn attention(
        &self,
        shape: &AttentionShape,
        qkv: [&Self::Buffer<f32>; 3],
        sequences: &[usize],
        out: &mut Self::Buffer<f32>,
    );
    /// An empty cache for one sequence in one layer.
    fn kv_cache(&self, shape: &AttentionShape) -> Self::KvCache;
    /// Number of positions in a cache.
    fn cached(&self, cache: &Self::KvCache) -> usize;
    /// Forgets all positions from `len` on.
    fn truncate(&self, cache: &mut Self::KvCache, len: usize);
    /// Appends keys and values to the caches and attends: a ragged batch, in which sequence i has
    /// the next `segments[i]` rows and `caches[i]`. Bits as in [`Device::attention`].
    fn attention_cached(
        &self,
        shape: &AttentionShape,
        qkv: [&Self::Buffer<f32>; 3],
        segments: &[usize],
        caches: &mut [&mut Self::KvCache],
        out: &mut Self::Buffer<f32>,
    );
    /// `out = activation(gate) * up` for the first `len` elements (rule 12).
    fn gated(
        &self,
        activation: Activation,
        gate: &Self::Buffer<f32>,
        up: &Self::Buffer<f32>,
        len: usize,
        out: &mut Self::Buffer<f32>,
    );
    /// `y = y + x` for the first `len` elements.
    fn add(&self, x: &Self::Buffer<f32>, len: usize, y: &mut Self::Buffer<f32>);
    /// Checks that the first `len` elements are finite. On failure the row is that of rows of
    /// `cols` elements.
    fn check_finite(&self, x: &Self::Buffer<f32>, len: usize, cols: usize)
    -> Result<(), NotFinite>;

    // Backward and training.

    /// Head, softmax and cross-entropy (rules 6 and 14) for the rows quantized last into `x`.
    ///
    /// `targets[t]` is the token that row t should predict; `count` is the number of targets of
    /// the whole step, by whose reciprocal gradients are scaled. Returns the sum over rows of
    /// `rne(loss * 2^24)`. With `dx` (rows x inputs of the head) the gradient is written there.
    fn head_loss(
        &self,
        head: &Self::Int8,
        x: &Self::Codes,
        targets: &[u32],
        count: usize,
        dx: Option<&mut Self::Buffer<f32>>,
    ) -> Result<i64, NotFinite>;
    /// `dx (+)= dy W` through ternary weights, `dy` quantized to +-32,512 by row (rule 5).
    fn ternary_backward(
        &self,
        w: &Self::Ternary,
        dy: &Self::Buffer<f32>,
        rows: usize,
        write: Write,
        dx: &mut Self::Buffer<f32>,
    ) -> Result<(), NotFinite>;
    /// `dx (+)= dy W` through int8 weights: row scales first, then quantized to +-4,194,303
    /// (rule 6).
    fn int8_backward(
        &self,
        w: &Self::Int8,
        dy: &Self::Buffer<f32>,
        rows: usize,
        write: Write,
        dx: &mut Self::Buffer<f32>,
    ) -> Result<(), NotFinite>;
    /// Gradients of LoRA (rules 4 and 15) for the rows quantized last into `x`.
    ///
    /// Adds the sums of the sequences, ascending, to the gradients of A and B, which lie in
    /// `gradient` where the factors lie in `adapter`; adds the LoRA part to `dx`, when given.
    fn lora_backward(&self, site: &LoraSite, pass: LoraBackward<'_, Self>);
    /// [`Device::ternary_backward`] into the pass's `dx`, if it has one, then
    /// [`Device::lora_backward`]: the same bits, with fewer ways through memory. After an error
    /// `dx` and the gradient are worthless.
    fn ternary_lora_backward(
        &self,
        w: &Self::Ternary,
        site: &LoraSite,
        write: Write,
        pass: LoraBackward<'_, Self>,
    ) -> Result<(), NotFinite>;
    /// Gradients of [`Device::attention`]; `out` is what it returned, `dout` the gradient of that.
    fn attention_backward(
        &self,
        shape: &AttentionShape,
        pass: AttentionBackward<'_, Self>,
        sequences: &[usize],
    );
    /// Gradient of [`Device::rms_norm`], added to what `dx` holds (rule 12).
    fn rms_norm_backward(
        &self,
        x: &Self::Buffer<f32>,
        gain: &Self::Buffer<f32>,
        epsilon: f32,
        dy: &Self::Buffer<f32>,
        rows: usize,
        dx: &mut Self::Buffer<f32>,
    );
    /// Gradients of [`Device::gated`].
    fn gated_backward(&self, activation: Activation, pass: GatedBackward<'_, Self>, len: usize);
    /// One AdamW step (rule 16) over the whole of `weights`.
    fn adamw(
        &self,
        step: &AdamW,
        gradient: &Self::Buffer<f32>,
        weights: &mut Self::Buffer<f32>,
        moments: [&mut Self::Buffer<f32>; 2],
    );
}

/// What [`Device::lora_backward`] reads and writes.
pub struct LoraBackward<'a, D: Device> {
    /// The flat adapter that holds A and B.
    pub adapter: &'a D::Buffer<f32>,
    /// The input of the forward pass.
    pub x: &'a D::Codes,
    /// `hidden` of the forward pass, rows x rank.
    pub hidden: &'a D::Buffer<f32>,
    /// Gradient of the output, rows x outputs.
    pub dy: &'a D::Buffer<f32>,
    /// Lengths of the sequences whose rows follow each other.
    pub sequences: &'a [usize],
    /// The flat gradient, added to.
    pub gradient: &'a mut D::Buffer<f32>,
    /// Gradient of the input, rows x inputs, added to.
    pub dx: Option<&'a mut D::Buffer<f32>>,
}

/// What [`Device::attention_backward`] reads and writes.
pub struct AttentionBackward<'a, D: Device> {
    /// Queries (rows x heads x head size), keys and values (rows x key-value heads x head size).
    pub qkv: [&'a D::Buffer<f32>; 3],
    /// Output of the forward pass.
    pub out: &'a D::Buffer<f32>,
    /// Gradient of the output.
    pub dout: &'a D::Buffer<f32>,
    /// Gradients of queries, keys and values, replaced.
    pub dqkv: [&'a mut D::Buffer<f32>; 3],
}

/// What [`Device::gated_backward`] reads and writes.
pub struct GatedBackward<'a, D: Device> {
    /// Input of the activation.
    pub gate: &'a D::Buffer<f32>,
    /// The factor.
    pub up: &'a D::Buffer<f32>,
    /// Gradient of the output.
    pub dout: &'a D::Buffer<f32>,
    /// Gradient of `gate`, replaced.
    pub dgate: &'a mut D::Buffer<f32>,
    /// Gradient of `up`, replaced.
    pub dup: &'a mut D::Buffer<f32>,
}

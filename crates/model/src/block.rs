//! One transformer block: the forward pass that inference and training share, and the backward
//! pass through LoRA.

use r3mes_exact::{
    AttentionBackward, Device, GatedBackward, LoraBackward, NotFinite, RopeDirection, Write,
};

use crate::adapter::LoadedAdapter;
use crate::cache::Cache;
use crate::config::ModelConfig;
use crate::linear::Linear;
use crate::model::{Matrix, Model};

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

/// What the backward pass of a block reads and adds to.
pub(crate) struct BlockBackward<'a, D: Device> {
    pub(crate) adapter: &'a LoadedAdapter<D>,
    pub(crate) positions: &'a [u32],
    pub(crate) sequences: &'a [usize],
    /// Input of the block's forward pass.
    pub(crate) input: &'a D::Buffer<f32>,
    pub(crate) tape: &'a Tape<D>,
    pub(crate) scratch: &'a mut BackwardScratch<D>,
    /// Gradient of the adapter, added to.
    pub(crate) gradient: &'a mut D::Buffer<f32>,
    /// Gradient of the block's output; becomes that of its input.
    pub(crate) running: &'a mut D::Buffer<f32>,
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

impl<D: Device> Model<D> {
    /// Runs block `layer` on the rows of `input`, writing to `output` and the tape.
    pub(crate) fn block_forward(
        &self,
        layer: usize,
        adapter: Option<&LoadedAdapter<D>>,
        rows: &mut Rows<'_, D>,
        buffers: ForwardBuffers<'_, D>,
    ) -> Result<(), NotFinite> {
        let ForwardBuffers {
            input,
            tape,
            scratch,
            output,
        } = buffers;
        let (device, block, config) = (&self.device, &self.blocks[layer], &self.config);
        let (count, epsilon) = (rows.positions.len(), config.norm_epsilon);
        let normed = &mut scratch.normed;

        device.rms_norm(input, &block.attention_gain, epsilon, count, normed);
        device.quantize(normed, count, &mut tape.attention_input)?;
        for (linear, out) in [
            (Linear::Query, &mut tape.query),
            (Linear::Key, &mut tape.key),
            (Linear::Value, &mut tape.value),
        ] {
            let hidden = &mut tape.lora_hidden[linear as usize];
            self.linear_forward(layer, linear, adapter, &tape.attention_input, hidden, out);
        }
        for (heads, x) in [
            (config.heads, &mut tape.query),
            (config.kv_heads, &mut tape.key),
        ] {
            device.rotate(&self.rope, RopeDirection::Forward, heads, rows.positions, x);
        }
        let shape = self.attention_shape();
        let qkv = [&tape.query, &tape.key, &tape.value];
        match &mut rows.caches {
            None => device.attention(&shape, qkv, rows.sequences, &mut tape.attended),
            Some(caches) => {
                let mut layers: Vec<_> = caches
                    .iter_mut()
                    .map(|cache| &mut cache.layers[layer])
                    .collect();
                let out = &mut tape.attended;
                device.attention_cached(&shape, qkv, rows.sequences, &mut layers, out);
            }
        }
        match &block.attention_sub_gain {
            None => device.quantize(&tape.attended, count, &mut tape.output_input)?,
            Some(gain) => {
                device.rms_norm(&tape.attended, gain, epsilon, count, normed);
                device.quantize(normed, count, &mut tape.output_input)?;
            }
        }
        let hidden = &mut tape.lora_hidden[Linear::Output as usize];
        let middle = &mut tape.middle;
        self.linear_forward(
            layer,
            Linear::Output,
            adapter,
            &tape.output_input,
            hidden,
            middle,
        );
        device.add(input, count * config.hidden, middle);

        device.rms_norm(middle, &block.feed_forward_gain, epsilon, count, normed);
        device.quantize(normed, count, &mut tape.feed_forward_input)?;
        for (linear, out) in [(Linear::Gate, &mut tape.gate), (Linear::Up, &mut tape.up)] {
            let hidden = &mut tape.lora_hidden[linear as usize];
            self.linear_forward(
                layer,
                linear,
                adapter,
                &tape.feed_forward_input,
                hidden,
                out,
            );
        }
        let wide = count * config.ffn;
        device.gated(
            self.activation(),
            &tape.gate,
            &tape.up,
            wide,
            &mut tape.gated,
        );
        match &block.feed_forward_sub_gain {
            None => device.quantize(&tape.gated, count, &mut tape.down_input)?,
            Some(gain) => {
                device.rms_norm(&tape.gated, gain, epsilon, count, normed);
                device.quantize(normed, count, &mut tape.down_input)?;
            }
        }
        let hidden = &mut tape.lora_hidden[Linear::Down as usize];
        self.linear_forward(
            layer,
            Linear::Down,
            adapter,
            &tape.down_input,
            hidden,
            output,
        );
        device.add(middle, count * config.hidden, output);
        Ok(())
    }

    /// Adds block `layer`'s part to the adapter's gradient, and turns the gradient of its output
    /// into that of its input; for block 0, which has no trained input, the latter is left undone.
    pub(crate) fn block_backward(
        &self,
        layer: usize,
        pass: BlockBackward<'_, D>,
    ) -> Result<(), NotFinite> {
        let BlockBackward {
            adapter,
            positions,
            sequences,
            input,
            tape,
            scratch,
            gradient,
            running,
        } = pass;
        let (device, block, config) = (&self.device, &self.blocks[layer], &self.config);
        let (count, epsilon) = (positions.len(), config.norm_epsilon);
        let mut linear = |linear, x, dy: &_, write, dx: Option<&mut _>| {
            let hidden = &tape.lora_hidden[linear as usize];
            let at = LinearBackward {
                adapter,
                x,
                hidden,
                dy,
                sequences,
                gradient,
                write,
                dx,
            };
            self.linear_backward(layer, linear, count, at)
        };

        let [wide, gate, up] = &mut scratch.wide;
        linear(
            Linear::Down,
            &tape.down_input,
            running,
            Write::Replace,
            Some(wide),
        )?;
        if let Some(gain) = &block.feed_forward_sub_gain {
            device.clear(gate, count * config.ffn);
            device.rms_norm_backward(&tape.gated, gain, epsilon, wide, count, gate);
            std::mem::swap(wide, gate);
        }
        let pass = GatedBackward {
            gate: &tape.gate,
            up: &tape.up,
            dout: wide,
            dgate: gate,
            dup: up,
        };
        device.gated_backward(self.activation(), pass, count * config.ffn);
        let dx = &mut scratch.hidden;
        linear(
            Linear::Gate,
            &tape.feed_forward_input,
            gate,
            Write::Replace,
            Some(dx),
        )?;
        linear(
            Linear::Up,
            &tape.feed_forward_input,
            up,
            Write::Add,
            Some(dx),
        )?;
        device.rms_norm_backward(
            &tape.middle,
            &block.feed_forward_gain,
            epsilon,
            dx,
            count,
            running,
        );

        let BackwardScratch {
            attended,
            query,
            key,
            value,
            ..
        } = scratch;
        linear(
            Linear::Output,
            &tape.output_input,
            running,
            Write::Replace,
            Some(attended),
        )?;
        if let Some(gain) = &block.attention_sub_gain {
            device.clear(query, count * config.heads * config.head_dim);
            device.rms_norm_backward(&tape.attended, gain, epsilon, attended, count, query);
            std::mem::swap(attended, query);
        }
        let pass = AttentionBackward {
            qkv: [&tape.query, &tape.key, &tape.value],
            out: &tape.attended,
            dout: attended,
            dqkv: [query, key, value],
        };
        device.attention_backward(&self.attention_shape(), pass, sequences);
        device.rotate(
            &self.rope,
            RopeDirection::Backward,
            config.heads,
            positions,
            query,
        );
        device.rotate(
            &self.rope,
            RopeDirection::Backward,
            config.kv_heads,
            positions,
            key,
        );
        let dx = &mut scratch.hidden;
        let x = &tape.attention_input;
        if layer == 0 {
            linear(Linear::Query, x, query, Write::Replace, None)?;
            linear(Linear::Key, x, key, Write::Replace, None)?;
            return linear(Linear::Value, x, value, Write::Replace, None);
        }
        linear(Linear::Query, x, query, Write::Replace, Some(dx))?;
        linear(Linear::Key, x, key, Write::Add, Some(dx))?;
        linear(Linear::Value, x, value, Write::Add, Some(dx))?;
        device.rms_norm_backward(input, &block.attention_gain, epsilon, dx, count, running);
        Ok(())
    }

    fn linear_forward(
        &self,
        layer: usize,
        linear: Linear,
        adapter: Option<&LoadedAdapter<D>>,
        x: &D::Codes,
        hidden: &mut D::Buffer<f32>,
        y: &mut D::Buffer<f32>,
    ) {
        let (device, weights) = (&self.device, &self.blocks[layer].linears[linear as usize]);
        let lora = adapter.and_then(|adapter| Some((adapter.site(layer, linear)?, adapter)));
        let Some((site, adapter)) = lora else {
            return match weights {
                Matrix::Ternary(weights) => device.ternary_forward(weights, x, y),
                Matrix::Int8(weights) => device.int8_forward(weights, x, y),
            };
        };
        match weights {
            Matrix::Ternary(weights) => {
                device.ternary_lora_forward(weights, site, adapter.numbers(), x, hidden, y);
            }
            Matrix::Int8(weights) => {
                device.int8_forward(weights, x, y);
                device.lora_forward(site, adapter.numbers(), x, hidden, y);
            }
        }
    }

    fn linear_backward(
        &self,
        layer: usize,
        linear: Linear,
        rows: usize,
        pass: LinearBackward<'_, D>,
    ) -> Result<(), NotFinite> {
        let LinearBackward {
            adapter,
            x,
            hidden,
            dy,
            sequences,
            gradient,
            write,
            mut dx,
        } = pass;
        let (device, weights) = (&self.device, &self.blocks[layer].linears[linear as usize]);
        let Some(site) = adapter.site(layer, linear) else {
            return match (weights, dx) {
                (_, None) => Ok(()),
                (Matrix::Ternary(weights), Some(dx)) => {
                    device.ternary_backward(weights, dy, rows, write, dx)
                }
                (Matrix::Int8(weights), Some(dx)) => {
                    device.int8_backward(weights, dy, rows, write, dx)
                }
            };
        };
        if let (Matrix::Int8(weights), Some(dx)) = (weights, dx.as_deref_mut()) {
            device.int8_backward(weights, dy, rows, write, dx)?;
        }
        let pass = LoraBackward {
            adapter: adapter.numbers(),
            x,
            hidden,
            dy,
            sequences,
            gradient,
            dx,
        };
        match weights {
            Matrix::Ternary(weights) => device.ternary_lora_backward(weights, site, write, pass),
            Matrix::Int8(_) => {
                device.lora_backward(site, pass);
                Ok(())
            }
        }
    }
}

/// The memory that a block's forward pass works in.
pub(crate) struct ForwardBuffers<'a, D: Device> {
    pub(crate) input: &'a D::Buffer<f32>,
    pub(crate) tape: &'a mut Tape<D>,
    pub(crate) scratch: &'a mut ForwardScratch<D>,
    pub(crate) output: &'a mut D::Buffer<f32>,
}

struct LinearBackward<'a, D: Device> {
    adapter: &'a LoadedAdapter<D>,
    x: &'a D::Codes,
    hidden: &'a D::Buffer<f32>,
    dy: &'a D::Buffer<f32>,
    sequences: &'a [usize],
    gradient: &'a mut D::Buffer<f32>,
    write: Write,
    dx: Option<&'a mut D::Buffer<f32>>,
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

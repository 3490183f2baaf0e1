//! The forward pass of a block, which inference and training share.

use r3mes_exact::{Device, NotFinite, RopeDirection};

use super::{ForwardScratch, Rows, Tape};
use crate::adapter::LoadedAdapter;
use crate::linear::Linear;
use crate::model::{Block, Matrix, Model};

/// The memory that a block's forward pass works in.
pub(crate) struct ForwardBuffers<'a, D: Device> {
    pub(crate) input: &'a D::Buffer<f32>,
    pub(crate) tape: &'a mut Tape<D>,
    pub(crate) scratch: &'a mut ForwardScratch<D>,
    pub(crate) output: &'a mut D::Buffer<f32>,
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
        let pass = Pass {
            model: self,
            block: &self.blocks[layer],
            layer,
            adapter,
            count: rows.positions.len(),
        };
        pass.attention(input, rows, tape, &mut scratch.normed)?;
        pass.feed_forward(tape, &mut scratch.normed, output)
    }
}

/// A block on `count` rows.
struct Pass<'a, D: Device> {
    model: &'a Model<D>,
    block: &'a Block<D>,
    layer: usize,
    adapter: Option<&'a LoadedAdapter<D>>,
    count: usize,
}

impl<D: Device> Pass<'_, D> {
    /// From the block's input to the residual stream after attention, `tape.middle`.
    fn attention(
        &self,
        input: &D::Buffer<f32>,
        rows: &mut Rows<'_, D>,
        tape: &mut Tape<D>,
        normed: &mut D::Buffer<f32>,
    ) -> Result<(), NotFinite> {
        let (device, config) = (&self.model.device, &self.model.config);
        let gain = Some(&self.block.attention_gain);
        self.quantize(gain, input, normed, &mut tape.attention_input)?;
        for (linear, out) in [
            (Linear::Query, &mut tape.query),
            (Linear::Key, &mut tape.key),
            (Linear::Value, &mut tape.value),
        ] {
            let hidden = &mut tape.lora_hidden[linear as usize];
            self.linear(linear, &tape.attention_input, hidden, out);
        }
        for (heads, x) in [
            (config.heads, &mut tape.query),
            (config.kv_heads, &mut tape.key),
        ] {
            let direction = RopeDirection::Forward;
            device.rotate(&self.model.rope, direction, heads, rows.positions, x);
        }
        let shape = self.model.attention_shape();
        let qkv = [&tape.query, &tape.key, &tape.value];
        match &mut rows.caches {
            None => device.attention(&shape, qkv, rows.sequences, &mut tape.attended),
            Some(caches) => {
                let layers = caches.iter_mut();
                let mut layers: Vec<_> =
                    layers.map(|cache| &mut cache.layers[self.layer]).collect();
                let out = &mut tape.attended;
                device.attention_cached(&shape, qkv, rows.sequences, &mut layers, out);
            }
        }
        let gain = self.block.attention_sub_gain.as_ref();
        self.quantize(gain, &tape.attended, normed, &mut tape.output_input)?;
        let hidden = &mut tape.lora_hidden[Linear::Output as usize];
        self.linear(Linear::Output, &tape.output_input, hidden, &mut tape.middle);
        device.add(input, self.count * config.hidden, &mut tape.middle);
        Ok(())
    }

    /// From the residual stream after attention to the block's output.
    fn feed_forward(
        &self,
        tape: &mut Tape<D>,
        normed: &mut D::Buffer<f32>,
        output: &mut D::Buffer<f32>,
    ) -> Result<(), NotFinite> {
        let (device, config) = (&self.model.device, &self.model.config);
        let gain = Some(&self.block.feed_forward_gain);
        self.quantize(gain, &tape.middle, normed, &mut tape.feed_forward_input)?;
        for (linear, out) in [(Linear::Gate, &mut tape.gate), (Linear::Up, &mut tape.up)] {
            let hidden = &mut tape.lora_hidden[linear as usize];
            self.linear(linear, &tape.feed_forward_input, hidden, out);
        }
        device.gated(
            self.model.activation(),
            &tape.gate,
            &tape.up,
            self.count * config.ffn,
            &mut tape.gated,
        );
        let gain = self.block.feed_forward_sub_gain.as_ref();
        self.quantize(gain, &tape.gated, normed, &mut tape.down_input)?;
        let hidden = &mut tape.lora_hidden[Linear::Down as usize];
        self.linear(Linear::Down, &tape.down_input, hidden, output);
        device.add(&tape.middle, self.count * config.hidden, output);
        Ok(())
    }

    /// Quantizes rows, after a norm where there is a gain.
    fn quantize(
        &self,
        gain: Option<&D::Buffer<f32>>,
        x: &D::Buffer<f32>,
        normed: &mut D::Buffer<f32>,
        codes: &mut D::Codes,
    ) -> Result<(), NotFinite> {
        let (device, epsilon) = (&self.model.device, self.model.config.norm_epsilon);
        let Some(gain) = gain else {
            return device.quantize(x, self.count, codes);
        };
        device.rms_norm(x, gain, epsilon, self.count, normed);
        device.quantize(normed, self.count, codes)
    }

    fn linear(
        &self,
        linear: Linear,
        x: &D::Codes,
        hidden: &mut D::Buffer<f32>,
        y: &mut D::Buffer<f32>,
    ) {
        let (device, weights) = (&self.model.device, &self.block.linears[linear as usize]);
        let lora = self.adapter;
        let lora = lora.and_then(|adapter| Some((adapter.site(self.layer, linear)?, adapter)));
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
}

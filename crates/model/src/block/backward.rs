//! The backward pass of a block, through LoRA.

use r3mes_exact::{
    AttentionBackward, Device, GatedBackward, LoraBackward, NotFinite, RopeDirection, Write,
};

use super::{BackwardScratch, Tape};
use crate::adapter::LoadedAdapter;
use crate::linear::Linear;
use crate::model::{Block, Matrix, Model};

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

impl<D: Device> Model<D> {
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
        let mut pass = Pass {
            model: self,
            block: &self.blocks[layer],
            layer,
            adapter,
            positions,
            sequences,
            tape,
            gradient,
        };
        pass.feed_forward(scratch, running)?;
        pass.attention(input, scratch, running)
    }
}

/// A block's backward pass: what all of its parts need.
struct Pass<'a, D: Device> {
    model: &'a Model<D>,
    block: &'a Block<D>,
    layer: usize,
    adapter: &'a LoadedAdapter<D>,
    positions: &'a [u32],
    sequences: &'a [usize],
    tape: &'a Tape<D>,
    gradient: &'a mut D::Buffer<f32>,
}

impl<D: Device> Pass<'_, D> {
    /// From the gradient of the block's output to that of the residual stream after attention.
    fn feed_forward(
        &mut self,
        scratch: &mut BackwardScratch<D>,
        running: &mut D::Buffer<f32>,
    ) -> Result<(), NotFinite> {
        let (model, block, tape) = (self.model, self.block, self.tape);
        let (device, config) = (&model.device, &model.config);
        let (count, epsilon) = (self.positions.len(), config.norm_epsilon);
        let [wide, gate, up] = &mut scratch.wide;
        let x = &tape.down_input;
        self.linear(Linear::Down, x, running, Write::Replace, Some(wide))?;
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
        device.gated_backward(model.activation(), pass, count * config.ffn);
        let (x, dx) = (&tape.feed_forward_input, &mut scratch.hidden);
        self.linear(Linear::Gate, x, gate, Write::Replace, Some(dx))?;
        self.linear(Linear::Up, x, up, Write::Add, Some(dx))?;
        let gain = &block.feed_forward_gain;
        device.rms_norm_backward(&tape.middle, gain, epsilon, dx, count, running);
        Ok(())
    }

    /// From the gradient of the residual stream after attention to that of the block's input.
    fn attention(
        &mut self,
        input: &D::Buffer<f32>,
        scratch: &mut BackwardScratch<D>,
        running: &mut D::Buffer<f32>,
    ) -> Result<(), NotFinite> {
        let (model, block, tape) = (self.model, self.block, self.tape);
        let (device, config) = (&model.device, &model.config);
        let (count, epsilon) = (self.positions.len(), config.norm_epsilon);
        let BackwardScratch {
            hidden: dx,
            attended,
            query,
            key,
            value,
            ..
        } = scratch;
        let x = &tape.output_input;
        self.linear(Linear::Output, x, running, Write::Replace, Some(attended))?;
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
        device.attention_backward(&model.attention_shape(), pass, self.sequences);
        for (heads, dx) in [(config.heads, &mut *query), (config.kv_heads, &mut *key)] {
            let direction = RopeDirection::Backward;
            device.rotate(&model.rope, direction, heads, self.positions, dx);
        }
        let x = &tape.attention_input;
        if self.layer == 0 {
            self.linear(Linear::Query, x, query, Write::Replace, None)?;
            self.linear(Linear::Key, x, key, Write::Replace, None)?;
            return self.linear(Linear::Value, x, value, Write::Replace, None);
        }
        self.linear(Linear::Query, x, query, Write::Replace, Some(dx))?;
        self.linear(Linear::Key, x, key, Write::Add, Some(dx))?;
        self.linear(Linear::Value, x, value, Write::Add, Some(dx))?;
        let gain = &block.attention_gain;
        device.rms_norm_backward(input, gain, epsilon, dx, count, running);
        Ok(())
    }

    /// Adds a linear's part to the adapter's gradient, and writes or adds the gradient of its input.
    fn linear(
        &mut self,
        linear: Linear,
        x: &D::Codes,
        dy: &D::Buffer<f32>,
        write: Write,
        mut dx: Option<&mut D::Buffer<f32>>,
    ) -> Result<(), NotFinite> {
        let (device, rows) = (&self.model.device, self.positions.len());
        let weights = &self.block.linears[linear as usize];
        let Some(site) = self.adapter.site(self.layer, linear) else {
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
            adapter: self.adapter.numbers(),
            x,
            hidden: &self.tape.lora_hidden[linear as usize],
            dy,
            sequences: self.sequences,
            gradient: self.gradient,
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

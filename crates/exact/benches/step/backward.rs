//! The way back from the loss to the gradient of the adapter, and the optimizer.

use std::error::Error;

use r3mes_exact::{
    Activation, AdamW, AttentionBackward, Cpu, CpuBuffer, Device, GatedBackward, LoraBackward,
    RopeDirection, Write,
};

use crate::network::{Layer, Linear, Memory, Step};
use crate::times::{Times, now, part};

impl Step<'_> {
    /// Gradient and update of the adapter, from the gradient of the stream that the head left.
    pub(crate) fn backward(&mut self) -> Result<(), Box<dyn Error>> {
        let Self {
            device,
            rows,
            times,
            ..
        } = self;
        let (rows, f) = (*rows, self.shape.feed_forward);
        let len = device.len(&self.gradient);
        device.clear(&mut self.gradient, len);
        let Memory {
            narrow_gradients: [dx, dnormed, dq, dk, dv, dattended],
            wide_gradients: [dgate, dup, dwide],
            ..
        } = &mut self.memory;
        let sequences = &self.sequences;
        let clock = times.clock;
        for (index, layer) in self.layers.iter_mut().enumerate().rev() {
            let Layer {
                linears,
                residuals,
                qkv: [q, k, v],
                attended,
                gate_up: [gate, up],
            } = layer;
            let mut back = |linear: &Linear, dy: &_, write, dx: &mut _, wanted: bool| {
                linear_backward(
                    device,
                    times,
                    linear,
                    (&self.adapter, &mut self.gradient),
                    sequences,
                    dy,
                    wanted.then_some((write, dx)),
                )
            };
            back(&linears[6], dx, Write::Replace, dwide, true)?;
            let pass = GatedBackward {
                gate,
                up,
                dout: dwide,
                dgate,
                dup,
            };
            let start = now(clock);
            device.gated_backward(Activation::Silu, pass, rows * f);
            let gated = now(clock) - start;
            back(&linears[4], dgate, Write::Replace, dnormed, true)?;
            back(&linears[5], dup, Write::Add, dnormed, true)?;
            *times.parts.entry("gated").or_insert(0.0) += gated;
            part!(
                times,
                "norm",
                device.rms_norm_backward(&residuals[1], &self.gain, 1e-5, dnormed, rows, dx)
            );
            linear_backward(
                device,
                times,
                &linears[3],
                (&self.adapter, &mut self.gradient),
                sequences,
                dx,
                Some((Write::Replace, dattended)),
            )?;
            let pass = AttentionBackward {
                qkv: [q, k, v],
                out: attended,
                dout: dattended,
                dqkv: [dq, dk, dv],
            };
            part!(
                times,
                "attention",
                device.attention_backward(&self.attention, pass, sequences)
            );
            for x in [&mut *dq, &mut *dk] {
                let (heads, back) = (self.attention.heads, RopeDirection::Backward);
                part!(
                    times,
                    "rope",
                    device.rotate(&self.rope, back, heads, &self.positions, x)
                );
            }
            let mut write = Write::Replace;
            for (linear, dy) in linears.iter().zip([&*dq, &*dk, &*dv]) {
                linear_backward(
                    device,
                    times,
                    linear,
                    (&self.adapter, &mut self.gradient),
                    sequences,
                    dy,
                    (index > 0).then_some((write, dnormed)),
                )?;
                write = Write::Add;
            }
            if index > 0 {
                part!(
                    times,
                    "norm",
                    device.rms_norm_backward(&residuals[0], &self.gain, 1e-5, dnormed, rows, dx)
                );
            }
        }
        let step = AdamW {
            learning_rate: 4e-3,
            beta1: 0.9,
            beta2: 0.999,
            c1: 0.1,
            c2: 0.001,
            epsilon: 1e-8,
            weight_decay: 0.0,
            t: 1,
        };
        let [m, v] = &mut self.moments;
        part!(
            times,
            "adamw",
            device.adamw(&step, &self.gradient, &mut self.adapter, [m, v])
        );
        Ok(())
    }
}

/// Adds to the gradient of a linear layer's LoRA, and to `dx` or in its place.
fn linear_backward(
    device: &Cpu,
    times: &mut Times,
    linear: &Linear,
    (adapter, gradient): (&CpuBuffer<f32>, &mut CpuBuffer<f32>),
    sequences: &[usize],
    dy: &CpuBuffer<f32>,
    dx: Option<(Write, &mut CpuBuffer<f32>)>,
) -> Result<(), Box<dyn Error>> {
    // Layers without a gradient of their input do not use it.
    let (write, dx) = match dx {
        Some((write, dx)) => (write, Some(dx)),
        None => (Write::Replace, None),
    };
    let pass = LoraBackward {
        adapter,
        x: &linear.x,
        hidden: &linear.hidden,
        dy,
        sequences,
        gradient,
        dx,
    };
    part!(
        times,
        "linear backward",
        device.ternary_lora_backward(&linear.weights, &linear.site, write, pass)
    )?;
    Ok(())
}

//! The way from tokens to the loss, with what the way back needs kept.

use std::error::Error;

use r3mes_exact::{Activation, Cpu, CpuBuffer, Device, RopeDirection};

use crate::network::{Layer, Linear, Memory, Step};
use crate::times::{Times, now, part};

impl Step<'_> {
    /// The whole step: forward, then [`Step::backward`].
    pub(crate) fn run(&mut self) -> Result<(), Box<dyn Error>> {
        let Self {
            device,
            rows,
            times,
            ..
        } = self;
        let (rows, d, f) = (*rows, self.shape.width, self.shape.feed_forward);
        let Memory {
            x,
            normed,
            out,
            wide,
            narrow_gradients: [dx, dnormed, ..],
            ..
        } = &mut self.memory;
        part!(
            times,
            "elementwise",
            device.embed(&self.head, &self.tokens, x)
        );
        for layer in &mut self.layers {
            let Layer {
                linears,
                residuals,
                qkv,
                attended,
                gate_up,
            } = layer;
            device.copy(x, &mut residuals[0], rows * d);
            part!(
                times,
                "norm",
                device.rms_norm(x, &self.gain, 1e-5, rows, normed)
            );
            for (linear, y) in linears.iter_mut().zip(qkv.iter_mut()) {
                linear_forward(device, times, linear, &self.adapter, normed, rows, y)?;
            }
            for x in &mut qkv[..2] {
                let heads = self.attention.heads;
                let forward = RopeDirection::Forward;
                part!(
                    times,
                    "rope",
                    device.rotate(&self.rope, forward, heads, &self.positions, x)
                );
            }
            let [q, k, v] = &*qkv;
            let shape = &self.attention;
            part!(
                times,
                "attention",
                device.attention(shape, [q, k, v], &self.sequences, attended)
            );
            linear_forward(
                device,
                times,
                &mut linears[3],
                &self.adapter,
                attended,
                rows,
                out,
            )?;
            part!(times, "elementwise", device.add(out, rows * d, x));
            device.copy(x, &mut residuals[1], rows * d);
            part!(
                times,
                "norm",
                device.rms_norm(x, &self.gain, 1e-5, rows, normed)
            );
            for (linear, y) in linears[4..6].iter_mut().zip(gate_up.iter_mut()) {
                linear_forward(device, times, linear, &self.adapter, normed, rows, y)?;
            }
            let [gate, up] = &*gate_up;
            part!(
                times,
                "gated",
                device.gated(Activation::Silu, gate, up, rows * f, wide)
            );
            linear_forward(
                device,
                times,
                &mut linears[6],
                &self.adapter,
                wide,
                rows,
                out,
            )?;
            part!(times, "elementwise", device.add(out, rows * d, x));
        }
        part!(
            times,
            "norm",
            device.rms_norm(x, &self.gain, 1e-5, rows, normed)
        );
        part!(
            times,
            "quantize",
            device.quantize(normed, rows, &mut self.head_x)
        )?;
        // The norm's gradient is added to this.
        device.clear(dx, rows * d);
        let targets = &self.tokens;
        part!(
            times,
            "head and loss",
            device.head_loss(&self.head, &self.head_x, targets, rows, Some(dnormed))
        )?;
        part!(
            times,
            "norm",
            device.rms_norm_backward(x, &self.gain, 1e-5, dnormed, rows, dx)
        );
        self.backward()
    }
}

/// A linear layer with its LoRA.
fn linear_forward(
    device: &Cpu,
    times: &mut Times,
    linear: &mut Linear,
    adapter: &CpuBuffer<f32>,
    x: &CpuBuffer<f32>,
    rows: usize,
    y: &mut CpuBuffer<f32>,
) -> Result<(), Box<dyn Error>> {
    let Linear {
        weights,
        site,
        hidden,
        x: codes,
    } = linear;
    part!(times, "quantize", device.quantize(x, rows, codes))?;
    part!(
        times,
        "linear forward",
        device.ternary_lora_forward(weights, site, adapter, codes, hidden, y)
    );
    Ok(())
}

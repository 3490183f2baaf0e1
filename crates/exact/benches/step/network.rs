//! The network that is trained: shapes, random weights, and the memory that a step works in.

use std::collections::BTreeMap;
use std::error::Error;

use r3mes_exact::{
    AttentionShape, Bytes, Cpu, CpuBuffer, CpuCodes, CpuInt8, CpuRope, CpuTernary, Device,
    LoraSite, Philox, RopePairs, RopeShape, int8, signed_unit, ternary,
};
use rustix::time::ClockId;

use crate::times::Times;

/// Rank of every LoRA.
pub(crate) const RANK: usize = 8;

pub(crate) struct Shape {
    pub(crate) layers: usize,
    pub(crate) width: usize,
    pub(crate) heads: usize,
    pub(crate) feed_forward: usize,
    pub(crate) vocabulary: usize,
    pub(crate) batch: usize,
    pub(crate) positions: usize,
}

pub(crate) const SHAPES: [(&str, Shape); 2] = [
    (
        "demo",
        Shape {
            layers: 6,
            width: 288,
            heads: 6,
            feed_forward: 768,
            vocabulary: 32_000,
            batch: 4,
            positions: 128,
        },
    ),
    (
        "wide",
        Shape {
            layers: 6,
            width: 384,
            heads: 6,
            feed_forward: 1024,
            vocabulary: 4096,
            batch: 4,
            positions: 256,
        },
    ),
];

pub(crate) struct Linear {
    pub(crate) weights: CpuTernary,
    pub(crate) site: LoraSite,
    pub(crate) hidden: CpuBuffer<f32>,
    pub(crate) x: CpuCodes,
}

pub(crate) struct Layer {
    pub(crate) linears: Vec<Linear>,
    /// Residual stream before attention and before the feed-forward part.
    pub(crate) residuals: [CpuBuffer<f32>; 2],
    pub(crate) qkv: [CpuBuffer<f32>; 3],
    pub(crate) attended: CpuBuffer<f32>,
    pub(crate) gate_up: [CpuBuffer<f32>; 2],
}

pub(crate) struct Step<'a> {
    pub(crate) device: Cpu,
    pub(crate) shape: &'a Shape,
    pub(crate) rows: usize,
    pub(crate) attention: AttentionShape,
    pub(crate) head: CpuInt8,
    pub(crate) head_x: CpuCodes,
    pub(crate) rope: CpuRope,
    pub(crate) gain: CpuBuffer<f32>,
    pub(crate) layers: Vec<Layer>,
    pub(crate) adapter: CpuBuffer<f32>,
    pub(crate) gradient: CpuBuffer<f32>,
    pub(crate) moments: [CpuBuffer<f32>; 2],
    pub(crate) tokens: Vec<u32>,
    pub(crate) positions: Vec<u32>,
    pub(crate) sequences: Vec<usize>,
    pub(crate) memory: Memory,
    pub(crate) times: Times,
}

/// Buffers that layers use in turn, made once, as a trainer makes them.
pub(crate) struct Memory {
    pub(crate) x: CpuBuffer<f32>,
    pub(crate) normed: CpuBuffer<f32>,
    pub(crate) out: CpuBuffer<f32>,
    pub(crate) wide: CpuBuffer<f32>,
    /// Gradients of what is as wide as the model: the stream first, then normed rows, queries,
    /// keys, values, and what was attended.
    pub(crate) narrow_gradients: [CpuBuffer<f32>; 6],
    /// Gradients of the gate, of the other factor, and of their product.
    pub(crate) wide_gradients: [CpuBuffer<f32>; 3],
}

impl<'a> Step<'a> {
    pub(crate) fn new(
        device: Cpu,
        shape: &'a Shape,
        clock: ClockId,
    ) -> Result<Self, Box<dyn Error>> {
        let mut words = Philox::from_seed(1).words();
        let mut weights = |n: usize, range: u32| -> Vec<i8> {
            let mut next = || {
                words
                    .next()
                    .map_or(0, |w| (w % range) as i8 - (range / 2) as i8)
            };
            (0..n).map(|_| next()).collect()
        };
        let rows = shape.batch * shape.positions;
        let (d, f) = (shape.width, shape.feed_forward);
        let mut at = 0;
        let mut layers = Vec::new();
        for _ in 0..shape.layers {
            let mut linears = Vec::new();
            for (outputs, inputs) in [(d, d), (d, d), (d, d), (d, d), (f, d), (f, d), (d, f)] {
                let panels = ternary::pack(&weights(outputs * inputs, 3), outputs, inputs)?;
                let site = LoraSite {
                    a: at,
                    b: at + RANK * inputs,
                    rank: RANK,
                    inputs,
                    outputs,
                    scale: 2.0,
                };
                at += site.len();
                linears.push(Linear {
                    weights: device.ternary(Bytes::from_slice(&panels), outputs, inputs, 0.05),
                    site,
                    hidden: device.zeros(rows * RANK),
                    x: device.codes(rows, inputs),
                });
            }
            layers.push(Layer {
                linears,
                residuals: [(); 2].map(|()| device.zeros(rows * d)),
                qkv: [(); 3].map(|()| device.zeros(rows * d)),
                attended: device.zeros(rows * d),
                gate_up: [(); 2].map(|()| device.zeros(rows * f)),
            });
        }
        let panels = int8::pack(&weights(shape.vocabulary * d, 255), shape.vocabulary, d)?;
        let scales: Vec<f32> = (0..shape.vocabulary)
            .map(|i| 1e-3 + i as f32 * 1e-8)
            .collect();
        let mut words = Philox::from_seed(2).words();
        let mut random = |n: usize, scale: f32| -> Vec<f32> {
            words
                .by_ref()
                .take(n)
                .map(|w| signed_unit(w) * scale)
                .collect()
        };
        Ok(Self {
            attention: AttentionShape {
                heads: shape.heads,
                kv_heads: shape.heads,
                head_dim: d / shape.heads,
            },
            head: device.int8(Bytes::from_slice(&panels), shape.vocabulary, d, &scales),
            head_x: device.codes(rows, d),
            rope: device.rope(&RopeShape {
                head_dim: d / shape.heads,
                positions: shape.positions,
                theta: 10_000.0,
                pairs: RopePairs::Interleaved,
            }),
            gain: device.upload(&vec![1.0; d]),
            adapter: device.upload(&random(at, 0.02)),
            gradient: device.zeros(at),
            moments: [(); 2].map(|()| device.zeros(at)),
            tokens: (0..rows as u32)
                .map(|i| i * 7919 % shape.vocabulary as u32)
                .collect(),
            positions: (0..rows).map(|i| (i % shape.positions) as u32).collect(),
            sequences: vec![shape.positions; shape.batch],
            times: Times {
                clock,
                parts: BTreeMap::new(),
            },
            memory: Memory {
                x: device.zeros(rows * d),
                normed: device.zeros(rows * d),
                out: device.zeros(rows * d),
                wide: device.zeros(rows * f),
                narrow_gradients: [(); 6].map(|()| device.zeros(rows * d)),
                wide_gradients: [(); 3].map(|()| device.zeros(rows * f)),
            },
            layers,
            rows,
            shape,
            device,
        })
    }
}

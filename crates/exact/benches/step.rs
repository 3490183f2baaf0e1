//! One LoRA training step on random weights, by part: `cargo bench -p r3mes-exact --bench step`,
//! with `-- wide` one shape only, with `-- avx2` another back end, with `-- 2` on one and on two
//! threads.
//!
//! The least of several steps counts: with one thread of the thread's processor time, so that other
//! processes on the machine show little, otherwise of the time that passes. Shapes: `demo` (6 layers, d 288, ffn 768, vocabulary 32,000, batch
//! 4 x 128) and `wide` (6 layers, d 384, ffn 1024, vocabulary 4096, batch 4 x 256).

use std::collections::BTreeMap;
use std::error::Error;

use r3mes_exact::{
    Activation, AdamW, AttentionBackward, AttentionShape, Bytes, Cpu, CpuBuffer, CpuCodes, CpuInt8,
    CpuOptions, CpuRope, CpuTernary, Device, GatedBackward, Isa, LoraBackward, LoraSite, Philox,
    RopeDirection, RopePairs, RopeShape, Write, int8, signed_unit, ternary,
};
use rustix::time::{ClockId, clock_gettime};

/// Steps of which the fastest counts, part by part.
const STEPS: usize = 5;
const RANK: usize = 8;

struct Shape {
    layers: usize,
    width: usize,
    heads: usize,
    feed_forward: usize,
    vocabulary: usize,
    batch: usize,
    positions: usize,
}

const SHAPES: [(&str, Shape); 2] = [
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

fn main() -> Result<(), Box<dyn Error>> {
    let (mut isa, mut threads, mut name) = (Isa::best(), 1, None);
    for arg in std::env::args().skip(1).filter(|arg| !arg.starts_with('-')) {
        if let Ok(number) = arg.parse() {
            threads = number;
        } else if let Ok(found) = arg.parse() {
            isa = found;
        } else {
            name = Some(arg);
        }
    }
    let mut counts = vec![1, threads];
    counts.dedup();
    for (shape_name, shape) in &SHAPES {
        if name.as_deref().is_none_or(|name| name == *shape_name) {
            report(shape_name, shape, isa, &counts)?;
        }
    }
    Ok(())
}

/// Prints the milliseconds of each part, in one column for each number of threads.
fn report(name: &str, shape: &Shape, isa: Isa, counts: &[usize]) -> Result<(), Box<dyn Error>> {
    let mut columns = Vec::new();
    for threads in counts {
        let device = Cpu::new(CpuOptions {
            isa: Some(isa),
            threads: *threads,
        })?;
        let clock = if *threads == 1 {
            ClockId::ThreadCPUTime
        } else {
            ClockId::Monotonic
        };
        let mut step = Step::new(device, shape, clock)?;
        let mut best = BTreeMap::new();
        for _ in 0..STEPS {
            step.times.parts.clear();
            let start = now(clock);
            step.run()?;
            step.times.add("whole step", start);
            for (part, time) in &step.times.parts {
                let least = best.entry(*part).or_insert(f64::INFINITY);
                *least = least.min(*time);
            }
        }
        columns.push(best);
    }
    println!("{name} on {isa}, ms on {counts:?} threads");
    for part in columns[0].keys() {
        print!("  {part:<18}");
        for column in &columns {
            print!(" {:8.2}", column[part] * 1e3);
        }
        println!();
    }
    Ok(())
}

/// A clock's time in seconds.
fn now(clock: ClockId) -> f64 {
    let time = clock_gettime(clock);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// Seconds by part of the step.
struct Times {
    clock: ClockId,
    parts: BTreeMap<&'static str, f64>,
}

impl Times {
    fn add(&mut self, part: &'static str, start: f64) {
        *self.parts.entry(part).or_insert(0.0) += now(self.clock) - start;
    }
}

struct Linear {
    weights: CpuTernary,
    site: LoraSite,
    hidden: CpuBuffer<f32>,
    x: CpuCodes,
}

struct Layer {
    linears: Vec<Linear>,
    /// Residual stream before attention and before the feed-forward part.
    residuals: [CpuBuffer<f32>; 2],
    qkv: [CpuBuffer<f32>; 3],
    attended: CpuBuffer<f32>,
    gate_up: [CpuBuffer<f32>; 2],
}

struct Step<'a> {
    device: Cpu,
    shape: &'a Shape,
    rows: usize,
    attention: AttentionShape,
    head: CpuInt8,
    head_x: CpuCodes,
    rope: CpuRope,
    gain: CpuBuffer<f32>,
    layers: Vec<Layer>,
    adapter: CpuBuffer<f32>,
    gradient: CpuBuffer<f32>,
    moments: [CpuBuffer<f32>; 2],
    tokens: Vec<u32>,
    positions: Vec<u32>,
    sequences: Vec<usize>,
    memory: Memory,
    times: Times,
}

/// Buffers that layers use in turn, made once, as a trainer makes them.
struct Memory {
    x: CpuBuffer<f32>,
    normed: CpuBuffer<f32>,
    out: CpuBuffer<f32>,
    wide: CpuBuffer<f32>,
    /// Gradients of what is as wide as the model: the stream first, then normed rows, queries,
    /// keys, values, and what was attended.
    narrow_gradients: [CpuBuffer<f32>; 6],
    /// Gradients of the gate, of the other factor, and of their product.
    wide_gradients: [CpuBuffer<f32>; 3],
}

/// Times one expression as part of a step.
macro_rules! part {
    ($times:expr, $name:literal, $work:expr) => {{
        let start = now($times.clock);
        let result = $work;
        $times.add($name, start);
        result
    }};
}

impl<'a> Step<'a> {
    fn new(device: Cpu, shape: &'a Shape, clock: ClockId) -> Result<Self, Box<dyn Error>> {
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

    fn run(&mut self) -> Result<(), Box<dyn Error>> {
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
                forward(device, times, linear, &self.adapter, normed, rows, y)?;
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
            forward(
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
                forward(device, times, linear, &self.adapter, normed, rows, y)?;
            }
            let [gate, up] = &*gate_up;
            part!(
                times,
                "gated",
                device.gated(Activation::Silu, gate, up, rows * f, wide)
            );
            forward(
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

    fn backward(&mut self) -> Result<(), Box<dyn Error>> {
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
                backward(
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
            backward(
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
                backward(
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

fn forward(
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

fn backward(
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

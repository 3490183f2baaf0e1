//! Hashes that every machine must compute alike, one for each family of operations.
//!
//! A node whose hashes differ from the pinned ones computes something else than the network, and
//! does no work.

use std::collections::BTreeMap;
use std::fmt;

mod draw;
mod halves;
mod pinned;

use draw::Draw;
pub use pinned::GOLDEN;

use crate::elementary::{exp, exp_f64, ln, ln_f64, sin_cos_f64};
use crate::environment::undisturbed;
use crate::{
    Activation, AdamW, AttentionBackward, Bytes, CanonicalHasher, Device, GatedBackward, Isa,
    LoraBackward, LoraSite, NotFinite, Philox, RopeDirection, RopePairs, RopeShape, Sampling,
    TOP_P_ALL, Write, int8, lane_sum, signed_unit, ternary, top_k,
};

/// The seed of the pinned hashes.
pub const GOLDEN_SEED: u64 = 0;

/// A family of operations and the hash of what it gave.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Golden {
    /// Name of the family.
    pub name: &'static str,
    /// BLAKE3 over the canonical bytes of all results.
    pub hash: [u8; 32],
}

impl Golden {
    /// The hash in hexadecimal, as [`GOLDEN`] has it.
    pub fn hex(&self) -> String {
        blake3::Hash::from_bytes(self.hash).to_string()
    }
}

impl fmt::Debug for Golden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.hex())
    }
}

/// The hashes to compare with [`GOLDEN`].
///
/// # Errors
/// [`NotFinite`] only from a broken back end: all values are finite.
pub fn golden<D: Device>(device: &D) -> Result<Vec<Golden>, NotFinite> {
    transcript(device, GOLDEN_SEED)
}

/// The hashes for shapes and values drawn from a seed: two machines compare as many as they like.
///
/// # Errors
/// [`NotFinite`] only from a broken back end: all values are finite.
pub fn transcript<D: Device>(device: &D, seed: u64) -> Result<Vec<Golden>, NotFinite> {
    let mut draw = Draw::new(seed);
    Ok(vec![
        undisturbed(|| elementary(&mut draw)),
        random_and_order(device.host_isa(), &mut draw)?,
        rows(device, &mut draw)?,
        ternary_products(device, &mut draw)?,
        int8_products(device, &mut draw)?,
        loss(device, &mut draw)?,
        lora(device, &mut draw)?,
        rotation(device, &mut draw),
        attention(device, &mut draw),
        cached_attention(device, &mut draw),
        attention_gradients(device, &mut draw),
        gates(device, &mut draw),
        optimizer(device, &mut draw),
        halves::quantizers(device, &mut draw)?,
        halves::sums(device, &mut draw)?,
    ])
}

/// Collects results of one family.
struct Record<'a, D> {
    device: &'a D,
    hasher: CanonicalHasher,
}

impl<'a, D: Device> Record<'a, D> {
    fn new(device: &'a D) -> Self {
        Self {
            device,
            hasher: CanonicalHasher::default(),
        }
    }

    fn buffer(&mut self, buffer: &D::Buffer<f32>) {
        let mut values = vec![0.0; self.device.len(buffer)];
        self.device.read(buffer, 0, &mut values);
        self.hasher.f32(&values);
    }

    fn codes(&mut self, codes: &D::Codes, rows: usize, cols: usize) {
        let mut values = vec![0; cols];
        for row in 0..rows {
            let scale = self.device.read_codes(codes, row, &mut values);
            self.hasher.i8(&values);
            self.hasher.f32(&[scale]);
        }
    }

    fn finish(self, name: &'static str) -> Golden {
        Golden {
            name,
            hash: self.hasher.finish(),
        }
    }
}

fn elementary(draw: &mut Draw) -> Golden {
    let mut hasher = CanonicalHasher::default();
    let shift = signed_unit(draw.word());
    for i in -2000..2000 {
        let x = i as f32 * 0.05 + shift;
        let wide = f64::from(x) * 3.0;
        let (sin, cos) = sin_cos_f64(wide * 50.0);
        hasher.f32(&[exp(x), ln(x * x + 1e-9)]);
        hasher.f32(&[exp_f64(wide) as f32, ln_f64(wide * wide + 1e-9) as f32]);
        hasher.f32(&[sin as f32, cos as f32]);
    }
    let values = draw.values(1003);
    hasher.f32(&[lane_sum(&values)]);
    Golden {
        name: "elementary functions",
        hash: hasher.finish(),
    }
}

fn random_and_order(isa: Isa, draw: &mut Draw) -> Result<Golden, NotFinite> {
    let mut hasher = CanonicalHasher::default();
    let random = Philox::derive(&[draw.word() as u8; 32], b"golden", draw.at, "golden");
    hasher.u32(&(0..64).map(|i| random.word(i)).collect::<Vec<_>>());
    let values = draw.values(500);
    hasher.u32(&top_k(&values, 50));
    let seen = BTreeMap::from([(3, 1), (7, 4)]);
    let sampling = Sampling {
        inverse_temperature: Some(1.25),
        top_k: 100,
        top_p: TOP_P_ALL / 10 * 9,
        repetition_penalty: 1.1,
        frequency_penalty: 0.2,
        presence_penalty: 0.1,
    };
    for position in 0..100 {
        let greedy = Sampling::default().choose(isa, &values, &seen, &random, position)?;
        let token = sampling.choose(isa, &values, &seen, &random, position)?;
        hasher.u32(&[greedy, token]);
    }
    Ok(Golden {
        name: "random numbers, top-k and sampler",
        hash: hasher.finish(),
    })
}

fn rows<D: Device>(device: &D, draw: &mut Draw) -> Result<Golden, NotFinite> {
    let (n, cols) = (draw.between(1, 20), draw.between(1, 200));
    let mut record = Record::new(device);
    let x = device.upload(&draw.values(n * cols));
    let gain = device.upload(&draw.values(cols));
    let dy = device.upload(&draw.values(n * cols));
    let mut out = device.zeros(n * cols);
    device.rms_norm(&x, &gain, 1e-5, n, &mut out);
    record.buffer(&out);
    let mut codes = device.codes(n, cols);
    device.quantize(&out, n, &mut codes)?;
    record.codes(&codes, n, cols);
    let mut dx = device.upload(&draw.values(n * cols));
    device.rms_norm_backward(&x, &gain, 1e-5, &dy, n, &mut dx);
    device.add(&x, n * cols, &mut dx);
    record.buffer(&dx);
    device.check_finite(&dx, n * cols, cols)?;
    Ok(record.finish("norms and quantizer"))
}

fn ternary_products<D: Device>(device: &D, draw: &mut Draw) -> Result<Golden, NotFinite> {
    let (n, inputs, outputs) = (
        draw.between(1, 40),
        draw.between(1, 200),
        draw.between(1, 200),
    );
    let mut record = Record::new(device);
    let weights = draw.integers(outputs * inputs, 1);
    let panels = ternary::pack(&weights, outputs, inputs).expect("weights are ternary");
    let w = device.ternary(Bytes::from_slice(&panels), outputs, inputs, 0.037);
    let mut codes = device.codes(n, inputs);
    device.quantize(&device.upload(&draw.values(n * inputs)), n, &mut codes)?;
    let mut y = device.zeros(n * outputs);
    device.ternary_forward(&w, &codes, &mut y);
    record.buffer(&y);
    let dy = device.upload(&draw.values(n * outputs));
    let mut dx = device.upload(&draw.values(n * inputs));
    device.ternary_backward(&w, &dy, n, Write::Add, &mut dx)?;
    record.buffer(&dx);
    Ok(record.finish("ternary products"))
}

fn int8_products<D: Device>(device: &D, draw: &mut Draw) -> Result<Golden, NotFinite> {
    let (n, inputs, outputs) = (
        draw.between(1, 40),
        draw.between(1, 200),
        draw.between(1, 300),
    );
    let mut record = Record::new(device);
    let w = int8_matrix(device, draw, outputs, inputs);
    let mut embedded = device.zeros(n * inputs);
    device.embed(&w, &draw.tokens(n, outputs), &mut embedded);
    record.buffer(&embedded);
    let mut codes = device.codes(n, inputs);
    device.quantize(&device.upload(&draw.values(n * inputs)), n, &mut codes)?;
    let mut y = device.zeros(n * outputs);
    device.int8_forward(&w, &codes, &mut y);
    record.buffer(&y);
    let dy = device.upload(&draw.values(n * outputs));
    let mut dx = device.zeros(n * inputs);
    device.int8_backward(&w, &dy, n, Write::Replace, &mut dx)?;
    record.buffer(&dx);
    Ok(record.finish("int8 products"))
}

fn int8_matrix<D: Device>(device: &D, draw: &mut Draw, outputs: usize, inputs: usize) -> D::Int8 {
    let weights = draw.integers(outputs * inputs, 127);
    let panels = int8::pack(&weights, outputs, inputs).expect("weights are int8 without -128");
    let scale = |i| 1e-3 + i as f32 * 1e-5;
    let scales: Vec<f32> = undisturbed(|| (0..outputs).map(scale).collect());
    device.int8(Bytes::from_slice(&panels), outputs, inputs, &scales)
}

fn loss<D: Device>(device: &D, draw: &mut Draw) -> Result<Golden, NotFinite> {
    let (n, inputs, vocabulary) = (
        draw.between(1, 80),
        draw.between(1, 64),
        draw.between(2, 700),
    );
    let mut record = Record::new(device);
    let head = int8_matrix(device, draw, vocabulary, inputs);
    let mut codes = device.codes(n, inputs);
    device.quantize(&device.upload(&draw.values(n * inputs)), n, &mut codes)?;
    let targets = draw.tokens(n, vocabulary);
    let mut dx = device.zeros(n * inputs);
    let sum = device.head_loss(&head, &codes, &targets, n + 3, Some(&mut dx))?;
    record.buffer(&dx);
    let alone = device.head_loss(&head, &codes, &targets, n, None)?;
    record.hasher.i64(&[sum, alone]);
    Ok(record.finish("head, softmax and cross-entropy"))
}

fn lora<D: Device>(device: &D, draw: &mut Draw) -> Result<Golden, NotFinite> {
    let sequences = draw.sequences(150);
    let n: usize = sequences.iter().sum();
    let (rank, inputs, outputs) = (
        draw.between(1, 20),
        draw.between(1, 100),
        draw.between(1, 100),
    );
    let site = LoraSite {
        a: 5,
        b: 5 + rank * inputs,
        rank,
        inputs,
        outputs,
        scale: 1.75,
    };
    let mut record = Record::new(device);
    let adapter = device.upload(&draw.values(5 + site.len() + 3));
    let mut x = device.codes(n, inputs);
    device.quantize(&device.upload(&draw.values(n * inputs)), n, &mut x)?;
    let mut hidden = device.zeros(n * rank);
    let mut y = device.upload(&draw.values(n * outputs));
    device.lora_forward(&site, &adapter, &x, &mut hidden, &mut y);
    record.buffer(&hidden);
    record.buffer(&y);
    let dy = device.upload(&draw.values(n * outputs));
    let mut gradient = device.upload(&draw.values(5 + site.len() + 3));
    let mut dx = device.upload(&draw.values(n * inputs));
    let pass = LoraBackward {
        adapter: &adapter,
        x: &x,
        hidden: &hidden,
        dy: &dy,
        sequences: &sequences,
        gradient: &mut gradient,
        dx: Some(&mut dx),
    };
    device.lora_backward(&site, pass);
    record.buffer(&gradient);
    record.buffer(&dx);
    Ok(record.finish("LoRA"))
}

fn rotation<D: Device>(device: &D, draw: &mut Draw) -> Golden {
    let mut record = Record::new(device);
    for pairs in [RopePairs::HalfSplit, RopePairs::Interleaved] {
        let (n, heads, head_dim) = (
            draw.between(1, 20),
            draw.between(1, 4),
            2 * draw.between(1, 40),
        );
        let rope = device.rope(&RopeShape {
            head_dim,
            positions: 300,
            theta: 10_000.0,
            pairs,
        });
        let positions = draw.tokens(n, 300);
        let mut x = device.upload(&draw.values(n * heads * head_dim));
        for direction in [
            RopeDirection::Forward,
            RopeDirection::Forward,
            RopeDirection::Backward,
        ] {
            device.rotate(&rope, direction, heads, &positions, &mut x);
            record.buffer(&x);
        }
    }
    record.finish("rotary positions")
}

fn attention<D: Device>(device: &D, draw: &mut Draw) -> Golden {
    let mut record = Record::new(device);
    let shape = draw.attention_shape();
    let sequences = draw.sequences(150);
    let n: usize = sequences.iter().sum();
    let q = device.upload(&draw.values(n * shape.q_width()));
    let [k, v] = [(); 2].map(|()| device.upload(&draw.values(n * shape.kv_width())));
    let mut out = device.zeros(n * shape.q_width());
    device.attention(&shape, [&q, &k, &v], &sequences, &mut out);
    record.buffer(&out);
    record.finish("attention")
}

fn cached_attention<D: Device>(device: &D, draw: &mut Draw) -> Golden {
    let mut record = Record::new(device);
    let shape = draw.attention_shape();
    let mut caches = [device.kv_cache(&shape), device.kv_cache(&shape)];
    for _ in 0..4 {
        let segments = [draw.between(1, 70), draw.between(0, 2)];
        let n: usize = segments.iter().sum();
        let q = device.upload(&draw.values(n * shape.q_width()));
        let [k, v] = [(); 2].map(|()| device.upload(&draw.values(n * shape.kv_width())));
        let mut out = device.zeros(n * shape.q_width());
        let mut both = caches.each_mut();
        device.attention_cached(&shape, [&q, &k, &v], &segments, &mut both, &mut out);
        record.buffer(&out);
        let keep = device.cached(&caches[0]) - draw.between(0, 1);
        device.truncate(&mut caches[0], keep);
    }
    record.finish("attention with a cache")
}

fn attention_gradients<D: Device>(device: &D, draw: &mut Draw) -> Golden {
    let mut record = Record::new(device);
    let shape = draw.attention_shape();
    let sequences = draw.sequences(150);
    let n: usize = sequences.iter().sum();
    let [q, out, dout] = [(); 3].map(|()| device.upload(&draw.values(n * shape.q_width())));
    let [k, v] = [(); 2].map(|()| device.upload(&draw.values(n * shape.kv_width())));
    let mut dq = device.zeros(n * shape.q_width());
    let [mut dk, mut dv] = [(); 2].map(|()| device.upload(&draw.values(n * shape.kv_width())));
    let pass = AttentionBackward {
        qkv: [&q, &k, &v],
        out: &out,
        dout: &dout,
        dqkv: [&mut dq, &mut dk, &mut dv],
    };
    device.attention_backward(&shape, pass, &sequences);
    for gradient in [&dq, &dk, &dv] {
        record.buffer(gradient);
    }
    record.finish("gradients of attention")
}

fn gates<D: Device>(device: &D, draw: &mut Draw) -> Golden {
    let mut record = Record::new(device);
    for activation in [Activation::Silu, Activation::Relu2] {
        let n = draw.between(1, 9000);
        let [gate, up, dout] = [(); 3].map(|()| device.upload(&draw.values(n)));
        let [mut out, mut dgate, mut dup] = [(); 3].map(|()| device.zeros(n));
        device.gated(activation, &gate, &up, n, &mut out);
        let pass = GatedBackward {
            gate: &gate,
            up: &up,
            dout: &dout,
            dgate: &mut dgate,
            dup: &mut dup,
        };
        device.gated_backward(activation, pass, n);
        for result in [&out, &dgate, &dup] {
            record.buffer(result);
        }
    }
    record.finish("gated activations")
}

fn optimizer<D: Device>(device: &D, draw: &mut Draw) -> Golden {
    let mut record = Record::new(device);
    let n = draw.between(1, 9000);
    let mut weights = device.upload(&draw.values(n));
    let [mut first, mut second] = [(); 2].map(|()| device.zeros(n));
    for t in 1..=3 {
        let step = AdamW {
            learning_rate: 4e-3,
            beta1: 0.9,
            beta2: 0.999,
            c1: 0.1,
            c2: 0.001,
            epsilon: 1e-8,
            weight_decay: 0.01,
            t,
        };
        let gradient = device.upload(&draw.values(n));
        device.adamw(&step, &gradient, &mut weights, [&mut first, &mut second]);
    }
    for result in [&weights, &first, &second] {
        record.buffer(result);
    }
    record.finish("AdamW")
}

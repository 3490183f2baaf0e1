//! The same transformer written a second time: plain loops over dual numbers in f64, which carry
//! a directional derivative along. Quantizers round the value and pass the derivative through.

#![expect(
    clippy::disallowed_methods,
    reason = "the reference is ordinary mathematics in f64, compared within a tolerance"
)]

use std::ops::{Add, Div, Mul, Neg, Sub};

use r3mes_model::{AdapterLayout, Linear};

use crate::synthetic::{Shape, Tensors};

/// A value and its derivative along the chosen direction.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Dual {
    pub(crate) value: f64,
    pub(crate) slope: f64,
}

const ZERO: Dual = Dual {
    value: 0.0,
    slope: 0.0,
};

impl Dual {
    fn exp(self) -> Self {
        let value = self.value.exp();
        Self {
            value,
            slope: value * self.slope,
        }
    }

    fn ln(self) -> Self {
        Self {
            value: self.value.ln(),
            slope: self.slope / self.value,
        }
    }

    fn sqrt(self) -> Self {
        let value = self.value.sqrt();
        Self {
            value,
            slope: self.slope / (2.0 * value),
        }
    }
}

impl From<f64> for Dual {
    fn from(value: f64) -> Self {
        Self { value, slope: 0.0 }
    }
}

impl Add for Dual {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self {
            value: self.value + other.value,
            slope: self.slope + other.slope,
        }
    }
}

impl Sub for Dual {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        self + -other
    }
}

impl Neg for Dual {
    type Output = Self;
    fn neg(self) -> Self {
        Self {
            value: -self.value,
            slope: -self.slope,
        }
    }
}

impl Mul for Dual {
    type Output = Self;
    fn mul(self, other: Self) -> Self {
        let slope = self.slope * other.value + self.value * other.slope;
        Self {
            value: self.value * other.value,
            slope,
        }
    }
}

impl Div for Dual {
    type Output = Self;
    fn div(self, other: Self) -> Self {
        let value = self.value / other.value;
        Self {
            value,
            slope: (self.slope - value * other.slope) / other.value,
        }
    }
}

/// The weights of a synthetic checkpoint, widened.
pub(crate) struct Reference {
    shape: Shape,
    embedding: Vec<Vec<f64>>,
    head: Vec<Vec<f64>>,
    final_gain: Vec<f64>,
    layers: Vec<Layer>,
    smooth: bool,
}

struct Layer {
    gains: [Vec<f64>; 2],
    sub_gains: Option<[Vec<f64>; 2]>,
    linears: Vec<Vec<Vec<f64>>>,
}

/// The adapter as dual numbers.
pub(crate) struct DualAdapter<'a> {
    pub(crate) layout: &'a AdapterLayout,
    pub(crate) numbers: Vec<Dual>,
}

impl Reference {
    /// `smooth` leaves the quantizers out, so that finite differences apply.
    pub(crate) fn new(shape: Shape, tensors: &Tensors, smooth: bool) -> Self {
        let codes = |name: &str| -> Vec<f64> {
            let tensor = tensors.list.iter().find(|tensor| tensor.0 == name).unwrap();
            tensor
                .3
                .iter()
                .map(|byte| f64::from(byte.cast_signed()))
                .collect()
        };
        let floats = |name: &str| -> Vec<f64> {
            let tensor = tensors.list.iter().find(|tensor| tensor.0 == name).unwrap();
            let words = tensor.3.as_chunks::<4>().0;
            words
                .iter()
                .map(|word| f64::from(f32::from_le_bytes(*word)))
                .collect()
        };
        let matrix = |base: &str, columns: usize| -> Vec<Vec<f64>> {
            let scales = floats(&format!("{base}.weight_scale"));
            let codes = codes(&format!("{base}.weight"));
            let scale = |row: usize| scales[row.min(scales.len() - 1)];
            let rows = codes.chunks(columns).enumerate();
            rows.map(|(r, row)| row.iter().map(|code| code * scale(r)).collect())
                .collect()
        };
        let layer = |l: usize| {
            let base = format!("model.layers.{l}");
            let gain = |name: &str| floats(&format!("{base}.{name}.weight"));
            let linear = |linear: Linear| {
                let part = if linear <= Linear::Output {
                    "self_attn"
                } else {
                    "mlp"
                };
                let columns = shape.dimensions(linear).1;
                matrix(&format!("{base}.{part}.{}_proj", linear.name()), columns)
            };
            Layer {
                gains: [gain("input_layernorm"), gain("post_attention_layernorm")],
                sub_gains: shape
                    .sub_norm
                    .then(|| [gain("self_attn.attn_sub_norm"), gain("mlp.ffn_sub_norm")]),
                linears: Linear::ALL.into_iter().map(linear).collect(),
            }
        };
        let embedding = matrix("model.embed_tokens", shape.hidden);
        let head = if shape.tied {
            embedding.clone()
        } else {
            matrix("lm_head", shape.hidden)
        };
        let layers = (0..shape.layers).map(layer).collect();
        let final_gain = floats("model.norm.weight");
        Self {
            shape,
            embedding,
            head,
            final_gain,
            layers,
            smooth,
        }
    }

    /// Mean cross-entropy over all targets of `windows`.
    pub(crate) fn loss(&self, windows: &[&[u32]], adapter: &DualAdapter<'_>) -> Dual {
        let mut sum = ZERO;
        let mut targets = 0;
        for window in windows {
            let logits = self.logits(&window[..window.len() - 1], adapter);
            for (row, &target) in logits.iter().zip(&window[1..]) {
                let z = row.iter().fold(ZERO, |z, &logit| z + logit.exp());
                sum = sum + z.ln() - row[target as usize];
                targets += 1;
            }
        }
        sum / Dual::from(f64::from(targets))
    }

    fn logits(&self, tokens: &[u32], adapter: &DualAdapter<'_>) -> Vec<Vec<Dual>> {
        let embed = |&t: &u32| {
            self.embedding[t as usize]
                .iter()
                .map(|&v| v.into())
                .collect()
        };
        let mut stream: Vec<Vec<Dual>> = tokens.iter().map(embed).collect();
        for l in 0..self.layers.len() {
            stream = self.block(l, stream, adapter);
        }
        let finish = |x: &Vec<Dual>| {
            let x = self.quantize(&norm(x, &self.final_gain));
            self.head.iter().map(|row| dot(row, &x)).collect()
        };
        stream.iter().map(finish).collect()
    }

    fn block(&self, l: usize, stream: Vec<Vec<Dual>>, adapter: &DualAdapter<'_>) -> Vec<Vec<Dual>> {
        let (layer, shape) = (&self.layers[l], &self.shape);
        let apply = |linear: Linear, x: &[Dual]| -> Vec<Dual> {
            let mut y: Vec<Dual> = layer.linears[linear as usize]
                .iter()
                .map(|row| dot(row, x))
                .collect();
            let Some(pair) = adapter.layout.pair(l, linear) else {
                return y;
            };
            let (a, b) = (&adapter.numbers[pair.a()], &adapter.numbers[pair.b()]);
            let product = |row: &[Dual], x: &[Dual]| {
                row.iter().zip(x).fold(ZERO, |sum, (&w, &x)| sum + w * x)
            };
            let h: Vec<Dual> = a.chunks(x.len()).map(|row| product(row, x)).collect();
            let scale = Dual::from(f64::from(pair.site.scale));
            for (y, row) in y.iter_mut().zip(b.chunks(h.len())) {
                *y = *y + scale * product(row, &h);
            }
            y
        };
        let inputs: Vec<Vec<Dual>> = stream
            .iter()
            .map(|x| self.quantize(&norm(x, &layer.gains[0])))
            .collect();
        let project = |linear| inputs.iter().map(|x| apply(linear, x)).collect::<Vec<_>>();
        let (mut q, mut k, v) = (
            project(Linear::Query),
            project(Linear::Key),
            project(Linear::Value),
        );
        for (position, (q, k)) in q.iter_mut().zip(&mut k).enumerate() {
            self.rotate(position, q);
            self.rotate(position, k);
        }
        let attended = self.attention(&q, &k, &v);
        let mut out = Vec::new();
        for (x, attended) in stream.iter().zip(attended) {
            let attended = match &layer.sub_gains {
                Some([gain, _]) => norm(&attended, gain),
                None => attended,
            };
            let middle = sum(x, &apply(Linear::Output, &self.quantize(&attended)));
            let input = self.quantize(&norm(&middle, &layer.gains[1]));
            let (gate, up) = (apply(Linear::Gate, &input), apply(Linear::Up, &input));
            let gated: Vec<Dual> = gate
                .into_iter()
                .zip(up)
                .map(|(gate, up)| match shape.relu2 {
                    true if gate.value > 0.0 => gate * gate * up,
                    true => ZERO,
                    false => gate / (Dual::from(1.0) + (-gate).exp()) * up,
                })
                .collect();
            let gated = match &layer.sub_gains {
                Some([_, gain]) => norm(&gated, gain),
                None => gated,
            };
            out.push(sum(&middle, &apply(Linear::Down, &self.quantize(&gated))));
        }
        out
    }

    fn attention(&self, q: &[Vec<Dual>], k: &[Vec<Dual>], v: &[Vec<Dual>]) -> Vec<Vec<Dual>> {
        let (dim, group) = (
            self.shape.head_dim(),
            self.shape.heads / self.shape.kv_heads,
        );
        let scale = Dual::from(1.0 / (dim as f64).sqrt());
        let attend = |(t, query): (usize, &Vec<Dual>)| {
            let mut out = Vec::new();
            for head in 0..self.shape.heads {
                let own = &query[head * dim..][..dim];
                let shared = head / group * dim;
                let score = |key: &Vec<Dual>| {
                    let products = own.iter().zip(&key[shared..][..dim]);
                    (products.fold(ZERO, |sum, (&a, &b)| sum + a * b) * scale).exp()
                };
                let weights: Vec<Dual> = k[..=t].iter().map(score).collect();
                let total = weights.iter().fold(ZERO, |sum, &w| sum + w);
                for d in shared..shared + dim {
                    let mix = weights.iter().zip(v);
                    out.push(mix.fold(ZERO, |sum, (&w, v)| sum + w * v[d]) / total);
                }
            }
            out
        };
        q.iter().enumerate().map(attend).collect()
    }

    fn rotate(&self, position: usize, x: &mut [Dual]) {
        let dim = self.shape.head_dim();
        for head in x.chunks_mut(dim) {
            for i in 0..dim / 2 {
                let angle = position as f64 * 10_000_f64.powf(-2.0 * i as f64 / dim as f64);
                let (a, b) = if self.shape.interleaved {
                    (2 * i, 2 * i + 1)
                } else {
                    (i, i + dim / 2)
                };
                let (cos, sin) = (Dual::from(angle.cos()), Dual::from(angle.sin()));
                let (first, second) = (head[a], head[b]);
                head[a] = first * cos - second * sin;
                head[b] = first * sin + second * cos;
            }
        }
    }

    fn quantize(&self, x: &[Dual]) -> Vec<Dual> {
        if self.smooth {
            return x.to_vec();
        }
        let most = x.iter().fold(1e-5_f64, |most, x| most.max(x.value.abs()));
        let round = |x: &Dual| {
            let value = (x.value * 127.0 / most).round_ties_even() * most / 127.0;
            Dual {
                value,
                slope: x.slope,
            }
        };
        x.iter().map(round).collect()
    }
}

fn norm(x: &[Dual], gain: &[f64]) -> Vec<Dual> {
    let squares = x.iter().fold(ZERO, |sum, &x| sum + x * x);
    let mean = squares / Dual::from(x.len() as f64) + Dual::from(f64::from(1e-5_f32));
    let r = Dual::from(1.0) / mean.sqrt();
    x.iter()
        .zip(gain)
        .map(|(&x, &gain)| x * r * Dual::from(gain))
        .collect()
}

fn dot(row: &[f64], x: &[Dual]) -> Dual {
    row.iter()
        .zip(x)
        .fold(ZERO, |sum, (&w, &x)| sum + Dual::from(w) * x)
}

fn sum(x: &[Dual], y: &[Dual]) -> Vec<Dual> {
    x.iter().zip(y).map(|(&x, &y)| x + y).collect()
}

//! Operations that treat every element alike (rules 9, 12 and 16).

use crate::elementary::exp;
use crate::{Activation, AdamW, RopePairs};

/// `y = y + x`
pub(crate) fn add(x: &[f32], y: &mut [f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += x;
    }
}

/// `y = y * x`
pub(crate) fn multiply(x: &[f32], y: &mut [f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y *= x;
    }
}

/// `y = factor * x`
pub(crate) fn scale(factor: f32, x: &[f32], y: &mut [f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y = factor * x;
    }
}

/// The activation and its derivative at `x`.
pub(crate) fn activation(activation: Activation, x: f32) -> (f32, f32) {
    match activation {
        Activation::Silu => {
            let denominator = 1.0 + exp(-x);
            let p = 1.0 / denominator;
            (x / denominator, p * (1.0 + x * (1.0 - p)))
        }
        Activation::Relu2 => {
            let relu = if x > 0.0 { x } else { 0.0 };
            (relu * relu, 2.0 * relu)
        }
    }
}

/// `out = activation(gate) * up`
pub(crate) fn gated(kind: Activation, gate: &[f32], up: &[f32], out: &mut [f32]) {
    for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
        *out = activation(kind, *gate).0 * up;
    }
}

/// `dgate = (dout * up) * derivative`, `dup = dout * activation`
pub(crate) fn gated_backward(
    kind: Activation,
    inputs: [&[f32]; 3],
    dgate: &mut [f32],
    dup: &mut [f32],
) {
    let [gate, up, dout] = inputs;
    let outputs = dgate.iter_mut().zip(dup);
    for ((((dgate, dup), gate), up), dout) in outputs.zip(gate).zip(up).zip(dout) {
        let (value, derivative) = activation(kind, *gate);
        *dgate = (dout * up) * derivative;
        *dup = dout * value;
    }
}

/// Rotates one head by the angles whose cosines and sines are given; a gradient by their negation.
///
/// For interleaved pairs the tables hold each angle twice, the first sine negated.
pub(crate) fn rotate(pairs: RopePairs, cos: &[f32], sin: &[f32], backward: bool, head: &mut [f32]) {
    let half = head.len() / 2;
    for i in 0..half {
        let (first, second, angle) = match pairs {
            RopePairs::HalfSplit => (i, i + half, i),
            RopePairs::Interleaved => (2 * i, 2 * i + 1, 2 * i + 1),
        };
        let (a, b, c, s) = (head[first], head[second], cos[angle], sin[angle]);
        (head[first], head[second]) = if backward {
            (a * c + b * s, b * c - a * s)
        } else {
            (a * c - b * s, a * s + b * c)
        };
    }
}

/// `1 - beta^t` with the power by repeated multiplication from 1 (rule 16).
pub(crate) fn bias_correction(beta: f32, t: u64) -> f32 {
    let mut power = 1.0f32;
    for _ in 0..t {
        power *= beta;
    }
    1.0 - power
}

/// What AdamW computes once for all elements.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AdamWStep {
    pub(crate) settings: AdamW,
    pub(crate) corrections: [f32; 2],
    pub(crate) decay: f32,
}

impl AdamWStep {
    pub(crate) fn new(settings: AdamW) -> Self {
        Self {
            corrections: [
                bias_correction(settings.beta1, settings.t),
                bias_correction(settings.beta2, settings.t),
            ],
            decay: settings.learning_rate * settings.weight_decay,
            settings,
        }
    }
}

/// One AdamW step (rule 16).
pub(crate) fn adamw(
    step: &AdamWStep,
    gradient: &[f32],
    weights: &mut [f32],
    first: &mut [f32],
    second: &mut [f32],
) {
    let AdamWStep {
        settings: s,
        corrections,
        decay,
    } = step;
    let moments = first.iter_mut().zip(second);
    for (((w, g), m), v) in weights
        .iter_mut()
        .zip(gradient)
        .zip(moments)
        .map(|((w, g), (m, v))| (((w, g), m), v))
    {
        *m = s.beta1 * *m + s.c1 * g;
        *v = s.beta2 * *v + s.c2 * (g * g);
        let mean = *m / corrections[0];
        let square = *v / corrections[1];
        *w = (*w - decay * *w) - (s.learning_rate * mean) / (square.sqrt() + s.epsilon);
    }
}

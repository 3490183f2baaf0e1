//! Softmax and cross-entropy of a row of logits that comes in parts, each from a multiple of
//! sixteen on (rules 6 and 14).

use super::LANES;
use super::quantize::{absmax_bits, finite, split};
use crate::elementary::{exp, ln, round_even, round_even_f64};

/// Fixed point of a reported loss: 2^24 is one nat.
pub const LOSS_ONE: i64 = 1 << 24;

/// What makes gradients of exponentials.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Softmax {
    /// Lane sum of the whole row.
    pub(crate) z: f32,
    /// One over the number of targets in the whole step.
    pub(crate) inverse_count: f32,
}

impl Softmax {
    /// The gradient of a logit that is not the target, times the scale of its row of weights.
    pub(crate) fn gradient(self, exponential: f32, scale: f32) -> f32 {
        ((exponential / self.z) * self.inverse_count) * scale
    }

    /// The gradient of the target, times the scale of its row of weights.
    pub(crate) fn target_gradient(self, exponential: f32, scale: f32) -> f32 {
        ((exponential / self.z - 1.0) * self.inverse_count) * scale
    }
}

/// The largest logit, or `None` when one is not finite; exact in any order, but for the sign of a
/// zero, which no result shows.
pub(crate) fn maximum(logits: &[f32]) -> Option<f32> {
    finite(absmax_bits(logits))?;
    Some(largest(logits))
}

/// The largest of finite values.
pub(crate) fn largest(x: &[f32]) -> f32 {
    x.iter()
        .fold(f32::NEG_INFINITY, |m, &v| if v > m { v } else { m })
}

/// Replaces logits by `exp(logit - max)`, adds these to the lanes, and returns the largest.
pub(crate) fn exponentials(logits: &mut [f32], max: f32, lanes: &mut [f32; LANES]) -> f32 {
    for (i, x) in logits.iter_mut().enumerate() {
        *x = exp(*x - max);
        lanes[i % LANES] += *x;
    }
    largest(logits)
}

/// Bits of the largest magnitude of the gradients.
pub(crate) fn gradient_bits(exponentials: &[f32], softmax: Softmax, row_scales: &[f32]) -> u32 {
    let bits = |(e, scale): (&f32, &f32)| softmax.gradient(*e, *scale).to_bits() & 0x7FFF_FFFF;
    let all = exponentials.iter().zip(row_scales).map(bits);
    all.max().unwrap_or(0)
}

/// Quantizes the gradients, each times `factor`. Codes after them are set to 0.
pub(crate) fn gradient_codes(
    exponentials: &[f32],
    softmax: Softmax,
    row_scales: &[f32],
    factor: f32,
    (low, high): (&mut [i16], &mut [i8]),
) {
    low.fill(0);
    high.fill(0);
    let codes = low.iter_mut().zip(high);
    for ((e, scale), (low, high)) in exponentials.iter().zip(row_scales).zip(codes) {
        (*low, *high) = split(round_even(softmax.gradient(*e, *scale) * factor));
    }
}

/// `rne(((max - x_t) + ln z) * 2^24)`; the product is exact in f64.
pub(crate) fn fixed_point(max: f32, at_target: f32, z: f32) -> i64 {
    let loss = (max - at_target) + ln(z);
    round_even_f64(f64::from(loss) * LOSS_ONE as f64)
}

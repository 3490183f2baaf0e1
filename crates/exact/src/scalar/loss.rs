//! Softmax and cross-entropy of one row of logits (rule 14).

use super::lane_sum;
use super::quantize::{absmax_bits, finite};
use crate::elementary::{exp, ln, round_even_f64};

/// Fixed point of a reported loss: 2^24 is one nat.
pub const LOSS_ONE: i64 = 1 << 24;

/// The loss of a row in units of 2^-24, or `None` when a logit is not finite. Leaves in `logits`
/// the gradient `(p - 1[target]) * inverse_count`, multiplied by `row_scales` (rule 6).
pub(crate) fn cross_entropy(
    logits: &mut [f32],
    target: usize,
    inverse_count: f32,
    row_scales: &[f32],
) -> Option<i64> {
    finite(absmax_bits(logits))?;
    let max = maximum(logits);
    let at_target = logits[target];
    for x in &mut *logits {
        *x = exp(*x - max);
    }
    let z = lane_sum(logits);
    for (v, (x, scale)) in logits.iter_mut().zip(row_scales).enumerate() {
        let p = *x / z;
        let p = if v == target { p - 1.0 } else { p };
        *x = (p * inverse_count) * scale;
    }
    Some(fixed_point(max, at_target, z))
}

/// The loss of a row in units of 2^-24, or `None` when a logit is not finite. Leaves
/// `exp(logit - max)` in `logits`.
pub(crate) fn cross_entropy_only(logits: &mut [f32], target: usize) -> Option<i64> {
    finite(absmax_bits(logits))?;
    let max = maximum(logits);
    let at_target = logits[target];
    for x in &mut *logits {
        *x = exp(*x - max);
    }
    Some(fixed_point(max, at_target, lane_sum(logits)))
}

/// `rne(((max - x_t) + ln z) * 2^24)`; the product is exact in f64.
pub(crate) fn fixed_point(max: f32, at_target: f32, z: f32) -> i64 {
    let loss = (max - at_target) + ln(z);
    round_even_f64(f64::from(loss) * LOSS_ONE as f64)
}

/// The largest of finite values; exact in any order, but for the sign of a zero, which no result
/// shows.
pub(crate) fn maximum(x: &[f32]) -> f32 {
    x.iter()
        .fold(f32::NEG_INFINITY, |m, &v| if v > m { v } else { m })
}

//! Softmax and cross-entropy of one row of logits.

use super::simd::Simd;
use super::{exp_below_one, load_part, magnitude, store_part};
use crate::scalar::loss::fixed_point;
use crate::scalar::quantize::finite;

/// The largest logit, or `None` when one is not finite.
#[inline(always)]
fn checked_maximum<S: Simd>(s: S, x: &[f32]) -> Option<f32> {
    let (chunks, tail) = x.as_chunks();
    let mut most = s.splat(f32::MIN);
    let mut bits = s.splat_int(0);
    for chunk in chunks {
        let v = s.load(chunk);
        most = s.max(most, v);
        bits = s.max_int(bits, magnitude(s, v));
    }
    let v = load_part(s, tail, f32::MIN);
    most = s.max(most, v);
    bits = s.max_int(bits, magnitude(s, v));
    finite(s.max_lane_int(bits) as u32)?;
    Some(s.max_lane(most))
}

/// Replaces logits by `exp(logit - max)` and returns their lane sum.
#[inline(always)]
fn exponentials<S: Simd>(s: S, x: &mut [f32], max: f32) -> f32 {
    let max = s.splat(max);
    let (chunks, tail) = x.as_chunks_mut();
    let mut lanes = s.splat(0.0);
    for chunk in chunks {
        let e = exp_below_one(s, s.sub(s.load(chunk), max));
        s.store(e, chunk);
        lanes = s.add(lanes, e);
    }
    let e = exp_below_one(s, s.sub(load_part(s, tail, 0.0), max));
    store_part(s, e, tail);
    // Absent lanes add +0.0, which changes no sum of numbers that are not negative.
    s.add_lanes(s.add(lanes, load_part(s, tail, 0.0)))
}

#[inline(always)]
pub(crate) fn cross_entropy<S: Simd>(
    s: S,
    logits: &mut [f32],
    target: usize,
    inverse_count: f32,
    row_scales: &[f32],
) -> Option<i64> {
    let max = checked_maximum(s, logits)?;
    let at_target = logits[target];
    let z = exponentials(s, logits, max);
    let of_target = ((logits[target] / z - 1.0) * inverse_count) * row_scales[target];
    let (divisor, factor) = (s.splat(z), s.splat(inverse_count));
    let (chunks, tail) = logits.as_chunks_mut();
    let (scales, scales_tail) = row_scales.as_chunks();
    for (chunk, scale) in chunks.iter_mut().zip(scales) {
        let p = s.mul(s.div(s.load(chunk), divisor), factor);
        s.store(s.mul(p, s.load(scale)), chunk);
    }
    let p = s.mul(s.div(load_part(s, tail, 0.0), divisor), factor);
    store_part(s, s.mul(p, load_part(s, scales_tail, 0.0)), tail);
    logits[target] = of_target;
    Some(fixed_point(max, at_target, z))
}

#[inline(always)]
pub(crate) fn cross_entropy_only<S: Simd>(s: S, logits: &mut [f32], target: usize) -> Option<i64> {
    let max = checked_maximum(s, logits)?;
    let at_target = logits[target];
    let z = exponentials(s, logits, max);
    Some(fixed_point(max, at_target, z))
}

//! Softmax and cross-entropy of parts of a row of logits.

use super::quantize::wide;
use super::simd::{LANES, Simd};
use super::{exp_below_one, load_part, magnitude, store_part};
use crate::scalar::loss::Softmax;
use crate::scalar::quantize::finite;

/// Elements ahead of their use at which parts of a row are fetched: the next page of memory, into
/// which processors do not look by themselves.
const AHEAD: usize = 1024;

#[inline(always)]
pub(crate) fn maximum<S: Simd>(s: S, logits: &[f32]) -> Option<f32> {
    let (chunks, tail) = logits.as_chunks();
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

#[inline(always)]
pub(crate) fn exponentials<S: Simd>(
    s: S,
    logits: &mut [f32],
    max: f32,
    lanes: &mut [f32; LANES],
) -> f32 {
    let max = s.splat(max);
    let (chunks, tail) = logits.as_chunks_mut();
    let mut sums = s.load(lanes);
    let mut most = s.splat(0.0);
    for chunk in chunks {
        s.fetch(chunk.as_ptr().wrapping_add(AHEAD));
        let e = exp_below_one(s, s.sub(s.load(chunk), max));
        s.store(e, chunk);
        sums = s.add(sums, e);
        most = s.max(most, e);
    }
    if !tail.is_empty() {
        let e = exp_below_one(s, s.sub(load_part(s, tail, 0.0), max));
        store_part(s, e, tail);
        // Absent lanes add +0.0, which changes no sum of numbers that are not negative.
        let e = load_part(s, tail, 0.0);
        sums = s.add(sums, e);
        most = s.max(most, e);
    }
    s.store(sums, lanes);
    s.max_lane(most)
}

/// [`Softmax::gradient`] in every lane.
#[inline(always)]
fn gradient<S: Simd>(s: S, e: S::F, softmax: Softmax, scale: S::F) -> S::F {
    let p = s.div(e, s.splat(softmax.z));
    s.mul(s.mul(p, s.splat(softmax.inverse_count)), scale)
}

#[inline(always)]
pub(crate) fn gradient_bits<S: Simd>(
    s: S,
    exponentials: &[f32],
    softmax: Softmax,
    row_scales: &[f32],
) -> u32 {
    let (chunks, tail) = exponentials.as_chunks();
    let (scales, scales_tail) = row_scales.as_chunks();
    let (e, scale) = (load_part(s, tail, 0.0), load_part(s, scales_tail, 0.0));
    let mut bits = magnitude(s, gradient(s, e, softmax, scale));
    for (e, scale) in chunks.iter().zip(scales) {
        let x = gradient(s, s.load(e), softmax, s.load(scale));
        bits = s.max_int(bits, magnitude(s, x));
    }
    s.max_lane_int(bits) as u32
}

#[inline(always)]
pub(crate) fn gradient_codes<S: Simd>(
    s: S,
    exponentials: &[f32],
    softmax: Softmax,
    row_scales: &[f32],
    factor: f32,
    (low, high): (&mut [i16], &mut [i8]),
) {
    let factor = s.splat(factor);
    let (chunks, tail) = exponentials.as_chunks();
    let (scales, scales_tail) = row_scales.as_chunks();
    let (lows, _) = low.as_chunks_mut();
    let (highs, _) = high.as_chunks_mut();
    let whole = chunks.len();
    let codes = lows.iter_mut().zip(&mut *highs);
    for ((e, scale), (low, high)) in chunks.iter().zip(scales).zip(codes) {
        s.fetch(e.as_ptr().wrapping_add(AHEAD));
        let x = gradient(s, s.load(e), softmax, s.load(scale));
        wide(s, s.mul(x, factor), low, high);
    }
    if let (Some(low), Some(high)) = (lows.get_mut(whole), highs.get_mut(whole)) {
        let (e, scale) = (load_part(s, tail, 0.0), load_part(s, scales_tail, 0.0));
        let x = gradient(s, e, softmax, scale);
        wide(s, s.mul(x, factor), low, high);
    }
}

//! Quantizers of one row.

use super::simd::{LANES, Simd};
use super::{load_part, magnitude, round_even, store_part};
use crate::scalar::quantize::{
    INT8_RANGE, SMALLEST_ABSMAX, SMALLEST_GRADIENT, TERNARY_RANGE, finite,
};

#[inline(always)]
pub(crate) fn absmax_bits<S: Simd>(s: S, x: &[f32]) -> u32 {
    let (chunks, tail) = x.as_chunks();
    let mut most = magnitude(s, load_part(s, tail, 0.0));
    // Two chains: one maximum each time step would wait for the one before.
    let mut other = most;
    let (pairs, single) = chunks.as_chunks::<2>();
    for [a, b] in pairs {
        most = s.max_int(most, magnitude(s, s.load(a)));
        other = s.max_int(other, magnitude(s, s.load(b)));
    }
    for chunk in single {
        most = s.max_int(most, magnitude(s, s.load(chunk)));
    }
    s.max_lane_int(s.max_int(most, other)) as u32
}

#[inline(always)]
pub(crate) fn activations<S: Simd>(s: S, x: &[f32], codes: &mut [i8]) -> Option<(f32, i32)> {
    let absmax = finite(absmax_bits(s, x))?;
    let m = if absmax > SMALLEST_ABSMAX {
        absmax
    } else {
        SMALLEST_ABSMAX
    };
    let factor = s.splat(127.0 / m);
    let (xs, tail) = x.as_chunks();
    let (codes, padding) = codes.as_chunks_mut();
    let mut sum = s.splat_int(0);
    let whole = xs.len();
    for (x, codes) in xs.iter().zip(&mut *codes) {
        let q = round_even(s, s.mul(s.load(x), factor));
        sum = s.add_int(sum, q);
        s.store_i8(q, codes);
    }
    if let Some(codes) = codes.get_mut(whole) {
        // Rows are padded to a multiple of sixteen with codes of zero.
        let q = round_even(s, s.mul(load_part(s, tail, 0.0), factor));
        sum = s.add_int(sum, q);
        s.store_i8(q, codes);
    }
    debug_assert!(padding.is_empty(), "rows of codes are padded");
    Some((m / 127.0, s.sum_int(sum)))
}

#[inline(always)]
pub(crate) fn gradient_narrow<S: Simd>(s: S, x: &[f32], low: &mut [i16]) -> Option<f32> {
    let absmax = finite(absmax_bits(s, x))?;
    if absmax < SMALLEST_GRADIENT {
        low.fill(0);
        return Some(0.0);
    }
    let factor = s.splat(TERNARY_RANGE / absmax);
    let (xs, tail) = x.as_chunks();
    let (lows, _) = low.as_chunks_mut();
    let whole = xs.len();
    for (x, low) in xs.iter().zip(&mut *lows) {
        s.store_i16(round_even(s, s.mul(s.load(x), factor)), low);
    }
    if let Some(low) = lows.get_mut(whole) {
        s.store_i16(round_even(s, s.mul(load_part(s, tail, 0.0), factor)), low);
    }
    Some(absmax / TERNARY_RANGE)
}

#[inline(always)]
pub(crate) fn gradient_wide<S: Simd>(
    s: S,
    x: &[f32],
    low: &mut [i16],
    high: &mut [i8],
) -> Option<f32> {
    let absmax = finite(absmax_bits(s, x))?;
    if absmax < SMALLEST_GRADIENT {
        low.fill(0);
        high.fill(0);
        return Some(0.0);
    }
    let factor = s.splat(INT8_RANGE / absmax);
    let (xs, tail) = x.as_chunks();
    let (lows, _) = low.as_chunks_mut();
    let (highs, _) = high.as_chunks_mut();
    let whole = xs.len();
    for ((x, low), high) in xs.iter().zip(&mut *lows).zip(&mut *highs) {
        wide(s, s.mul(s.load(x), factor), low, high);
    }
    if let (Some(low), Some(high)) = (lows.get_mut(whole), highs.get_mut(whole)) {
        wide(s, s.mul(load_part(s, tail, 0.0), factor), low, high);
    }
    Some(absmax / INT8_RANGE)
}

/// Rounds and splits: the lower sixteen bits with their sign, and what remains.
#[inline(always)]
pub(super) fn wide<S: Simd>(s: S, x: S::F, low: &mut [i16; LANES], high: &mut [i8; LANES]) {
    let q = round_even(s, x);
    let l = s.shift_right::<16>(s.shift_left::<16>(q));
    s.store_i16(l, low);
    s.store_i8(s.shift_right::<16>(s.sub_int(q, l)), high);
}

#[inline(always)]
pub(crate) fn dequantize<S: Simd>(s: S, codes: &[i8], scale: f32, out: &mut [f32]) {
    let factor = s.splat(scale);
    let (codes, codes_tail) = codes.as_chunks();
    let (outs, tail) = out.as_chunks_mut();
    for (codes, out) in codes.iter().zip(outs) {
        s.store(s.mul(s.to_float(s.load_i8(codes)), factor), out);
    }
    let mut last = [0; LANES];
    for (last, code) in last.iter_mut().zip(codes_tail) {
        *last = *code;
    }
    store_part(s, s.mul(s.to_float(s.load_i8(&last)), factor), tail);
}

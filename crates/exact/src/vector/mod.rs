//! The f32 kernels in vectors, one source for every instruction set.
//!
//! Each kernel equals its namesake in [`crate::scalar`] bit for bit: sums that the definition
//! orders are vectorized over outputs, and only lane sums and exact maxima across a row. Kernels
//! are inlined into functions compiled for the instruction set (see [`crate::kernels`]), so no
//! closure may hold vector arithmetic: it would not be compiled for it.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
pub(crate) mod simd;

pub(crate) mod attention;
pub(crate) mod elementwise;
pub(crate) mod loss;
pub(crate) mod norm;
pub(crate) mod product;
pub(crate) mod quantize;
#[cfg(test)]
mod tests;

use crate::elementary::{EXP_COEFFICIENTS, EXP_HIGHEST, EXP_LOWEST, LN2_PARTS, LOG2_E, ROUND_F32};
use simd::{LANES, Simd};

/// [`crate::elementary::exp`] in every lane.
#[inline(always)]
fn exp<S: Simd>(s: S, x: S::F) -> S::F {
    let y = exp_below_one(s, x);
    s.select_less(s.splat(EXP_HIGHEST), x, s.splat(f32::MAX), y)
}

/// [`exp`] of numbers that are not positive.
#[inline(always)]
fn exp_below_one<S: Simd>(s: S, x: S::F) -> S::F {
    let round = s.splat(ROUND_F32);
    let shifted = s.add(s.mul(x, s.splat(LOG2_E)), round);
    let n = s.sub(shifted, round);
    let r = s.sub(x, s.mul(n, s.splat(LN2_PARTS[0])));
    let r = s.sub(r, s.mul(n, s.splat(LN2_PARTS[1])));
    let mut p = s.splat(EXP_COEFFICIENTS[0]);
    for c in &EXP_COEFFICIENTS[1..] {
        p = s.add(s.mul(p, r), s.splat(*c));
    }
    let y = s.add(s.add(s.mul(p, s.mul(r, r)), r), s.splat(1.0));
    let power = s.shift_left::<23>(s.add_int(s.bits(shifted), s.splat_int(127)));
    let y = s.mul(y, s.floats(power));
    s.select_less(x, s.splat(EXP_LOWEST), s.splat(0.0), y)
}

/// Bits of the magnitude in every lane.
#[inline(always)]
fn magnitude<S: Simd>(s: S, x: S::F) -> S::I {
    s.and_int(s.bits(x), s.splat_int(0x7FFF_FFFF))
}

/// [`crate::elementary::round_even`] in every lane.
#[inline(always)]
fn round_even<S: Simd>(s: S, x: S::F) -> S::I {
    let shifted = s.bits(s.add(x, s.splat(ROUND_F32)));
    s.sub_int(shifted, s.splat_int(ROUND_F32.to_bits() as i32))
}

/// Fewer than sixteen values, then `fill`.
#[inline(always)]
fn load_part<S: Simd>(s: S, from: &[f32], fill: f32) -> S::F {
    let mut lanes = [fill; LANES];
    for (lane, value) in lanes.iter_mut().zip(from) {
        *lane = *value;
    }
    s.load(&lanes)
}

/// The first lanes, as many as there is space for.
#[inline(always)]
fn store_part<S: Simd>(s: S, x: S::F, to: &mut [f32]) {
    let mut lanes = [0.0; LANES];
    s.store(x, &mut lanes);
    for (value, lane) in to.iter_mut().zip(lanes) {
        *value = lane;
    }
}

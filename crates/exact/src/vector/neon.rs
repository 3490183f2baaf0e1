//! NEON: four 128-bit registers for a vector.

use std::arch::aarch64::*;

use super::simd::{LANES, Simd};
use crate::product::{Finish, Product};
use crate::tile::Tile;
use crate::{Isa, kernels};

/// Proof that the processor has NEON.
#[derive(Clone, Copy)]
pub(crate) struct Neon(());

impl Neon {
    /// # Safety
    /// The processor has NEON.
    #[inline(always)]
    pub(crate) unsafe fn assume() -> Self {
        Self(())
    }
}

/// Applies an intrinsic to each register of the operands.
macro_rules! each {
    ($f:ident($($arg:ident),*)) => {
        // SAFETY: `self` proves that the processor has NEON.
        unsafe { [$f($($arg[0]),*), $f($($arg[1]),*), $f($($arg[2]),*), $f($($arg[3]),*)] }
    };
}

impl Simd for Neon {
    const TILE_ROWS: usize = 4;
    type Halves = Self;
    type F = [float32x4_t; 4];
    type I = [int32x4_t; 4];

    #[inline(always)]
    fn halves(self) -> Self {
        self
    }
    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        // SAFETY: `self` proves that the processor has NEON.
        unsafe { [vdupq_n_f32(x); 4] }
    }
    #[inline(always)]
    fn splat_halves(self, first: f32, second: f32) -> Self::F {
        // SAFETY: `self` proves that the processor has NEON.
        unsafe {
            let (first, second) = (vdupq_n_f32(first), vdupq_n_f32(second));
            [first, first, second, second]
        }
    }
    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> Self::F {
        let p = from.as_ptr();
        // SAFETY: `self` proves NEON, and the four quarters lie in the array.
        unsafe {
            [
                vld1q_f32(p),
                vld1q_f32(p.add(4)),
                vld1q_f32(p.add(8)),
                vld1q_f32(p.add(12)),
            ]
        }
    }
    #[inline(always)]
    fn load_twice(self, from: &[f32; LANES / 2]) -> Self::F {
        let p = from.as_ptr();
        // SAFETY: `self` proves NEON, and both halves lie in the array.
        unsafe {
            let (low, high) = (vld1q_f32(p), vld1q_f32(p.add(4)));
            [low, high, low, high]
        }
    }
    #[inline(always)]
    fn store(self, x: Self::F, to: &mut [f32; LANES]) {
        for (x, to) in x.into_iter().zip(to.chunks_exact_mut(4)) {
            // SAFETY: `self` proves NEON, and the chunk holds a register.
            unsafe { vst1q_f32(to.as_mut_ptr(), x) }
        }
    }
    #[inline(always)]
    fn first(self, x: Self::F) -> f32 {
        // SAFETY: `self` proves that the processor has NEON.
        unsafe { vgetq_lane_f32::<0>(x[0]) }
    }
    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        each!(vaddq_f32(a, b))
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        each!(vsubq_f32(a, b))
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        each!(vmulq_f32(a, b))
    }
    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        each!(vdivq_f32(a, b))
    }
    #[inline(always)]
    fn sqrt(self, a: Self::F) -> Self::F {
        each!(vsqrtq_f32(a))
    }
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        each!(vmaxq_f32(a, b))
    }
    #[inline(always)]
    fn select_less(self, a: Self::F, b: Self::F, yes: Self::F, no: Self::F) -> Self::F {
        let mask = each!(vcltq_f32(a, b));
        each!(vbslq_f32(mask, yes, no))
    }
    #[inline(always)]
    fn exchange<const W: usize>(self, a: Self::F) -> Self::F {
        match W {
            8 => [a[2], a[3], a[0], a[1]],
            4 => [a[1], a[0], a[3], a[2]],
            // SAFETY: `self` proves that the processor has NEON.
            2 => unsafe { a.map(|a| vextq_f32::<2>(a, a)) },
            _ => each!(vrev64q_f32(a)),
        }
    }
    #[inline(always)]
    fn merge<const W: usize>(self, a: Self::F, b: Self::F) -> Self::F {
        match W {
            8 => [a[0], a[1], b[2], b[3]],
            4 => [a[0], b[1], a[2], b[3]],
            // SAFETY: `self` proves that the processor has NEON.
            2 => unsafe {
                std::array::from_fn(|i| vcombine_f32(vget_low_f32(a[i]), vget_high_f32(b[i])))
            },
            // Odd lanes of `b` between the even ones of `a`.
            _ => {
                let even = each!(vtrn1q_f32(a, a));
                let odd = each!(vtrn2q_f32(b, b));
                each!(vtrn1q_f32(even, odd))
            }
        }
    }
    #[inline(always)]
    fn bits(self, a: Self::F) -> Self::I {
        each!(vreinterpretq_s32_f32(a))
    }
    #[inline(always)]
    fn floats(self, a: Self::I) -> Self::F {
        each!(vreinterpretq_f32_s32(a))
    }
    #[inline(always)]
    fn to_float(self, a: Self::I) -> Self::F {
        each!(vcvtq_f32_s32(a))
    }
    #[inline(always)]
    fn splat_int(self, x: i32) -> Self::I {
        // SAFETY: `self` proves that the processor has NEON.
        unsafe { [vdupq_n_s32(x); 4] }
    }
    #[inline(always)]
    fn add_int(self, a: Self::I, b: Self::I) -> Self::I {
        each!(vaddq_s32(a, b))
    }
    #[inline(always)]
    fn sub_int(self, a: Self::I, b: Self::I) -> Self::I {
        each!(vsubq_s32(a, b))
    }
    #[inline(always)]
    fn and_int(self, a: Self::I, b: Self::I) -> Self::I {
        each!(vandq_s32(a, b))
    }
    #[inline(always)]
    fn max_int(self, a: Self::I, b: Self::I) -> Self::I {
        each!(vmaxq_s32(a, b))
    }
    #[inline(always)]
    fn shift_left<const N: i32>(self, a: Self::I) -> Self::I {
        // SAFETY: `self` proves that the processor has NEON.
        unsafe { a.map(|a| vshlq_s32(a, vdupq_n_s32(N))) }
    }
    #[inline(always)]
    fn shift_right<const N: i32>(self, a: Self::I) -> Self::I {
        // SAFETY: `self` proves that the processor has NEON.
        unsafe { a.map(|a| vshlq_s32(a, vdupq_n_s32(-N))) }
    }
    #[inline(always)]
    fn load_i8(self, from: &[i8; LANES]) -> Self::I {
        // SAFETY: `self` proves NEON, and the array holds sixteen bytes.
        unsafe {
            let bytes = vld1q_s8(from.as_ptr());
            let (low, high) = (vmovl_s8(vget_low_s8(bytes)), vmovl_s8(vget_high_s8(bytes)));
            [
                vmovl_s16(vget_low_s16(low)),
                vmovl_s16(vget_high_s16(low)),
                vmovl_s16(vget_low_s16(high)),
                vmovl_s16(vget_high_s16(high)),
            ]
        }
    }
    #[inline(always)]
    fn store_i8(self, x: Self::I, to: &mut [i8; LANES]) {
        // SAFETY: `self` proves NEON, and the array holds sixteen bytes.
        unsafe {
            let [low, high] = words(x);
            vst1q_s8(
                to.as_mut_ptr(),
                vcombine_s8(vmovn_s16(low), vmovn_s16(high)),
            );
        }
    }
    #[inline(always)]
    fn store_i16(self, x: Self::I, to: &mut [i16; LANES]) {
        // SAFETY: `self` proves NEON, and both halves lie in the array.
        unsafe {
            let [low, high] = words(x);
            vst1q_s16(to.as_mut_ptr(), low);
            vst1q_s16(to.as_mut_ptr().add(8), high);
        }
    }
    fn product(self, p: &Product<'_>, finish: Finish, out: Tile<'_, f32>) {
        kernels::product(Isa::Neon, p, finish, out);
    }
}

/// The lower half of each lane, in order.
///
/// # Safety
/// The processor has NEON.
#[inline(always)]
unsafe fn words(x: [int32x4_t; 4]) -> [int16x8_t; 2] {
    // SAFETY: the caller has NEON.
    unsafe {
        [
            vcombine_s16(vmovn_s32(x[0]), vmovn_s32(x[1])),
            vcombine_s16(vmovn_s32(x[2]), vmovn_s32(x[3])),
        ]
    }
}

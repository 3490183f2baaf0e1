//! The vectors of NEON: four registers of four lanes, with `sdot` where the processor has it.

use std::arch::aarch64::*;
use std::arch::asm;

use super::lanes::Lanes;
use crate::panels::LANES;

/// Four 128-bit registers; `DOT` uses `sdot`, else products are widened step by step.
#[derive(Clone, Copy)]
pub(crate) struct Registers<const DOT: bool>([int32x4_t; 4]);

/// Four products of signed bytes, added to each lane.
#[inline(always)]
unsafe fn sdot(mut acc: int32x4_t, weights: int8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: the caller's processor has the instruction, which touches registers only.
    unsafe {
        asm!(
            ".arch_extension dotprod",
            "sdot {0:v}.4s, {1:v}.16b, {2:v}.16b",
            inout(vreg) acc, in(vreg) weights, in(vreg) x,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    acc
}

/// The same without `sdot`: 2 * 128 * 128 = 2^15 is summed in i32, single products in i16.
#[inline(always)]
unsafe fn widened(acc: int32x4_t, weights: int8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: every aarch64 processor that this back end is chosen for has NEON.
    unsafe {
        let low = vpaddlq_s16(vmull_s8(vget_low_s8(weights), vget_low_s8(x)));
        let high = vpaddlq_s16(vmull_s8(vget_high_s8(weights), vget_high_s8(x)));
        vaddq_s32(acc, vpaddq_s32(low, high))
    }
}

// SAFETY of all bodies: the trait asks for a processor with the instructions, and `load` for 64
// bytes of memory.
impl<const DOT: bool> Lanes for Registers<DOT> {
    #[inline(always)]
    unsafe fn splat(value: i32) -> Self {
        // SAFETY: see above.
        Self([unsafe { vdupq_n_s32(value) }; 4])
    }

    #[inline(always)]
    unsafe fn load(bytes: *const u8) -> Self {
        // SAFETY: see above.
        unsafe {
            let quarter = |at| vreinterpretq_s32_u8(vld1q_u8(bytes.add(at)));
            Self([quarter(0), quarter(16), quarter(32), quarter(48)])
        }
    }

    #[inline(always)]
    unsafe fn codes(mut self, g: usize) -> Self {
        for quarter in &mut self.0 {
            // SAFETY: see above.
            unsafe {
                let bytes = vreinterpretq_u8_s32(*quarter);
                let shifted = match g {
                    0 => bytes,
                    1 => vshrq_n_u8::<2>(bytes),
                    2 => vshrq_n_u8::<4>(bytes),
                    _ => vshrq_n_u8::<6>(bytes),
                };
                *quarter = vreinterpretq_s32_u8(vandq_u8(shifted, vdupq_n_u8(3)));
            }
        }
        self
    }

    #[inline(always)]
    unsafe fn dot(mut self, weights: Self, x: i32) -> Self {
        // SAFETY: see above.
        unsafe {
            let x = vreinterpretq_s8_s32(vdupq_n_s32(x));
            for (acc, weights) in self.0.iter_mut().zip(weights.0) {
                let weights = vreinterpretq_s8_s32(weights);
                *acc = if DOT {
                    sdot(*acc, weights, x)
                } else {
                    widened(*acc, weights, x)
                };
            }
        }
        self
    }

    #[inline(always)]
    unsafe fn lanes(self) -> [i32; LANES] {
        let mut lanes = [0; LANES];
        for (lanes, quarter) in lanes.chunks_exact_mut(4).zip(self.0) {
            // SAFETY: see above; a chunk has four lanes.
            unsafe { vst1q_s32(lanes.as_mut_ptr(), quarter) };
        }
        lanes
    }
}

/// Whether the processor has `sdot`.
pub(crate) fn has_dot() -> bool {
    std::arch::is_aarch64_feature_detected!("dotprod")
}

/// Kernels with `sdot`.
pub(crate) mod dot {
    use super::Registers;

    crate::integer::lanes::lanes_kernels!(Registers<true>, "neon,dotprod");
}

/// Kernels for the first processors of the architecture.
pub(crate) mod base {
    use super::Registers;

    crate::integer::lanes::lanes_kernels!(Registers<false>, "neon");
}

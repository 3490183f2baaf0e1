//! The vector of AVX-512 VNNI. Each function is one instruction, or two.
//!
//! `vpdpbusd` multiplies unsigned weights by signed codes and adds four products to a lane without
//! saturation: two-bit codes are unsigned, int8 weights become so by adding 128, which is
//! flipping their sign bit.

use std::arch::x86_64::*;

use super::lanes::Lanes;
use crate::panels::LANES;

/// A 512-bit register.
#[derive(Clone, Copy)]
pub(crate) struct Register(__m512i);

// SAFETY of all bodies: the trait asks for a processor with the instructions, and `load` for 64
// bytes of memory.
impl Lanes for Register {
    const COLUMNS: usize = 8;
    const PAIRS: bool = true;
    const OFFSET: i32 = 128;

    #[inline(always)]
    unsafe fn splat(value: i32) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_set1_epi32(value) })
    }

    #[inline(always)]
    unsafe fn load(bytes: *const u8) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_loadu_si512(bytes.cast()) })
    }

    #[inline(always)]
    unsafe fn codes(self, g: usize) -> Self {
        // SAFETY: see above. What the shift brings in from the next byte is masked.
        unsafe {
            let shifted = match g {
                0 => self.0,
                1 => _mm512_srli_epi16::<2>(self.0),
                2 => _mm512_srli_epi16::<4>(self.0),
                _ => _mm512_srli_epi16::<6>(self.0),
            };
            Self(_mm512_and_si512(shifted, _mm512_set1_epi8(3)))
        }
    }

    #[inline(always)]
    unsafe fn weights(self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_xor_si512(self.0, _mm512_set1_epi8(i8::MIN)) })
    }

    #[inline(always)]
    unsafe fn dot(self, weights: Self, x: i32) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_dpbusd_epi32(self.0, weights.0, _mm512_set1_epi32(x)) })
    }

    #[inline(always)]
    unsafe fn lanes(self) -> [i32; LANES] {
        let mut lanes = [0; LANES];
        // SAFETY: see above; there are sixteen lanes.
        unsafe { _mm512_storeu_si512(lanes.as_mut_ptr().cast(), self.0) };
        lanes
    }
}

super::lanes::lanes_kernels!(Register, "avx512f,avx512bw,avx512vnni");

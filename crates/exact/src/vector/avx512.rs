//! AVX-512: one register for a vector.

use std::arch::x86_64::*;

use super::avx2::Avx2;
use super::simd::{LANES, Simd};
use crate::product::{Finish, Product};
use crate::tile::Tile;
use crate::{Isa, kernels};

/// Proof that the processor has AVX-512 F, BW and DQ.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(());

impl Avx512 {
    /// # Safety
    /// The processor has AVX-512 F, BW and DQ.
    #[inline(always)]
    pub(crate) unsafe fn assume() -> Self {
        Self(())
    }
}

/// Calls an intrinsic.
macro_rules! call {
    ($($call:tt)*) => {
        // SAFETY: `self` proves that the processor has the instructions.
        unsafe { $($call)* }
    };
}

impl Simd for Avx512 {
    const TILE_ROWS: usize = 16;
    type Halves = Avx2;
    type F = __m512;
    type I = __m512i;

    /// AVX2, whose registers are the halves: setting them apart takes no instruction, and there are
    /// more ports for them.
    #[inline(always)]
    fn halves(self) -> Avx2 {
        // SAFETY: AVX-512 F includes AVX2.
        unsafe { Avx2::assume() }
    }
    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        call!(_mm512_set1_ps(x))
    }
    #[inline(always)]
    fn splat_halves(self, first: f32, second: f32) -> Self::F {
        call!(_mm512_mask_blend_ps(
            0xFF00,
            _mm512_set1_ps(first),
            _mm512_set1_ps(second)
        ))
    }
    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> Self::F {
        // SAFETY: `self` proves AVX-512, and the array holds a register.
        unsafe { _mm512_loadu_ps(from.as_ptr()) }
    }
    #[inline(always)]
    fn load_twice(self, from: &[f32; LANES / 2]) -> Self::F {
        // SAFETY: `self` proves AVX-512, and the array holds eight values.
        unsafe { _mm512_broadcast_f32x8(_mm256_loadu_ps(from.as_ptr())) }
    }
    #[inline(always)]
    fn store(self, x: Self::F, to: &mut [f32; LANES]) {
        // SAFETY: `self` proves AVX-512, and the array holds a register.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), x) }
    }
    #[inline(always)]
    fn first(self, x: Self::F) -> f32 {
        call!(_mm512_cvtss_f32(x))
    }
    #[inline(always)]
    fn fetch(self, from: *const f32) {
        // SAFETY: prefetching never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
    }
    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        call!(_mm512_add_ps(a, b))
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        call!(_mm512_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        call!(_mm512_mul_ps(a, b))
    }
    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        call!(_mm512_div_ps(a, b))
    }
    #[inline(always)]
    fn sqrt(self, a: Self::F) -> Self::F {
        call!(_mm512_sqrt_ps(a))
    }
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        call!(_mm512_max_ps(a, b))
    }
    #[inline(always)]
    fn select_less(self, a: Self::F, b: Self::F, yes: Self::F, no: Self::F) -> Self::F {
        call!(_mm512_mask_blend_ps(
            _mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b),
            no,
            yes
        ))
    }
    #[inline(always)]
    fn exchange<const W: usize>(self, a: Self::F) -> Self::F {
        match W {
            8 => call!(_mm512_shuffle_f32x4::<0b01_00_11_10>(a, a)),
            4 => call!(_mm512_shuffle_f32x4::<0b10_11_00_01>(a, a)),
            2 => call!(_mm512_permute_ps::<0b01_00_11_10>(a)),
            _ => call!(_mm512_permute_ps::<0b10_11_00_01>(a)),
        }
    }
    #[inline(always)]
    fn merge<const W: usize>(self, a: Self::F, b: Self::F) -> Self::F {
        let of_b = match W {
            8 => 0xFF00,
            4 => 0xF0F0,
            2 => 0xCCCC,
            _ => 0xAAAA,
        };
        call!(_mm512_mask_blend_ps(of_b, a, b))
    }
    #[inline(always)]
    fn bits(self, a: Self::F) -> Self::I {
        call!(_mm512_castps_si512(a))
    }
    #[inline(always)]
    fn floats(self, a: Self::I) -> Self::F {
        call!(_mm512_castsi512_ps(a))
    }
    #[inline(always)]
    fn to_float(self, a: Self::I) -> Self::F {
        call!(_mm512_cvtepi32_ps(a))
    }
    #[inline(always)]
    fn splat_int(self, x: i32) -> Self::I {
        call!(_mm512_set1_epi32(x))
    }
    #[inline(always)]
    fn add_int(self, a: Self::I, b: Self::I) -> Self::I {
        call!(_mm512_add_epi32(a, b))
    }
    #[inline(always)]
    fn sub_int(self, a: Self::I, b: Self::I) -> Self::I {
        call!(_mm512_sub_epi32(a, b))
    }
    #[inline(always)]
    fn and_int(self, a: Self::I, b: Self::I) -> Self::I {
        call!(_mm512_and_si512(a, b))
    }
    #[inline(always)]
    fn max_int(self, a: Self::I, b: Self::I) -> Self::I {
        call!(_mm512_max_epi32(a, b))
    }
    #[inline(always)]
    fn shift_left<const N: i32>(self, a: Self::I) -> Self::I {
        call!(_mm512_sllv_epi32(a, _mm512_set1_epi32(N)))
    }
    #[inline(always)]
    fn shift_right<const N: i32>(self, a: Self::I) -> Self::I {
        call!(_mm512_srav_epi32(a, _mm512_set1_epi32(N)))
    }
    #[inline(always)]
    fn load_i8(self, from: &[i8; LANES]) -> Self::I {
        // SAFETY: `self` proves AVX-512, and the array holds sixteen bytes.
        unsafe { _mm512_cvtepi8_epi32(_mm_loadu_si128(from.as_ptr().cast())) }
    }
    #[inline(always)]
    fn store_i8(self, x: Self::I, to: &mut [i8; LANES]) {
        // SAFETY: `self` proves AVX-512, and the array holds sixteen bytes.
        unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(x)) }
    }
    #[inline(always)]
    fn store_i16(self, x: Self::I, to: &mut [i16; LANES]) {
        // SAFETY: `self` proves AVX-512, and the array holds sixteen words.
        unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), _mm512_cvtepi32_epi16(x)) }
    }
    fn product(self, p: &Product<'_>, finish: Finish, out: Tile<'_, f32>) {
        kernels::product(Isa::Avx512, p, finish, out);
    }
}

//! AVX2: two 256-bit registers for a vector.

use std::arch::x86_64::*;

use super::simd::{LANES, Simd};
use crate::product::{Finish, Product};
use crate::tile::Tile;
use crate::{Isa, kernels};

/// Proof that the processor has AVX2.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

impl Avx2 {
    /// # Safety
    /// The processor has AVX2.
    #[inline(always)]
    pub(crate) unsafe fn assume() -> Self {
        Self(())
    }
}

/// Applies an intrinsic to each register of the operands.
macro_rules! each {
    ($f:ident($($arg:ident),*)) => {
        // SAFETY: `self` proves that the processor has AVX2.
        unsafe { [$f($($arg[0]),*), $f($($arg[1]),*)] }
    };
}

impl Simd for Avx2 {
    const TILE_ROWS: usize = 6;
    type Halves = Self;
    type F = [__m256; 2];
    type I = [__m256i; 2];

    #[inline(always)]
    fn halves(self) -> Self {
        self
    }
    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        // SAFETY: `self` proves that the processor has AVX2.
        unsafe { [_mm256_set1_ps(x); 2] }
    }
    #[inline(always)]
    fn splat_halves(self, first: f32, second: f32) -> Self::F {
        // SAFETY: `self` proves that the processor has AVX2.
        unsafe { [_mm256_set1_ps(first), _mm256_set1_ps(second)] }
    }
    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> Self::F {
        let p = from.as_ptr();
        // SAFETY: `self` proves AVX2, and both halves lie in the array.
        unsafe { [_mm256_loadu_ps(p), _mm256_loadu_ps(p.add(8))] }
    }
    #[inline(always)]
    fn load_twice(self, from: &[f32; LANES / 2]) -> Self::F {
        // SAFETY: `self` proves AVX2, and the array holds a register.
        unsafe { [_mm256_loadu_ps(from.as_ptr()); 2] }
    }
    #[inline(always)]
    fn store(self, x: Self::F, to: &mut [f32; LANES]) {
        let p = to.as_mut_ptr();
        // SAFETY: `self` proves AVX2, and both halves lie in the array.
        unsafe {
            _mm256_storeu_ps(p, x[0]);
            _mm256_storeu_ps(p.add(8), x[1]);
        }
    }
    #[inline(always)]
    fn first(self, x: Self::F) -> f32 {
        // SAFETY: `self` proves that the processor has AVX2.
        unsafe { _mm256_cvtss_f32(x[0]) }
    }
    #[inline(always)]
    fn fetch(self, from: *const f32) {
        // SAFETY: prefetching never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
    }
    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        each!(_mm256_add_ps(a, b))
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        each!(_mm256_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        each!(_mm256_mul_ps(a, b))
    }
    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        each!(_mm256_div_ps(a, b))
    }
    #[inline(always)]
    fn sqrt(self, a: Self::F) -> Self::F {
        each!(_mm256_sqrt_ps(a))
    }
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        each!(_mm256_max_ps(a, b))
    }
    #[inline(always)]
    fn select_less(self, a: Self::F, b: Self::F, yes: Self::F, no: Self::F) -> Self::F {
        // SAFETY: `self` proves that the processor has AVX2.
        unsafe {
            [
                _mm256_blendv_ps(no[0], yes[0], _mm256_cmp_ps::<_CMP_LT_OQ>(a[0], b[0])),
                _mm256_blendv_ps(no[1], yes[1], _mm256_cmp_ps::<_CMP_LT_OQ>(a[1], b[1])),
            ]
        }
    }
    #[inline(always)]
    fn exchange<const W: usize>(self, a: Self::F) -> Self::F {
        // SAFETY: `self` proves that the processor has AVX2.
        unsafe {
            match W {
                8 => [a[1], a[0]],
                4 => [
                    _mm256_permute2f128_ps::<0x01>(a[0], a[0]),
                    _mm256_permute2f128_ps::<0x01>(a[1], a[1]),
                ],
                2 => [
                    _mm256_permute_ps::<0b01_00_11_10>(a[0]),
                    _mm256_permute_ps::<0b01_00_11_10>(a[1]),
                ],
                _ => [
                    _mm256_permute_ps::<0b10_11_00_01>(a[0]),
                    _mm256_permute_ps::<0b10_11_00_01>(a[1]),
                ],
            }
        }
    }
    #[inline(always)]
    fn merge<const W: usize>(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: `self` proves that the processor has AVX2.
        unsafe {
            match W {
                8 => [a[0], b[1]],
                4 => [
                    _mm256_blend_ps::<0xF0>(a[0], b[0]),
                    _mm256_blend_ps::<0xF0>(a[1], b[1]),
                ],
                2 => [
                    _mm256_blend_ps::<0xCC>(a[0], b[0]),
                    _mm256_blend_ps::<0xCC>(a[1], b[1]),
                ],
                _ => [
                    _mm256_blend_ps::<0xAA>(a[0], b[0]),
                    _mm256_blend_ps::<0xAA>(a[1], b[1]),
                ],
            }
        }
    }
    #[inline(always)]
    fn bits(self, a: Self::F) -> Self::I {
        each!(_mm256_castps_si256(a))
    }
    #[inline(always)]
    fn floats(self, a: Self::I) -> Self::F {
        each!(_mm256_castsi256_ps(a))
    }
    #[inline(always)]
    fn to_float(self, a: Self::I) -> Self::F {
        each!(_mm256_cvtepi32_ps(a))
    }
    #[inline(always)]
    fn splat_int(self, x: i32) -> Self::I {
        // SAFETY: `self` proves that the processor has AVX2.
        unsafe { [_mm256_set1_epi32(x); 2] }
    }
    #[inline(always)]
    fn add_int(self, a: Self::I, b: Self::I) -> Self::I {
        each!(_mm256_add_epi32(a, b))
    }
    #[inline(always)]
    fn sub_int(self, a: Self::I, b: Self::I) -> Self::I {
        each!(_mm256_sub_epi32(a, b))
    }
    #[inline(always)]
    fn and_int(self, a: Self::I, b: Self::I) -> Self::I {
        each!(_mm256_and_si256(a, b))
    }
    #[inline(always)]
    fn max_int(self, a: Self::I, b: Self::I) -> Self::I {
        each!(_mm256_max_epi32(a, b))
    }
    #[inline(always)]
    fn shift_left<const N: i32>(self, a: Self::I) -> Self::I {
        // SAFETY: `self` proves that the processor has AVX2.
        unsafe { [_mm256_slli_epi32::<N>(a[0]), _mm256_slli_epi32::<N>(a[1])] }
    }
    #[inline(always)]
    fn shift_right<const N: i32>(self, a: Self::I) -> Self::I {
        // SAFETY: `self` proves that the processor has AVX2.
        unsafe { [_mm256_srai_epi32::<N>(a[0]), _mm256_srai_epi32::<N>(a[1])] }
    }
    #[inline(always)]
    fn load_i8(self, from: &[i8; LANES]) -> Self::I {
        // SAFETY: `self` proves AVX2, and the array holds sixteen bytes.
        unsafe {
            let bytes = _mm_loadu_si128(from.as_ptr().cast());
            [
                _mm256_cvtepi8_epi32(bytes),
                _mm256_cvtepi8_epi32(_mm_srli_si128::<8>(bytes)),
            ]
        }
    }
    #[inline(always)]
    fn store_i8(self, x: Self::I, to: &mut [i8; LANES]) {
        // SAFETY: `self` proves AVX2, and the array holds sixteen bytes.
        unsafe {
            let words = words(x);
            let low = _mm256_castsi256_si128(words);
            let high = _mm256_extracti128_si256::<1>(words);
            _mm_storeu_si128(to.as_mut_ptr().cast(), _mm_packs_epi16(low, high));
        }
    }
    #[inline(always)]
    fn store_i16(self, x: Self::I, to: &mut [i16; LANES]) {
        // SAFETY: `self` proves AVX2, and the array holds sixteen words.
        unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), words(x)) }
    }
    fn product(self, p: &Product<'_>, finish: Finish, out: Tile<'_, f32>) {
        kernels::product(Isa::Avx2, p, finish, out);
    }
}

/// Sixteen words in order; `packs` takes them from alternating 128-bit halves.
///
/// # Safety
/// The processor has AVX2.
#[inline(always)]
unsafe fn words(x: [__m256i; 2]) -> __m256i {
    // SAFETY: the caller has AVX2.
    unsafe { _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(x[0], x[1])) }
}

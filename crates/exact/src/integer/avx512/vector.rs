//! Products with one row of codes.
//!
//! Two-bit codes are multiplied where they lie: those of group g, masked, are 4^g (w+1), and so
//! are their sums, which are kept apart and shifted down at the end. A sum is at most
//! 64 * 2 * 128 * 2^16 = 2^30, so i32 holds it.

use std::arch::x86_64::*;
use std::ops::Range;

use super::{Digits, Output, Scales};
use crate::integer::even;
use crate::panels::LANES;
use crate::{int8, ternary};

/// Most panels at a time.
const PANELS: usize = 4;

/// Bytes ahead of their use at which weights are prefetched.
const AHEAD: usize = 1024;

/// A packed matrix whose panels can be multiplied by one row of codes.
pub(super) trait Streamed {
    /// The sums of `P` panels from `first` on with a row of codes.
    ///
    /// # Safety
    /// The processor has the instructions.
    unsafe fn sums<const P: usize>(&self, first: usize, codes: &[i8]) -> [__m512i; P];

    /// What weights have too much.
    const OFFSET: i32;
}

impl Streamed for ternary::Panels<'_> {
    const OFFSET: i32 = 1;

    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    #[inline]
    unsafe fn sums<const P: usize>(&self, first: usize, codes: &[i8]) -> [__m512i; P] {
        let mut panels = [std::ptr::null(); P];
        for (p, start) in panels.iter_mut().enumerate() {
            let panel = self.panel(first + p);
            assert_eq!(panel.len(), codes.len() * LANES / 4, "length of a panel");
            *start = panel.as_ptr();
        }
        let masks = [3, 12, 48, -64].map(|mask| _mm512_set1_epi8(mask));
        let mut acc = [[_mm512_setzero_si512(); 4]; P];
        for block in 0..codes.len() / LANES {
            // SAFETY: the codes and the panels have so many blocks.
            unsafe {
                let codes = codes.as_ptr().add(block * LANES).cast::<i32>();
                let mut x = [_mm512_setzero_si512(); 4];
                for (g, x) in x.iter_mut().enumerate() {
                    *x = _mm512_set1_epi32(codes.add(g).read_unaligned());
                }
                for (acc, panel) in acc.iter_mut().zip(panels) {
                    let bytes = panel.add(block * 64);
                    _mm_prefetch::<_MM_HINT_T0>(bytes.wrapping_add(AHEAD).cast());
                    let bytes = _mm512_loadu_si512(bytes.cast());
                    for g in 0..4 {
                        let weights = _mm512_and_si512(bytes, masks[g]);
                        acc[g] = _mm512_dpbusd_epi32(acc[g], weights, x[g]);
                    }
                }
            }
        }
        acc.map(|[a, b, c, d]| {
            let low = _mm512_add_epi32(a, _mm512_srai_epi32::<2>(b));
            let high = _mm512_add_epi32(_mm512_srai_epi32::<4>(c), _mm512_srai_epi32::<6>(d));
            _mm512_add_epi32(low, high)
        })
    }
}

impl Streamed for int8::Panels<'_> {
    const OFFSET: i32 = 128;

    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    #[inline]
    unsafe fn sums<const P: usize>(&self, first: usize, codes: &[i8]) -> [__m512i; P] {
        let mut panels = [std::ptr::null(); P];
        for (p, start) in panels.iter_mut().enumerate() {
            let panel = self.panel(first + p);
            assert_eq!(panel.len(), codes.len() * LANES, "length of a panel");
            *start = panel.as_ptr();
        }
        let flip = _mm512_set1_epi8(i8::MIN);
        let mut acc = [[_mm512_setzero_si512(); 2]; P];
        for pair in 0..codes.len() / 8 {
            for half in 0..2 {
                // SAFETY: the codes and the panels have so many groups.
                unsafe {
                    let group = pair * 2 + half;
                    let x = codes.as_ptr().add(group * 4).cast::<i32>().read_unaligned();
                    let x = _mm512_set1_epi32(x);
                    for (acc, panel) in acc.iter_mut().zip(panels) {
                        let bytes = panel.add(group * 64);
                        _mm_prefetch::<_MM_HINT_T0>(bytes.wrapping_add(AHEAD).cast());
                        let weights = _mm512_xor_si512(_mm512_loadu_si512(bytes.cast()), flip);
                        acc[half] = _mm512_dpbusd_epi32(acc[half], weights, x);
                    }
                }
            }
        }
        acc.map(|[a, b]| _mm512_add_epi32(a, b))
    }
}

/// The products of some panels with one row of codes.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) fn products<W: Streamed>(
    weights: &W,
    panels: Range<usize>,
    digits: Digits<'_>,
    (row_scale, scales): (f32, Scales<'_>),
    out: &mut Output<'_, '_>,
) {
    let correction = _mm512_set1_epi32(digits.corrections(W::OFFSET)[0]);
    let row_scale = _mm512_set1_ps(row_scale);
    let mut put = |panel: usize, sums: &[__m512i]| {
        for (panel, &sums) in (panel..).zip(sums) {
            let factor = _mm512_mul_ps(row_scale, scales.panel(panel));
            let sums = _mm512_cvtepi32_ps(_mm512_add_epi32(sums, correction));
            out.column(panel).put(0, _mm512_mul_ps(sums, factor));
        }
    };
    let codes = digits.row(0);
    for part in even(panels.len(), PANELS) {
        let first = panels.start + part.start;
        // SAFETY: this processor has the instructions.
        unsafe {
            match part.len() {
                1 => put(part.start, &weights.sums::<1>(first, codes)),
                2 => put(part.start, &weights.sums::<2>(first, codes)),
                3 => put(part.start, &weights.sums::<3>(first, codes)),
                _ => put(part.start, &weights.sums::<4>(first, codes)),
            }
        }
    }
}

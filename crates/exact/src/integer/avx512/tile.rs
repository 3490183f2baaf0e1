//! Products of matrices: tiles of up to three panels and eight rows of digits.
//!
//! A tile has 24 accumulators; three registers of weights and one of digits, broadcast, fill the
//! rest. Weights come from a buffer of bytes that was expanded for all tiles of the same panels:
//! eleven loads for 24 multiplications, where the processor can do two of each at a time.

use std::arch::x86_64::*;
use std::ops::Range;

use super::{Digits, Output, Scales};
use crate::integer::even;

/// Most panels in a tile.
const PANELS: usize = 3;

/// Most rows of digits in a tile.
const ROWS: usize = 8;

/// A packed matrix whose panels can be expanded.
pub(super) trait Weights {
    /// What expanding adds to each weight.
    const OFFSET: i32;

    /// Expands one panel: for each four columns, in every `every`-th register of `out`.
    ///
    /// # Safety
    /// The processor has the instructions.
    unsafe fn expand(&self, panel: usize, out: &mut [__m512i], every: usize);

    /// The bytes of some panels.
    fn bytes(&self, panels: Range<usize>) -> &[u8];
}

/// All products of the panels with rows of digits, `D` of which make one row of results.
///
/// With two digits to base 256 the lower one comes first.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
#[inline]
pub(super) fn products<W: Weights, const D: usize>(
    weights: &W,
    panels: Range<usize>,
    digits: Digits<'_>,
    (row_scales, scales): (&[f32], Scales<'_>),
    out: &mut Output<'_, '_>,
) {
    let corrections = digits.corrections(W::OFFSET);
    let groups = digits.stride / 4;
    let mut sums = [_mm512_setzero_si512(); PANELS * ROWS];
    let mut expanded = vec![_mm512_setzero_si512(); PANELS * groups];
    for part in even(panels.len(), PANELS) {
        for (place, panel) in part.clone().enumerate() {
            // SAFETY: this processor has the instructions.
            unsafe { weights.expand(panels.start + panel, &mut expanded[place..], part.len()) };
        }
        let next = panels.start + part.end..panels.end.min(panels.start + part.end + PANELS);
        let tiles = even(digits.rows() / D, ROWS / D);
        let mut ahead = Ahead::new(weights.bytes(next), tiles.len());
        for rows in tiles {
            ahead.fetch();
            for row in rows.clone() {
                part.clone().for_each(|panel| out.prefetch(row, panel));
            }
            let factors = Factors {
                weights: &expanded[..groups * part.len()],
                codes: &digits.codes[rows.start * D * digits.stride..],
                stride: digits.stride,
                corrections: &corrections[rows.start * D..rows.end * D],
            };
            tile(part.len(), factors, &mut sums);
            for (row, sums) in rows.zip(sums.chunks_exact(D * part.len())) {
                let row_scale = _mm512_set1_ps(row_scales[row]);
                for (place, panel) in part.clone().enumerate() {
                    let mut sum = sums[place];
                    if D == 2 {
                        let upper = _mm512_slli_epi32::<8>(sums[part.len() + place]);
                        sum = _mm512_add_epi32(upper, sum);
                    }
                    let factor = _mm512_mul_ps(row_scale, scales.panel(panel));
                    let values = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), factor);
                    out.put(row, panel, values);
                }
            }
        }
    }
}

/// Memory that is fetched by parts into the second-level cache while others are computed with.
struct Ahead<'a> {
    bytes: &'a [u8],
    part: usize,
}

impl<'a> Ahead<'a> {
    /// In `parts` parts.
    fn new(bytes: &'a [u8], parts: usize) -> Self {
        let part = bytes.len().div_ceil(parts);
        Self { bytes, part }
    }

    /// The next part.
    #[inline]
    fn fetch(&mut self) {
        let (part, rest) = self.bytes.split_at(self.part.min(self.bytes.len()));
        self.bytes = rest;
        for line in part.chunks(64) {
            // SAFETY: prefetching never faults.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
        }
    }
}

/// What a tile multiplies.
#[derive(Clone, Copy)]
struct Factors<'a> {
    /// Expanded weights.
    weights: &'a [__m512i],
    /// Digits from the tile's first row on.
    codes: &'a [i8],
    stride: usize,
    /// What the sums start from, one for each row of digits.
    corrections: &'a [i32],
}

/// Sums of a tile: for each row of digits, those of its panels.
type Sums = [__m512i; PANELS * ROWS];

/// The tile with as many panels and rows as there are.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn tile(panels: usize, factors: Factors<'_>, sums: &mut Sums) {
    match panels {
        1 => tile_of::<1>(factors, sums),
        2 => tile_of::<2>(factors, sums),
        _ => tile_of::<3>(factors, sums),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
#[inline]
fn tile_of<const P: usize>(factors: Factors<'_>, sums: &mut Sums) {
    match factors.corrections.len() {
        1 => multiply::<P, 1>(factors, sums),
        2 => multiply::<P, 2>(factors, sums),
        3 => multiply::<P, 3>(factors, sums),
        4 => multiply::<P, 4>(factors, sums),
        5 => multiply::<P, 5>(factors, sums),
        6 => multiply::<P, 6>(factors, sums),
        7 => multiply::<P, 7>(factors, sums),
        _ => multiply::<P, 8>(factors, sums),
    }
}

/// `P` panels times `C` rows of digits.
///
/// Never inlined: by itself it is short enough that the compiler keeps all sums in registers.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
#[inline(never)]
fn multiply<const P: usize, const C: usize>(factors: Factors<'_>, sums: &mut Sums) {
    let Factors {
        weights,
        codes,
        stride,
        corrections,
    } = factors;
    let groups = weights.len() / P;
    assert_eq!(corrections.len(), C, "one correction for each row");
    assert!(
        codes.len() >= (C - 1) * stride + 4 * groups,
        "codes of the tile"
    );
    let mut acc = [[_mm512_setzero_si512(); P]; C];
    for (acc, &correction) in acc.iter_mut().zip(corrections) {
        *acc = [_mm512_set1_epi32(correction); P];
    }
    let (mut weights, mut codes) = (weights.as_ptr(), codes.as_ptr());
    for _ in 0..groups {
        // SAFETY: the weights hold `groups` groups, and so do the rows, as asserted.
        unsafe {
            let mut w = [_mm512_setzero_si512(); P];
            for (p, w) in w.iter_mut().enumerate() {
                *w = _mm512_load_si512(weights.add(p));
            }
            for (c, acc) in acc.iter_mut().enumerate() {
                let x = codes.add(c * stride).cast::<i32>().read_unaligned();
                let x = _mm512_set1_epi32(x);
                for (acc, w) in acc.iter_mut().zip(w) {
                    *acc = _mm512_dpbusd_epi32(*acc, w, x);
                }
            }
            weights = weights.add(P);
            codes = codes.add(4);
        }
    }
    for (sums, acc) in sums.chunks_exact_mut(P).zip(acc) {
        sums.copy_from_slice(&acc);
    }
}

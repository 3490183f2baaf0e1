//! Products of matrices: tiles of up to three panels and eight rows of digits.
//!
//! A tile has 24 accumulators; three registers of weights and one of digits, broadcast, fill the
//! rest. Weights come from a buffer of bytes that was expanded for all tiles of the same panels:
//! eleven loads for 24 multiplications, where the processor can do two of each at a time.

use std::arch::x86_64::*;
use std::ops::Range;

use super::Digits;
use crate::integer::ahead::Ahead;
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

    /// The bytes of one panel.
    fn bytes(&self, panel: usize) -> &[u8];
}

/// Where sums go, `D` for each row of results and panel.
pub(super) trait Sink<const D: usize> {
    /// Fetches where those of one row and panel go.
    fn prefetch(&mut self, row: usize, panel: usize);

    /// Takes the sums of some rows of one panel.
    ///
    /// # Safety
    /// The processor has the instructions.
    unsafe fn put(&mut self, rows: Range<usize>, panel: usize, sums: PanelSums<'_>);
}

/// The sums of one panel in a tile.
#[derive(Clone, Copy)]
pub(super) struct PanelSums<'a> {
    /// Those of the tile, from the panel's first one on.
    sums: &'a [__m512i],
    /// Panels of the tile.
    panels: usize,
}

impl PanelSums<'_> {
    /// The sums of the tile's row `row` of results, one for each of its `D` rows of digits.
    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn row<const D: usize>(&self, row: usize) -> [__m512i; D] {
        let mut planes = [_mm512_setzero_si512(); D];
        for (d, plane) in planes.iter_mut().enumerate() {
            *plane = self.sums[(row * D + d) * self.panels];
        }
        planes
    }
}

/// All products of the panels with rows of digits, `D` of which make one row of results.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
#[inline]
pub(super) fn products<W: Weights, S: Sink<D>, const D: usize>(
    weights: &W,
    panels: Range<usize>,
    digits: Digits<'_>,
    out: &mut S,
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
        let mut ahead = Ahead::new(next.map(|panel| weights.bytes(panel)), tiles.len());
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
            for (place, panel) in part.clone().enumerate() {
                let sums = PanelSums {
                    sums: &sums[place..],
                    panels: part.len(),
                };
                // SAFETY: this processor has the instructions.
                unsafe { out.put(rows.clone(), panel, sums) };
            }
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

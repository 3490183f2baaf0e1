//! The int8 backward product with the third digits of wide codes, most of which are zero.
//!
//! Four digits, a group, are one operand of `vpdpbusd`. A vocabulary's gradient leaves most groups
//! of third digits empty, each row its own ones, so each row becomes a list of its occupied
//! groups. Other gradients fill most of them: then a product of matrices is faster.

use std::arch::x86_64::*;
use std::ops::Range;

use super::digits::third;
use super::tile;
use super::{Digits, Totals, lanes};
use crate::WideCodes;
use crate::cpu::scratch::Scratch;
use crate::int8::{BLOCK_COLUMNS, Panels};
use crate::panels::{LANES, padded};

/// Columns whose digits fill a register.
const STEP: usize = 64;

/// Groups of four columns.
const GROUPS: usize = BLOCK_COLUMNS / 4;

/// The occupied groups of one row.
struct List {
    /// Their digits, four in each; behind `len` anything.
    digits: [i32; GROUPS],
    /// Their numbers; behind `len` anything.
    groups: [i32; GROUPS],
    len: usize,
    /// What takes off that weights are larger by 128.
    correction: i32,
}

/// Adds 65,536 times the products of the third digits; see [`crate::int8::Sums::add`].
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(in crate::integer) fn add(
    wt: Panels<'_>,
    panels: Range<usize>,
    g: WideCodes<'_>,
    totals: &mut [[i64; LANES]],
) {
    if g.high.is_empty() {
        return;
    }
    let cols = padded(wt.cols());
    let mut occupied = 0;
    let mut digits = Scratch::<i8>::new(g.rows * cols);
    for (row, digits) in digits.chunks_exact_mut(cols).enumerate() {
        let from = row * g.stride..row * g.stride + cols;
        let codes = g.low[from.clone()]
            .chunks(STEP)
            .zip(g.high[from].chunks(STEP));
        for ((low, high), digits) in codes.zip(digits.chunks_mut(STEP)) {
            let third = third(low, high);
            occupied += _mm512_test_epi32_mask(third, third).count_ones() as usize;
            let mask = u64::MAX >> (STEP - digits.len());
            // SAFETY: the mask leaves out what lies behind the digits.
            unsafe { _mm512_mask_storeu_epi8(digits.as_mut_ptr(), mask, third) };
        }
    }
    let digits = Digits {
        codes: &digits,
        stride: cols,
    };
    let mut out = Totals {
        totals,
        rows: g.rows,
        shift: 16,
    };
    if occupied > g.rows * cols / 32 {
        return tile::products::<_, _, 1>(&wt, panels, digits, &mut out);
    }
    let mut list = List {
        digits: [0; GROUPS],
        groups: [0; GROUPS],
        len: 0,
        correction: 0,
    };
    for row in 0..g.rows {
        list.fill(digits.row(row));
        if list.len > 0 {
            for (index, panel) in panels.clone().enumerate() {
                let sums = list.product(wt.panel(panel));
                out.add(row, index, sums);
            }
        }
    }
}

impl List {
    /// Lists the occupied groups of a row of digits.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    fn fill(&mut self, digits: &[i8]) {
        let places = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        let mut sums = _mm512_setzero_si512();
        self.len = 0;
        for (step, digits) in digits.chunks(STEP).enumerate() {
            let mask = u64::MAX >> (STEP - digits.len());
            // SAFETY: the mask leaves out what lies behind the digits.
            let digits = unsafe { _mm512_maskz_loadu_epi8(mask, digits.as_ptr()) };
            let occupied = _mm512_test_epi32_mask(digits, digits);
            if occupied == 0 {
                continue;
            }
            let groups = _mm512_add_epi32(places, _mm512_set1_epi32((step * STEP / 4) as i32));
            let end = self.len + occupied.count_ones() as usize;
            let fresh = lanes(end - self.len);
            let place = self.digits[self.len..end].as_mut_ptr();
            let number = self.groups[self.len..end].as_mut_ptr();
            // SAFETY: both slices have as many elements as the mask has bits.
            unsafe {
                let digits = _mm512_maskz_compress_epi32(occupied, digits);
                _mm512_mask_storeu_epi32(place, fresh, digits);
                let groups = _mm512_maskz_compress_epi32(occupied, groups);
                _mm512_mask_storeu_epi32(number, fresh, groups);
            }
            self.len = end;
            sums = _mm512_dpbusd_epi32(sums, _mm512_set1_epi8(1), digits);
        }
        self.correction = -128 * _mm512_reduce_add_epi32(sums);
    }

    /// The sums of a panel's products.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    #[inline]
    fn product(&self, panel: &[u8]) -> __m512i {
        let flip = _mm512_set1_epi8(i8::MIN);
        let mut sums = _mm512_set1_epi32(self.correction);
        for (&digits, &group) in self.digits[..self.len].iter().zip(&self.groups) {
            let weights = &panel[group as usize * 64..][..64];
            // SAFETY: a group has 64 bytes.
            let weights = unsafe { _mm512_loadu_si512(weights.as_ptr().cast()) };
            let weights = _mm512_xor_si512(weights, flip);
            sums = _mm512_dpbusd_epi32(sums, weights, _mm512_set1_epi32(digits));
        }
        sums
    }
}

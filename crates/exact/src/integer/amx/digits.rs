//! Codes as rows of int8 that tiles can read.

use std::arch::x86_64::*;
use std::ops::Range;

use super::tiles::{COLUMNS, Left};
use crate::WideCodes;
use crate::cpu::scratch::Scratch;

/// Codes in a register of 16-bit lanes.
const WORDS: usize = 32;

/// The last 64 columns of each row, zero where whole steps have them already; nothing where
/// whole steps have all.
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn tails(codes: &[i8], stride: usize) -> Scratch<i8> {
    let rest = stride % COLUMNS;
    if rest == 0 {
        return Scratch::new(0);
    }
    let mut tails = Scratch::<i8>::new(codes.len() / stride * COLUMNS);
    let last = u64::MAX << (COLUMNS - rest);
    for (row, tail) in codes
        .chunks_exact(stride)
        .zip(tails.chunks_exact_mut(COLUMNS))
    {
        // SAFETY: rows are longer than a step, and both memories have 64 bytes.
        unsafe {
            let codes = _mm512_maskz_loadu_epi8(last, row[stride - COLUMNS..].as_ptr());
            _mm512_storeu_si512(tail.as_mut_ptr().cast(), codes);
        }
    }
    tails
}

/// Planes of balanced digits to base 256 of some rows and columns, lowest plane first.
pub(super) struct Digits {
    digits: Scratch<i8>,
    /// Columns in whole steps.
    whole: usize,
    /// Digits from one row to the next: whole steps, and a last one if there is need.
    stride: usize,
}

impl Digits {
    /// The digits of `planes` planes, one after the other.
    ///
    /// Two planes hold codes within +-32,639, three all codes.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    pub(super) fn new(
        planes: usize,
        g: WideCodes<'_>,
        rows: Range<usize>,
        columns: Range<usize>,
    ) -> Self {
        let whole = columns.len() / COLUMNS * COLUMNS;
        let stride = columns.len().next_multiple_of(COLUMNS);
        let plane = rows.len() * stride;
        let mut digits = Scratch::<i8>::new(planes * plane);
        let (first, rest) = digits.split_at_mut(plane);
        let (second, third) = rest.split_at_mut(plane);
        for (index, row) in rows.enumerate() {
            let from = row * g.stride + columns.start..row * g.stride + columns.end;
            let to = index * stride..(index + 1) * stride;
            let low = &g.low[from.clone()];
            let (first, second) = (&mut first[to.clone()], &mut second[to.clone()]);
            // Zeros in front of the columns of the last step.
            let gap = stride - columns.len();
            first[whole..whole + gap].fill(0);
            second[whole..whole + gap].fill(0);
            let (middle, last) = low.split_at(whole);
            lower_digits(middle, &mut first[..whole], &mut second[..whole]);
            lower_digits(last, &mut first[whole + gap..], &mut second[whole + gap..]);
            if planes > 2 {
                let third = &mut third[to];
                third[whole..whole + gap].fill(0);
                let high = &g.high[from];
                upper_digits(middle, &high[..whole], &mut third[..whole]);
                upper_digits(last, &high[whole..], &mut third[whole + gap..]);
            }
        }
        Self {
            digits,
            whole,
            stride,
        }
    }

    /// The digits of some whole steps and, if `last`, the last step.
    pub(super) fn left(&self, steps: Range<usize>, last: bool) -> Left<'_> {
        let has_tail = last && self.whole < self.stride;
        Left {
            codes: &self.digits[steps.start * COLUMNS..],
            stride: self.stride,
            steps: steps.len(),
            tail: has_tail.then(|| (&self.digits[self.whole..], self.stride)),
        }
    }
}

/// The first `count` of 32 lanes, or all.
fn lanes(count: usize) -> u32 {
    if count < WORDS {
        (1 << count) - 1
    } else {
        u32::MAX
    }
}

/// Bytes 0 and 1 of q = first + 256 second + ..., each in -128..=127.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn lower_digits(low: &[i16], first: &mut [i8], second: &mut [i8]) {
    let rows = first.chunks_mut(WORDS).zip(second.chunks_mut(WORDS));
    for (low, (first, second)) in low.chunks(WORDS).zip(rows) {
        assert!(low.len() == first.len() && low.len() == second.len());
        let lanes = lanes(low.len());
        // SAFETY: `lanes` has only lanes that the three slices have.
        unsafe {
            let low = _mm512_maskz_loadu_epi16(lanes, low.as_ptr());
            // Taking the first digit off carries into the second where it is negative. This may
            // wrap: what is lost belongs to the third.
            let rest = _mm512_add_epi16(low, _mm512_set1_epi16(128));
            let upper = _mm512_cvtepi16_epi8(_mm512_srli_epi16::<8>(rest));
            _mm256_mask_storeu_epi8(first.as_mut_ptr(), lanes, _mm512_cvtepi16_epi8(low));
            _mm256_mask_storeu_epi8(second.as_mut_ptr(), lanes, upper);
        }
    }
}

/// Byte 2: the upper part, and one more where the lower parts carry into it.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn upper_digits(low: &[i16], high: &[i8], third: &mut [i8]) {
    /// The first number whose two lower digits are negative: 65,536 - 32,640 = 128 * 257.
    const CARRY: i16 = 32_640;
    let rows = high.chunks(WORDS).zip(third.chunks_mut(WORDS));
    for (low, (high, third)) in low.chunks(WORDS).zip(rows) {
        assert!(low.len() == high.len() && low.len() == third.len());
        let lanes = lanes(low.len());
        // SAFETY: `lanes` has only lanes that the three slices have.
        unsafe {
            let low = _mm512_maskz_loadu_epi16(lanes, low.as_ptr());
            let high = _mm256_maskz_loadu_epi8(lanes, high.as_ptr());
            let carry = _mm512_cmpge_epi16_mask(low, _mm512_set1_epi16(CARRY));
            let third_digit = _mm256_mask_add_epi8(high, carry, high, _mm256_set1_epi8(1));
            _mm256_mask_storeu_epi8(third.as_mut_ptr(), lanes, third_digit);
        }
    }
}

//! Codes as rows of int8 that tiles can read.

use std::arch::x86_64::*;
use std::ops::Range;

use super::tiles::{COLUMNS, Left};
use crate::WideCodes;
use crate::cpu::scratch::Scratch;
use crate::integer::avx512::digits::lower;

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

/// The two lower digits of some rows: all first ones, then all second ones.
pub(super) struct Digits {
    digits: Scratch<i8>,
    /// Columns in whole steps.
    whole: usize,
    /// Digits from one row to the next: whole steps, and a last one if there is need.
    stride: usize,
}

impl Digits {
    /// The digits of the first `cols` codes of some rows.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    pub(super) fn new(g: WideCodes<'_>, rows: Range<usize>, cols: usize) -> Self {
        let whole = cols / COLUMNS * COLUMNS;
        let stride = cols.next_multiple_of(COLUMNS);
        let gap = stride - cols;
        let mut digits = Scratch::<i8>::new(2 * rows.len() * stride);
        let (first, second) = digits.split_at_mut(rows.len() * stride);
        let planes = first
            .chunks_exact_mut(stride)
            .zip(second.chunks_exact_mut(stride));
        for (row, (first, second)) in rows.zip(planes) {
            // Zeros in front of the columns of the last step.
            first[whole..whole + gap].fill(0);
            second[whole..whole + gap].fill(0);
            let (middle, last) = g.low[row * g.stride..][..cols].split_at(whole);
            lower(middle, &mut first[..whole], &mut second[..whole]);
            lower(last, &mut first[whole + gap..], &mut second[whole + gap..]);
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

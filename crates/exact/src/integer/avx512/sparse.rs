//! The int8 backward product: wide codes, most of whose digits are zero.
//!
//! Codes are cut into balanced digits to base 256. Four digits of one plane, a group, are one
//! operand of `vpdpbusd`. A vocabulary's gradient leaves most groups empty, each row its own ones,
//! so each row of a plane becomes a list of its occupied groups, by blocks of columns. Weights of
//! a block and of a few panels are copied to where the first-level cache holds them for all lists.
//!
//! The headroom: a plane's sum over [`SEGMENT`] columns is at most
//! 2^17 * 127 * 128 = 2,130,706,432 < 2^31 (what the weights w + 128 add to it may wrap and is
//! taken off again, modulo 2^32). Segments are added up in f64, exactly: see `int8`.

use std::arch::x86_64::*;
use std::ops::Range;

use super::Output;
use crate::WideCodes;
use crate::int8::Panels;
use crate::integer::even;
use crate::panels::LANES;

/// Columns whose products are summed in i32.
const SEGMENT: usize = 1 << 17;

/// Groups of four columns in a block, a multiple of sixteen.
const GROUPS: usize = 64;

/// Most panels at a time.
const PANELS: usize = 9;

/// Bytes of sums that stay in the second-level cache, and the most rows that they belong to.
const SUM_BYTES: usize = 512 << 10;
const ROWS: usize = 64;

/// Planes of digits.
const PLANES: usize = 3;

/// See [`crate::int8::backward`].
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(super) fn products(
    wt: Panels<'_>,
    panels: Range<usize>,
    g: WideCodes<'_>,
    out: &mut Output<'_, '_>,
) {
    let most = SUM_BYTES / (PLANES * panels.len() * size_of::<__m512i>());
    for rows in even(g.rows, most.clamp(1, ROWS)) {
        let mut totals = vec![[_mm512_setzero_pd(); 2]; panels.len() * rows.len()];
        for segment in even(g.stride / LANES, SEGMENT / LANES) {
            let columns = segment.start * LANES..segment.end * LANES;
            let mut sums = Sums::new(panels.len(), rows.len());
            sums.add_segment(wt, panels.clone(), g, rows.clone(), columns);
            sums.add_to(&mut totals);
        }
        for (index, totals) in totals.chunks_exact(rows.len()).enumerate() {
            for (row, total) in rows.clone().zip(totals) {
                // The only rounding of a sum.
                let [low, high] = total.map(|total| _mm512_cvtpd_ps(total));
                let low = _mm512_castps_pd(_mm512_castps256_ps512(low));
                let sums = _mm512_insertf64x4::<1>(low, _mm256_castps_pd(high));
                let scale = _mm512_set1_ps(g.scales[row]);
                out.put(row, index, _mm512_mul_ps(_mm512_castpd_ps(sums), scale));
            }
        }
    }
}

/// The sums of some rows over a segment of columns.
struct Sums {
    /// For each row, for each plane, one register for each panel.
    sums: Vec<__m512i>,
    /// For each row and each plane, partial sums of the digits.
    digits: Vec<[__m512i; PLANES]>,
    panels: usize,
    lists: Vec<[List; PLANES]>,
}

/// The occupied groups of one block, row and plane.
struct List {
    /// Their digits, four in each; behind `len` anything.
    digits: [i32; GROUPS],
    /// Their numbers in the block.
    groups: [i32; GROUPS],
    len: usize,
}

impl Sums {
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    fn new(panels: usize, rows: usize) -> Self {
        let list = || List {
            digits: [0; GROUPS],
            groups: [0; GROUPS],
            len: 0,
        };
        Self {
            sums: vec![_mm512_setzero_si512(); panels * PLANES * rows],
            digits: vec![[_mm512_setzero_si512(); PLANES]; rows],
            panels,
            lists: (0..rows).map(|_| [(); PLANES].map(|()| list())).collect(),
        }
    }

    /// Adds the products of all columns of a segment.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    fn add_segment(
        &mut self,
        wt: Panels<'_>,
        panels: Range<usize>,
        g: WideCodes<'_>,
        rows: Range<usize>,
        columns: Range<usize>,
    ) {
        let mut weights = vec![_mm512_setzero_si512(); PANELS * GROUPS];
        for start in columns.clone().step_by(4 * GROUPS) {
            let block = start..columns.end.min(start + 4 * GROUPS);
            for (row, (lists, sums)) in rows
                .clone()
                .zip(self.lists.iter_mut().zip(&mut self.digits))
            {
                list(g, row, block.clone(), lists, sums);
            }
            for part in even(panels.len(), PANELS) {
                copy(
                    wt,
                    panels.start + part.start,
                    part.len(),
                    &block,
                    &mut weights,
                );
                for (row, lists) in self.lists.iter().enumerate() {
                    for (plane, list) in lists.iter().enumerate() {
                        let at = (row * PLANES + plane) * self.panels;
                        let sums = &mut self.sums[at..][part.clone()];
                        add(&weights, list, sums);
                    }
                }
            }
        }
    }

    /// Adds the sums of the planes, each with its power of 256, to totals by panel and row.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    fn add_to(&self, totals: &mut [[__m512d; 2]]) {
        let rows = self.digits.len();
        for (row, digits) in self.digits.iter().enumerate() {
            for (plane, &digits) in digits.iter().enumerate() {
                let excess = _mm512_reduce_add_epi32(digits).wrapping_mul(128);
                let excess = _mm512_set1_epi32(excess);
                let factor = _mm512_set1_pd([1.0, 256.0, 65_536.0][plane]);
                let sums = &self.sums[(row * PLANES + plane) * self.panels..][..self.panels];
                for (panel, &sum) in sums.iter().enumerate() {
                    let sum = _mm512_sub_epi32(sum, excess);
                    let halves = [
                        _mm512_castsi512_si256(sum),
                        _mm512_extracti64x4_epi64::<1>(sum),
                    ];
                    for (total, half) in totals[panel * rows + row].iter_mut().zip(halves) {
                        let value = _mm512_mul_pd(_mm512_cvtepi32_pd(half), factor);
                        *total = _mm512_add_pd(*total, value);
                    }
                }
            }
        }
    }
}

/// Lists the occupied groups of one row and adds up its digits.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn list(
    g: WideCodes<'_>,
    row: usize,
    columns: Range<usize>,
    lists: &mut [List; PLANES],
    sums: &mut [__m512i; PLANES],
) {
    let ones = _mm512_set1_epi8(1);
    let places = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for list in lists.iter_mut() {
        list.len = 0;
    }
    for (step, start) in columns.clone().step_by(64).enumerate() {
        let digits = digits(g, row * g.stride + start, columns.end - start);
        let groups = _mm512_add_epi32(places, _mm512_set1_epi32(16 * step as i32));
        for ((digits, list), sum) in digits.into_iter().zip(&mut *lists).zip(&mut *sums) {
            let occupied = _mm512_test_epi32_mask(digits, digits);
            *sum = _mm512_dpbusd_epi32(*sum, ones, digits);
            let end = list.len + occupied.count_ones() as usize;
            let fresh = super::lanes(end - list.len);
            let digits = _mm512_maskz_compress_epi32(occupied, digits);
            let groups = _mm512_maskz_compress_epi32(occupied, groups);
            let places = list.digits[list.len..end].as_mut_ptr();
            let numbers = list.groups[list.len..end].as_mut_ptr();
            // SAFETY: both slices have as many elements as the mask has bits.
            unsafe {
                _mm512_mask_storeu_epi32(places, fresh, digits);
                _mm512_mask_storeu_epi32(numbers, fresh, groups);
            }
            list.len = end;
        }
    }
}

/// The digits of up to 64 codes from `at` on, lowest plane first.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
#[inline]
fn digits(g: WideCodes<'_>, at: usize, count: usize) -> [__m512i; PLANES] {
    let count = count.min(64);
    let low = &g.low[at..at + count];
    let mask = u64::MAX >> (64 - count);
    let mut planes = [_mm512_setzero_si512(); PLANES];
    // SAFETY: the masks leave out what lies behind the codes.
    unsafe {
        let words = [
            _mm512_maskz_loadu_epi16(mask as u32, low.as_ptr()),
            _mm512_maskz_loadu_epi16((mask >> 32) as u32, low.as_ptr().wrapping_add(32)),
        ];
        let bytes = |words: [__m512i; 2]| {
            let [low, high] = words.map(|words| _mm512_cvtepi16_epi8(words));
            _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
        };
        planes[0] = bytes(words);
        // From 32,640 on the second digit is -128, and the third one higher by one.
        planes[1] =
            bytes(words.map(|words| {
                _mm512_srai_epi16::<8>(_mm512_add_epi16(words, _mm512_set1_epi16(128)))
            }));
        if let Some(high) = g.high.get(at..at + count) {
            let carry = words.map(|words| {
                let most = _mm512_set1_epi16(32_639);
                u64::from(_mm512_cmpgt_epi16_mask(words, most))
            });
            let carry = carry[0] | carry[1] << 32;
            let high = _mm512_maskz_loadu_epi8(mask, high.as_ptr());
            planes[2] = _mm512_mask_add_epi8(high, carry, high, _mm512_set1_epi8(1));
        }
    }
    planes
}

/// Copies the weights of `count` panels in a block, plus 128: for each group, all panels.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn copy(
    wt: Panels<'_>,
    first: usize,
    count: usize,
    columns: &Range<usize>,
    weights: &mut [__m512i],
) {
    let flip = _mm512_set1_epi8(i8::MIN);
    for place in 0..count {
        let bytes = &wt.panel(first + place)[columns.start * LANES..columns.end * LANES];
        let weights = weights[place..].iter_mut().step_by(count);
        for (bytes, weights) in bytes.chunks_exact(64).zip(weights) {
            // SAFETY: a group has 64 bytes.
            let bytes = unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) };
            *weights = _mm512_xor_si512(bytes, flip);
        }
    }
}

/// Adds the products of a list with as many panels as there are sums.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn add(weights: &[__m512i], list: &List, sums: &mut [__m512i]) {
    match sums.len() {
        1 => add_to::<1>(weights, list, sums),
        2 => add_to::<2>(weights, list, sums),
        3 => add_to::<3>(weights, list, sums),
        4 => add_to::<4>(weights, list, sums),
        5 => add_to::<5>(weights, list, sums),
        6 => add_to::<6>(weights, list, sums),
        7 => add_to::<7>(weights, list, sums),
        8 => add_to::<8>(weights, list, sums),
        _ => add_to::<9>(weights, list, sums),
    }
}

/// See [`add`]. Two chains of sums, as a multiplication takes longer than nine of them.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
#[inline(never)]
fn add_to<const P: usize>(weights: &[__m512i], list: &List, sums: &mut [__m512i]) {
    assert!(weights.len() >= P * GROUPS, "weights of a block");
    assert_eq!(sums.len(), P, "one sum for each panel");
    let mut acc = [[_mm512_setzero_si512(); P]; 2];
    acc[0].copy_from_slice(sums);
    let multiply = |acc: &mut [__m512i; P], entry: usize| {
        let x = _mm512_set1_epi32(list.digits[entry]);
        let start = list.groups[entry] as usize * P;
        for (p, acc) in acc.iter_mut().enumerate() {
            // SAFETY: groups are below `GROUPS`.
            let weights = unsafe { *weights.get_unchecked(start + p) };
            *acc = _mm512_dpbusd_epi32(*acc, weights, x);
        }
    };
    let len = list.len.min(GROUPS);
    for pair in 0..len / 2 {
        multiply(&mut acc[0], 2 * pair);
        multiply(&mut acc[1], 2 * pair + 1);
    }
    if len % 2 == 1 {
        multiply(&mut acc[0], len - 1);
    }
    for ((sum, a), b) in sums.iter_mut().zip(acc[0]).zip(acc[1]) {
        *sum = _mm512_add_epi32(a, b);
    }
}

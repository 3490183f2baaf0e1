//! The integer products with AVX-512 VNNI.
//!
//! `vpdpbusd` multiplies unsigned weights by signed codes and adds four products to a lane without
//! saturation, modulo 2^32. Two-bit codes w+1 are unsigned; int8 weights become so by adding 128,
//! which is flipping their sign bit. What that adds for each code, its sum times 1 or 128, is
//! taken off where the sums start.
//!
//! **Matrices** ([`tile`]). Weights of a few panels are expanded to bytes once and used for all
//! rows of codes, so that the inner loop holds loads and multiplications only.
//!
//! **One row of codes** ([`vector`]) has nobody to share expanded weights with: they are used as
//! they lie.

pub(super) mod digits;
mod int8;
mod ternary;
mod tile;
pub(super) mod upper;
mod vector;

use std::arch::x86_64::*;
use std::marker::PhantomData;
use std::ops::Range;

pub(crate) use self::int8::{backward as int8_backward, forward as int8_forward};
pub(crate) use self::ternary::{backward as ternary_backward, forward as ternary_forward};
use self::tile::{PanelSums, Sink, Weights};
use self::vector::Streamed;
use crate::integer::chunks;
use crate::panels::LANES;
use crate::{Codes, Tile, Write};

/// Rows of int8 digits, one after the other, each `stride` long.
#[derive(Clone, Copy)]
struct Digits<'a> {
    codes: &'a [i8],
    stride: usize,
}

impl Digits<'_> {
    fn rows(&self) -> usize {
        self.codes.len() / self.stride
    }

    fn row(&self, row: usize) -> &[i8] {
        &self.codes[row * self.stride..][..self.stride]
    }

    /// For each row, minus `offset` times the sum of its digits, modulo 2^32.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    fn corrections(&self, offset: i32) -> Vec<i32> {
        let ones = _mm512_set1_epi8(1);
        let sum = |row: usize| {
            let mut sum = _mm512_setzero_si512();
            for codes in self.row(row).chunks(64) {
                let mask = u64::MAX >> (64 - codes.len());
                // SAFETY: the mask leaves out what lies behind the chunk.
                let codes = unsafe { _mm512_maskz_loadu_epi8(mask, codes.as_ptr()) };
                sum = _mm512_dpbusd_epi32(sum, ones, codes);
            }
            _mm512_reduce_add_epi32(sum)
        };
        (0..self.rows())
            .map(|row| sum(row).wrapping_mul(offset).wrapping_neg())
            .collect()
    }
}

/// What sums are multiplied by beside the scale of their row of codes.
#[derive(Clone, Copy)]
enum Scales<'a> {
    /// One scale for the whole matrix.
    Matrix(f32),
    /// One for each of its rows, from the first panel's first row on.
    Rows(&'a [f32]),
}

impl Scales<'_> {
    /// Those of one panel.
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn panel(&self, index: usize) -> __m512 {
        match self {
            Self::Matrix(scale) => _mm512_set1_ps(*scale),
            Self::Rows(scales) => {
                let scales = &scales[index * LANES..];
                // SAFETY: the mask leaves out what lies behind the scales.
                unsafe { _mm512_maskz_loadu_ps(lanes(scales.len()), scales.as_ptr()) }
            }
        }
    }
}

/// The first `count` lanes, or all of them.
fn lanes(count: usize) -> u16 {
    ((1u32 << count.min(LANES)) - 1) as u16
}

/// Where results go.
struct Output<'a, 'b> {
    tile: &'a mut Tile<'b, f32>,
    write: Write,
}

impl Output<'_, '_> {
    /// Fetches where the results of one panel for one row go.
    #[inline]
    fn prefetch(&mut self, row: usize, panel: usize) {
        let start = self.tile.as_mut_ptr();
        let start = start.wrapping_add(row * self.tile.stride() + panel * LANES);
        // SAFETY: prefetching never faults.
        unsafe { _mm_prefetch::<_MM_HINT_ET0>(start.cast()) };
    }

    /// Where the results of one panel go.
    #[inline]
    fn column(&mut self, panel: usize) -> Column<'_> {
        let (rows, stride) = (self.tile.rows(), self.tile.stride());
        let rest = self.tile.cols() - panel * LANES;
        Column {
            // SAFETY: the column starts inside each row.
            start: unsafe { self.tile.as_mut_ptr().add(panel * LANES) },
            stride,
            rows,
            lanes: lanes(rest),
            write: self.write,
            tile: PhantomData,
        }
    }
}

/// Up to sixteen values in each row of a tile.
struct Column<'a> {
    start: *mut f32,
    stride: usize,
    rows: usize,
    /// Those that are there; the others are padding.
    lanes: u16,
    write: Write,
    tile: PhantomData<&'a mut f32>,
}

impl Column<'_> {
    /// Writes the sixteen results for one row, dropping those of padding.
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn put(&mut self, row: usize, mut values: __m512) {
        assert!(row < self.rows, "row outside the tile");
        // SAFETY: the row lies in the tile, and the mask leaves out what lies behind it.
        unsafe {
            let start = self.start.add(row * self.stride);
            if self.write == Write::Add {
                values = _mm512_add_ps(_mm512_maskz_loadu_ps(self.lanes, start), values);
            }
            _mm512_mask_storeu_ps(start, self.lanes, values);
        }
    }
}

/// Results of a product: sums times the scales of their rows of codes and of the weights.
struct Scaled<'a, 'b, 'c> {
    out: Output<'a, 'b>,
    row_scales: &'c [f32],
    scales: Scales<'c>,
}

impl<const D: usize> Sink<D> for Scaled<'_, '_, '_> {
    #[inline]
    fn prefetch(&mut self, row: usize, panel: usize) {
        self.out.prefetch(row, panel);
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    #[inline]
    unsafe fn put(&mut self, rows: Range<usize>, panel: usize, sums: PanelSums<'_>) {
        let scale = self.scales.panel(panel);
        let mut column = self.out.column(panel);
        for (index, row) in rows.enumerate() {
            let factor = _mm512_mul_ps(_mm512_set1_ps(self.row_scales[row]), scale);
            let sums = _mm512_cvtepi32_ps(joined(sums.row::<D>(index)));
            column.put(row, _mm512_mul_ps(sums, factor));
        }
    }
}

/// Totals of a product that goes on over other columns.
struct Totals<'a> {
    /// For each panel, for each row of codes, sixteen.
    totals: &'a mut [[i64; LANES]],
    rows: usize,
    /// Bits by which sums are shifted to the left.
    shift: u32,
}

impl Totals<'_> {
    /// Adds sixteen sums.
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn add(&mut self, row: usize, panel: usize, sums: __m512i) {
        widen(sums, self.shift, &mut self.totals[panel * self.rows + row]);
    }
}

impl<const D: usize> Sink<D> for Totals<'_> {
    fn prefetch(&mut self, _: usize, _: usize) {}

    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    #[inline]
    unsafe fn put(&mut self, rows: Range<usize>, panel: usize, sums: PanelSums<'_>) {
        for (index, row) in rows.enumerate() {
            self.add(row, panel, joined(sums.row::<D>(index)));
        }
    }
}

/// The sums of one plane of digits, or of two to base 256, the lower one first.
#[target_feature(enable = "avx512f")]
#[inline]
fn joined<const D: usize>(sums: [__m512i; D]) -> __m512i {
    let mut sum = sums[0];
    if let Some(&upper) = sums.get(1) {
        sum = _mm512_add_epi32(_mm512_slli_epi32::<8>(upper), sum);
    }
    sum
}

/// `totals += sums << shift`.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn widen(sums: __m512i, shift: u32, totals: &mut [i64; LANES]) {
    let halves = [
        _mm512_castsi512_si256(sums),
        _mm512_extracti64x4_epi64::<1>(sums),
    ];
    for (totals, sums) in totals.chunks_exact_mut(LANES / 2).zip(halves) {
        let shift = _mm_cvtsi32_si128(shift.cast_signed());
        let sums = _mm512_sll_epi64(_mm512_cvtepi32_epi64(sums), shift);
        // SAFETY: eight totals are 64 bytes.
        unsafe {
            let to = totals.as_mut_ptr().cast();
            _mm512_storeu_si512(to, _mm512_add_epi64(_mm512_loadu_si512(to), sums));
        }
    }
}

/// Writes the products of int8 codes with the weights of `panels`, row chunk by row chunk.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn products<W: Weights + Streamed>(
    w: &W,
    panels: Range<usize>,
    x: Codes<'_>,
    scales: Scales<'_>,
    y: &mut Tile<'_, f32>,
) {
    let mut y = y.reborrow();
    for rows in chunks(x.rows, x.stride) {
        let (tile, rest) = y.split_rows(rows.len());
        y = rest;
        let digits = Digits {
            codes: &x.codes[rows.start * x.stride..rows.end * x.stride],
            stride: x.stride,
        };
        let mut tile = tile;
        let mut out = Output {
            tile: &mut tile,
            write: Write::Replace,
        };
        if rows.len() == 1 {
            let scales = (x.scales[rows.start], scales);
            vector::products(w, panels.clone(), digits, scales, &mut out);
        } else {
            let mut out = Scaled {
                out,
                row_scales: &x.scales[rows],
                scales,
            };
            tile::products::<_, _, 1>(w, panels.clone(), digits, &mut out);
        }
    }
}

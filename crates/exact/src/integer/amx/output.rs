//! Sums to f32, and results to where they go.

use std::arch::x86_64::*;
use std::marker::PhantomData;

use crate::panels::LANES;
use crate::{Tile, Write};

/// The output of a product, written sixteen values at a time.
pub(super) struct Output<'a> {
    start: *mut f32,
    stride: usize,
    rows: usize,
    cols: usize,
    write: Write,
    tile: PhantomData<&'a mut f32>,
}

impl<'a> Output<'a> {
    pub(super) fn new(out: &'a mut Tile<'_, f32>, write: Write) -> Self {
        Self {
            start: out.as_mut_ptr(),
            stride: out.stride(),
            rows: out.rows(),
            cols: out.cols(),
            write,
            tile: PhantomData,
        }
    }

    /// Writes the results of one row and panel, dropping those of padding.
    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn put(&mut self, row: usize, panel: usize, values: __m512) {
        assert!(
            row < self.rows && panel * LANES < self.cols,
            "outside the tile"
        );
        let lanes = lanes(self.cols - panel * LANES);
        // SAFETY: the row and the panel's first column lie in the tile that `new` borrowed, and
        // `lanes` has only columns of it.
        unsafe {
            let to = self.start.add(row * self.stride + panel * LANES);
            let values = match self.write {
                Write::Replace => values,
                Write::Add => _mm512_add_ps(_mm512_maskz_loadu_ps(lanes, to), values),
            };
            _mm512_mask_storeu_ps(to, lanes, values);
        }
    }
}

/// The first `count` lanes, or all.
fn lanes(count: usize) -> u16 {
    if count < LANES {
        (1 << count) - 1
    } else {
        u16::MAX
    }
}

/// The first sixteen scales, or as many as there are and zeros.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn scales(from: &[f32]) -> __m512 {
    // SAFETY: `lanes` has no more lanes than there are scales.
    unsafe { _mm512_maskz_loadu_ps(lanes(from.len()), from.as_ptr()) }
}

/// Sixteen sums.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn vector(sums: &[i32; LANES]) -> __m512i {
    // SAFETY: there are sixteen.
    unsafe { _mm512_loadu_si512(sums.as_ptr().cast()) }
}

/// `totals += sums << shift`.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn widen(sums: &[i32; LANES], shift: u32, totals: &mut [i64; LANES]) {
    let (low, high) = totals.split_at_mut(LANES / 2);
    let sums = vector(sums);
    let halves = [
        _mm512_castsi512_si256(sums),
        _mm512_extracti64x4_epi64::<1>(sums),
    ];
    for (totals, sums) in [low, high].into_iter().zip(halves) {
        let shifted = _mm512_sll_epi64(
            _mm512_cvtepi32_epi64(sums),
            _mm_cvtsi32_si128(shift.cast_signed()),
        );
        // SAFETY: eight totals are 64 bytes.
        unsafe {
            let to = totals.as_mut_ptr().cast();
            _mm512_storeu_si512(to, _mm512_add_epi64(_mm512_loadu_si512(to), shifted));
        }
    }
}

/// Totals as f32, each rounded once.
#[target_feature(enable = "avx512f,avx512dq")]
#[inline]
pub(super) fn rounded(totals: &[i64; LANES]) -> __m512 {
    // SAFETY: sixteen totals are two registers.
    let halves = unsafe {
        [
            _mm512_loadu_si512(totals.as_ptr().cast()),
            _mm512_loadu_si512(totals[LANES / 2..].as_ptr().cast()),
        ]
    };
    let [low, high] = halves.map(|half| _mm512_cvtepi64_ps(half));
    _mm512_insertf32x8::<1>(_mm512_castps256_ps512(low), high)
}

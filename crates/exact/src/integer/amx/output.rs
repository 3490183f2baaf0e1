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

    /// Writes the results of one row with two panels, dropping those of padding.
    #[target_feature(enable = "avx512f")]
    #[inline]
    pub(super) fn put(&mut self, row: usize, panel: usize, mut values: [__m512; 2]) {
        assert!(
            row < self.rows && panel * LANES < self.cols,
            "outside the tile"
        );
        let rest = self.cols - panel * LANES;
        // SAFETY: the row and the first panel's first column lie in the tile that `new` borrowed.
        // What is read and written there are columns of it: 32 or, by masks, as many as it has.
        unsafe {
            let first = self.start.add(row * self.stride + panel * LANES);
            let second = first.wrapping_add(LANES);
            if rest >= 2 * LANES {
                if self.write == Write::Add {
                    values[0] = _mm512_add_ps(_mm512_loadu_ps(first), values[0]);
                    values[1] = _mm512_add_ps(_mm512_loadu_ps(second), values[1]);
                }
                _mm512_storeu_ps(first, values[0]);
                _mm512_storeu_ps(second, values[1]);
                return;
            }
            let masks = [lanes(rest), lanes(rest.saturating_sub(LANES))];
            for ((to, lanes), mut values) in [first, second].into_iter().zip(masks).zip(values) {
                if self.write == Write::Add {
                    values = _mm512_add_ps(_mm512_maskz_loadu_ps(lanes, to), values);
                }
                _mm512_mask_storeu_ps(to, lanes, values);
            }
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

/// The first 32 scales, or as many as there are and zeros.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn scales(from: &[f32]) -> [__m512; 2] {
    let masks = [lanes(from.len()), lanes(from.len().saturating_sub(LANES))];
    // SAFETY: the masks leave out what lies behind the scales.
    unsafe {
        [
            _mm512_maskz_loadu_ps(masks[0], from.as_ptr()),
            _mm512_maskz_loadu_ps(masks[1], from.as_ptr().wrapping_add(LANES)),
        ]
    }
}

/// `f32(sums) * factors`, each rounded once.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn scaled(sums: [__m512i; 2], factors: [__m512; 2]) -> [__m512; 2] {
    [
        _mm512_mul_ps(_mm512_cvtepi32_ps(sums[0]), factors[0]),
        _mm512_mul_ps(_mm512_cvtepi32_ps(sums[1]), factors[1]),
    ]
}

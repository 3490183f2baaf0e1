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

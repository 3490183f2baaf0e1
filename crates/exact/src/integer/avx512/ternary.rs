//! Ternary products with AVX-512 VNNI.

use std::arch::x86_64::*;
use std::ops::Range;

use super::tile::{self, Weights};
use super::{Digits, Output, Scaled, Scales, digits, products};
use crate::cpu::scratch::Scratch;
use crate::integer::chunks;
use crate::ternary::Panels;
use crate::{Codes, Tile, WideCodes, Write};

impl Weights for Panels<'_> {
    fn bytes(&self, panel: usize) -> &[u8] {
        self.panel(panel)
    }

    const OFFSET: i32 = 1;

    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    #[inline]
    unsafe fn expand(&self, panel: usize, out: &mut [__m512i], every: usize) {
        let mask = _mm512_set1_epi8(3);
        for (bytes, out) in self
            .panel(panel)
            .chunks_exact(64)
            .zip(out.chunks_mut(4 * every))
        {
            // SAFETY: a block has 64 bytes.
            let codes = unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) };
            // What the shifts bring in from the next byte is masked.
            out[0] = _mm512_and_si512(codes, mask);
            out[every] = _mm512_and_si512(_mm512_srli_epi16::<2>(codes), mask);
            out[2 * every] = _mm512_and_si512(_mm512_srli_epi16::<4>(codes), mask);
            out[3 * every] = _mm512_and_si512(_mm512_srli_epi16::<6>(codes), mask);
        }
    }
}

/// See [`crate::ternary::forward`].
///
/// # Safety
/// The processor has the features.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(crate) unsafe fn forward(
    w: Panels<'_>,
    panels: Range<usize>,
    x: Codes<'_>,
    scale: f32,
    y: &mut Tile<'_, f32>,
) {
    let scales = Scales::Matrix(scale);
    products(&w, panels, x, scales, y);
}

/// See [`crate::ternary::backward`].
///
/// # Safety
/// The processor has the features.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(crate) unsafe fn backward(
    wt: Panels<'_>,
    panels: Range<usize>,
    g: WideCodes<'_>,
    scale: f32,
    write: Write,
    dx: &mut Tile<'_, f32>,
) {
    let mut dx = dx.reborrow();
    for rows in chunks(g.rows, 2 * g.stride) {
        let (mut tile, rest) = dx.split_rows(rows.len());
        dx = rest;
        let mut codes = Scratch::<i8>::new(2 * rows.len() * g.stride);
        let words = g.low[rows.start * g.stride..rows.end * g.stride].chunks_exact(g.stride);
        for (words, codes) in words.zip(codes.chunks_exact_mut(2 * g.stride)) {
            let (first, second) = codes.split_at_mut(g.stride);
            digits::lower(words, first, second);
        }
        let digits = Digits {
            codes: &codes,
            stride: g.stride,
        };
        let mut out = Scaled {
            out: Output {
                tile: &mut tile,
                write,
            },
            row_scales: &g.scales[rows],
            scales: Scales::Matrix(scale),
        };
        tile::products::<_, _, 2>(&wt, panels.clone(), digits, &mut out);
    }
}

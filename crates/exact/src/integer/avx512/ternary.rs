//! Ternary products with AVX-512 VNNI.

use std::arch::x86_64::*;
use std::ops::Range;

use super::tile::{self, Weights};
use super::{Digits, Output, Scales, products};
use crate::integer::chunks;
use crate::ternary::Panels;
use crate::{Codes, Tile, WideCodes, Write};

impl Weights for Panels<'_> {
    fn bytes(&self, panels: Range<usize>) -> &[u8] {
        self.range(panels)
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
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(crate) unsafe fn backward(
    wt: Panels<'_>,
    panels: Range<usize>,
    g: WideCodes<'_>,
    scale: f32,
    write: Write,
    dx: &mut Tile<'_, f32>,
) {
    let mut dx = dx.reborrow();
    let mut codes = Vec::new();
    for rows in chunks(g.rows, 2 * g.stride) {
        let (tile, rest) = dx.split_rows(rows.len());
        dx = rest;
        codes.resize(2 * rows.len() * g.stride, 0);
        let words = g.low[rows.start * g.stride..rows.end * g.stride].chunks_exact(g.stride);
        for (words, codes) in words.zip(codes.chunks_exact_mut(2 * g.stride)) {
            split(words, codes.split_at_mut(g.stride));
        }
        let digits = Digits {
            codes: &codes,
            stride: g.stride,
        };
        let mut out = Output {
            tile: &mut { tile },
            write,
        };
        let scales = (&g.scales[rows], Scales::Matrix(scale));
        tile::products::<_, 2>(&wt, panels.clone(), digits, scales, &mut out);
    }
}

/// Balanced digits to base 256, lower and upper: these are at most 127, as |code| <= 32,512.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn split(words: &[i16], (lower, upper): (&mut [i8], &mut [i8])) {
    for ((&word, lower), upper) in words.iter().zip(lower).zip(upper) {
        *lower = word as i8;
        *upper = (word.wrapping_add(128) >> 8) as i8;
    }
}

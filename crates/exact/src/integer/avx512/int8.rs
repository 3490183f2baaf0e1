//! int8 products with AVX-512 VNNI.

use std::arch::x86_64::*;
use std::ops::Range;

use super::tile::{self, Weights};
use super::{Digits, Output, Scales, sparse, vector};
use crate::int8::Panels;
use crate::integer::chunks;
use crate::panels::LANES;
use crate::{Codes, Tile, WideCodes, Write};

impl Weights for Panels<'_> {
    fn bytes(&self, panels: Range<usize>) -> &[u8] {
        self.range(panels)
    }

    const OFFSET: i32 = 128;

    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    #[inline]
    unsafe fn expand(&self, panel: usize, out: &mut [__m512i], every: usize) {
        let flip = _mm512_set1_epi8(i8::MIN);
        let groups = self.panel(panel).chunks_exact(64);
        for (bytes, out) in groups.zip(out.iter_mut().step_by(every)) {
            // SAFETY: a group has 64 bytes.
            let weights = unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) };
            *out = _mm512_xor_si512(weights, flip);
        }
    }
}

/// See [`crate::int8::forward`].
///
/// # Safety
/// The processor has the features.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(crate) unsafe fn forward(
    w: Panels<'_>,
    panels: Range<usize>,
    x: Codes<'_>,
    row_scales: &[f32],
    y: &mut Tile<'_, f32>,
) {
    let mut y = y.reborrow();
    let scales = Scales::Rows(&row_scales[panels.start * LANES..]);
    for rows in chunks(x.rows, x.stride) {
        let (tile, rest) = y.split_rows(rows.len());
        y = rest;
        let digits = Digits {
            codes: &x.codes[rows.start * x.stride..rows.end * x.stride],
            stride: x.stride,
        };
        let mut out = Output {
            tile: &mut { tile },
            write: Write::Replace,
        };
        if rows.len() == 1 {
            let scales = (x.scales[rows.start], scales);
            vector::products(&w, panels.clone(), digits, scales, &mut out);
        } else {
            let scales = (&x.scales[rows], scales);
            tile::products::<_, 1>(&w, panels.clone(), digits, scales, &mut out);
        }
    }
}

/// See [`crate::int8::backward`].
///
/// # Safety
/// The processor has the features.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(crate) unsafe fn backward(
    wt: Panels<'_>,
    panels: Range<usize>,
    g: WideCodes<'_>,
    write: Write,
    dx: &mut Tile<'_, f32>,
) {
    sparse::products(wt, panels, g, &mut Output { tile: dx, write });
}

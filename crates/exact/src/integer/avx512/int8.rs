//! int8 products with AVX-512 VNNI.

use std::arch::x86_64::*;
use std::ops::Range;

use super::tile::{self, Weights};
use super::{Digits, Scales, Totals, digits, products, upper};
use crate::cpu::scratch::Scratch;
use crate::int8::Panels;
use crate::panels::{LANES, padded};
use crate::{Codes, Tile, WideCodes};

impl Weights for Panels<'_> {
    fn bytes(&self, panel: usize) -> &[u8] {
        self.panel(panel)
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
    let scales = Scales::Rows(&row_scales[panels.start * LANES..]);
    products(&w, panels, x, scales, y);
}

/// See [`crate::int8::Sums::add`].
///
/// # Safety
/// The processor has the features.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(crate) unsafe fn backward(
    wt: Panels<'_>,
    panels: Range<usize>,
    g: WideCodes<'_>,
    totals: &mut [[i64; LANES]],
) {
    let cols = padded(wt.cols());
    let mut codes = Scratch::<i8>::new(2 * g.rows * cols);
    for (row, codes) in codes.chunks_exact_mut(2 * cols).enumerate() {
        let (first, second) = codes.split_at_mut(cols);
        digits::lower(&g.low[row * g.stride..][..cols], first, second);
    }
    let digits = Digits {
        codes: &codes,
        stride: cols,
    };
    let mut out = Totals {
        totals,
        rows: g.rows,
        shift: 0,
    };
    tile::products::<_, _, 2>(&wt, panels.clone(), digits, &mut out);
    upper::add(wt, panels, g, totals);
}

//! int8 products with AVX-512 VNNI.

use std::arch::x86_64::*;
use std::ops::Range;

use super::tile::Weights;
use super::{Output, Scales, products, sparse};
use crate::int8::Panels;
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
    let scales = Scales::Rows(&row_scales[panels.start * LANES..]);
    products(&w, panels, x, scales, y);
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

//! Panels of either kind of weights, as tiles read them.

use std::arch::x86_64::*;
use std::ops::Range;

use super::GROUP_BYTES;
use super::tiles::STEP;
use crate::cpu::scratch::Scratch;
use crate::panels::LANES;
use crate::{int8, ternary};

/// Weights as tiles read them: panels of int8, the columns four by four.
pub(super) trait Weights<'a> {
    /// Makes some columns of some panels ready.
    fn prepare(&mut self, panels: Range<usize>, columns: Range<usize>);

    /// Those columns of one of those panels.
    fn panel(&self, panel: usize) -> &[u8];

    /// Some columns of any panel as they lie in memory.
    fn bytes(&self, panel: usize, columns: Range<usize>) -> &'a [u8];
}

/// int8 panels, which tiles read where they are.
pub(super) struct Int8<'a> {
    panels: int8::Panels<'a>,
    columns: Range<usize>,
}

impl<'a> Int8<'a> {
    pub(super) fn new(panels: int8::Panels<'a>) -> Self {
        let columns = 0..0;
        Self { panels, columns }
    }
}

impl<'a> Weights<'a> for Int8<'a> {
    fn prepare(&mut self, _: Range<usize>, columns: Range<usize>) {
        self.columns = columns;
    }

    fn panel(&self, panel: usize) -> &[u8] {
        self.bytes(panel, self.columns.clone())
    }

    fn bytes(&self, panel: usize, columns: Range<usize>) -> &'a [u8] {
        &self.panels.panel(panel)[columns.start * LANES..columns.end * LANES]
    }
}

/// Two-bit panels, expanded.
pub(super) struct Ternary<'a> {
    panels: ternary::Panels<'a>,
    expanded: Scratch<u8>,
    /// The first panel there, and the columns of each.
    first: usize,
    columns: usize,
}

impl<'a> Ternary<'a> {
    pub(super) fn new(panels: ternary::Panels<'a>) -> Self {
        Self {
            panels,
            // Two panels, or as many as fit; a last step may come on top.
            expanded: Scratch::new(GROUP_BYTES + 2 * STEP),
            first: 0,
            columns: 0,
        }
    }
}

impl<'a> Weights<'a> for Ternary<'a> {
    fn prepare(&mut self, panels: Range<usize>, columns: Range<usize>) {
        self.first = panels.start;
        self.columns = columns.len();
        for (panel, expanded) in panels.zip(self.expanded.chunks_exact_mut(columns.len() * LANES)) {
            let bytes = &self.panels.panel(panel)[columns.start * 4..columns.end * 4];
            // SAFETY: whoever multiplies with AMX has AVX-512.
            unsafe { expand(bytes, expanded) };
        }
    }

    fn panel(&self, panel: usize) -> &[u8] {
        let len = self.columns * LANES;
        &self.expanded[(panel - self.first) * len..][..len]
    }

    fn bytes(&self, panel: usize, columns: Range<usize>) -> &'a [u8] {
        &self.panels.panel(panel)[columns.start * 4..columns.end * 4]
    }
}

/// Two-bit codes w+1 as int8 weights.
#[target_feature(enable = "avx512f,avx512bw")]
fn expand(bytes: &[u8], expanded: &mut [u8]) {
    let (mask, one) = (_mm512_set1_epi8(3), _mm512_set1_epi8(1));
    for (bytes, out) in bytes.chunks_exact(64).zip(expanded.chunks_exact_mut(256)) {
        // SAFETY: `bytes` are a register, and `out` four.
        unsafe {
            let codes = _mm512_loadu_si512(bytes.as_ptr().cast());
            let groups = [
                codes,
                _mm512_srli_epi16::<2>(codes),
                _mm512_srli_epi16::<4>(codes),
                _mm512_srli_epi16::<6>(codes),
            ];
            for (group, out) in groups.into_iter().zip(out.chunks_exact_mut(64)) {
                let weights = _mm512_sub_epi8(_mm512_and_si512(group, mask), one);
                _mm512_storeu_si512(out.as_mut_ptr().cast(), weights);
            }
        }
    }
}

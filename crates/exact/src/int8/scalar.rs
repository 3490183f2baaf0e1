//! The definition of the int8 products, in plain Rust.

use std::ops::Range;

use super::Panels;
use super::pack::GROUP;
use crate::integer::store;
use crate::panels::LANES;
use crate::{Codes, Tile, WideCodes, Write};

/// See [`super::forward`].
pub(super) fn forward(
    w: Panels<'_>,
    panels: Range<usize>,
    x: Codes<'_>,
    row_scales: &[f32],
    y: &mut Tile<'_, f32>,
) {
    for (index, panel) in panels.enumerate() {
        let scales = &row_scales[panel * LANES..];
        for t in 0..x.rows {
            let codes = &x.codes[t * x.stride..(t + 1) * x.stride];
            let mut sums = [0i32; LANES];
            for (group, codes) in w
                .panel(panel)
                .chunks_exact(GROUP)
                .zip(codes.chunks_exact(4))
            {
                for (sum, weights) in sums.iter_mut().zip(group.chunks_exact(4)) {
                    for (&weight, &code) in weights.iter().zip(codes) {
                        *sum += i32::from(weight as i8) * i32::from(code);
                    }
                }
            }
            let scale = x.scales[t];
            store(y, t, index, Write::Replace, |lane| {
                sums[lane] as f32 * (scale * scales[lane])
            });
        }
    }
}

/// See [`super::Sums::add`].
pub(super) fn backward(
    wt: Panels<'_>,
    panels: Range<usize>,
    g: WideCodes<'_>,
    totals: &mut [[i64; LANES]],
) {
    for (panel, totals) in panels.zip(totals.chunks_exact_mut(g.rows)) {
        for (t, totals) in totals.iter_mut().enumerate() {
            let groups = wt.panel(panel).chunks_exact(GROUP);
            for (group, first) in groups.zip((t * g.stride..).step_by(4)) {
                let codes = [0, 1, 2, 3].map(|j| i64::from(g.code(first + j)));
                if codes == [0; 4] {
                    continue;
                }
                for (sum, weights) in totals.iter_mut().zip(group.chunks_exact(4)) {
                    for (&weight, code) in weights.iter().zip(codes) {
                        *sum += i64::from(weight as i8) * code;
                    }
                }
            }
        }
    }
}

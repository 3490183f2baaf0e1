//! The definition of the ternary products, in plain Rust.

use std::ops::Range;

use super::Panels;
use super::pack::BLOCK;
use crate::integer::store;
use crate::panels::LANES;
use crate::{Codes, Tile, WideCodes, Write};

/// See [`super::forward`].
pub(super) fn forward(
    w: Panels<'_>,
    panels: Range<usize>,
    x: Codes<'_>,
    scale: f32,
    y: &mut Tile<'_, f32>,
) {
    for (index, panel) in panels.enumerate() {
        for t in 0..x.rows {
            let row = &x.codes[t * x.stride..(t + 1) * x.stride];
            let sums = products(w.panel(panel), row);
            let factor = x.scales[t] * scale;
            store(y, t, index, Write::Replace, |lane| {
                sums[lane] as f32 * factor
            });
        }
    }
}

/// See [`super::backward`].
pub(super) fn backward(
    wt: Panels<'_>,
    panels: Range<usize>,
    g: WideCodes<'_>,
    scale: f32,
    write: Write,
    dx: &mut Tile<'_, f32>,
) {
    for (index, panel) in panels.enumerate() {
        for t in 0..g.rows {
            let row = &g.low[t * g.stride..(t + 1) * g.stride];
            let sums = products(wt.panel(panel), row);
            let factor = g.scales[t] * scale;
            store(dx, t, index, write, |lane| sums[lane] as f32 * factor);
        }
    }
}

/// The exact sums of one panel's sixteen rows with one row of codes (headroom: [`super::LIMIT`]).
fn products<T: Copy + Into<i32>>(panel: &[u8], codes: &[T]) -> [i32; LANES] {
    let mut sums = [0; LANES];
    for (block, codes) in panel.chunks_exact(BLOCK).zip(codes.chunks_exact(LANES)) {
        for (sum, bytes) in sums.iter_mut().zip(block.chunks_exact(4)) {
            for (col, &code) in codes.iter().enumerate() {
                let weight = i32::from(bytes[col % 4] >> (col / 4 * 2) & 3) - 1;
                *sum += weight * code.into();
            }
        }
    }
    sums
}

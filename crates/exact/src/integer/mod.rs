//! What the ternary and the int8 products share: checks of shapes, and stores.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(test)]
mod tests;

use std::ops::Range;

use crate::panels::{LANES, padded};
use crate::{Isa, Tile, Write};

/// Checks everything that the kernels rely on without looking again.
pub(crate) fn check(
    isa: Isa,
    (rows, cols): (usize, usize),
    panels: &Range<usize>,
    (tokens, stride, codes): (usize, usize, usize),
    out: &Tile<'_, f32>,
) {
    assert!(isa.is_available(), "this machine has no {isa} kernels");
    assert!(
        panels.end <= rows.div_ceil(LANES),
        "panels outside the matrix"
    );
    let outputs = (panels.end * LANES)
        .min(rows)
        .saturating_sub(panels.start * LANES);
    assert_eq!(out.cols(), outputs, "columns of the output");
    assert_eq!(out.rows(), tokens, "rows of the output");
    assert_eq!(stride, padded(cols), "stride of the codes");
    assert!(codes >= tokens * stride, "codes shorter than their shape");
}

/// Writes the sixteen results of one panel for one row, dropping those of padding.
#[inline(always)]
pub(crate) fn store(
    out: &mut Tile<'_, f32>,
    row: usize,
    panel: usize,
    write: Write,
    value: impl Fn(usize) -> f32,
) {
    let out = &mut out.row_mut(row)[panel * LANES..];
    for (lane, out) in out.iter_mut().take(LANES).enumerate() {
        match write {
            Write::Replace => *out = value(lane),
            Write::Add => *out += value(lane),
        }
    }
}

//! What the ternary and the int8 products share: checks of shapes, cuts into tiles, stores, and
//! the building blocks of each instruction set.

#[cfg(target_arch = "x86_64")]
pub(crate) mod ahead;
#[cfg(target_arch = "x86_64")]
pub(crate) mod amx;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
#[cfg(any(target_arch = "aarch64", test))]
pub(crate) mod lanes;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
#[cfg(test)]
mod tests;

use std::ops::Range;

use crate::panels::{LANES, padded};
use crate::{Isa, Tile, Write};

/// Bytes of codes that a pass over the panels rereads: they stay in the second-level cache.
const CHUNK_BYTES: usize = 192 << 10;

/// Fewest rows of codes for which a panel is expanded.
const CHUNK_ROWS: usize = 48;

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
        write.put(out, value(lane));
    }
}

/// Ranges of at most `most` that cover `0..len` and differ in length by at most one.
pub(crate) fn even(len: usize, most: usize) -> Even {
    let count = len.div_ceil(most).max(1);
    Even {
        start: 0,
        size: len / count,
        longer: len % count,
        count,
    }
}

/// See [`even`].
#[derive(Clone, Copy)]
pub(crate) struct Even {
    start: usize,
    size: usize,
    /// The first ranges, this many, are longer by one.
    longer: usize,
    count: usize,
}

impl Iterator for Even {
    type Item = Range<usize>;

    #[inline]
    fn next(&mut self) -> Option<Range<usize>> {
        if self.count == 0 {
            return None;
        }
        let end = self.start + self.size + usize::from(self.longer > 0);
        let range = self.start..end;
        *self = Self {
            start: end,
            size: self.size,
            longer: self.longer.saturating_sub(1),
            count: self.count - 1,
        };
        Some(range)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.count, Some(self.count))
    }
}

impl ExactSizeIterator for Even {}

/// Chunks of rows of codes, each `bytes` long, for one pass over the panels.
pub(crate) fn chunks(rows: usize, bytes: usize) -> Even {
    even(rows, (CHUNK_BYTES / bytes).max(CHUNK_ROWS))
}

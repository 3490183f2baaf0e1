//! int8 matrices times integer codes, exactly: embedding, head and W8A8 linears.
//!
//! Every row has its own scale. [`forward`] takes int8 activations; [`backward`], through the
//! transposed pack, takes codes of 23 bits (rule 6 of docs/spec/exact.md), so that the gradient of
//! a whole vocabulary keeps its small parts.
//!
//! Every back end gives the bits of the scalar one. The headroom: a forward sum over at most
//! [`FORWARD_COLS`] columns is at most 2^16 * 127 * 128 < 2^30, so i32 holds it. A backward sum
//! over at most [`LIMIT`] columns is at most 2^18 * 127 * 2^22 < 2^47: i64 holds it, and f64
//! exactly, so the one rounding is that to f32.

#[cfg(target_arch = "x86_64")]
mod avx2;
mod pack;
mod scalar;

use std::ops::Range;

pub use self::pack::{pack, packed_len, row, transpose, unpack};
use crate::integer;
use crate::panels::{LANES, PanelError};
use crate::{Codes, Isa, Tile, WideCodes, Write};

/// Largest number of rows and of columns: a vocabulary of 256 k.
pub const LIMIT: usize = 1 << 18;

/// Largest number of columns that [`forward`] takes.
pub const FORWARD_COLS: usize = 1 << 16;

/// An int8 matrix in panels: rows are outputs, columns inputs, values within +-127.
///
/// For each panel of sixteen rows and each four columns there are 64 bytes; byte 4l+j is the
/// weight of row l, column j.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Panels<'a> {
    bytes: &'a [u8],
    rows: usize,
    cols: usize,
}

impl<'a> Panels<'a> {
    /// Panels as [`pack`] makes them, every byte checked: length, values, padding.
    pub fn new(bytes: &'a [u8], rows: usize, cols: usize) -> Result<Self, PanelError> {
        pack::validate(bytes, rows, cols)?;
        Ok(Self { bytes, rows, cols })
    }

    /// Panels that [`Panels::new`] has accepted before.
    ///
    /// # Panics
    /// When the length does not fit the shape. Bytes that were never checked give wrong numbers,
    /// though no undefined behaviour.
    pub fn trusted(bytes: &'a [u8], rows: usize, cols: usize) -> Self {
        assert_eq!(
            bytes.len(),
            packed_len(rows, cols),
            "panels of {rows} x {cols}"
        );
        Self { bytes, rows, cols }
    }

    /// All bytes.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Outputs.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Number of panels.
    pub fn panels(&self) -> usize {
        self.rows.div_ceil(LANES)
    }

    /// Bytes of some panels.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn range(&self, panels: Range<usize>) -> &'a [u8] {
        let len = packed_len(LANES, self.cols);
        &self.bytes[panels.start * len..panels.end * len]
    }

    /// Bytes of one panel.
    pub(crate) fn panel(&self, index: usize) -> &'a [u8] {
        let len = packed_len(LANES, self.cols);
        &self.bytes[index * len..(index + 1) * len]
    }
}

/// `y[t][o] = f32(sum_i w[o][i] * x[t][i]) * (s_x[t] * row_scales[o])` for the outputs of
/// `panels`.
///
/// `row_scales` are those of the whole matrix. `y` has one row for each row of `x`, and one column
/// for each matrix row in `panels`.
///
/// # Panics
/// When shapes do not fit, or the machine lacks the instructions of `isa`.
pub fn forward(
    isa: Isa,
    w: Panels<'_>,
    panels: Range<usize>,
    x: Codes<'_>,
    row_scales: &[f32],
    mut y: Tile<'_, f32>,
) {
    let codes = (x.rows, x.stride, x.codes.len());
    integer::check(isa, (w.rows, w.cols), &panels, codes, &y);
    assert!(
        w.cols <= FORWARD_COLS,
        "{} columns may overflow an i32 sum",
        w.cols
    );
    assert_eq!(row_scales.len(), w.rows, "one scale for each row");
    if panels.is_empty() || x.rows == 0 {
        return;
    }
    match isa {
        // SAFETY: `check` has seen that the processor has the instructions, and the shapes.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { avx2::forward(w, panels, x, row_scales, &mut y) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Amx if integer::amx::pays(x.rows, x.stride) => unsafe {
            integer::amx::int8_forward(w, panels, x, row_scales, &mut y);
        },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Amx => unsafe {
            integer::avx512::int8_forward(w, panels, x, row_scales, &mut y)
        },
        // SAFETY: as above, and `dotprod` is seen here.
        #[cfg(target_arch = "aarch64")]
        Isa::Neon if integer::neon::has_dot() => unsafe {
            integer::neon::dot::int8_forward(w, panels, x, row_scales, &mut y);
        },
        // SAFETY: as above.
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => unsafe { integer::neon::base::int8_forward(w, panels, x, row_scales, &mut y) },
        _ => scalar::forward(w, panels, x, row_scales, &mut y),
    }
}

/// `dx[t][i] (+)= f32(sum_o w[o][i] * g[t][o]) * s_g[t]` for the inputs of `panels`.
///
/// `wt` is the transposed pack, whose rows are the inputs. The scales of the matrix rows are in
/// the codes already (rule 6); codes are within +-4,194,304. `dx` has one column for each row of
/// `wt` in `panels`.
///
/// # Panics
/// When shapes do not fit, or the machine lacks the instructions of `isa`.
pub fn backward(
    isa: Isa,
    wt: Panels<'_>,
    panels: Range<usize>,
    g: WideCodes<'_>,
    write: Write,
    mut dx: Tile<'_, f32>,
) {
    let codes = (g.rows, g.stride, g.low.len());
    integer::check(isa, (wt.rows, wt.cols), &panels, codes, &dx);
    assert!(
        g.high.is_empty() || g.high.len() >= g.rows * g.stride,
        "high parts too short"
    );
    if panels.is_empty() || g.rows == 0 {
        return;
    }
    match isa {
        // SAFETY: `check` has seen that the processor has the instructions, and the shapes.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { avx2::backward(wt, panels, g, write, &mut dx) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Amx if integer::amx::pays(g.rows, g.stride) => unsafe {
            integer::amx::int8_backward(wt, panels, g, write, &mut dx);
        },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Amx => unsafe {
            integer::avx512::int8_backward(wt, panels, g, write, &mut dx)
        },
        // SAFETY: as above, and `dotprod` is seen here.
        #[cfg(target_arch = "aarch64")]
        Isa::Neon if integer::neon::has_dot() => unsafe {
            integer::neon::dot::int8_backward(wt, panels, g, write, &mut dx);
        },
        // SAFETY: as above.
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => unsafe { integer::neon::base::int8_backward(wt, panels, g, write, &mut dx) },
        _ => scalar::backward(wt, panels, g, write, &mut dx),
    }
}

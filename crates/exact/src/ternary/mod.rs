//! Ternary matrices times integer codes, exactly.
//!
//! Weights are -1, 0 or 1 in two bits each, in the panels of [`crate::panels`]. [`forward`] is a
//! BitLinear layer (rules 1 and 3 of docs/spec/exact.md): int8 activations, sums in i32, one
//! rounding to f32. [`backward`] is its gradient through the transposed pack (rule 5): codes of
//! 16 bits, exact sums, one rounding.
//!
//! Every back end gives the bits of the scalar one. The headroom: with at most [`LIMIT`] columns,
//! a forward sum is at most 2^16 * 128 = 2^23, and a backward sum at most
//! 2^16 * 32,512 = 2,130,706,432 < 2^31, so i32 holds both.

#[cfg(target_arch = "x86_64")]
mod avx2;
mod pack;
mod scalar;

use std::ops::Range;

pub use self::pack::{pack, packed_len, transpose, unpack};
use crate::integer;
use crate::panels::{LANES, PanelError};
use crate::{Codes, Isa, Tile, WideCodes, Write};

/// Largest number of rows and of columns.
pub const LIMIT: usize = 1 << 16;

/// A ternary matrix in panels: rows are outputs, columns inputs.
///
/// For each panel of sixteen rows and each sixteen columns there are 64 bytes; bits 2g and 2g+1 of
/// byte 4l+j hold w+1 of row l, column 4g+j.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Panels<'a> {
    bytes: &'a [u8],
    rows: usize,
    cols: usize,
}

impl<'a> Panels<'a> {
    /// Panels as [`pack`] makes them, every byte checked: length, codes, padding.
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

    /// Bytes of one panel.
    pub(crate) fn panel(&self, index: usize) -> &'a [u8] {
        let len = self.panel_len();
        &self.bytes[index * len..(index + 1) * len]
    }

    /// Number of bytes in a panel.
    pub(crate) fn panel_len(&self) -> usize {
        packed_len(LANES, self.cols)
    }
}

/// `y[t][o] = f32(sum_i w[o][i] * x[t][i]) * (s_x[t] * scale)` for the outputs of `panels`.
///
/// `y` has one row for each row of `x`, and one column for each matrix row in `panels`.
///
/// # Panics
/// When shapes do not fit, or the machine lacks the instructions of `isa`.
pub fn forward(
    isa: Isa,
    w: Panels<'_>,
    panels: Range<usize>,
    x: Codes<'_>,
    scale: f32,
    mut y: Tile<'_, f32>,
) {
    integer::check(
        isa,
        (w.rows, w.cols),
        &panels,
        (x.rows, x.stride, x.codes.len()),
        &y,
    );
    if panels.is_empty() || x.rows == 0 {
        return;
    }
    match isa {
        // SAFETY: `check` has seen that the processor has the instructions, and the shapes.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { avx2::forward(w, panels, x, scale, &mut y) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Amx if integer::amx::pays(x.rows, x.stride) => unsafe {
            integer::amx::ternary_forward(w, panels, x, scale, &mut y);
        },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Amx => unsafe {
            integer::avx512::ternary_forward(w, panels, x, scale, &mut y)
        },
        // SAFETY: as above, and `dotprod` is seen here.
        #[cfg(target_arch = "aarch64")]
        Isa::Neon if integer::neon::has_dot() => unsafe {
            integer::neon::dot::ternary_forward(w, panels, x, scale, &mut y);
        },
        // SAFETY: as above.
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => unsafe { integer::neon::base::ternary_forward(w, panels, x, scale, &mut y) },
        _ => scalar::forward(w, panels, x, scale, &mut y),
    }
}

/// `dx[t][i] (+)= f32(sum_o w[o][i] * g[t][o]) * (s_g[t] * scale)` for the inputs of `panels`.
///
/// `wt` is the transposed pack, whose rows are the layer's inputs. The codes are within
/// +-32,512, and `g.high` is empty. `dx` has one column for each row of `wt` in `panels`.
///
/// # Panics
/// When shapes do not fit, or the machine lacks the instructions of `isa`.
pub fn backward(
    isa: Isa,
    wt: Panels<'_>,
    panels: Range<usize>,
    g: WideCodes<'_>,
    scale: f32,
    write: Write,
    mut dx: Tile<'_, f32>,
) {
    integer::check(
        isa,
        (wt.rows, wt.cols),
        &panels,
        (g.rows, g.stride, g.low.len()),
        &dx,
    );
    assert!(g.high.is_empty(), "ternary gradients have 16-bit codes");
    if panels.is_empty() || g.rows == 0 {
        return;
    }
    match isa {
        // SAFETY: `check` has seen that the processor has the instructions, and the shapes.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { avx2::backward(wt, panels, g, scale, write, &mut dx) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Amx if integer::amx::pays(g.rows, g.stride) => unsafe {
            integer::amx::ternary_backward(wt, panels, g, scale, write, &mut dx);
        },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Amx => unsafe {
            integer::avx512::ternary_backward(wt, panels, g, scale, write, &mut dx)
        },
        // SAFETY: as above, and `dotprod` is seen here.
        #[cfg(target_arch = "aarch64")]
        Isa::Neon if integer::neon::has_dot() => unsafe {
            integer::neon::dot::ternary_backward(wt, panels, g, scale, write, &mut dx);
        },
        // SAFETY: as above.
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => unsafe {
            integer::neon::base::ternary_backward(wt, panels, g, scale, write, &mut dx)
        },
        _ => scalar::backward(wt, panels, g, scale, write, &mut dx),
    }
}

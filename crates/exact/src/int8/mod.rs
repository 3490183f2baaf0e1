//! int8 matrices times integer codes, exactly: embedding, head and W8A8 linears.
//!
//! Every row has its own scale. [`forward`] takes int8 activations; [`backward`], through the
//! transposed pack, takes codes of 23 bits (rule 6 of docs/spec/exact.md), so that the gradient of
//! a whole vocabulary keeps its small parts.
//!
//! Every back end gives the bits of the scalar one. The headroom: a forward sum over at most
//! [`FORWARD_COLS`] columns is at most 2^16 * 127 * 128 < 2^30, so i32 holds it. A backward sum
//! over at most [`LIMIT`] columns is at most 2^18 * 127 * 2^22 < 2^47: i64 holds it, and f64
//! exactly, so the one rounding is that to f32. Over [`BLOCK_COLUMNS`] columns the lower sixteen
//! bits of codes give at most 2^9 * 127 * 32,896 = 2,139,029,504 < 2^31, where 32,896 is the
//! largest magnitude of two balanced digits to base 256: i32 holds that, too.

#[cfg(target_arch = "x86_64")]
mod avx2;
mod pack;
mod scalar;

use std::ops::Range;

pub use self::pack::{pack, packed_len, row, transpose, unpack};
use crate::cpu::scratch::Scratch;
use crate::integer;
use crate::panels::{LANES, PanelError, padded};
use crate::{Codes, Isa, Tile, WideCodes, Write};

/// Largest number of rows and of columns: a vocabulary of 256 k.
pub const LIMIT: usize = 1 << 18;

/// Largest number of columns that [`forward`] takes.
pub const FORWARD_COLS: usize = 1 << 16;

/// Columns of a block of a backward product: see above.
pub const BLOCK_COLUMNS: usize = 512;

/// Rows of codes that a backward product sums up together: their sums stay in the cache.
const BACKWARD_ROWS: usize = 128;

/// An int8 matrix in panels: rows are outputs, columns inputs, values within +-127.
///
/// For each panel of sixteen rows and each four columns there are 64 bytes; byte 4l+j is the
/// weight of row l, column j.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Panels<'a> {
    bytes: &'a [u8],
    rows: usize,
    cols: usize,
    /// Bytes from one panel to the next: more than those of its columns in a block of columns.
    pitch: usize,
}

impl<'a> Panels<'a> {
    /// Panels as [`pack`] makes them, every byte checked: length, values, padding.
    pub fn new(bytes: &'a [u8], rows: usize, cols: usize) -> Result<Self, PanelError> {
        pack::validate(bytes, rows, cols)?;
        Ok(Self::trusted(bytes, rows, cols))
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
        Self {
            bytes,
            rows,
            cols,
            pitch: packed_len(LANES, cols),
        }
    }

    /// Some columns, from a multiple of sixteen on.
    fn columns(self, columns: Range<usize>) -> Self {
        assert!(
            columns.start.is_multiple_of(LANES) && columns.end <= self.cols,
            "columns outside the matrix"
        );
        Self {
            bytes: &self.bytes[columns.start * LANES..],
            cols: columns.len(),
            ..self
        }
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
        &self.bytes[index * self.pitch..][..packed_len(LANES, self.cols)]
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
    dx: Tile<'_, f32>,
) {
    let codes = (g.rows, g.stride, g.low.len());
    integer::check(isa, (wt.rows, wt.cols), &panels, codes, &dx);
    let kernel = |wt: Panels<'_>, panels, g: WideCodes<'_>, totals: &mut [_]| {
        add_products(isa, wt, panels, g, totals);
    };
    backward_by(kernel, wt, panels, g, write, dx);
}

/// [`backward`] by a kernel that does what [`add_products`] does.
pub(crate) fn backward_by(
    kernel: impl Fn(Panels<'_>, Range<usize>, WideCodes<'_>, &mut [[i64; LANES]]),
    wt: Panels<'_>,
    panels: Range<usize>,
    g: WideCodes<'_>,
    write: Write,
    dx: Tile<'_, f32>,
) {
    for (rows, tile) in dx.row_chunks(BACKWARD_ROWS) {
        let mut sums = Sums::new(panels.clone(), rows.len());
        for start in (0..wt.cols).step_by(BLOCK_COLUMNS) {
            let columns = start..wt.cols.min(start + BLOCK_COLUMNS);
            let at = rows.start * g.stride + start;
            let part = WideCodes {
                low: &g.low[at..],
                high: g.high.get(at..).unwrap_or_default(),
                rows: rows.len(),
                ..g
            };
            sums.add_by(&kernel, wt, columns, part);
        }
        sums.write(&g.scales[rows], write, tile);
    }
}

/// Adds to the totals of each panel and each row of codes the products of all columns of `wt`, at
/// most [`BLOCK_COLUMNS`].
fn add_products(
    isa: Isa,
    wt: Panels<'_>,
    panels: Range<usize>,
    g: WideCodes<'_>,
    totals: &mut [[i64; LANES]],
) {
    match isa {
        // SAFETY: whoever calls has seen that the processor has the instructions, and the shapes.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { avx2::backward(wt, panels, g, totals) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Amx if integer::amx::pays(g.rows, padded(wt.cols)) => unsafe {
            integer::amx::int8_backward(wt, panels, g, totals);
        },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Amx => unsafe {
            integer::avx512::int8_backward(wt, panels, g, totals);
        },
        // SAFETY: as above, and `dotprod` is seen here.
        #[cfg(target_arch = "aarch64")]
        Isa::Neon if integer::neon::has_dot() => unsafe {
            integer::neon::dot::int8_backward(wt, panels, g, totals);
        },
        // SAFETY: as above.
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => unsafe { integer::neon::base::int8_backward(wt, panels, g, totals) },
        _ => scalar::backward(wt, panels, g, totals),
    }
}

/// The exact sums of a backward product, which grow by blocks of columns.
pub struct Sums {
    /// For each panel, for each row, sixteen.
    totals: Scratch<i64>,
    panels: Range<usize>,
    rows: usize,
}

impl Sums {
    /// Zeros for the products of `rows` rows of codes with `panels`.
    pub fn new(panels: Range<usize>, rows: usize) -> Self {
        let mut totals = Scratch::new(panels.len() * rows * LANES);
        totals.fill(0);
        Self {
            totals,
            panels,
            rows,
        }
    }

    /// Adds the products of some columns of `wt`, from a multiple of sixteen on and at most
    /// [`BLOCK_COLUMNS`], with rows of as many codes.
    ///
    /// # Panics
    /// When shapes do not fit, or the machine lacks the instructions of `isa`.
    pub fn add(&mut self, isa: Isa, wt: Panels<'_>, columns: Range<usize>, g: WideCodes<'_>) {
        assert!(isa.is_available(), "this machine has no {isa} kernels");
        let kernel = |wt: Panels<'_>, panels, g: WideCodes<'_>, totals: &mut [_]| {
            add_products(isa, wt, panels, g, totals);
        };
        self.add_by(kernel, wt, columns, g);
    }

    fn add_by(
        &mut self,
        kernel: impl Fn(Panels<'_>, Range<usize>, WideCodes<'_>, &mut [[i64; LANES]]),
        wt: Panels<'_>,
        columns: Range<usize>,
        g: WideCodes<'_>,
    ) {
        assert!(self.panels.end <= wt.panels(), "panels outside the matrix");
        assert!(columns.len() <= BLOCK_COLUMNS, "too many columns");
        assert_eq!(g.rows, self.rows, "one row of sums for each row of codes");
        if self.totals.is_empty() || columns.is_empty() {
            return;
        }
        let codes = (g.rows - 1) * g.stride + padded(columns.len());
        assert!(
            g.low.len() >= codes && (g.high.is_empty() || g.high.len() >= codes),
            "codes shorter than their shape"
        );
        let totals = self.totals.as_chunks_mut().0;
        kernel(wt.columns(columns), self.panels.clone(), g, totals);
    }

    /// `dx[t][i] (+)= f32(sum) * scales[t]`; see [`backward`].
    pub fn write(&self, scales: &[f32], write: Write, mut dx: Tile<'_, f32>) {
        let totals = self.totals.as_chunks::<LANES>().0;
        for (panel, totals) in totals.chunks_exact(self.rows.max(1)).enumerate() {
            for (row, (totals, scale)) in totals.iter().zip(scales).enumerate() {
                // An i64 below 2^53 is exact in f64: the only rounding is that to f32.
                integer::store(&mut dx, row, panel, write, |lane| {
                    totals[lane] as f64 as f32 * scale
                });
            }
        }
    }
}

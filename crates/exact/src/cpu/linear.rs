//! Linear layers on the processor.

use std::ops::Range;

use super::scratch::Scratch;
use super::{Cpu, CpuCodes, CpuInt8, CpuTernary, FirstBadRow};
use crate::{NotFinite, Tile, WideCodes, Write, int8, kernels, row_stride, ternary};

/// Rows of weights in a panel.
const PANEL: usize = 16;
/// Rows of activations that a thread takes at once: they stay in its cache beside the weights.
const ROWS: usize = 128;

/// Gradient rows quantized for a backward product.
struct Gradients {
    low: Scratch<i16>,
    high: Scratch<i8>,
    scales: Scratch<f32>,
    stride: usize,
}

impl Gradients {
    fn narrow(rows: usize, cols: usize) -> Self {
        let stride = row_stride(cols);
        Self {
            low: Scratch::new(rows * stride),
            high: Scratch::new(0),
            scales: Scratch::new(rows),
            stride,
        }
    }

    fn wide(rows: usize, cols: usize) -> Self {
        let stride = row_stride(cols);
        Self {
            high: Scratch::new(rows * stride),
            ..Self::narrow(rows, cols)
        }
    }

    fn view(&self, rows: Range<usize>) -> WideCodes<'_> {
        let part = rows.start * self.stride..rows.end * self.stride;
        WideCodes {
            low: &self.low[part.clone()],
            high: if self.high.is_empty() {
                &[]
            } else {
                &self.high[part]
            },
            stride: self.stride,
            scales: &self.scales[rows.clone()],
            rows: rows.len(),
        }
    }
}

impl Cpu {
    pub(super) fn quantize_rows(
        &self,
        x: &[f32],
        rows: usize,
        out: &mut CpuCodes,
    ) -> Result<(), NotFinite> {
        let (cols, stride) = (out.cols, out.stride());
        assert!(
            out.scales.len() >= rows,
            "more rows than the codes have space for"
        );
        out.rows = rows;
        let bad = FirstBadRow::new();
        let chunk = self.chunk(rows, 1);
        let codes = out.codes[..rows * stride].chunks_mut(chunk * stride);
        let sums = out.sums[..rows].chunks_mut(chunk);
        let scales = out.scales[..rows].chunks_mut(chunk);
        let parts = codes.zip(sums).zip(scales).enumerate();
        self.pool.each(parts, |(i, ((codes, sums), scales))| {
            let outputs = codes.chunks_exact_mut(stride).zip(sums).zip(scales);
            for (row, ((codes, sum), scale)) in (i * chunk..).zip(outputs) {
                match kernels::activations(self.isa, &x[row * cols..][..cols], codes) {
                    Some(found) => (*scale, *sum) = found,
                    None => bad.report(row),
                }
            }
        });
        bad.result()
    }

    /// Cuts an output of `rows` x `cols` into tiles over rows, and over panels of columns where that
    /// makes too few for the threads: kernels reorder the codes of each tile for its panels.
    pub(super) fn each_tile(
        &self,
        out: Tile<'_, f32>,
        f: impl Fn(Range<usize>, Range<usize>, Tile<'_, f32>) + Sync,
    ) {
        let panels = out.cols().div_ceil(PANEL);
        let row_chunks = out.rows().div_ceil(ROWS).max(1);
        let chunk = self.chunk(panels * row_chunks, 2).min(panels.max(1));
        let tiles = out.row_chunks(ROWS).flat_map(|(rows, tile)| {
            tile.col_chunks(chunk * PANEL)
                .map(move |(cols, tile)| (rows.clone(), cols, tile))
        });
        self.pool.each(tiles, |(rows, cols, tile)| {
            f(rows, cols.start / PANEL..cols.end.div_ceil(PANEL), tile);
        });
    }

    pub(super) fn ternary_product(&self, w: &CpuTernary, x: &CpuCodes, y: &mut [f32]) {
        assert_eq!(x.cols, w.cols, "activations do not fit the weights");
        self.each_tile(Tile::new(y, x.rows, w.rows), |rows, panels, tile| {
            ternary::forward(self.isa, w.panels(), panels, x.view(rows), w.scale, tile);
        });
    }

    pub(super) fn int8_product(&self, w: &CpuInt8, x: &CpuCodes, y: &mut [f32]) {
        assert_eq!(x.cols, w.cols, "activations do not fit the weights");
        self.each_tile(Tile::new(y, x.rows, w.rows), |rows, panels, tile| {
            int8::forward(
                self.isa,
                w.panels(),
                panels,
                x.view(rows),
                &w.row_scales,
                tile,
            );
        });
    }

    pub(super) fn ternary_gradient(
        &self,
        w: &CpuTernary,
        dy: &[f32],
        rows: usize,
        write: Write,
        dx: &mut [f32],
    ) -> Result<(), NotFinite> {
        let mut gradients = Gradients::narrow(rows, w.rows);
        let stride = gradients.stride;
        let bad = FirstBadRow::new();
        let chunk = self.chunk(rows, 1);
        let low = gradients.low.chunks_mut(chunk * stride);
        let parts = low.zip(gradients.scales.chunks_mut(chunk)).enumerate();
        self.pool.each(parts, |(i, codes)| {
            self.narrow_rows(&dy[i * chunk * w.rows..], w.rows, i * chunk, codes, &bad);
        });
        bad.result()?;
        let wt = w.transposed();
        self.each_tile(Tile::new(dx, rows, w.cols), |rows, panels, tile| {
            ternary::backward(
                self.isa,
                wt,
                panels,
                gradients.view(rows),
                w.scale,
                write,
                tile,
            );
        });
        Ok(())
    }

    /// [`Self::ternary_gradient`] of some rows of `dy`, on this thread; nothing when one of them is
    /// bad. The weights are the transposed pack and its scale.
    pub(super) fn ternary_gradient_rows(
        &self,
        (wt, scale): (ternary::Panels<'_>, f32),
        dy: &[f32],
        rows: Range<usize>,
        write: Write,
        dx: Tile<'_, f32>,
        bad: &FirstBadRow,
    ) {
        let (n, cols) = (rows.len(), wt.cols());
        let mut gradients = Gradients::narrow(n, cols);
        let codes = (&mut *gradients.low, &mut *gradients.scales);
        if self.narrow_rows(&dy[rows.start * cols..], cols, rows.start, codes, bad) {
            let (all, view) = (0..wt.panels(), gradients.view(0..n));
            ternary::backward(self.isa, wt, all, view, scale, write, dx);
        }
    }

    /// Quantizes rows of `cols` gradients, one for each scale, to 16 bits; whether all are finite.
    /// Those that are not are reported, the first row being `first`.
    fn narrow_rows(
        &self,
        dy: &[f32],
        cols: usize,
        first: usize,
        (low, scales): (&mut [i16], &mut [f32]),
        bad: &FirstBadRow,
    ) -> bool {
        let mut finite = true;
        let low = low.chunks_exact_mut(row_stride(cols));
        let rows = dy.chunks_exact(cols).zip(low).zip(scales);
        for (row, ((dy, low), scale)) in (first..).zip(rows) {
            match kernels::gradient_narrow(self.isa, dy, low) {
                Some(found) => *scale = found,
                None => {
                    bad.report(row);
                    finite = false;
                }
            }
        }
        finite
    }

    pub(super) fn int8_gradient(
        &self,
        w: &CpuInt8,
        dy: &[f32],
        rows: usize,
        write: Write,
        dx: &mut [f32],
    ) -> Result<(), NotFinite> {
        let mut gradients = Gradients::wide(rows, w.rows);
        let stride = gradients.stride;
        let bad = FirstBadRow::new();
        let chunk = self.chunk(rows, 1);
        let low = gradients.low.chunks_mut(chunk * stride);
        let high = gradients.high.chunks_mut(chunk * stride);
        let parts = low
            .zip(high)
            .zip(gradients.scales.chunks_mut(chunk))
            .enumerate();
        self.pool.each(parts, |(i, ((low, high), scales))| {
            let mut scaled = Scratch::<f32>::new(w.rows);
            let outputs = low
                .chunks_exact_mut(stride)
                .zip(high.chunks_exact_mut(stride))
                .zip(scales);
            for (row, ((low, high), scale)) in (i * chunk..).zip(outputs) {
                scaled.copy_from_slice(&dy[row * w.rows..][..w.rows]);
                kernels::multiply(self.isa, &w.row_scales, &mut scaled);
                match kernels::gradient_wide(self.isa, &scaled, low, high) {
                    Some(found) => *scale = found,
                    None => bad.report(row),
                }
            }
        });
        bad.result()?;
        let wt = w.transposed();
        self.each_tile(Tile::new(dx, rows, w.cols), |rows, panels, tile| {
            int8::backward(self.isa, wt, panels, gradients.view(rows), write, tile);
        });
        Ok(())
    }
}

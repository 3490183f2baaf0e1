//! Linear layers and the head on the processor.

use std::ops::Range;

use super::scratch::Scratch;
use super::{Cpu, CpuCodes, CpuInt8, CpuTernary, FirstBadRow};
use crate::{NotFinite, Tile, WideCodes, Write, int8, kernels, row_stride, ternary};

/// Rows of weights in a panel.
const PANEL: usize = 16;
/// Rows of activations that a thread takes at once: they stay in its cache beside the weights.
const ROWS: usize = 128;
/// Rows of logits that are held at once: they stay in the cache between softmax and gradient.
const HEAD_ROWS: usize = 64;

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

    /// Cuts an output of `rows` x `cols` into tiles over rows, and over panels of columns when
    /// there are fewer rows than threads.
    pub(super) fn each_tile(
        &self,
        out: Tile<'_, f32>,
        f: impl Fn(Range<usize>, Range<usize>, Tile<'_, f32>) + Sync,
    ) {
        let panels = out.cols().div_ceil(PANEL);
        let chunk = self.chunk(panels, 2);
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
        self.pool.each(parts, |(i, (low, scales))| {
            for (row, (low, scale)) in (i * chunk..).zip(low.chunks_exact_mut(stride).zip(scales)) {
                match kernels::gradient_narrow(self.isa, &dy[row * w.rows..][..w.rows], low) {
                    Some(found) => *scale = found,
                    None => bad.report(row),
                }
            }
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

    pub(super) fn head_loss_rows(
        &self,
        head: &CpuInt8,
        x: &CpuCodes,
        targets: &[u32],
        count: usize,
        dx: Option<&mut [f32]>,
    ) -> Result<i64, NotFinite> {
        assert_eq!(x.rows, targets.len(), "one target for each row");
        let loss = std::sync::atomic::AtomicI64::new(0);
        let bad = FirstBadRow::new();
        let pass = HeadPass {
            head,
            x,
            targets,
            inverse_count: 1.0 / count as f32,
        };
        let run = |rows: Range<usize>, dx: Option<&mut [f32]>| match self.head_rows(&pass, rows, dx)
        {
            Ok(sum) => {
                loss.fetch_add(sum, std::sync::atomic::Ordering::Relaxed);
            }
            Err(NotFinite { row }) => bad.report(row),
        };
        let starts = (0..x.rows).step_by(HEAD_ROWS);
        let ranges = starts.map(|start| start..(start + HEAD_ROWS).min(x.rows));
        match dx {
            Some(dx) => {
                let dx = dx[..x.rows * head.cols].chunks_mut(HEAD_ROWS * head.cols);
                // Made before the threads start, so that none waits for another.
                head.transposed();
                self.pool
                    .each(ranges.zip(dx), |(rows, dx)| run(rows, Some(dx)));
            }
            None => self.pool.each(ranges, |rows| run(rows, None)),
        }
        bad.result()?;
        Ok(loss.into_inner())
    }

    /// Loss and gradient of a few rows, on this thread.
    fn head_rows(
        &self,
        pass: &HeadPass<'_>,
        rows: Range<usize>,
        dx: Option<&mut [f32]>,
    ) -> Result<i64, NotFinite> {
        let HeadPass {
            head,
            x,
            targets,
            inverse_count,
        } = *pass;
        let (n, vocabulary) = (rows.len(), head.rows);
        let mut logits = Scratch::new(n * vocabulary);
        let all = 0..vocabulary.div_ceil(PANEL);
        let tile = Tile::new(&mut logits, n, vocabulary);
        int8::forward(
            self.isa,
            head.panels(),
            all,
            x.view(rows.clone()),
            &head.row_scales,
            tile,
        );
        let mut loss = 0;
        let numbered = rows.clone().zip(logits.chunks_exact_mut(vocabulary));
        let Some(dx) = dx else {
            for (row, logits) in numbered {
                let target = targets[row] as usize;
                loss += kernels::cross_entropy_only(self.isa, logits, target)
                    .ok_or(NotFinite { row })?;
            }
            return Ok(loss);
        };
        let mut gradients = Gradients::wide(n, vocabulary);
        let stride = gradients.stride;
        let low = gradients.low.chunks_exact_mut(stride);
        let high = gradients.high.chunks_exact_mut(stride);
        for ((row, logits), ((low, high), scale)) in
            numbered.zip(low.zip(high).zip(gradients.scales.iter_mut()))
        {
            let target = targets[row] as usize;
            let scales = &head.row_scales;
            loss += kernels::cross_entropy(self.isa, logits, target, inverse_count, scales)
                .ok_or(NotFinite { row })?;
            *scale =
                kernels::gradient_wide(self.isa, logits, low, high).ok_or(NotFinite { row })?;
        }
        let all = 0..head.cols.div_ceil(PANEL);
        let tile = Tile::new(dx, n, head.cols);
        int8::backward(
            self.isa,
            head.transposed(),
            all,
            gradients.view(0..n),
            Write::Replace,
            tile,
        );
        Ok(loss)
    }
}

/// What all rows of a head pass share.
#[derive(Clone, Copy)]
struct HeadPass<'a> {
    head: &'a CpuInt8,
    x: &'a CpuCodes,
    targets: &'a [u32],
    inverse_count: f32,
}

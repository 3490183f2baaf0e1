//! The head and its loss on the processor (rules 6 and 14).
//!
//! The logits of some rows are held at once, in blocks of the vocabulary that lie one after the
//! other, so that each step of the way reads and writes what the cache still has or fetches in
//! order. Three passes over them are needed: a maximum before the exponentials, their sum before
//! the gradients. What follows, quantizing and the product with the weights, goes block by block.

use std::ops::Range;
use std::sync::atomic::{AtomicI64, Ordering};

use super::scratch::Scratch;
use super::{Cpu, CpuCodes, CpuInt8, FirstBadRow};
use crate::elementary::round_even;
use crate::environment::undisturbed;
use crate::panels::{LANES, padded};
use crate::scalar::add_lanes;
use crate::scalar::loss::{Softmax, fixed_point};
use crate::scalar::quantize::{INT8_RANGE, SMALLEST_GRADIENT, finite, split};
use crate::{NotFinite, Tile, WideCodes, Write, int8, kernels};

/// Rows of logits that are held at once: they share the weights that pass by.
const ROWS: usize = 128;
/// Columns of the logits in a block.
const BLOCK: usize = int8::BLOCK_COLUMNS;

impl Cpu {
    pub(super) fn head_loss_rows(
        &self,
        head: &CpuInt8,
        x: &CpuCodes,
        targets: &[u32],
        count: usize,
        dx: Option<&mut [f32]>,
    ) -> Result<i64, NotFinite> {
        assert_eq!(x.rows, targets.len(), "one target for each row");
        let loss = AtomicI64::new(0);
        let bad = FirstBadRow::new();
        let largest_scale = |scales: &[f32]| f32::from_bits(kernels::absmax_bits(self.isa, scales));
        let pass = HeadPass {
            device: self,
            head,
            x,
            targets,
            inverse_count: undisturbed(|| 1.0 / count as f32),
            largest_scales: &head
                .row_scales
                .chunks(BLOCK)
                .map(largest_scale)
                .collect::<Vec<_>>(),
        };
        let run = |rows: Range<usize>, dx: Option<&mut [f32]>| match pass.rows(rows, dx) {
            Ok(sum) => {
                loss.fetch_add(sum, Ordering::Relaxed);
            }
            Err(NotFinite { row }) => bad.report(row),
        };
        let chunk = self.chunk(x.rows, 32).min(ROWS);
        let starts = (0..x.rows).step_by(chunk);
        let ranges = starts.map(|start| start..(start + chunk).min(x.rows));
        match dx {
            Some(dx) => {
                let dx = dx[..x.rows * head.cols].chunks_mut(chunk * head.cols);
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
}

/// What all rows of a head pass share.
#[derive(Clone, Copy)]
struct HeadPass<'a> {
    device: &'a Cpu,
    head: &'a CpuInt8,
    x: &'a CpuCodes,
    targets: &'a [u32],
    inverse_count: f32,
    /// The largest scale of the rows of weights in each block.
    largest_scales: &'a [f32],
}

/// A row of logits, which become exponentials.
struct Row {
    target: usize,
    max: f32,
    /// The target's logit.
    at_target: f32,
    lanes: [f32; LANES],
    /// The largest exponential of each block, without which the target's has been left out.
    largest: Vec<f32>,
    /// The target's exponential.
    of_target: f32,
}

/// How a row of gradients is quantized.
#[derive(Clone, Copy)]
struct Quantizer {
    softmax: Softmax,
    factor: f32,
    /// The target's code.
    of_target: i32,
}

impl HeadPass<'_> {
    /// The blocks of the vocabulary.
    fn blocks(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let vocabulary = self.head.rows;
        let starts = (0..vocabulary).step_by(BLOCK);
        starts.map(move |start| start..vocabulary.min(start + BLOCK))
    }

    /// Loss and gradient of a few rows, on this thread.
    fn rows(&self, rows: Range<usize>, dx: Option<&mut [f32]>) -> Result<i64, NotFinite> {
        let n = rows.len();
        let mut logits = Scratch::new(n * self.head.rows);
        let mut of_rows = self.logits(rows.clone(), &mut logits)?;
        self.exponentials(&mut of_rows, &mut logits);
        let mut loss = 0;
        let mut quantizers = Vec::with_capacity(n);
        let mut scales = Vec::with_capacity(n);
        for (index, row) in of_rows.iter().enumerate() {
            let softmax = Softmax {
                z: add_lanes(row.lanes),
                inverse_count: self.inverse_count,
            };
            loss += fixed_point(row.max, row.at_target, softmax.z);
            if dx.is_some() {
                let (quantizer, scale) = self
                    .quantizer(row, softmax, |block| part(&logits, n, block, index))
                    .ok_or(NotFinite {
                        row: rows.start + index,
                    })?;
                quantizers.push(quantizer);
                scales.push(scale);
            }
        }
        if let Some(dx) = dx {
            self.gradient(&of_rows, &quantizers, &logits).write(
                &scales,
                Write::Replace,
                Tile::new(dx, n, self.head.cols),
            );
        }
        Ok(loss)
    }

    /// Computes logits, block after block, and finds the largest of each row.
    fn logits(&self, rows: Range<usize>, logits: &mut [f32]) -> Result<Vec<Row>, NotFinite> {
        let Self { device, head, .. } = self;
        let n = rows.len();
        let row = |row: usize| Row {
            target: self.targets[row] as usize,
            max: f32::NEG_INFINITY,
            at_target: 0.0,
            lanes: [0.0; LANES],
            largest: Vec::with_capacity(self.largest_scales.len()),
            of_target: 0.0,
        };
        let mut of_rows: Vec<Row> = rows.clone().map(row).collect();
        let x = self.x.view(rows.clone());
        // Products write by columns: to memory that stays in the cache, and from there in order.
        let mut near = Scratch::<f32>::new(n * BLOCK);
        for (block, out) in self.blocks().zip(logits.chunks_mut(n * BLOCK)) {
            let panels = block.start / LANES..block.end.div_ceil(LANES);
            let tile = Tile::new(&mut near, n, block.len());
            int8::forward(device.isa, head.panels(), panels, x, &head.row_scales, tile);
            let parts = near
                .chunks_exact(block.len())
                .zip(out.chunks_exact_mut(block.len()));
            for (index, (row, (logits, out))) in of_rows.iter_mut().zip(parts).enumerate() {
                out.copy_from_slice(logits);
                let max = kernels::maximum(device.isa, logits).ok_or(NotFinite {
                    row: rows.start + index,
                })?;
                if max > row.max {
                    row.max = max;
                }
                if block.contains(&row.target) {
                    row.at_target = logits[row.target - block.start];
                }
            }
        }
        Ok(of_rows)
    }

    /// Replaces logits by their exponentials, the target's by zero.
    fn exponentials(&self, of_rows: &mut [Row], logits: &mut [f32]) {
        for (block, logits) in self.blocks().zip(logits.chunks_mut(of_rows.len() * BLOCK)) {
            for (row, logits) in of_rows.iter_mut().zip(logits.chunks_exact_mut(block.len())) {
                let isa = self.device.isa;
                let largest = kernels::exponentials(isa, logits, row.max, &mut row.lanes);
                row.largest.push(largest);
                if block.contains(&row.target) {
                    let of_target = &mut logits[row.target - block.start];
                    row.of_target = std::mem::take(of_target);
                }
            }
        }
    }

    /// How a row is quantized, and its scale; `None` when a gradient is not finite.
    ///
    /// The largest gradient is the target's as a rule. No other one of a block is larger than that
    /// of the block's largest exponential with its largest scale, since every operation is rounded
    /// monotonically: most blocks need no look.
    fn quantizer<'a>(
        &self,
        row: &Row,
        softmax: Softmax,
        exponentials: impl Fn(Range<usize>) -> &'a [f32],
    ) -> Option<(Quantizer, f32)> {
        let scales = &self.head.row_scales;
        let of_target = softmax.target_gradient(row.of_target, scales[row.target]);
        let mut bits = of_target.to_bits() & 0x7FFF_FFFF;
        let bounds = row.largest.iter().zip(self.largest_scales);
        for (block, (largest, scale)) in self.blocks().zip(bounds) {
            if softmax.gradient(*largest, *scale).to_bits() > bits {
                let scales = &scales[block.clone()];
                let found =
                    kernels::gradient_bits(self.device.isa, exponentials(block), softmax, scales);
                bits = bits.max(found);
            }
        }
        let absmax = finite(bits)?;
        let (factor, scale) = if absmax < SMALLEST_GRADIENT {
            (0.0, 0.0)
        } else {
            (INT8_RANGE / absmax, absmax / INT8_RANGE)
        };
        let quantizer = Quantizer {
            softmax,
            factor,
            of_target: round_even(of_target * factor),
        };
        Some((quantizer, scale))
    }

    /// Quantizes gradients block by block and multiplies them by the weights.
    fn gradient(
        &self,
        of_rows: &[Row],
        quantizers: &[Quantizer],
        exponentials: &[f32],
    ) -> int8::Sums {
        let Self { device, head, .. } = self;
        let n = of_rows.len();
        let mut sums = int8::Sums::new(0..head.cols.div_ceil(LANES), n);
        let mut low = Scratch::<i16>::new(n * BLOCK);
        let mut high = Scratch::<i8>::new(n * BLOCK);
        for (block, exponentials) in self.blocks().zip(exponentials.chunks(n * BLOCK)) {
            let stride = padded(block.len());
            let scales = &head.row_scales[block.clone()];
            let codes = low
                .chunks_exact_mut(stride)
                .zip(high.chunks_exact_mut(stride));
            let rows = of_rows.iter().zip(quantizers);
            for (((row, quantizer), e), (low, high)) in
                rows.zip(exponentials.chunks_exact(block.len())).zip(codes)
            {
                let Quantizer {
                    softmax,
                    factor,
                    of_target,
                } = *quantizer;
                let codes = (&mut *low, &mut *high);
                kernels::gradient_codes(device.isa, e, softmax, scales, factor, codes);
                if block.contains(&row.target) {
                    let at = row.target - block.start;
                    (low[at], high[at]) = split(of_target);
                }
            }
            let codes = WideCodes {
                low: &low[..n * stride],
                high: &high[..n * stride],
                stride,
                scales: &[],
                rows: n,
            };
            sums.add(device.isa, head.transposed(), block, codes);
        }
        sums
    }
}

/// Row `index` of `n` in one block of logits.
fn part(logits: &[f32], n: usize, block: Range<usize>, index: usize) -> &[f32] {
    &logits[n * block.start + index * block.len()..][..block.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scalar::loss::{exponentials, maximum};
    use crate::scalar::quantize::gradient_wide;
    use crate::{Bytes, CpuOptions, Device, Isa, Philox, signed_unit};

    /// Loss and gradient of one row of logits, written out.
    fn of_row(
        logits: &[f32],
        target: usize,
        inverse_count: f32,
        scales: &[f32],
        weights: &[i8],
    ) -> (i64, Vec<u32>) {
        let max = maximum(logits).expect("finite");
        let mut e = logits.to_vec();
        let mut lanes = [0.0; LANES];
        exponentials(&mut e, max, &mut lanes);
        let z = add_lanes(lanes);
        let dlogits: Vec<f32> = (0..e.len())
            .map(|v| {
                let p = e[v] / z;
                let p = if v == target { p - 1.0 } else { p };
                (p * inverse_count) * scales[v]
            })
            .collect();
        let (mut low, mut high) = (vec![0; e.len()], vec![0; e.len()]);
        let scale = gradient_wide(&dlogits, &mut low, &mut high).expect("finite");
        let cols = weights.len() / e.len();
        let sum = |col: usize| -> i64 {
            let codes = low
                .iter()
                .zip(&high)
                .zip(weights[col..].iter().step_by(cols));
            codes
                .map(|((low, high), w)| {
                    (i64::from(*high) * 65_536 + i64::from(*low)) * i64::from(*w)
                })
                .sum()
        };
        let dx = (0..cols).map(|col| (sum(col) as f32 * scale).to_bits());
        (fixed_point(max, logits[target], z), dx.collect())
    }

    #[test]
    fn loss_and_gradient_are_those_written_out_however_the_largest_gradient_is_found() {
        let (vocabulary, cols, n) = (2 * BLOCK + 77, 40, 150);
        let mut words = Philox::from_seed(5).words();
        let mut unit = || signed_unit(words.next().expect("endless"));
        let weights: Vec<i8> = (0..vocabulary * cols)
            .map(|_| (unit() * 127.0) as i8)
            .collect();
        // Rows whose scales differ by far, so that the target's gradient is not always the largest.
        let scales: Vec<f32> = (0..vocabulary)
            .map(|v| 1e-4 * [1.0, 30.0, 0.001][v * 7 % 3] * (1.5 + unit()))
            .collect();
        let x: Vec<f32> = (0..n * cols).map(|_| unit()).collect();
        let panels = int8::pack(&weights, vocabulary, cols).expect("within +-127");
        for isa in Isa::available() {
            let device = Cpu::new(CpuOptions {
                isa: Some(isa),
                threads: 2,
            })
            .expect("available");
            let head = device.int8(Bytes::from_slice(&panels), vocabulary, cols, &scales);
            let mut codes = device.codes(n, cols);
            device
                .quantize(&device.upload(&x), n, &mut codes)
                .expect("finite");
            let mut logits = device.zeros(n * vocabulary);
            device.int8_forward(&head, &codes, &mut logits);
            // Of some rows the likeliest token, of others any.
            let likeliest = |row: &[f32]| {
                let best = (0..vocabulary).max_by(|a, b| row[*a].total_cmp(&row[*b]));
                best.expect("a vocabulary") as u32
            };
            let targets: Vec<u32> = (0..n)
                .map(|t| match t % 3 {
                    0 => likeliest(&logits[t * vocabulary..][..vocabulary]),
                    _ => (t * 7919 % vocabulary) as u32,
                })
                .collect();
            let mut dx = device.zeros(n * cols);
            let loss = device
                .head_loss(&head, &codes, &targets, n, Some(&mut dx))
                .expect("finite");
            let mut expected_loss = 0;
            for (t, logits) in logits.chunks_exact(vocabulary).enumerate() {
                let target = targets[t] as usize;
                let (loss, expected) = of_row(logits, target, 1.0 / n as f32, &scales, &weights);
                expected_loss += loss;
                let found: Vec<u32> = dx[t * cols..][..cols].iter().map(|x| x.to_bits()).collect();
                assert_eq!(found, expected, "row {t} by {isa}");
            }
            assert_eq!(loss, expected_loss, "{isa}");
        }
    }
}

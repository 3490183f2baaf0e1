//! LoRA on the processor (rules 4, 10 and 15).

use super::scratch::Scratch;
use super::{Cpu, CpuCodes};
use crate::attention::BLOCK;
use crate::environment::Environment;
use crate::product::{Finish, Product};
use crate::tile::Tile;
use crate::{LoraBackward, LoraSite, kernels};

/// Rows that a thread dequantizes at once.
const ROWS: usize = 64;

impl Cpu {
    pub(super) fn lora(
        &self,
        site: &LoraSite,
        adapter: &[f32],
        x: &CpuCodes,
        hidden: &mut [f32],
        y: &mut [f32],
    ) {
        let LoraSite {
            rank,
            inputs,
            outputs,
            scale,
            ..
        } = *site;
        assert_eq!(x.cols, inputs, "activations do not fit the adapter");
        let a = transposed(&adapter[site.a..][..rank * inputs], rank, inputs);
        let b = transposed(&adapter[site.b..][..outputs * rank], outputs, rank);
        let chunk = self.chunk(x.rows, 1).min(ROWS);
        let hidden = Tile::new(hidden, x.rows, rank).row_chunks(chunk);
        let y = Tile::new(y, x.rows, outputs).row_chunks(chunk);
        self.pool
            .each(hidden.zip(y), |((rows, mut hidden), (_, y))| {
                let xq = self.dequantized(x, rows);
                let down = by_rows(&xq, inputs, &a, rank, inputs);
                kernels::product(self.isa, &down, Finish::Replace, hidden.reborrow());
                let n = hidden.rows();
                let mut copy = Scratch::<f32>::new(n * rank);
                for (row, copy) in copy.chunks_exact_mut(rank).enumerate() {
                    copy.copy_from_slice(hidden.row(row));
                }
                let up = by_rows(&copy, rank, &b, outputs, rank);
                kernels::product(self.isa, &up, Finish::AddScaled(scale), y);
            });
    }

    pub(super) fn lora_gradients(&self, site: &LoraSite, pass: LoraBackward<'_, Self>) {
        let LoraSite {
            rank,
            inputs,
            outputs,
            scale,
            ..
        } = *site;
        let LoraBackward {
            adapter,
            x,
            hidden,
            dy,
            sequences,
            gradient,
            dx,
        } = pass;
        let _environment = Environment::enter();
        let rows = sequences.iter().sum::<usize>();
        assert_eq!((x.rows, x.cols), (rows, inputs), "activations do not fit");
        let a = &adapter[site.a..][..rank * inputs];
        let b = &adapter[site.b..][..outputs * rank];

        let mut scaled = Scratch::<f32>::new(rows * rank);
        kernels::scale(self.isa, scale, &hidden[..rows * rank], &mut scaled);
        let mut dhidden = Scratch::<f32>::new(rows * rank);
        let chunk = self.chunk(rows, 1);
        let tiles = Tile::new(&mut dhidden, rows, rank).row_chunks(chunk);
        self.pool.each(tiles, |(part, tile)| {
            let p = by_rows(&dy[part.start * outputs..], outputs, b, rank, outputs);
            kernels::product(self.isa, &p, Finish::Scale(scale), tile);
        });

        let xq = self.dequantized(x, 0..rows);
        let chunk = self.chunk(inputs.div_ceil(16), 1) * 16;
        let tiles = Tile::new(&mut gradient[site.a..], rank, inputs).col_chunks(chunk);
        self.pool.each(tiles, |(cols, mut tile)| {
            self.over_sequences(sequences, &mut tile, |first, depth| Product {
                x: &dhidden[first * rank..],
                x_row: 1,
                x_step: rank,
                b: &xq[first * inputs + cols.start..],
                b_step: inputs,
                depth,
            });
        });
        let chunk = self.chunk(outputs.div_ceil(16), 1) * 16;
        let tiles = Tile::new(&mut gradient[site.b..], outputs, rank).row_chunks(chunk);
        self.pool.each(tiles, |(part, mut tile)| {
            self.over_sequences(sequences, &mut tile, |first, depth| Product {
                x: &dy[first * outputs + part.start..],
                x_row: 1,
                x_step: outputs,
                b: &scaled[first * rank..],
                b_step: rank,
                depth,
            });
        });

        if let Some(dx) = dx {
            let chunk = self.chunk(rows, 1);
            let tiles = Tile::new(dx, rows, inputs).row_chunks(chunk);
            self.pool.each(tiles, |(part, tile)| {
                let p = by_rows(&dhidden[part.start * rank..], rank, a, inputs, rank);
                kernels::product(self.isa, &p, Finish::Add, tile);
            });
        }
    }

    /// Adds to `out` the sum of a product over the positions of each sequence, ascending; inside a
    /// sequence by blocks of 64 positions. `product(first, depth)` is that of `depth` rows.
    fn over_sequences<'a>(
        &self,
        sequences: &[usize],
        out: &mut Tile<'_, f32>,
        product: impl Fn(usize, usize) -> Product<'a>,
    ) {
        let (rows, cols) = (out.rows(), out.cols());
        let mut sum = Scratch::<f32>::new(rows * cols);
        let mut first = 0;
        for &len in sequences {
            let mut finish = Finish::Replace;
            for start in (0..len).step_by(BLOCK) {
                let p = product(first + start, BLOCK.min(len - start));
                kernels::product(self.isa, &p, finish, Tile::new(&mut sum, rows, cols));
                finish = Finish::Add;
            }
            if len > 0 {
                for (row, sum) in sum.chunks_exact(cols).enumerate() {
                    kernels::add(self.isa, sum, out.row_mut(row));
                }
            }
            first += len;
        }
    }

    /// `f32(code) * scale` of some rows.
    fn dequantized(&self, x: &CpuCodes, rows: std::ops::Range<usize>) -> Scratch<f32> {
        let mut out = Scratch::new(rows.len() * x.cols);
        for (row, out) in rows.zip(out.chunks_exact_mut(x.cols)) {
            kernels::dequantize(self.isa, x.row(row), x.scales[row], out);
        }
        out
    }
}

/// The product of row-major `x` with `b` (depth x cols).
fn by_rows<'a>(x: &'a [f32], x_row: usize, b: &'a [f32], cols: usize, depth: usize) -> Product<'a> {
    Product {
        x,
        x_row,
        x_step: 1,
        b,
        b_step: cols,
        depth,
    }
}

/// `w` (rows x cols) with rows and columns exchanged.
fn transposed(w: &[f32], rows: usize, cols: usize) -> Scratch<f32> {
    let mut out = Scratch::new(w.len());
    for row in 0..rows {
        for col in 0..cols {
            out[col * rows + row] = w[row * cols + col];
        }
    }
    out
}

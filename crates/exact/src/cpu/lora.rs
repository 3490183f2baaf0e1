//! LoRA on the processor (rules 4, 10 and 15).

use std::ops::Range;

use super::scratch::Scratch;
use super::{Cpu, CpuCodes};
use crate::attention::BLOCK;
use crate::product::{Finish, Product};
use crate::tile::Tile;
use crate::{LoraBackward, LoraSite, kernels};

/// Rows that a thread dequantizes at once.
const ROWS: usize = 64;
/// Elements of a gradient that a thread sums at once.
const ELEMENTS: usize = 4096;

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
        let rows = sequences.iter().sum::<usize>();
        assert_eq!((x.rows, x.cols), (rows, inputs), "activations do not fit");
        let operands = BlockOperands {
            site,
            a: &adapter[site.a..][..rank * inputs],
            b: &adapter[site.b..][..outputs * rank],
            x,
            hidden,
            dy,
        };
        let blocks = blocks(sequences);
        let mut sums = Scratch::<f32>::new(blocks.len() * site.len());
        let mut dx = dx.map(|dx| Tile::new(dx, rows, inputs));
        let items = blocks.iter().zip(sums.chunks_exact_mut(site.len()));
        let items = items.map(|(block, sums)| {
            let tile = dx.take().map(|tile| {
                let (tile, rest) = tile.split_rows(block.rows.len());
                dx = Some(rest);
                tile
            });
            (block.rows.clone(), sums, tile)
        });
        self.pool.each(items, |(rows, sums, dx)| {
            self.lora_block(&operands, rows, sums, dx)
        });
        self.add_blocks(site, &blocks, &sums, gradient);
    }

    /// Of one block of positions: the sums of the gradients of A and, transposed, of B, to `sums`;
    /// the gradient of the input, added to `dx`. What is read stays in the cache meanwhile.
    fn lora_block(
        &self,
        operands: &BlockOperands<'_>,
        rows: Range<usize>,
        sums: &mut [f32],
        dx: Option<Tile<'_, f32>>,
    ) {
        let BlockOperands {
            site,
            a,
            b,
            x,
            hidden,
            dy,
        } = *operands;
        let LoraSite {
            rank,
            inputs,
            outputs,
            scale,
            ..
        } = *site;
        let n = rows.len();
        let dy = &dy[rows.start * outputs..rows.end * outputs];
        let mut dhidden = Scratch::<f32>::new(n * rank);
        let p = by_rows(dy, outputs, b, rank, outputs);
        let tile = Tile::new(&mut dhidden, n, rank);
        kernels::product(self.isa, &p, Finish::Scale(scale), tile);

        let (of_a, of_b) = sums.split_at_mut(rank * inputs);
        let mut scaled = Scratch::<f32>::new(n * rank);
        let hidden = &hidden[rows.start * rank..rows.end * rank];
        kernels::scale(self.isa, scale, hidden, &mut scaled);
        let p = over_rows(&scaled, rank, dy, outputs, n);
        let tile = Tile::new(of_b, rank, outputs);
        kernels::product(self.isa, &p, Finish::Replace, tile);
        let xq = self.dequantized(x, rows);
        let p = over_rows(&dhidden, rank, &xq, inputs, n);
        let tile = Tile::new(of_a, rank, inputs);
        kernels::product(self.isa, &p, Finish::Replace, tile);

        if let Some(dx) = dx {
            let p = by_rows(&dhidden, rank, a, inputs, rank);
            kernels::product(self.isa, &p, Finish::Add, dx);
        }
    }

    /// Adds the sums of blocks to the gradient: those of each sequence first, ascending, then the
    /// sequences, ascending.
    fn add_blocks(&self, site: &LoraSite, blocks: &[Block], sums: &[f32], gradient: &mut [f32]) {
        let LoraSite {
            rank,
            inputs,
            outputs,
            ..
        } = *site;
        let len = site.len();
        let of_a = rank * inputs;
        let mut total = Scratch::<f32>::new(len);
        total[..of_a].copy_from_slice(&gradient[site.a..][..of_a]);
        let b = transposed(&gradient[site.b..][..outputs * rank], outputs, rank);
        total[of_a..].copy_from_slice(&b);
        let chunk = self.chunk(len, 16).min(ELEMENTS);
        self.pool
            .each(total.chunks_mut(chunk).enumerate(), |(i, total)| {
                let part = i * chunk..i * chunk + total.len();
                let mut sequence = Scratch::<f32>::new(total.len());
                for (block, sums) in blocks.iter().zip(sums.chunks_exact(len)) {
                    if block.first {
                        sequence.copy_from_slice(&sums[part.clone()]);
                    } else {
                        kernels::add(self.isa, &sums[part.clone()], &mut sequence);
                    }
                    if block.last {
                        kernels::add(self.isa, &sequence, total);
                    }
                }
            });
        gradient[site.a..][..of_a].copy_from_slice(&total[..of_a]);
        let b = transposed(&total[of_a..], rank, outputs);
        gradient[site.b..][..outputs * rank].copy_from_slice(&b);
    }

    /// `f32(code) * scale` of some rows.
    fn dequantized(&self, x: &CpuCodes, rows: Range<usize>) -> Scratch<f32> {
        let mut out = Scratch::new(rows.len() * x.cols);
        for (row, out) in rows.zip(out.chunks_exact_mut(x.cols)) {
            kernels::dequantize(self.isa, x.row(row), x.scales[row], out);
        }
        out
    }
}

/// What the blocks of a backward pass read.
#[derive(Clone, Copy)]
struct BlockOperands<'a> {
    site: &'a LoraSite,
    a: &'a [f32],
    b: &'a [f32],
    x: &'a CpuCodes,
    hidden: &'a [f32],
    dy: &'a [f32],
}

/// Up to 64 positions of one sequence.
struct Block {
    rows: Range<usize>,
    /// Whether these are the first and the last positions of the sequence.
    first: bool,
    last: bool,
}

/// The blocks of each sequence, ascending (rule 10).
fn blocks(sequences: &[usize]) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut start = 0;
    for len in sequences {
        let end = start + len;
        blocks.extend((start..end).step_by(BLOCK).map(|at| Block {
            rows: at..end.min(at + BLOCK),
            first: at == start,
            last: at + BLOCK >= end,
        }));
        start = end;
    }
    blocks
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

/// The sums over `n` rows of the products of `x`'s columns with those of `b` (n x cols).
fn over_rows<'a>(x: &'a [f32], x_cols: usize, b: &'a [f32], cols: usize, n: usize) -> Product<'a> {
    Product {
        x,
        x_row: 1,
        x_step: x_cols,
        b,
        b_step: cols,
        depth: n,
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

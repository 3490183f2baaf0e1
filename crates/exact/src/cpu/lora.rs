//! LoRA on the processor (rules 4, 10 and 15).

use std::ops::Range;

use super::scratch::Scratch;
use super::{Cpu, CpuCodes, CpuTernary, FirstBadRow};
use crate::attention::BLOCK;
use crate::product::{Finish, Product};
use crate::tile::Tile;
use crate::{LoraBackward, LoraSite, NotFinite, Write, kernels, ternary};

/// Rows that a thread dequantizes at once.
const ROWS: usize = 64;
/// Rows whose base product and LoRA follow each other: meanwhile their outputs stay in the
/// second-level cache.
const ROWS_WITH_BASE: usize = 128;
/// Blocks of positions whose base product and LoRA follow each other in the backward pass, which
/// reads more.
const BLOCKS_WITH_BASE: usize = 2;
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
        let lora = Forward::new(site, adapter, x);
        let chunk = self.chunk(x.rows, 1).min(ROWS);
        let hidden = Tile::new(hidden, x.rows, site.rank).row_chunks(chunk);
        let y = Tile::new(y, x.rows, site.outputs).row_chunks(chunk);
        self.pool.each(hidden.zip(y), |((rows, hidden), (_, y))| {
            self.lora_rows(&lora, rows, hidden, y);
        });
    }

    /// The product with ternary weights and, on top, LoRA.
    pub(super) fn ternary_lora(
        &self,
        w: &CpuTernary,
        site: &LoraSite,
        adapter: &[f32],
        x: &CpuCodes,
        (hidden, y): (&mut [f32], &mut [f32]),
    ) {
        if self.splits_panels(x.rows) {
            self.ternary_product(w, x, y);
            return self.lora(site, adapter, x, hidden, y);
        }
        assert_eq!(w.rows, site.outputs, "the adapter does not fit the weights");
        let lora = Forward::new(site, adapter, x);
        let panels = w.panels();
        let chunk = self.chunk(x.rows, ROWS).min(ROWS_WITH_BASE);
        let hidden = Tile::new(hidden, x.rows, site.rank).row_chunks(chunk);
        let y = Tile::new(y, x.rows, site.outputs).row_chunks(chunk);
        self.pool
            .each(hidden.zip(y), |((rows, hidden), (_, mut y))| {
                let all = 0..panels.panels();
                let codes = x.view(rows.clone());
                ternary::forward(self.isa, panels, all, codes, w.scale, y.reborrow());
                let parts = hidden.row_chunks(ROWS).zip(y.row_chunks(ROWS));
                for ((part, hidden), (_, y)) in parts {
                    let part = rows.start + part.start..rows.start + part.end;
                    self.lora_rows(&lora, part, hidden, y);
                }
            });
    }

    /// Whether there are so few rows that threads share their products with weights.
    fn splits_panels(&self, rows: usize) -> bool {
        self.threads() > 1 && rows < 2 * ROWS * self.threads()
    }

    /// Adds LoRA to some rows.
    fn lora_rows(
        &self,
        lora: &Forward<'_>,
        rows: Range<usize>,
        mut hidden: Tile<'_, f32>,
        y: Tile<'_, f32>,
    ) {
        let Forward { site, x, a, b } = lora;
        let LoraSite {
            rank,
            inputs,
            outputs,
            scale,
            ..
        } = **site;
        let xq = self.dequantized(x, rows);
        let down = by_rows(&xq, inputs, a, rank, inputs);
        kernels::product(self.isa, &down, Finish::Replace, hidden.reborrow());
        let n = hidden.rows();
        let mut copy = Scratch::<f32>::new(n * rank);
        for (row, copy) in copy.chunks_exact_mut(rank).enumerate() {
            copy.copy_from_slice(hidden.row(row));
        }
        let up = by_rows(&copy, rank, b, outputs, rank);
        kernels::product(self.isa, &up, Finish::AddScaled(scale), y);
    }

    /// The gradient through ternary weights and, on top, that of LoRA.
    pub(super) fn ternary_lora_gradients(
        &self,
        w: &CpuTernary,
        site: &LoraSite,
        write: Write,
        mut pass: LoraBackward<'_, Self>,
    ) -> Result<(), NotFinite> {
        let dy = pass.dy;
        let rows = pass.sequences.iter().sum::<usize>();
        if self.splits_panels(rows) {
            if let Some(dx) = pass.dx.as_deref_mut() {
                self.ternary_gradient(w, dy, rows, write, dx)?;
            }
            self.lora_gradients(site, pass, 1, |_, _| {});
            return Ok(());
        }
        assert_eq!(w.rows, site.outputs, "the adapter does not fit the weights");
        // Made before the threads start, so that none waits for another.
        let wt = w.transposed();
        let bad = FirstBadRow::new();
        self.lora_gradients(site, pass, BLOCKS_WITH_BASE, |rows, dx| {
            self.ternary_gradient_rows((wt, w.scale), dy, rows, write, dx, &bad);
        });
        bad.result()
    }

    /// Gradients of LoRA, a few blocks of positions at a time, for which `base` first writes or
    /// adds to the rows of `dx`.
    pub(super) fn lora_gradients(
        &self,
        site: &LoraSite,
        pass: LoraBackward<'_, Self>,
        blocks_at_once: usize,
        base: impl Fn(Range<usize>, Tile<'_, f32>) + Sync,
    ) {
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
        let groups = blocks.chunks(blocks_at_once);
        let items = groups.zip(sums.chunks_mut(blocks_at_once * site.len()));
        let items = items.map(|(blocks, sums)| {
            let rows = blocks[0].rows.start..blocks[blocks.len() - 1].rows.end;
            let tile = first_rows(&mut dx, rows.len());
            (rows, blocks, sums, tile)
        });
        self.pool.each(items, |(rows, blocks, sums, mut dx)| {
            if let Some(dx) = &mut dx {
                base(rows, dx.reborrow());
            }
            for (block, sums) in blocks.iter().zip(sums.chunks_exact_mut(site.len())) {
                let dx = first_rows(&mut dx, block.rows.len());
                self.lora_block(&operands, block.rows.clone(), sums, dx);
            }
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

/// What the rows of a forward pass read.
struct Forward<'a> {
    site: &'a LoraSite,
    x: &'a CpuCodes,
    /// The factors, transposed.
    a: Scratch<f32>,
    b: Scratch<f32>,
}

impl<'a> Forward<'a> {
    fn new(site: &'a LoraSite, adapter: &[f32], x: &'a CpuCodes) -> Self {
        let LoraSite {
            rank,
            inputs,
            outputs,
            ..
        } = *site;
        assert_eq!(x.cols, inputs, "activations do not fit the adapter");
        Self {
            site,
            x,
            a: transposed(&adapter[site.a..][..rank * inputs], rank, inputs),
            b: transposed(&adapter[site.b..][..outputs * rank], outputs, rank),
        }
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

/// Takes the first rows off a tile, if there is one.
fn first_rows<'a>(tile: &mut Option<Tile<'a, f32>>, rows: usize) -> Option<Tile<'a, f32>> {
    let (first, rest) = tile.take()?.split_rows(rows);
    *tile = Some(rest);
    Some(first)
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

//! Attention of one head: products of sixteen rows with blocks of 64 positions.

use std::ops::Range;

use super::simd::{LANES, Simd};
use super::{exp_below_one, load_part, store_part};
use crate::Write;
use crate::attention::{AttendPass, BLOCK, HeadPass, HeadRows};
use crate::cpu::scratch::Scratch;
use crate::product::{Finish, Product};
use crate::tile::Tile;

/// Query rows that go through a block together.
const ROWS: usize = LANES;

/// Attends from consecutive rows.
#[inline(always)]
pub(crate) fn attend<S: Simd>(s: S, pass: &AttendPass<'_>, out: Tile<'_, f32>) {
    let AttendPass {
        q,
        kv,
        start,
        scale,
    } = *pass;
    let head_dim = q.head_dim;
    let width = row_width(start + out.rows());
    let mut scores = Scratch::<f32>::new(out.rows().min(ROWS) * width);
    for (rows, mut out) in out.row_chunks(ROWS) {
        let at = Rows {
            first: start + rows.start,
            len: rows.len(),
            width,
        };
        for block in 0..at.seen().div_ceil(BLOCK) {
            let p = Product {
                x: q.from(rows.start),
                x_row: q.stride,
                x_step: 1,
                b: kv.keys(block),
                b_step: BLOCK,
                depth: head_dim,
            };
            s.product(&p, Finish::Scale(scale), at.block(&mut scores, block));
        }
        let sums = softmax(s, &mut scores, at);
        let mut finish = Finish::Replace;
        for block in 0..at.seen().div_ceil(BLOCK) {
            let p = Product {
                x: &scores[block * BLOCK..],
                x_row: width,
                x_step: 1,
                b: kv.values(block),
                b_step: head_dim,
                depth: BLOCK.min(at.seen() - block * BLOCK),
            };
            s.product(&p, finish, out.reborrow());
            finish = Finish::Add;
        }
        for (row, sum) in sums.into_iter().enumerate().take(rows.len()) {
            divide(s, out.row_mut(row), sum);
        }
    }
}

/// Elements from one row over positions to the next: whole blocks, and a cache line more, as rows
/// that lie a power of two apart would displace each other from the cache.
fn row_width(positions: usize) -> usize {
    positions.next_multiple_of(BLOCK) + LANES
}

/// At most [`ROWS`] rows over positions, each a query that sees its own position and all before.
#[derive(Clone, Copy)]
struct Rows {
    /// Position of the first query.
    first: usize,
    len: usize,
    /// Elements from one row to the next.
    width: usize,
}

impl Rows {
    /// Positions that the last query sees.
    fn seen(self) -> usize {
        self.first + self.len
    }

    /// The part of the rows that holds a block's positions, as far as any query sees them and up
    /// to the next whole vector.
    fn block(self, matrix: &mut [f32], block: usize) -> Tile<'_, f32> {
        let (_, from) = Tile::new(matrix, self.len, self.width).split_cols(block * BLOCK);
        let cols = BLOCK.min((self.seen() - block * BLOCK).next_multiple_of(LANES));
        from.split_cols(cols).0
    }

    /// Each row in vectors as far as any query sees, with the number of positions that its own
    /// query sees.
    fn vectors(self, matrix: &mut [f32]) -> impl Iterator<Item = (usize, &mut [[f32; LANES]])> {
        let used = self.seen().next_multiple_of(LANES);
        let rows = matrix.chunks_exact_mut(self.width).take(self.len);
        (self.first + 1..).zip(rows.map(move |row| row[..used].as_chunks_mut().0))
    }
}

/// Replaces scores by `exp(score - max)`, and by zeros where a query sees nothing; returns the sum
/// by blocks of each row.
#[inline(always)]
fn softmax<S: Simd>(s: S, scores: &mut [f32], at: Rows) -> [f32; ROWS] {
    // One row waits for its maximum and its sum: work of the other rows fills the time.
    let mut maxima = [0.0; ROWS];
    for ((visible, scores), max) in at.vectors(scores).zip(&mut maxima) {
        fill_after(s, scores, visible, f32::NEG_INFINITY);
        let mut most = s.splat(f32::NEG_INFINITY);
        for scores in scores {
            most = s.max(most, s.load(scores));
        }
        *max = s.max_lane(most);
    }
    let mut sums = [0.0; ROWS];
    let rows = at.vectors(scores).zip(maxima).zip(&mut sums);
    for (((_, scores), max), sum) in rows {
        let max = s.splat(max);
        for block in scores.chunks_mut(BLOCK / LANES) {
            let mut lanes = s.splat(0.0);
            for scores in block {
                let e = exp_below_one(s, s.sub(s.load(scores), max));
                s.store(e, scores);
                // Positions not seen add +0.0, which changes no sum of numbers that are not
                // negative.
                lanes = s.add(lanes, e);
            }
            *sum += s.add_lanes(lanes);
        }
    }
    sums
}

/// Replaces what lies behind the first `visible` values.
#[inline(always)]
fn fill_after<S: Simd>(s: S, row: &mut [[f32; LANES]], visible: usize, value: f32) {
    const INDEX: [f32; LANES] = [
        0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12., 13., 14., 15.,
    ];
    let value = s.splat(value);
    for (at, vector) in row.iter_mut().enumerate().skip(visible / LANES) {
        let here = s.splat(visible.saturating_sub(at * LANES) as f32);
        let kept = s.select_less(s.load(&INDEX), here, s.load(vector), value);
        s.store(kept, vector);
    }
}

/// `x = x / divisor`
#[inline(always)]
fn divide<S: Simd>(s: S, x: &mut [f32], divisor: f32) {
    let divisor = s.splat(divisor);
    let (chunks, tail) = x.as_chunks_mut();
    for chunk in chunks {
        s.store(s.div(s.load(chunk), divisor), chunk);
    }
    if !tail.is_empty() {
        let v = s.div(load_part(s, tail, 0.0), divisor);
        store_part(s, v, tail);
    }
}

/// Gradients of one query head: `dq`, and its part of `dk` and `dv`.
///
/// Queries go by blocks, so that the matrices over queries and positions stay small.
#[inline(always)]
pub(crate) fn attend_backward<S: Simd>(
    s: S,
    pass: &HeadPass<'_>,
    dq: Tile<'_, f32>,
    dk: Tile<'_, f32>,
    dv: Tile<'_, f32>,
) {
    let n = pass.rows;
    let head_dim = pass.q.head_dim;
    let width = row_width(n);
    let mut probabilities = Scratch::<f32>::new(BLOCK.min(n) * width);
    let mut gradients = Scratch::<f32>::new(BLOCK.min(n) * width);
    let keys = transposed(s, pass.k, n);
    let values = transposed(s, pass.v, n);
    let [mut dk_sum, mut dv_sum] = [(); 2].map(|()| Scratch::<f32>::new(n * head_dim));
    for (block, dq) in dq.row_chunks(BLOCK) {
        for (rows, dq) in dq.row_chunks(ROWS) {
            let p = &mut probabilities[rows.start * width..rows.end * width];
            let dz = &mut gradients[rows.start * width..rows.end * width];
            let at = Rows {
                first: block.start + rows.start,
                len: rows.len(),
                width,
            };
            score_gradients(s, pass, at, [&keys, &values], [p, dz]);
            query_gradients(s, pass, at, dz, dq);
        }
        over_queries(s, &gradients, width, pass.q, block.clone(), &mut dk_sum);
        over_queries(s, &probabilities, width, pass.dout, block, &mut dv_sum);
    }
    for (sums, mut out) in [(dk_sum, dk), (dv_sum, dv)] {
        for (row, sum) in sums.chunks_exact(head_dim).enumerate() {
            match pass.write {
                Write::Replace => out.row_mut(row).copy_from_slice(sum),
                Write::Add => super::elementwise::add(s, sum, out.row_mut(row)),
            }
        }
    }
}

/// Probabilities and gradients of scores of a few rows.
#[inline(always)]
fn score_gradients<S: Simd>(
    s: S,
    pass: &HeadPass<'_>,
    at: Rows,
    [keys, values]: [&[f32]; 2],
    [p, dz]: [&mut [f32]; 2],
) {
    let head_dim = pass.q.head_dim;
    fetch(s, pass.out, at.first..at.seen());
    for block in 0..at.seen().div_ceil(BLOCK) {
        let scores = Product {
            x: pass.q.from(at.first),
            x_row: pass.q.stride,
            x_step: 1,
            b: &keys[block * BLOCK * head_dim..],
            b_step: BLOCK,
            depth: head_dim,
        };
        s.product(&scores, Finish::Scale(pass.scale), at.block(p, block));
        let dp = Product {
            x: pass.dout.from(at.first),
            x_row: pass.dout.stride,
            b: &values[block * BLOCK * head_dim..],
            ..scores
        };
        s.product(&dp, Finish::Replace, at.block(dz, block));
    }
    let sums = softmax(s, p, at);
    let rows = at.vectors(p).zip(at.vectors(dz)).zip(sums);
    for (row, (((visible, p), (_, dz)), sum)) in (at.first..).zip(rows) {
        let d = s.splat(lane_product(s, pass.dout.row(row), pass.out.row(row)));
        let (divisor, scale) = (s.splat(sum), s.splat(pass.scale));
        for (p, dz) in p.iter_mut().zip(&mut *dz) {
            let probability = s.div(s.load(p), divisor);
            let gradient = s.mul(s.mul(probability, s.sub(s.load(dz), d)), scale);
            s.store(probability, p);
            s.store(gradient, dz);
        }
        fill_after(s, dz, visible, 0.0);
    }
}

/// `dq = sum over positions of dz * k`
#[inline(always)]
fn query_gradients<S: Simd>(
    s: S,
    pass: &HeadPass<'_>,
    at: Rows,
    dz: &[f32],
    mut dq: Tile<'_, f32>,
) {
    let mut finish = Finish::Replace;
    for first in (0..at.seen()).step_by(BLOCK) {
        let p = Product {
            x: &dz[first..],
            x_row: at.width,
            x_step: 1,
            b: pass.k.from(first),
            b_step: pass.k.stride,
            depth: BLOCK.min(at.seen() - first),
        };
        s.product(&p, finish, dq.reborrow());
        finish = Finish::Add;
    }
}

/// Adds to the rows of `sums` (positions x head_dim) that a block of queries sees the sum over
/// these queries of `matrix[query][position]` times the query's row of `x`; the block that sees a
/// position first replaces what its row holds.
#[inline(always)]
fn over_queries<S: Simd>(
    s: S,
    matrix: &[f32],
    width: usize,
    x: HeadRows<'_>,
    queries: Range<usize>,
    sums: &mut [f32],
) {
    let seen = Tile::new(sums, queries.end, x.head_dim);
    for (positions, sums) in seen.row_chunks(ROWS) {
        // Queries before the first of these positions do not see them.
        let first = queries.start.max(positions.start);
        let p = Product {
            x: &matrix[(first - queries.start) * width + positions.start..],
            x_row: 1,
            x_step: width,
            b: x.from(first),
            b_step: x.stride,
            depth: queries.end - first,
        };
        let finish = if positions.start < queries.start {
            Finish::Add
        } else {
            Finish::Replace
        };
        s.product(&p, finish, sums);
    }
}

/// Fetches some rows of a head. A head's rows lie so far apart that processors do not look for the
/// next one by themselves.
#[inline(always)]
fn fetch<S: Simd>(s: S, rows: HeadRows<'_>, range: Range<usize>) {
    for row in range {
        for line in rows.row(row).chunks(LANES) {
            s.fetch(line.as_ptr());
        }
    }
}

/// Lane sum of the products of two rows.
#[inline(always)]
fn lane_product<S: Simd>(s: S, a: &[f32], b: &[f32]) -> f32 {
    let (xs, x_tail) = a.as_chunks();
    let (ys, y_tail) = b.as_chunks();
    let mut lanes = s.splat(0.0);
    for (x, y) in xs.iter().zip(ys) {
        lanes = s.add(lanes, s.mul(s.load(x), s.load(y)));
    }
    if !x_tail.is_empty() {
        // Absent lanes add +0.0; a lane's sum is never -0.0, so that changes none.
        let (x, y) = (load_part(s, x_tail, 0.0), load_part(s, y_tail, 0.0));
        lanes = s.add(lanes, s.mul(x, y));
    }
    s.add_lanes(lanes)
}

/// A head's rows in blocks of 64, each transposed: element (d, j) of a block at `d * 64 + j`.
#[inline(always)]
fn transposed<S: Simd>(s: S, rows: HeadRows<'_>, n: usize) -> Scratch<f32> {
    let head_dim = rows.head_dim;
    let mut out = Scratch::new(n.div_ceil(BLOCK) * BLOCK * head_dim);
    for (block, out) in out.chunks_exact_mut(BLOCK * head_dim).enumerate() {
        let first = block * BLOCK;
        transpose(s, rows, first, BLOCK.min(n - first), out);
    }
    out
}

/// Writes the rows `first..first + n` of a head, at most 64, into a block of 64, transposed, with
/// zeros up to the next whole vector.
#[inline(always)]
pub(crate) fn transpose<S: Simd>(
    s: S,
    rows: HeadRows<'_>,
    first: usize,
    n: usize,
    block: &mut [f32],
) {
    for j in (0..n).step_by(LANES) {
        for d in (0..rows.head_dim).step_by(LANES) {
            let mut square = [s.splat(0.0); LANES];
            for (vector, row) in square.iter_mut().zip(first + j..first + n) {
                let row = &rows.row(row)[d..];
                *vector = match row.first_chunk() {
                    Some(row) => s.load(row),
                    None => load_part(s, row, 0.0),
                };
            }
            let columns = block[d * BLOCK..].chunks_exact_mut(BLOCK);
            for (vector, column) in s.transposed(square).into_iter().zip(columns) {
                s.store(vector, &mut column[j..].as_chunks_mut().0[0]);
            }
        }
    }
}

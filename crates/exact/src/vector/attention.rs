//! Attention of one head: products of sixteen rows with blocks of 64 positions.

use super::simd::{LANES, Simd};
use super::{exp, load_part, store_part};
use crate::attention::{AttendPass, BLOCK, HeadPass, HeadRows, transpose};
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
    let width = (start + out.rows()).next_multiple_of(BLOCK);
    let mut scores = Scratch::<f32>::new(out.rows().min(ROWS) * width);
    for (rows, mut out) in out.row_chunks(ROWS) {
        let seen = start + rows.end;
        for block in 0..seen.div_ceil(BLOCK) {
            let p = Product {
                x: q.from(rows.start),
                x_row: q.stride,
                x_step: 1,
                b: kv.keys(block),
                b_step: BLOCK,
                depth: head_dim,
            };
            s.product(
                &p,
                Finish::Replace,
                block_of(&mut scores, rows.len(), width, block, seen),
            );
        }
        let mut sums = [0.0; ROWS];
        for ((row, sum), scores) in rows
            .clone()
            .zip(&mut sums)
            .zip(scores.chunks_exact_mut(width))
        {
            *sum = softmax(s, scores, start + row + 1, seen, scale);
        }
        let mut finish = Finish::Replace;
        for block in 0..seen.div_ceil(BLOCK) {
            let p = Product {
                x: &scores[block * BLOCK..],
                x_row: width,
                x_step: 1,
                b: kv.values(block),
                b_step: head_dim,
                depth: BLOCK.min(seen - block * BLOCK),
            };
            s.product(&p, finish, out.reborrow());
            finish = Finish::Add;
        }
        for (row, sum) in sums.into_iter().enumerate().take(rows.len()) {
            divide(s, out.row_mut(row), sum);
        }
    }
}

/// The part of a matrix of `rows` rows that holds a block's positions, as far as any row sees them
/// and up to the next whole vector.
#[inline(always)]
fn block_of(
    matrix: &mut [f32],
    rows: usize,
    width: usize,
    block: usize,
    seen: usize,
) -> Tile<'_, f32> {
    let (_, from) = Tile::new(matrix, rows, width).split_cols(block * BLOCK);
    let cols = BLOCK.min((seen - block * BLOCK).next_multiple_of(LANES));
    from.split_cols(cols).0
}

/// Replaces the scores of the first `visible` positions by `exp(score * scale - max)`, the others
/// up to the whole vector after `seen` by zeros; returns the sum by blocks.
#[inline(always)]
fn softmax<S: Simd>(s: S, scores: &mut [f32], visible: usize, seen: usize, scale: f32) -> f32 {
    let factor = s.splat(scale);
    scores[visible..seen.next_multiple_of(LANES)].fill(0.0);
    let (whole, tail) = scores[..visible].as_chunks_mut();
    let mut most = s.splat(f32::NEG_INFINITY);
    for chunk in whole.iter_mut() {
        let v = s.mul(s.load(chunk), factor);
        most = s.max(most, v);
        s.store(v, chunk);
    }
    if !tail.is_empty() {
        let v = s.mul(load_part(s, tail, 0.0), factor);
        store_part(s, v, tail);
        most = s.max(most, load_part(s, tail, f32::NEG_INFINITY));
    }
    let max = s.splat(s.max_lane(most));
    let mut sum = 0.0;
    for block in scores[..visible].chunks_mut(BLOCK) {
        let (whole, tail) = block.as_chunks_mut();
        let mut lanes = s.splat(0.0);
        for chunk in whole {
            let e = exp(s, s.sub(s.load(chunk), max));
            s.store(e, chunk);
            lanes = s.add(lanes, e);
        }
        if !tail.is_empty() {
            let e = exp(s, s.sub(load_part(s, tail, 0.0), max));
            store_part(s, e, tail);
            // Absent lanes add +0.0, which changes no sum of numbers that are not negative.
            lanes = s.add(lanes, load_part(s, tail, 0.0));
        }
        sum += s.add_lanes(lanes);
    }
    sum
}

/// `x = x / divisor`
#[inline(always)]
fn divide<S: Simd>(s: S, x: &mut [f32], divisor: f32) {
    let divisor = s.splat(divisor);
    let (chunks, tail) = x.as_chunks_mut();
    for chunk in chunks {
        s.store(s.div(s.load(chunk), divisor), chunk);
    }
    let v = s.div(load_part(s, tail, 0.0), divisor);
    store_part(s, v, tail);
}

/// Gradients of one query head, written to `dq` and added to `dk` and `dv`.
#[inline(always)]
pub(crate) fn attend_backward<S: Simd>(
    s: S,
    pass: &HeadPass<'_>,
    dq: Tile<'_, f32>,
    mut dk: Tile<'_, f32>,
    mut dv: Tile<'_, f32>,
) {
    let n = pass.rows;
    let width = n.next_multiple_of(BLOCK);
    let mut probabilities = Scratch::<f32>::new(n * width);
    let mut gradients = Scratch::<f32>::new(n * width);
    let keys = transposed(pass.k, n);
    let values = transposed(pass.v, n);
    for (rows, dq) in dq.row_chunks(ROWS) {
        let p = &mut probabilities[rows.start * width..rows.end * width];
        let dz = &mut gradients[rows.start * width..rows.end * width];
        let at = Rows {
            start: rows.start,
            len: rows.len(),
            width,
        };
        score_gradients(s, pass, at, [&keys, &values], [p, dz]);
        query_gradients(s, pass, at, dz, dq);
    }
    let mut sum = Scratch::<f32>::new(ROWS * pass.q.head_dim);
    for start in (0..n).step_by(ROWS) {
        let at = Rows {
            start,
            len: ROWS.min(n - start),
            width,
        };
        over_queries(s, &gradients, pass.q, n, at, &mut sum, &mut dk);
        over_queries(s, &probabilities, pass.dout, n, at, &mut sum, &mut dv);
    }
}

/// Some rows of a square matrix over positions, stored with rows of `width`.
#[derive(Clone, Copy)]
struct Rows {
    start: usize,
    len: usize,
    width: usize,
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
    let Rows { start, len, width } = at;
    let head_dim = pass.q.head_dim;
    let seen = start + len;
    for block in 0..seen.div_ceil(BLOCK) {
        let of = |x: HeadRows<'_>| x.stride;
        let scores = Product {
            x: pass.q.from(start),
            x_row: of(pass.q),
            x_step: 1,
            b: &keys[block * BLOCK * head_dim..],
            b_step: BLOCK,
            depth: head_dim,
        };
        s.product(
            &scores,
            Finish::Replace,
            block_of(p, len, width, block, seen),
        );
        let dp = Product {
            x: pass.dout.from(start),
            x_row: of(pass.dout),
            b: &values[block * BLOCK * head_dim..],
            ..scores
        };
        s.product(&dp, Finish::Replace, block_of(dz, len, width, block, seen));
    }
    let matrices = p.chunks_exact_mut(width).zip(dz.chunks_exact_mut(width));
    for (row, (p, dz)) in (start..).zip(matrices) {
        let sum = softmax(s, p, row + 1, seen, pass.scale);
        let d = s.splat(lane_product(s, pass.dout.row(row), pass.out.row(row)));
        let (divisor, scale) = (s.splat(sum), s.splat(pass.scale));
        let used = seen.next_multiple_of(LANES);
        let (ps, _) = p[..used].as_chunks_mut();
        let (dzs, _) = dz[..used].as_chunks_mut();
        // Behind the visible positions p is +0, and what is multiplied by it is cleared below.
        for (p, dz) in ps.iter_mut().zip(dzs) {
            let probability = s.div(s.load(p), divisor);
            let gradient = s.mul(s.mul(probability, s.sub(s.load(dz), d)), scale);
            s.store(probability, p);
            s.store(gradient, dz);
        }
        dz[row + 1..used].fill(0.0);
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
    let seen = at.start + at.len;
    let mut finish = Finish::Replace;
    for first in (0..seen).step_by(BLOCK) {
        let p = Product {
            x: &dz[first..],
            x_row: at.width,
            x_step: 1,
            b: pass.k.from(first),
            b_step: pass.k.stride,
            depth: BLOCK.min(seen - first),
        };
        s.product(&p, finish, dq.reborrow());
        finish = Finish::Add;
    }
}

/// Adds to the rows `at` of `out` the sum over queries, by blocks, of `matrix[query][row]` times
/// the query's row of `x`.
#[inline(always)]
fn over_queries<S: Simd>(
    s: S,
    matrix: &[f32],
    x: HeadRows<'_>,
    n: usize,
    at: Rows,
    sum: &mut [f32],
    out: &mut Tile<'_, f32>,
) {
    let mut finish = Finish::Replace;
    // Queries before the first of these rows do not see them.
    let mut first = at.start;
    while first < n {
        let end = n.min((first / BLOCK + 1) * BLOCK);
        let p = Product {
            x: &matrix[first * at.width + at.start..],
            x_row: 1,
            x_step: at.width,
            b: x.from(first),
            b_step: x.stride,
            depth: end - first,
        };
        s.product(&p, finish, Tile::new(sum, at.len, x.head_dim));
        finish = Finish::Add;
        first = end;
    }
    for (row, sum) in sum.chunks_exact(x.head_dim).enumerate().take(at.len) {
        super::elementwise::add(s, sum, out.row_mut(at.start + row));
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
fn transposed(rows: HeadRows<'_>, n: usize) -> Scratch<f32> {
    let head_dim = rows.head_dim;
    let mut out = Scratch::new(n.div_ceil(BLOCK) * BLOCK * head_dim);
    for (block, out) in out.chunks_exact_mut(BLOCK * head_dim).enumerate() {
        let first = block * BLOCK;
        transpose(rows, first, BLOCK.min(n - first), out);
    }
    out
}

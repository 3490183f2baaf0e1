//! Attention of one head (rule 13).

use super::loss::largest;
use super::{lane_sum, lane_sum_of};
use crate::attention::{AttendPass, BLOCK, HeadPass, HeadRows};
use crate::elementary::exp;
use crate::tile::Tile;

/// Attends from consecutive rows.
pub(crate) fn attend(pass: &AttendPass<'_>, mut out: Tile<'_, f32>) {
    let AttendPass {
        q,
        kv,
        start,
        scale,
    } = *pass;
    for row in 0..out.rows() {
        let visible = start + row + 1;
        let query = q.row(row);
        let scores: Vec<f32> = (0..visible)
            .map(|j| chain((0..q.head_dim).map(|d| query[d] * kv.key(j, d))) * scale)
            .collect();
        let (e, sum) = exponentials(scores);
        for (d, out) in out.row_mut(row).iter_mut().enumerate() {
            *out = blocks(0, visible, |j| e[j] * kv.value(j, d)) / sum;
        }
    }
}

/// Writes the rows `first..first + n` of a head, at most 64, into a block of 64, transposed:
/// element (d, j) at `d * 64 + j`.
pub(crate) fn transpose(rows: HeadRows<'_>, first: usize, n: usize, block: &mut [f32]) {
    for j in 0..n {
        for (d, value) in rows.row(first + j).iter().enumerate() {
            block[d * BLOCK + j] = *value;
        }
    }
}

/// Gradients of one query head: `dq`, and its part of `dk` and `dv`.
pub(crate) fn attend_backward(
    pass: &HeadPass<'_>,
    mut dq: Tile<'_, f32>,
    mut dk: Tile<'_, f32>,
    mut dv: Tile<'_, f32>,
) {
    let HeadPass {
        q,
        k,
        v,
        out,
        dout,
        rows,
        write,
        scale,
    } = *pass;
    let head_dim = q.head_dim;
    // Row i of each holds what belongs to positions 0..=i.
    let mut probabilities = Vec::with_capacity(rows);
    let mut gradients = Vec::with_capacity(rows);
    for i in 0..rows {
        let products = |a: &[f32], b: &[f32]| chain(a.iter().zip(b).map(|(a, b)| a * b));
        let scores = (0..=i)
            .map(|j| products(q.row(i), k.row(j)) * scale)
            .collect();
        let (e, sum) = exponentials(scores);
        let p: Vec<f32> = e.iter().map(|e| e / sum).collect();
        let d = lane_sum_of(dout.row(i).iter().zip(out.row(i)).map(|(a, b)| a * b));
        let dz: Vec<f32> = (0..=i)
            .map(|j| (p[j] * (products(dout.row(i), v.row(j)) - d)) * scale)
            .collect();
        for (c, dq) in dq.row_mut(i).iter_mut().enumerate() {
            *dq = blocks(0, i + 1, |j| dz[j] * k.row(j)[c]);
        }
        probabilities.push(p);
        gradients.push(dz);
    }
    for j in 0..rows {
        for c in 0..head_dim {
            let of_key = blocks(j, rows, |i| gradients[i][j] * q.row(i)[c]);
            let of_value = blocks(j, rows, |i| probabilities[i][j] * dout.row(i)[c]);
            write.put(&mut dk.row_mut(j)[c], of_key);
            write.put(&mut dv.row_mut(j)[c], of_value);
        }
    }
}

/// `exp(score - max)` and their sum by blocks.
fn exponentials(scores: Vec<f32>) -> (Vec<f32>, f32) {
    let max = largest(&scores);
    let e: Vec<f32> = scores.iter().map(|s| exp(s - max)).collect();
    let sum = chain(e.chunks(BLOCK).map(lane_sum));
    (e, sum)
}

/// Adds in order, from +0.0.
fn chain(terms: impl Iterator<Item = f32>) -> f32 {
    let mut sum = 0.0;
    for term in terms {
        sum += term;
    }
    sum
}

/// Adds the terms of positions `start..end`: a chain inside each absolute block, blocks ascending.
fn blocks(start: usize, end: usize, term: impl Fn(usize) -> f32) -> f32 {
    let mut sum = 0.0;
    for block in start / BLOCK..end.div_ceil(BLOCK) {
        let first = start.max(block * BLOCK);
        let last = end.min((block + 1) * BLOCK);
        sum += chain((first..last).map(&term));
    }
    sum
}

//! f32 matrix products: tiles of outputs in registers, one chain for each output.

use std::ops::Range;

use super::simd::{LANES, Simd};
use crate::integer::even;
use crate::product::{Finish, Product};
use crate::tile::Tile;

/// Columns in half a vector: products that narrow hold two rows in a vector.
const HALF: usize = LANES / 2;
/// Pairs of rows in a tile of half a vector.
const PAIRS: usize = 4;
/// Elements of a right factor that stays in the first-level cache while rows pass by.
const CACHED: usize = 8192;

/// Computes a product into `out`, which has its rows and columns.
#[inline(always)]
pub(crate) fn product<S: Simd>(s: S, p: &Product<'_>, finish: Finish, out: Tile<'_, f32>) {
    let (rows, cols) = (out.rows(), out.cols());
    if rows == 0 || cols == 0 {
        return;
    }
    if let Some(last) = p.depth.checked_sub(1) {
        assert!(
            p.x.len() > (rows - 1) * p.x_row + last * p.x_step,
            "left factor too short"
        );
        assert!(
            p.b.len() >= last * p.b_step + cols,
            "right factor too short"
        );
    }
    let whole = cols / LANES * LANES;
    let (wide, narrow) = out.split_cols(whole);
    if whole > 0 {
        columns(s, p, finish, wide);
    }
    let rest = cols - whole;
    if rest == HALF {
        let b = &p.b[whole..];
        pairs(s.halves(), &Product { b, ..*p }, finish, narrow);
    } else if rest > 0 {
        // Columns that fill no vector are copied beside zeros, so that loads stay in bounds.
        let width = if rest < HALF { HALF } else { LANES };
        let mut b = vec![0.0; p.depth * width];
        for (k, row) in b.chunks_exact_mut(width).enumerate() {
            row[..rest].copy_from_slice(&p.b[k * p.b_step + whole..][..rest]);
        }
        let padded = Product {
            b: &b,
            b_step: width,
            ..*p
        };
        if rest < HALF {
            pairs(s.halves(), &padded, finish, narrow);
        } else {
            last_columns(s, &padded, finish, narrow);
        }
    }
}

/// Whole vectors of columns.
#[inline(always)]
fn columns<S: Simd>(s: S, p: &Product<'_>, finish: Finish, mut out: Tile<'_, f32>) {
    let (rows, cols) = (out.rows(), out.cols());
    // A long right factor is read once, in strips that all rows use; a short one stays near, and
    // rows are finished one after the other.
    let strip = if p.depth * cols <= CACHED {
        cols
    } else {
        2 * LANES
    };
    for start in (0..cols).step_by(strip) {
        let columns = start..cols.min(start + strip);
        for rows in even(rows, S::TILE_ROWS) {
            tiles(s, p, finish, &mut out, rows, columns.clone());
        }
    }
}

/// A few rows of a range of whole vectors.
#[inline(always)]
fn tiles<S: Simd>(
    s: S,
    p: &Product<'_>,
    finish: Finish,
    out: &mut Tile<'_, f32>,
    mut rows: Range<usize>,
    columns: Range<usize>,
) {
    while !rows.is_empty() {
        let row = rows.start;
        rows.start += match rows.len() {
            16.. => column_of_tiles::<S, 16>(s, p, finish, out, row, columns.clone()),
            8.. => column_of_tiles::<S, 8>(s, p, finish, out, row, columns.clone()),
            6.. => column_of_tiles::<S, 6>(s, p, finish, out, row, columns.clone()),
            5.. => column_of_tiles::<S, 5>(s, p, finish, out, row, columns.clone()),
            4.. => column_of_tiles::<S, 4>(s, p, finish, out, row, columns.clone()),
            _ => one_row(s, p, finish, out, row, columns.clone()),
        };
    }
}

/// `R` rows of a range of whole vectors; returns `R`.
///
/// One vector at a time: a number of the left factor is then used once, as an operand from memory,
/// which takes neither an instruction nor a register of its own with AVX-512.
#[inline(always)]
fn column_of_tiles<S: Simd, const R: usize>(
    s: S,
    p: &Product<'_>,
    finish: Finish,
    out: &mut Tile<'_, f32>,
    row: usize,
    columns: Range<usize>,
) -> usize {
    for col in columns.step_by(LANES) {
        tile::<S, R, 1>(s, p, finish, out, row, col);
    }
    R
}

/// One row of a range of whole vectors; returns 1.
///
/// Each vector is a chain that waits for itself: several go together.
#[inline(always)]
fn one_row<S: Simd>(
    s: S,
    p: &Product<'_>,
    finish: Finish,
    out: &mut Tile<'_, f32>,
    row: usize,
    columns: Range<usize>,
) -> usize {
    let mut col = columns.start;
    while col < columns.end {
        let vectors = ((columns.end - col) / LANES).min(4);
        match vectors {
            4 => tile::<S, 1, 4>(s, p, finish, out, row, col),
            3 => tile::<S, 1, 3>(s, p, finish, out, row, col),
            2 => tile::<S, 1, 2>(s, p, finish, out, row, col),
            _ => tile::<S, 1, 1>(s, p, finish, out, row, col),
        }
        col += vectors * LANES;
    }
    1
}

/// `R` rows times `C` vectors of columns.
#[inline(always)]
fn tile<S: Simd, const R: usize, const C: usize>(
    s: S,
    p: &Product<'_>,
    finish: Finish,
    out: &mut Tile<'_, f32>,
    row: usize,
    col: usize,
) {
    let mut sums = chains::<S, R, C>(s, p, row, col);
    assert!(
        row + R <= out.rows() && col + C * LANES <= out.cols(),
        "tile outside the output"
    );
    let (start, stride) = (out.as_mut_ptr(), out.stride());
    let mut places = [[start.cast::<[f32; LANES]>(); C]; R];
    for (r, places) in places.iter_mut().enumerate() {
        for (c, place) in places.iter_mut().enumerate() {
            *place = start
                .wrapping_add((row + r) * stride + col + c * LANES)
                .cast();
        }
    }
    // Each step for the whole tile: sums that took different ways row by row would leave their
    // registers.
    if let Finish::Scale(factor) | Finish::AddScaled(factor) = finish {
        let factor = s.splat(factor);
        for sum in sums.as_flattened_mut() {
            *sum = s.mul(factor, *sum);
        }
    }
    if let Finish::Add | Finish::AddScaled(_) = finish {
        for (sum, place) in sums
            .as_flattened_mut()
            .iter_mut()
            .zip(places.as_flattened())
        {
            // SAFETY: the place lies in the tile, as asserted, and `out` is borrowed exclusively.
            *sum = s.add(s.load(unsafe { &**place }), *sum);
        }
    }
    for (sum, place) in sums.as_flattened().iter().zip(places.as_flattened()) {
        // SAFETY: as above.
        s.store(*sum, unsafe { &mut **place });
    }
}

/// The chains of `R` rows and `C` vectors of columns.
#[inline(always)]
fn chains<S: Simd, const R: usize, const C: usize>(
    s: S,
    p: &Product<'_>,
    row: usize,
    col: usize,
) -> [[S::F; C]; R] {
    let zero = s.splat(0.0);
    let mut sums = [[zero; C]; R];
    // One pointer for each row, so that the loop advances a single index.
    let mut x = [p.x.as_ptr(); R];
    for (r, x) in x.iter_mut().enumerate() {
        *x = x.wrapping_add((row + r) * p.x_row);
    }
    let b = p.b.as_ptr().wrapping_add(col);
    for k in 0..p.depth {
        let mut factors = [zero; C];
        for (c, factor) in factors.iter_mut().enumerate() {
            // SAFETY: `product` has checked that b holds these columns in every step.
            *factor = s.load(unsafe { &*b.add(k * p.b_step + c * LANES).cast() });
        }
        for (sums, x) in sums.iter_mut().zip(x) {
            // SAFETY: `product` has checked that x holds these rows in every step.
            let x = s.splat(unsafe { *x.add(k * p.x_step) });
            for (sum, factor) in sums.iter_mut().zip(factors) {
                *sum = s.add(*sum, s.mul(x, factor));
            }
        }
    }
    sums
}

/// At most eight columns: each vector holds two rows. `b` has eight columns.
#[inline(always)]
fn pairs<S: Simd>(s: S, p: &Product<'_>, finish: Finish, mut out: Tile<'_, f32>) {
    let rows = out.rows();
    let mut row = 0;
    while row + 2 * PAIRS <= rows {
        pair_tile::<S, PAIRS>(s, p, finish, &mut out, row);
        row += 2 * PAIRS;
    }
    while row < rows {
        pair_tile::<S, 1>(s, p, finish, &mut out, row);
        row += 2;
    }
}

/// `2 R` rows from `row` on; a row after the last is computed as the last and dropped.
#[inline(always)]
fn pair_tile<S: Simd, const R: usize>(
    s: S,
    p: &Product<'_>,
    finish: Finish,
    out: &mut Tile<'_, f32>,
    row: usize,
) {
    let last = out.rows() - 1;
    let mut sums = [s.splat(0.0); R];
    let mut x = [[p.x.as_ptr(); 2]; R];
    for (r, [first, second]) in x.iter_mut().enumerate() {
        let of_row = row + 2 * r;
        *first = first.wrapping_add(of_row * p.x_row);
        *second = second.wrapping_add((of_row + 1).min(last) * p.x_row);
    }
    for k in 0..p.depth {
        // SAFETY: `product` has checked that b holds eight columns in every step.
        let factor = s.load_twice(unsafe { &*p.b.as_ptr().add(k * p.b_step).cast() });
        for (sum, [first, second]) in sums.iter_mut().zip(x) {
            let at = k * p.x_step;
            // SAFETY: `product` has checked that x holds the rows of out in every step.
            let x = unsafe { s.splat_halves(*first.add(at), *second.add(at)) };
            *sum = s.add(*sum, s.mul(x, factor));
        }
    }
    for (r, sum) in sums.into_iter().enumerate() {
        let first = row + 2 * r;
        let mut old = [0.0; LANES];
        let mut new = [0.0; LANES];
        let cols = out.cols();
        old[..cols].copy_from_slice(out.row(first));
        if first < last {
            old[HALF..HALF + cols].copy_from_slice(out.row(first + 1));
        }
        s.store(finished(s, finish, sum, s.load(&old)), &mut new);
        out.row_mut(first).copy_from_slice(&new[..cols]);
        if first < last {
            out.row_mut(first + 1)
                .copy_from_slice(&new[HALF..HALF + cols]);
        }
    }
}

/// Nine to fifteen columns. `b` has sixteen.
#[inline(always)]
fn last_columns<S: Simd>(s: S, p: &Product<'_>, finish: Finish, mut out: Tile<'_, f32>) {
    for row in 0..out.rows() {
        let [[sum]] = chains::<S, 1, 1>(s, p, row, 0);
        let out = out.row_mut(row);
        let old = super::load_part(s, out, 0.0);
        super::store_part(s, finished(s, finish, sum, old), out);
    }
}

#[inline(always)]
fn finished<S: Simd>(s: S, finish: Finish, sum: S::F, old: S::F) -> S::F {
    match finish {
        Finish::Replace => sum,
        Finish::Add => s.add(old, sum),
        Finish::Scale(factor) => s.mul(s.splat(factor), sum),
        Finish::AddScaled(factor) => s.add(old, s.mul(s.splat(factor), sum)),
    }
}

//! The integer products on AMX tiles.
//!
//! `tdpbssd` multiplies sixteen rows of 64 int8 codes by a tile of int8 weights and adds to 16 x 16
//! sums modulo 2^32. A panel of int8 weights is a row of such tiles as it lies in memory: sixteen
//! groups of four columns, each with four bytes for each of sixteen outputs. Two-bit weights are
//! expanded to that form, a group of panels and a block of columns at a time, into the first-level
//! cache. Two tiles of codes by two of weights share their loads.
//!
//! Rows are taken sixteen at a time, the last sixteen overlapping those before; fewer than sixteen
//! make smaller tiles. Where columns are no multiple of 64, the last tile overlaps those before
//! too, with codes of zero for the columns that were there already. So nothing outside the slices
//! is read, and weights need no copy.
//!
//! Wide codes are balanced digits to base 256, which are more rows: the two lower ones here, the
//! third ones by the AVX-512 kernels, as few are not zero. The headroom is that of `ternary` and
//! `int8`: all sums fit into i32, those of two planes put together as well.

mod digits;
mod output;
mod tiles;
mod weights;

use std::arch::x86_64::*;
use std::ops::Range;

use self::digits::{Digits, tails};
use self::output::{Output, scaled, scales};
pub(crate) use self::tiles::available;
use self::tiles::{COLUMNS, Left, ROWS, STEP, SUMS, Tiles};
use self::weights::{Int8, Ternary, Weights};
use super::ahead::Ahead;
use super::avx512::{upper, widen};
use super::even;
use crate::cpu::scratch::Scratch;
use crate::panels::{LANES, padded};
use crate::{Codes, Tile, WideCodes, Write, int8, ternary};

/// Most steps of a block of columns: two panels of it take half of the first-level cache.
const STEPS: usize = 12;
/// Bytes of weights that all rows of codes meet before others take their place there.
const GROUP_BYTES: usize = 2 * STEPS * STEP;
/// Bytes of codes that a pass over the panels rereads: they stay in the second-level cache.
const CHUNK_BYTES: usize = 512 << 10;

/// Whether tiles pay: fewer rows or columns would leave most of them empty.
pub(crate) fn pays(rows: usize, stride: usize) -> bool {
    rows >= 4 && stride >= COLUMNS
}

/// Two tiles of codes that share their weights: each a block of rows in a plane of digits.
#[derive(Clone, Copy)]
struct Pair {
    tiles: [Block; 2],
    /// Whether there is a second one.
    both: bool,
}

/// Up to sixteen rows of codes.
#[derive(Clone, Copy)]
struct Block {
    /// The rows for which this block's sums count.
    rows: (usize, usize),
    /// First row of the tile: sixteen before the end at the latest.
    start: usize,
    /// That row's place on the left side, plane after plane.
    left: usize,
}

/// The blocks of `rows` rows in one plane.
fn blocks(rows: usize, plane: usize) -> impl Iterator<Item = Block> {
    (0..rows).step_by(ROWS).map(move |first| {
        let start = first.min(rows.saturating_sub(ROWS));
        Block {
            rows: (first, rows.min(first + ROWS)),
            start,
            left: plane * rows + start,
        }
    })
}

/// Blocks two by two, in order.
fn pairs(blocks: impl Iterator<Item = Block>) -> Vec<Pair> {
    let blocks: Vec<Block> = blocks.collect();
    let pair = |pair: &[Block]| Pair {
        tiles: [pair[0], pair[pair.len() - 1]],
        both: pair.len() == 2,
    };
    blocks.chunks(2).map(pair).collect()
}

/// The sums of one pair with two panels, as [`Tiles::product`] leaves them.
struct Sums<'a> {
    /// Not a copy: what was just copied would be read after all stores of tiles.
    pair: &'a Pair,
    sums: &'a [i32],
}

impl Sums<'_> {
    /// The sums of `row` with each of the two panels.
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn row(&self, tile: usize, row: usize) -> [__m512i; 2] {
        let row = tile * ROWS + row - self.pair.tiles[tile].start;
        let sums = &self.sums[2 * LANES * row..][..2 * LANES];
        // SAFETY: there are two registers of sums.
        unsafe {
            let sums = sums.as_ptr();
            [
                _mm512_loadu_si512(sums.cast()),
                _mm512_loadu_si512(sums.add(LANES).cast()),
            ]
        }
    }
}

/// Blocks of columns: ranges of whole steps of a row of `stride` codes, and the columns of each.
/// The last one has also the columns after the last whole step.
fn column_blocks(
    steps: Range<usize>,
    stride: usize,
) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
    even(steps.len(), STEPS).map(move |block| {
        let block = steps.start + block.start..steps.start + block.end;
        let end = if block.end == stride / COLUMNS {
            stride
        } else {
            block.end * COLUMNS
        };
        (block.clone(), block.start * COLUMNS..end)
    })
}

/// Panels, an even number, of which `columns` columns share the first-level cache.
fn group_size(columns: usize) -> usize {
    (GROUP_BYTES / (2 * LANES * columns)).max(1) * 2
}

/// The sums of all pairs with all panels over all columns, passed to `each` with the two panels.
fn products<'a, 'b, W: Weights<'b>>(
    tiles: &Tiles,
    pairs: &[Pair],
    left: impl Fn(Range<usize>) -> Left<'a>,
    stride: usize,
    panels: Range<usize>,
    mut weights: W,
    mut each: impl FnMut(Sums<'_>, Range<usize>),
) {
    let blocks: Vec<_> = column_blocks(0..stride / COLUMNS, stride).collect();
    let widest = blocks.iter().map(|(_, columns)| columns.len()).max();
    let size = group_size(widest.unwrap_or(COLUMNS));
    // Sums over one block of columns are used at once, others after the last block.
    let places = if blocks.len() == 1 {
        1
    } else {
        pairs.len() * size / 2
    };
    let mut sums = Scratch::<i32>::new(places * SUMS);
    let group = |start: usize| start..(start + size).min(panels.end);
    for start in panels.clone().step_by(size) {
        for (index, (steps, columns)) in blocks.iter().cloned().enumerate() {
            let (first, last) = (steps.start == 0, columns.end == stride);
            weights.prepare(group(start), columns);
            let (next, columns) = match blocks.get(index + 1) {
                Some((_, columns)) => (group(start), columns),
                None => (group(start + size), &blocks[0].1),
            };
            let next = next.map(|panel| weights.bytes(panel, columns.clone()));
            let left = left(steps);
            let twos = group(start).len().div_ceil(2);
            let job = |number: usize| {
                let first = start + number % twos * 2;
                let two = first..(first + 2).min(panels.end);
                (&pairs[number / twos], two, number % places * SUMS)
            };
            let jobs = pairs.len() * twos;
            let mut ahead = Ahead::new(next, jobs);
            for number in 0..jobs {
                ahead.fetch();
                let (pair, two, place) = job(number);
                let sums = &mut sums[place..place + SUMS];
                multiply(tiles, &left, pair, &weights, &two, !first, sums);
                if last {
                    each(Sums { pair, sums }, two);
                }
            }
        }
    }
}

/// The product of one pair with two panels; a single panel counts twice.
fn multiply<'b>(
    tiles: &Tiles,
    left: &Left<'_>,
    pair: &Pair,
    weights: &impl Weights<'b>,
    two: &Range<usize>,
    add: bool,
    sums: &mut [i32],
) {
    let panels = [weights.panel(two.start), weights.panel(two.end - 1)];
    let rows = pair.tiles.map(|block| block.left);
    tiles.product(left, rows, pair.both, panels, add, sums);
}

/// See [`ternary::forward`].
///
/// # Safety
/// The machine has AMX ([`available`]) and AVX-512, and [`pays`] holds.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(crate) unsafe fn ternary_forward(
    w: ternary::Panels<'_>,
    panels: Range<usize>,
    x: Codes<'_>,
    scale: f32,
    y: &mut Tile<'_, f32>,
) {
    let mut y = Output::new(y, Write::Replace);
    // SAFETY: as for the caller.
    unsafe {
        forward(
            x,
            panels,
            || Ternary::new(w),
            |row, panel, sums| {
                let factor = _mm512_set1_ps(x.scales[row] * scale);
                y.put(row, panel, scaled(sums, [factor; 2]));
            },
        );
    }
}

/// See [`int8::forward`].
///
/// # Safety
/// As for [`ternary_forward`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(crate) unsafe fn int8_forward(
    w: int8::Panels<'_>,
    panels: Range<usize>,
    x: Codes<'_>,
    row_scales: &[f32],
    y: &mut Tile<'_, f32>,
) {
    let mut y = Output::new(y, Write::Replace);
    let row_scales = &row_scales[panels.start * LANES..];
    // SAFETY: as for the caller.
    unsafe {
        forward(
            x,
            panels,
            || Int8::new(w),
            |row, panel, sums| {
                let scale = _mm512_set1_ps(x.scales[row]);
                let scales = scales(&row_scales[panel * LANES..]);
                let factors = scales.map(|scales| _mm512_mul_ps(scale, scales));
                y.put(row, panel, scaled(sums, factors));
            },
        );
    }
}

/// The sums of int8 codes with two panels, passed to `each` with their row and the first panel's
/// place in `panels`.
///
/// # Safety
/// As for [`ternary_forward`].
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn forward<'a, W: Weights<'a>>(
    x: Codes<'_>,
    panels: Range<usize>,
    weights: impl Fn() -> W,
    mut each: impl FnMut(usize, usize, [__m512i; 2]),
) {
    let most = (CHUNK_BYTES / x.stride).max(2 * ROWS);
    for rows in even(x.rows, most) {
        // SAFETY: as for the caller; the tiles of other rows are gone.
        let tiles = unsafe { Tiles::new(rows.len()) };
        let codes = &x.codes[rows.start * x.stride..rows.end * x.stride];
        let tails = tails(codes, x.stride);
        let left = |steps: Range<usize>| Left {
            codes: &codes[steps.start * COLUMNS..],
            stride: x.stride,
            steps: steps.len(),
            tail: (steps.end == x.stride / COLUMNS && !tails.is_empty())
                .then_some((&*tails, COLUMNS)),
        };
        let pairs = pairs(blocks(rows.len(), 0));
        products(
            &tiles,
            &pairs,
            left,
            x.stride,
            panels.clone(),
            weights(),
            |sums, two| {
                for tile in 0..1 + usize::from(sums.pair.both) {
                    let (first, end) = sums.pair.tiles[tile].rows;
                    for row in first..end {
                        let panel = two.start - panels.start;
                        each(rows.start + row, panel, sums.row(tile, row));
                    }
                }
            },
        );
    }
}

/// See [`ternary::backward`].
///
/// # Safety
/// As for [`ternary_forward`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(crate) unsafe fn ternary_backward(
    wt: ternary::Panels<'_>,
    panels: Range<usize>,
    g: WideCodes<'_>,
    scale: f32,
    write: Write,
    dx: &mut Tile<'_, f32>,
) {
    let mut dx = Output::new(dx, write);
    // SAFETY: as for the caller.
    unsafe {
        backward(
            g,
            g.stride,
            panels,
            || Ternary::new(wt),
            |row, panel, sums| {
                let factor = _mm512_set1_ps(g.scales[row] * scale);
                dx.put(row, panel, scaled(sums, [factor; 2]));
            },
        );
    }
}

/// See [`int8::Sums::add`].
///
/// # Safety
/// As for [`ternary_forward`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(crate) unsafe fn int8_backward(
    wt: int8::Panels<'_>,
    panels: Range<usize>,
    g: WideCodes<'_>,
    totals: &mut [[i64; LANES]],
) {
    // SAFETY: as for the caller.
    unsafe {
        backward(
            g,
            padded(wt.cols()),
            panels.clone(),
            || Int8::new(wt),
            |row, panel, sums| {
                for (panel, sums) in (panel..panels.len()).zip(sums) {
                    widen(sums, 0, &mut totals[panel * g.rows + row]);
                }
            },
        );
    }
    upper::add(wt, panels, g, totals);
}

/// The sums of the lower sixteen bits of codes, `cols` in each row, with two panels, passed to
/// `each` with their row and the first panel's place in `panels`.
///
/// # Safety
/// As for [`ternary_forward`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
#[inline]
unsafe fn backward<'a, W: Weights<'a>>(
    g: WideCodes<'_>,
    cols: usize,
    panels: Range<usize>,
    weights: impl Fn() -> W,
    mut each: impl FnMut(usize, usize, [__m512i; 2]),
) {
    let most = (CHUNK_BYTES / (2 * cols)).max(2 * ROWS);
    for rows in even(g.rows, most) {
        // SAFETY: as for the caller; the tiles of other rows are gone.
        let tiles = unsafe { Tiles::new(rows.len()) };
        let digits = Digits::new(g, rows.clone(), cols);
        // Both planes of the same rows.
        let planes = blocks(rows.len(), 0).zip(blocks(rows.len(), 1));
        let pairs = pairs(planes.flat_map(|(low, high)| [low, high]));
        let left = |steps: Range<usize>| {
            let last = steps.end == cols / COLUMNS;
            digits.left(steps, last)
        };
        products(
            &tiles,
            &pairs,
            left,
            cols,
            panels.clone(),
            weights(),
            |sums, two| {
                let (first, end) = sums.pair.tiles[0].rows;
                for row in first..end {
                    let (low, high) = (sums.row(0, row), sums.row(1, row));
                    // Below 2^31: see `ternary` and `int8`.
                    let sum = |p: usize| _mm512_add_epi32(_mm512_slli_epi32::<8>(high[p]), low[p]);
                    each(rows.start + row, two.start - panels.start, [sum(0), sum(1)]);
                }
            },
        );
    }
}

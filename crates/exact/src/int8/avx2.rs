//! int8 products with AVX2.
//!
//! Bytes times bytes would need `vpmaddubsw`, whose i16 saturates at 255 * 127 * 2, and tricks
//! around it cost as much as what is done here: weights become i16, and `vpmaddwd` adds two
//! products into i32, sixteen at a time. That takes 16-bit codes at the same price, so a gradient
//! of 23 bits is one pass over its lower sixteen bits and a sparse pass over the few codes that
//! have upper bits.
//!
//! **Forward.** |sum| <= 2^16 * 127 * 128 < 2^31.
//!
//! **Backward.** The sums of the lower parts over a block of columns fit into i32 (see `int8`),
//! those of the upper parts, at most 64 in magnitude, all the more.

use std::arch::x86_64::*;
use std::ops::Range;

use super::pack::GROUP;
use super::{BLOCK_COLUMNS, Panels};
use crate::integer::ahead::Ahead;
use crate::integer::avx2::{
    Column, Interleaved, Line, WordPart, for_columns, scaled, word_sums, word_tile,
};
use crate::integer::{Even, chunks, even};
use crate::panels::{LANES, padded};
use crate::{Codes, Tile, WideCodes, Write};

/// Most blocks of sixteen columns expanded to i16 at a time: 16 KiB.
const BLOCK: usize = BLOCK_COLUMNS / LANES;

/// Bytes of a block of sixteen columns.
const BLOCK_BYTES: usize = 4 * GROUP;

/// Lines of those expanded weights.
const LINES: usize = BLOCK * 8;

/// Bytes ahead of their use at which weights are prefetched.
const AHEAD: usize = 2048;

/// See [`super::forward`]. The shapes are checked there.
///
/// # Safety
/// The processor has AVX2.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn forward(
    w: Panels<'_>,
    panels: Range<usize>,
    x: Codes<'_>,
    row_scales: &[f32],
    y: &mut Tile<'_, f32>,
) {
    let mut expanded = [Line::ZERO; LINES];
    let blocks = even(x.stride / LANES, BLOCK);
    for rows in chunks(x.rows, x.stride * 2) {
        let words = widened(&x.codes[rows.start * x.stride..rows.end * x.stride]);
        // One row has no tile, and is read as it lies.
        let tiles =
            (rows.len() > 1).then(|| Interleaved::new(&words, x.stride, rows.len(), blocks));
        let mut sums = vec![[_mm256_setzero_si256(); 2]; rows.len()];
        for (index, panel) in panels.clone().enumerate() {
            let mut scales = [0.0; LANES];
            let known = &row_scales[panel * LANES..];
            let len = known.len().min(LANES);
            scales[..len].copy_from_slice(&known[..len]);
            let job = Job {
                panel: w.panel(panel),
                next: if panel + 1 < panels.end {
                    w.panel(panel + 1)
                } else {
                    &[]
                },
                scales: &x.scales[rows.clone()],
                row_scales: &scales,
                row: rows.start,
            };
            let mut column = Column::new(y, index, Write::Replace);
            match &tiles {
                None => forward_vector(job, &words, &mut column),
                Some(codes) => {
                    let codes = (codes, blocks);
                    forward_panel(job, codes, &mut expanded, &mut sums, &mut column);
                }
            }
        }
    }
}

/// Codes as 16-bit numbers.
#[target_feature(enable = "avx2")]
fn widened(codes: &[i8]) -> Vec<i16> {
    let mut words = vec![0; codes.len()];
    for (codes, words) in codes.chunks_exact(LANES).zip(words.chunks_exact_mut(LANES)) {
        // SAFETY: both chunks have sixteen elements.
        unsafe {
            let wide = _mm256_cvtepi8_epi16(_mm_loadu_si128(codes.as_ptr().cast()));
            _mm256_storeu_si256(words.as_mut_ptr().cast(), wide);
        }
    }
    words
}

/// The forward products of one panel with a chunk of rows.
struct Job<'a> {
    panel: &'a [u8],
    /// The panel that comes next, or nothing.
    next: &'a [u8],
    scales: &'a [f32],
    row_scales: &'a [f32; LANES],
    /// The chunk's first row.
    row: usize,
}

impl Job<'_> {
    /// The factors of the chunk's row `t`.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn factor(&self, t: usize) -> [__m256; 2] {
        let scale = _mm256_set1_ps(self.scales[t]);
        // SAFETY: there are sixteen scales.
        let [low, high] = unsafe {
            let scales = self.row_scales.as_ptr();
            [_mm256_loadu_ps(scales), _mm256_loadu_ps(scales.add(8))]
        };
        [_mm256_mul_ps(scale, low), _mm256_mul_ps(scale, high)]
    }
}

/// The products of one panel; the next one is prefetched meanwhile.
#[target_feature(enable = "avx2")]
fn forward_panel(
    job: Job<'_>,
    (codes, blocks): (&Interleaved, Even),
    expanded: &mut [Line; LINES],
    sums: &mut [[__m256i; 2]],
    column: &mut Column<'_>,
) {
    let tiles = codes.tiles();
    let mut ahead = Ahead::new([job.next].into_iter(), tiles.len() * blocks.len());
    for (b, block) in blocks.enumerate() {
        let expanded = &mut expanded[..block.len() * 8];
        let bytes = &job.panel[block.start * BLOCK_BYTES..block.end * BLOCK_BYTES];
        expand(bytes, expanded);
        for part in tiles {
            ahead.fetch();
            let row = part.start;
            let words = WordPart {
                weights: expanded,
                codes: codes.part(&block, &part),
                sums: &mut sums[part],
                place: (b == 0, b + 1 == blocks.len()),
            };
            let factor = &|t: usize| job.factor(row + t);
            for_columns!(
                words.sums.len(),
                word_tile(words, factor, job.row + row, column)
            );
        }
    }
}

/// The product of one panel with one row of codes, straight from the packed bytes.
#[target_feature(enable = "avx2")]
fn forward_vector(job: Job<'_>, words: &[i16], column: &mut Column<'_>) {
    let mut sums = [_mm256_setzero_si256(); 2];
    for (group, words) in job.panel.chunks_exact(GROUP).zip(words.chunks_exact(4)) {
        _mm_prefetch::<_MM_HINT_T0>(group.as_ptr().wrapping_add(AHEAD).cast());
        add_group(group, words, &mut sums);
    }
    column.put(job.row, scaled(sums, job.factor(0)));
}

/// Adds the products of four columns with four words to the sums of a panel's rows.
#[target_feature(enable = "avx2")]
#[inline]
fn add_group(group: &[u8], words: &[i16], sums: &mut [__m256i; 2]) {
    let pair = |low: i16, high: i16| i32::from(high) << 16 | i32::from(low as u16);
    let even = _mm256_set1_epi32(pair(words[0], words[2]));
    let odd = _mm256_set1_epi32(pair(words[1], words[3]));
    for (half, sum) in sums.iter_mut().enumerate() {
        // SAFETY: a group has two halves of 32 bytes.
        let weights = unsafe { _mm256_loadu_si256(group.as_ptr().add(half * 32).cast()) };
        // Bytes 0 and 2 of each lane, and bytes 1 and 3, sign-extended.
        let evens = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(weights));
        let odds = _mm256_srai_epi16::<8>(weights);
        let products =
            _mm256_add_epi32(_mm256_madd_epi16(evens, even), _mm256_madd_epi16(odds, odd));
        *sum = _mm256_add_epi32(*sum, products);
    }
}

/// Expands weights to sixteen bits: for each pair of columns, sixteen rows of two.
#[target_feature(enable = "avx2")]
fn expand(bytes: &[u8], out: &mut [Line]) {
    // Bytes 0, 1 and bytes 2, 3 of each 32-bit lane as the upper halves of two words.
    let first = _mm256_set1_epi32(0x0180_0080);
    let second = _mm256_set1_epi32(0x0380_0280);
    let lanes = _mm256_setr_epi32(
        0,
        0x0404_0404,
        0x0808_0808,
        0x0c0c_0c0c,
        0,
        0x0404_0404,
        0x0808_0808,
        0x0c0c_0c0c,
    );
    let select = [
        _mm256_add_epi8(first, lanes),
        _mm256_add_epi8(second, lanes),
    ];
    let out = out.as_chunks_mut::<2>().0.iter_mut();
    for (group, out) in bytes.chunks_exact(GROUP).zip(out) {
        for half in 0..2 {
            // SAFETY: a group has two halves of 32 bytes, and `out` two pairs of two.
            unsafe {
                let weights = _mm256_loadu_si256(group.as_ptr().add(half * 32).cast());
                for (p, select) in select.into_iter().enumerate() {
                    let words = _mm256_srai_epi16::<8>(_mm256_shuffle_epi8(weights, select));
                    let out = out.as_mut_ptr().byte_add(p * 64 + half * 32);
                    _mm256_store_si256(out.cast(), words);
                }
            }
        }
    }
}

/// See [`super::Sums::add`]. The shapes are checked there.
///
/// # Safety
/// The processor has AVX2.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn backward(
    wt: Panels<'_>,
    panels: Range<usize>,
    g: WideCodes<'_>,
    totals: &mut [[i64; LANES]],
) {
    let mut expanded = [Line::ZERO; LINES];
    let occupied = occupied_groups(g, padded(wt.cols()));
    let blocks = even(padded(wt.cols()) / LANES, BLOCK);
    let codes = Interleaved::new(g.low, g.stride, g.rows, blocks);
    let (tiles, whole) = (codes.tiles(), 0..padded(wt.cols()) / LANES);
    for (index, totals) in panels.clone().zip(totals.chunks_exact_mut(g.rows)) {
        let panel = wt.panel(index);
        let weights = &mut expanded[..whole.len() * 8];
        expand(panel, weights);
        let next = index + 1..panels.end.min(index + 2);
        let mut ahead = Ahead::new(next.map(|panel| wt.panel(panel)), tiles.len());
        for part in tiles {
            ahead.fetch();
            let codes = codes.part(&whole, &part);
            let totals = &mut totals[part];
            for_columns!(totals.len(), low_tile(weights, codes, totals));
        }
        for (totals, occupied) in totals.iter_mut().zip(&occupied) {
            add_high(panel, occupied, totals);
        }
    }
}

/// Adds the sums of `C` rows of lower parts.
#[target_feature(enable = "avx2")]
#[inline]
fn low_tile<const C: usize>(weights: &[Line], codes: &[i32], totals: &mut [[i64; LANES]]) {
    let sums = word_sums::<C>(weights, codes);
    for (totals, sums) in totals.iter_mut().zip(sums) {
        add_wide::<0>(totals, sums);
    }
}

/// Adds sixteen i32, shifted left by `SHIFT` bits.
#[target_feature(enable = "avx2")]
#[inline]
fn add_wide<const SHIFT: i32>(totals: &mut [i64; LANES], values: [__m256i; 2]) {
    let quarters = [
        _mm256_castsi256_si128(values[0]),
        _mm256_extracti128_si256::<1>(values[0]),
        _mm256_castsi256_si128(values[1]),
        _mm256_extracti128_si256::<1>(values[1]),
    ];
    for (quarter, totals) in quarters.into_iter().zip(totals.chunks_exact_mut(4)) {
        // SAFETY: each chunk has four sums.
        unsafe {
            let value = _mm256_slli_epi64::<SHIFT>(_mm256_cvtepi32_epi64(quarter));
            let totals = totals.as_mut_ptr().cast();
            _mm256_storeu_si256(totals, _mm256_add_epi64(_mm256_loadu_si256(totals), value));
        }
    }
}

/// A group of four columns in which a row of codes has upper parts.
struct Occupied {
    group: usize,
    words: [i16; 4],
}

/// The groups that the sparse pass visits, for each row of codes.
#[target_feature(enable = "avx2")]
fn occupied_groups(g: WideCodes<'_>, cols: usize) -> Vec<Vec<Occupied>> {
    let mut all = Vec::with_capacity(g.rows);
    for row in 0..g.rows {
        let high = g.high.get(row * g.stride..row * g.stride + cols);
        let mut occupied = Vec::new();
        for (block, high) in high.unwrap_or_default().chunks_exact(LANES).enumerate() {
            // SAFETY: the chunk has sixteen bytes.
            let bytes = unsafe { _mm_loadu_si128(high.as_ptr().cast()) };
            if _mm_testz_si128(bytes, bytes) == 0 {
                push_occupied(block, high, &mut occupied);
            }
        }
        all.push(occupied);
    }
    all
}

/// Adds the occupied groups of a block of sixteen columns.
fn push_occupied(block: usize, high: &[i8], occupied: &mut Vec<Occupied>) {
    for (part, high) in high.chunks_exact(4).enumerate() {
        let words = [high[0], high[1], high[2], high[3]].map(i16::from);
        if words != [0; 4] {
            occupied.push(Occupied {
                group: block * 4 + part,
                words,
            });
        }
    }
}

/// Adds 65,536 times the products of the upper parts.
#[target_feature(enable = "avx2")]
fn add_high(panel: &[u8], occupied: &[Occupied], totals: &mut [i64; LANES]) {
    if occupied.is_empty() {
        return;
    }
    let mut high = [_mm256_setzero_si256(); 2];
    for Occupied { group, words } in occupied {
        add_group(&panel[group * GROUP..(group + 1) * GROUP], words, &mut high);
    }
    add_wide::<16>(totals, high);
}

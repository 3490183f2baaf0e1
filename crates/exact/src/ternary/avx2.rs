//! Ternary products with AVX2.
//!
//! **Forward.** `vpmaddubsw` multiplies the codes w+1 in 0..=2, unsigned, by int8 activations and
//! adds neighbours into i16; `vpaddw` adds those modulo 2^16. The sum of the activations is taken
//! off in advance, in the same arithmetic, so that what must fit is only the true sum of w * x.
//! A lane takes two products of at most 128 from each group of four columns: after [`BLOCK`]
//! blocks of sixteen columns it is at most 31 * 4 * 2 * 128 = 31,744 < 2^15. Only then are the
//! pairs added into i32.
//!
//! **One row of codes** ([`vector`]) has nobody to share expanded weights with. There the second
//! code of each nibble stays in place, as 4(w+1), in sums of its own: one shift and four masks
//! for four groups in place of three and four. Those sums must fit as 4 * w * x:
//! [`VECTOR_BLOCK`] * 2 * 2 * 128 * 4 = 30,720 < 2^15, and 4 * 2 * 2 * 128 = 2,048 in one
//! instruction.
//!
//! **Backward.** Weights become i16, `vpmaddwd` multiplies them by the 16-bit codes into i32. This
//! costs what two int8 planes would, and needs no recombination. |sum| <= 32,512 * 2^16 < 2^31.

use std::arch::x86_64::*;
use std::ops::Range;

use super::Panels;
use super::pack::BLOCK as BLOCK_BYTES;
use crate::integer::ahead::Ahead;
use crate::integer::avx2::{
    Bytes, Column, Interleaved, Line, WordPart, add, for_columns, scaled, tile, word_tile,
};
use crate::integer::{Even, chunks, even};
use crate::panels::LANES;
use crate::{Codes, Tile, WideCodes, Write};

/// Most blocks of sixteen columns between widenings of a tile's i16 sums.
const BLOCK: usize = 31;

/// The same where sums hold 4 * w * x.
const VECTOR_BLOCK: usize = 15;

/// Most blocks of sixteen columns expanded to i16 at a time: 12 KiB.
const WORD_BLOCK: usize = 24;

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
    scale: f32,
    y: &mut Tile<'_, f32>,
) {
    if x.rows == 1 {
        return vector(w, panels, x, scale, y);
    }
    for rows in chunks(x.rows, x.stride) {
        forward_chunk(w, panels.clone(), x, rows, scale, y);
    }
}

/// The products of a chunk of rows with all panels.
#[target_feature(enable = "avx2")]
fn forward_chunk(
    w: Panels<'_>,
    panels: Range<usize>,
    x: Codes<'_>,
    rows: Range<usize>,
    scale: f32,
    y: &mut Tile<'_, f32>,
) {
    let blocks = even(x.stride / LANES, BLOCK);
    let corrections = corrections(x, rows.clone(), blocks);
    let codes = &x.codes[rows.start * x.stride..];
    let codes = Interleaved::new(codes, x.stride, rows.len(), blocks);
    let mut expanded = [Line::ZERO; BLOCK * 4];
    let mut sums = vec![[_mm256_setzero_si256(); 2]; rows.len()];
    for (index, panel) in panels.enumerate() {
        let mut column = Column::new(y, index, Write::Replace);
        for (b, block) in blocks.enumerate() {
            let bytes = &w.panel(panel)[block.start * BLOCK_BYTES..block.end * BLOCK_BYTES];
            let expanded = &mut expanded[..block.len() * 4];
            expand_bytes(bytes, expanded);
            let mut ahead = Ahead::new([next(w, bytes)].into_iter(), codes.tiles().len());
            for part in codes.tiles() {
                ahead.fetch();
                let row = rows.start + part.start;
                if b + 1 == blocks.len() {
                    column.fetch(row..row + part.len());
                }
                let job = Part {
                    weights: expanded,
                    codes: codes.part(&block, &part),
                    corrections: &corrections[b * rows.len()..][part.clone()],
                    sums: &mut sums[part],
                    place: (b == 0, b + 1 == blocks.len()),
                    row,
                    scales: &x.scales[row..],
                    scale,
                };
                for_columns!(job.corrections.len(), forward_tile(job, &mut column));
            }
        }
    }
}

/// As many bytes of weights as `bytes` are, of those that come after them.
fn next<'a>(w: Panels<'a>, bytes: &[u8]) -> &'a [u8] {
    let end = bytes.as_ptr_range().end.addr() - w.bytes.as_ptr().addr();
    &w.bytes[end..w.bytes.len().min(end + bytes.len())]
}

/// What a forward tile reads and writes.
struct Part<'a> {
    /// Expanded weights of one panel and one block of columns.
    weights: &'a [Line],
    /// Interleaved activations of the tile and the block.
    codes: &'a [i32],
    /// For each row, the sums of neighbours over the block, as two i16.
    corrections: &'a [i32],
    /// Sums over earlier blocks.
    sums: &'a mut [[__m256i; 2]],
    /// Whether the block is the first one, and the last one.
    place: (bool, bool),
    /// The tile's first row.
    row: usize,
    /// Scales from that row on.
    scales: &'a [f32],
    /// Scale of the weights.
    scale: f32,
}

/// The sums of `C` rows over one block of columns, kept for the next block or written.
#[target_feature(enable = "avx2")]
#[inline]
fn forward_tile<const C: usize>(part: Part<'_>, column: &mut Column<'_>) {
    assert_eq!(part.corrections.len(), C, "one correction for each row");
    let mut acc = [[_mm256_setzero_si256(); 2]; C];
    for (acc, &correction) in acc.iter_mut().zip(part.corrections) {
        *acc = [_mm256_sub_epi16(acc[0], _mm256_set1_epi32(correction)); 2];
    }
    acc = tile::<Bytes, C>(part.weights, part.codes, acc);
    let ones = _mm256_set1_epi16(1);
    for acc in &mut acc {
        *acc = [
            _mm256_madd_epi16(acc[0], ones),
            _mm256_madd_epi16(acc[1], ones),
        ];
    }
    let (first, last) = part.place;
    if !first {
        add(&mut acc, part.sums);
    }
    if last {
        for (c, (&sums, scale)) in acc.iter().zip(part.scales).enumerate() {
            let factor = _mm256_set1_ps(scale * part.scale);
            column.put(part.row + c, scaled(sums, [factor; 2]));
        }
    } else {
        part.sums.copy_from_slice(&acc);
    }
}

/// For each block of columns and each row, what the codes w+1 add to the sums of w * x: the sums
/// of neighbours, as two i16.
#[target_feature(enable = "avx2")]
fn corrections(x: Codes<'_>, rows: Range<usize>, blocks: Even) -> Vec<i32> {
    let mut corrections = Vec::with_capacity(blocks.len() * rows.len());
    for block in blocks {
        for row in rows.clone() {
            let codes = &x.codes[row * x.stride..][block.start * LANES..block.end * LANES];
            let s = pair_sums(codes);
            corrections.push(pair([s[0] + s[2] + s[4] + s[6], s[1] + s[3] + s[5] + s[7]]));
        }
    }
    corrections
}

/// Sums of neighbours over blocks of sixteen columns: element 2g+p is that of the columns 4g+2p
/// and 4g+2p+1. At most 31 * 2 * 128 in magnitude.
#[target_feature(enable = "avx2")]
fn pair_sums(codes: &[i8]) -> [i16; 8] {
    let mut sums = _mm_setzero_si128();
    let ones = _mm_set1_epi8(1);
    for block in codes.chunks_exact(LANES) {
        // SAFETY: the block has sixteen bytes.
        let codes = unsafe { _mm_loadu_si128(block.as_ptr().cast()) };
        sums = _mm_add_epi16(sums, _mm_maddubs_epi16(ones, codes));
    }
    let mut out = [0; 8];
    // SAFETY: `out` has sixteen bytes.
    unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), sums) };
    out
}

/// Two i16 as the halves of a 32-bit lane.
fn pair([low, high]: [i16; 2]) -> i32 {
    i32::from(high) << 16 | i32::from(low as u16)
}

/// Expands two-bit codes to bytes: for each group of four columns, sixteen rows of four.
#[target_feature(enable = "avx2")]
fn expand_bytes(bytes: &[u8], out: &mut [Line]) {
    let mask = _mm256_set1_epi8(3);
    let out = out.as_chunks_mut::<4>().0.iter_mut();
    for (block, out) in bytes.chunks_exact(BLOCK_BYTES).zip(out) {
        for half in 0..2 {
            // SAFETY: the block has two halves of 32 bytes, and `out` four groups of two.
            unsafe {
                let codes = _mm256_loadu_si256(block.as_ptr().add(half * 32).cast());
                let out = out.as_mut_ptr().cast::<u8>().add(half * 32);
                _mm256_store_si256(out.cast(), _mm256_and_si256(codes, mask));
                let codes1 = _mm256_and_si256(_mm256_srli_epi16::<2>(codes), mask);
                _mm256_store_si256(out.add(64).cast(), codes1);
                let codes2 = _mm256_and_si256(_mm256_srli_epi16::<4>(codes), mask);
                _mm256_store_si256(out.add(128).cast(), codes2);
                let codes3 = _mm256_and_si256(_mm256_srli_epi16::<6>(codes), mask);
                _mm256_store_si256(out.add(192).cast(), codes3);
            }
        }
    }
}

/// The product with one row of codes.
#[target_feature(enable = "avx2")]
fn vector(w: Panels<'_>, panels: Range<usize>, x: Codes<'_>, scale: f32, y: &mut Tile<'_, f32>) {
    let blocks = even(x.stride / LANES, VECTOR_BLOCK);
    let mut corrections = Vec::with_capacity(blocks.len());
    for block in blocks {
        let s = pair_sums(&x.codes[block.start * LANES..block.end * LANES]);
        // The groups 0 and 2 plainly; 1 and 3 four times, at most 15 * 4 * 2 * 256 = 30,720.
        let plain = pair([s[0] + s[4], s[1] + s[5]]);
        let fourfold = pair([4 * (s[2] + s[6]), 4 * (s[3] + s[7])]);
        corrections.push([plain, fourfold]);
    }
    let factor = _mm256_set1_ps(x.scales[0] * scale);
    let ones = _mm256_set1_epi16(1);
    for (index, panel) in panels.enumerate() {
        let panel = w.panel(panel);
        let mut sums = [_mm256_setzero_si256(); 2];
        for (block, correction) in blocks.zip(&corrections) {
            let weights = &panel[block.start * BLOCK_BYTES..block.end * BLOCK_BYTES];
            let pairs = vector_block(weights, &x.codes[block.start * LANES..], correction);
            for (sum, [plain, fourfold]) in sums.iter_mut().zip(pairs) {
                // The fourfold sums are multiples of four, so the shift is exact.
                let pairs = _mm256_add_epi16(plain, _mm256_srai_epi16::<2>(fourfold));
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, ones));
            }
        }
        Column::new(y, index, Write::Replace).put(0, scaled(sums, [factor; 2]));
    }
}

/// For each half of a panel, the i16 sums of w * x over groups 0 and 2 of each block, and four
/// times those over groups 1 and 3.
#[target_feature(enable = "avx2")]
#[inline]
fn vector_block(weights: &[u8], codes: &[i8], correction: &[i32; 2]) -> [[__m256i; 2]; 2] {
    let (low, high) = (_mm256_set1_epi8(0x03), _mm256_set1_epi8(0x0c));
    let zero = _mm256_setzero_si256();
    let plain = _mm256_sub_epi16(zero, _mm256_set1_epi32(correction[0]));
    let fourfold = _mm256_sub_epi16(zero, _mm256_set1_epi32(correction[1]));
    let mut acc = [[plain, fourfold]; 2];
    for (block, codes) in weights
        .chunks_exact(BLOCK_BYTES)
        .zip(codes.chunks_exact(LANES))
    {
        // SAFETY: a block has 64 bytes and sixteen codes. Prefetching never faults.
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(block.as_ptr().wrapping_add(AHEAD).cast());
            let codes = codes.as_ptr().cast::<i32>();
            let group = |g| _mm256_set1_epi32(codes.add(g).read_unaligned());
            let x = [group(0), group(1), group(2), group(3)];
            for (half, [plain, fourfold]) in acc.iter_mut().enumerate() {
                let w = _mm256_loadu_si256(block.as_ptr().add(half * 32).cast());
                let upper = _mm256_srli_epi16::<4>(w);
                let product = |w, mask, x| _mm256_maddubs_epi16(_mm256_and_si256(w, mask), x);
                let a = _mm256_add_epi16(product(w, low, x[0]), product(upper, low, x[2]));
                let b = _mm256_add_epi16(product(w, high, x[1]), product(upper, high, x[3]));
                *plain = _mm256_add_epi16(*plain, a);
                *fourfold = _mm256_add_epi16(*fourfold, b);
            }
        }
    }
    acc
}

/// See [`super::backward`]. The shapes are checked there.
///
/// # Safety
/// The processor has AVX2.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn backward(
    wt: Panels<'_>,
    panels: Range<usize>,
    g: WideCodes<'_>,
    scale: f32,
    write: Write,
    dx: &mut Tile<'_, f32>,
) {
    let blocks = even(g.stride / LANES, WORD_BLOCK);
    let mut expanded = [Line::ZERO; WORD_BLOCK * 8];
    for rows in chunks(g.rows, g.stride * 2) {
        let codes = &g.low[rows.start * g.stride..];
        let codes = Interleaved::new(codes, g.stride, rows.len(), blocks);
        let mut sums = vec![[_mm256_setzero_si256(); 2]; rows.len()];
        for (index, panel) in panels.clone().enumerate() {
            let mut column = Column::new(dx, index, write);
            for (b, block) in blocks.enumerate() {
                let bytes = &wt.panel(panel)[block.start * BLOCK_BYTES..block.end * BLOCK_BYTES];
                let expanded = &mut expanded[..block.len() * 8];
                expand_words(bytes, expanded);
                let mut ahead = Ahead::new([next(wt, bytes)].into_iter(), codes.tiles().len());
                for part in codes.tiles() {
                    ahead.fetch();
                    let row = rows.start + part.start;
                    if b + 1 == blocks.len() {
                        column.fetch(row..row + part.len());
                    }
                    let job = WordPart {
                        weights: expanded,
                        codes: codes.part(&block, &part),
                        sums: &mut sums[part],
                        place: (b == 0, b + 1 == blocks.len()),
                    };
                    let scale = &|t: usize| [_mm256_set1_ps(g.scales[row + t] * scale); 2];
                    for_columns!(job.sums.len(), word_tile(job, scale, row, &mut column));
                }
            }
        }
    }
}

/// Expands two-bit codes to weights of sixteen bits: for each pair of columns, sixteen rows of two.
#[target_feature(enable = "avx2")]
fn expand_words(bytes: &[u8], out: &mut [Line]) {
    let mask = _mm256_set1_epi8(3);
    let ones = _mm256_set1_epi16(1);
    // Bytes 0, 1 and bytes 2, 3 of each 32-bit lane as two zero-extended words.
    let first = _mm256_set1_epi32(0x8001_8000_u32 as i32);
    let second = _mm256_set1_epi32(0x8003_8002_u32 as i32);
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
    let out = out.as_chunks_mut::<8>().0.iter_mut();
    for (block, out) in bytes.chunks_exact(BLOCK_BYTES).zip(out) {
        for half in 0..2 {
            // SAFETY: the block has two halves of 32 bytes, and `out` eight pairs of two.
            unsafe {
                let codes = _mm256_loadu_si256(block.as_ptr().add(half * 32).cast());
                let groups = [
                    codes,
                    _mm256_srli_epi16::<2>(codes),
                    _mm256_srli_epi16::<4>(codes),
                    _mm256_srli_epi16::<6>(codes),
                ];
                for (g, group) in groups.into_iter().enumerate() {
                    let codes = _mm256_and_si256(group, mask);
                    for (p, select) in select.into_iter().enumerate() {
                        let words = _mm256_sub_epi16(_mm256_shuffle_epi8(codes, select), ones);
                        let at = (2 * g + p) * 64 + half * 32;
                        _mm256_store_si256(out.as_mut_ptr().byte_add(at).cast(), words);
                    }
                }
            }
        }
    }
}

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
use crate::integer::avx2::{
    Bytes, Expanded, Target, Words, chunks, even, for_columns, scaled, tile,
};
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
    let corrections: Vec<i32> = blocks
        .clone()
        .flat_map(|block| rows.clone().map(move |row| (block.clone(), row)))
        .map(|(block, row)| {
            let codes = &x.codes[row * x.stride..][block.start * LANES..block.end * LANES];
            let sums = pair_sums(codes);
            pair([
                sums[0] + sums[2] + sums[4] + sums[6],
                sums[1] + sums[3] + sums[5] + sums[7],
            ])
        })
        .collect();
    let mut expanded = Expanded([0; BLOCK * LANES * LANES]);
    let mut sums = vec![[_mm256_setzero_si256(); 2]; rows.len()];
    let last = blocks.clone().count() - 1;
    for (index, panel) in panels.enumerate() {
        for (b, block) in blocks.clone().enumerate() {
            let bytes = &w.panel(panel)[block.start * BLOCK_BYTES..block.end * BLOCK_BYTES];
            expand_bytes(bytes, &mut expanded);
            let corrections = &corrections[b * rows.len()..];
            for part in even(rows.len(), crate::integer::avx2::COLUMNS) {
                let row = rows.start + part.start;
                let job = Part {
                    weights: expanded.0.as_ptr().cast(),
                    codes: &x.codes[row * x.stride + block.start * LANES..],
                    stride: x.stride,
                    blocks: block.len(),
                    corrections: &corrections[part.clone()],
                };
                let sums = &mut sums[part.clone()];
                for_columns!(part.len(), forward_tile(job, b == 0, sums));
                if b == last {
                    for (t, &sums) in sums.iter().enumerate() {
                        let factor = _mm256_set1_ps(x.scales[row + t] * scale);
                        let target = Target::new(y, row + t, index, Write::Replace);
                        target.put(scaled(sums, [factor; 2]));
                    }
                }
            }
        }
    }
}

/// What a forward tile reads.
#[derive(Clone, Copy)]
struct Part<'a> {
    /// Expanded codes of one panel.
    weights: *const __m256i,
    /// Activations from the tile's first row and the block's first column on.
    codes: &'a [i8],
    stride: usize,
    /// Blocks of sixteen columns.
    blocks: usize,
    /// For each row, what [`pair_sums`] adds up to, as two i16.
    corrections: &'a [i32],
}

/// The i32 sums of `C` rows over one block of columns, stored or added to `sums`.
#[target_feature(enable = "avx2")]
#[inline]
fn forward_tile<const C: usize>(part: Part<'_>, first: bool, sums: &mut [[__m256i; 2]]) {
    assert_eq!(part.corrections.len(), C, "one correction for each row");
    assert!(
        part.codes.len() >= (C - 1) * part.stride + part.blocks * LANES,
        "codes of the tile"
    );
    let mut init = [_mm256_setzero_si256(); C];
    for (init, &correction) in init.iter_mut().zip(part.corrections) {
        *init = _mm256_sub_epi16(*init, _mm256_set1_epi32(correction));
    }
    let codes = part.codes.as_ptr().cast();
    // SAFETY: the expanded weights hold `blocks * 4` steps, and so do the rows, as asserted.
    let pairs =
        unsafe { tile::<Bytes, C>(part.weights, part.blocks * 4, codes, part.stride, init) };
    let ones = _mm256_set1_epi16(1);
    for (sums, pairs) in sums.iter_mut().zip(pairs) {
        for (sum, pairs) in sums.iter_mut().zip(pairs) {
            let wide = _mm256_madd_epi16(pairs, ones);
            *sum = if first {
                wide
            } else {
                _mm256_add_epi32(*sum, wide)
            };
        }
    }
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
fn expand_bytes<const N: usize>(bytes: &[u8], out: &mut Expanded<N>) {
    let mask = _mm256_set1_epi8(3);
    for (block, out) in bytes
        .chunks_exact(BLOCK_BYTES)
        .zip(out.0.chunks_exact_mut(4 * 64))
    {
        for half in 0..2 {
            // SAFETY: the block has two halves of 32 bytes, and `out` four groups of two.
            unsafe {
                let codes = _mm256_loadu_si256(block.as_ptr().add(half * 32).cast());
                let out = out.as_mut_ptr().add(half * 32);
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
    let corrections: Vec<[i32; 2]> = blocks
        .clone()
        .map(|block| {
            let s = pair_sums(&x.codes[block.start * LANES..block.end * LANES]);
            // The groups 0 and 2 plainly; 1 and 3 four times (at most 15 * 4 * 256 = 15,360).
            [
                pair([s[0] + s[4], s[1] + s[5]]),
                pair([4 * (s[2] + s[6]), 4 * (s[3] + s[7])]),
            ]
        })
        .collect();
    let factor = _mm256_set1_ps(x.scales[0] * scale);
    let ones = _mm256_set1_epi16(1);
    for (index, panel) in panels.enumerate() {
        let panel = w.panel(panel);
        let mut sums = [_mm256_setzero_si256(); 2];
        for (block, correction) in blocks.clone().zip(&corrections) {
            let weights = &panel[block.start * BLOCK_BYTES..block.end * BLOCK_BYTES];
            let pairs = vector_block(weights, &x.codes[block.start * LANES..], correction);
            for (sum, [plain, fourfold]) in sums.iter_mut().zip(pairs) {
                // The fourfold sums are multiples of four, so the shift is exact.
                let pairs = _mm256_add_epi16(plain, _mm256_srai_epi16::<2>(fourfold));
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, ones));
            }
        }
        Target::new(y, 0, index, Write::Replace).put(scaled(sums, [factor; 2]));
    }
}

/// For each half of a panel, the i16 sums of w * x over groups 0 and 2 of each block, and four
/// times those over groups 1 and 3.
#[target_feature(enable = "avx2")]
#[inline]
fn vector_block(weights: &[u8], codes: &[i8], correction: &[i32; 2]) -> [[__m256i; 2]; 2] {
    let (low, high) = (_mm256_set1_epi8(0x03), _mm256_set1_epi8(0x0c));
    let zero = _mm256_setzero_si256();
    let start = correction.map(|value| _mm256_sub_epi16(zero, _mm256_set1_epi32(value)));
    let mut acc = [start; 2];
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
    let last = blocks.clone().count() - 1;
    let mut expanded = Expanded([0; WORD_BLOCK * LANES * LANES * 2]);
    for rows in chunks(g.rows, g.stride * 2) {
        let mut sums = vec![[_mm256_setzero_si256(); 2]; rows.len()];
        for (index, panel) in panels.clone().enumerate() {
            for (b, block) in blocks.clone().enumerate() {
                let bytes = &wt.panel(panel)[block.start * BLOCK_BYTES..block.end * BLOCK_BYTES];
                expand_words(bytes, &mut expanded);
                for part in even(rows.len(), crate::integer::avx2::COLUMNS) {
                    let row = rows.start + part.start;
                    let sums = &mut sums[part.clone()];
                    if b == 0 {
                        sums.fill([_mm256_setzero_si256(); 2]);
                    }
                    let codes = &g.low[row * g.stride + block.start * LANES..];
                    let weights = expanded.0.as_ptr().cast();
                    for_columns!(
                        part.len(),
                        backward_tile(weights, codes, g.stride, block.len(), sums)
                    );
                    if b == last {
                        for (t, &sums) in sums.iter().enumerate() {
                            let factor = _mm256_set1_ps(g.scales[row + t] * scale);
                            let target = Target::new(dx, row + t, index, write);
                            target.put(scaled(sums, [factor; 2]));
                        }
                    }
                }
            }
        }
    }
}

/// Adds the sums of `C` rows over `blocks` blocks of sixteen columns to `sums`.
#[target_feature(enable = "avx2")]
#[inline]
fn backward_tile<const C: usize>(
    weights: *const __m256i,
    codes: &[i16],
    stride: usize,
    blocks: usize,
    sums: &mut [[__m256i; 2]],
) {
    assert!(
        codes.len() >= (C - 1) * stride + blocks * LANES,
        "codes of the tile"
    );
    let codes = codes.as_ptr().cast();
    let init = [_mm256_setzero_si256(); C];
    // SAFETY: the expanded weights hold `blocks * 8` steps, and so do the rows, as asserted.
    let products = unsafe { tile::<Words, C>(weights, blocks * 8, codes, stride * 2, init) };
    for (sums, products) in sums.iter_mut().zip(products) {
        for (sum, product) in sums.iter_mut().zip(products) {
            *sum = _mm256_add_epi32(*sum, product);
        }
    }
}

/// Expands two-bit codes to weights of sixteen bits: for each pair of columns, sixteen rows of two.
#[target_feature(enable = "avx2")]
fn expand_words<const N: usize>(bytes: &[u8], out: &mut Expanded<N>) {
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
    for (block, out) in bytes
        .chunks_exact(BLOCK_BYTES)
        .zip(out.0.chunks_exact_mut(8 * 64))
    {
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
                        _mm256_store_si256(out.as_mut_ptr().add(at).cast(), words);
                    }
                }
            }
        }
    }
}

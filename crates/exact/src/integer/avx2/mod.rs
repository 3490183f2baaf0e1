//! AVX2 building blocks of the integer products.
//!
//! A tile is one panel (two registers of eight rows) times up to [`COLUMNS`] rows of codes: twelve
//! accumulators, two registers of weights, one broadcast and one product fill the sixteen
//! registers. Weights are expanded once into a buffer in the first-level cache and used for all
//! rows of codes, and codes are [`Interleaved`], so that the loop holds nothing but loads,
//! multiplications and additions.

mod interleaved;

use std::arch::asm;
use std::arch::x86_64::*;
use std::marker::PhantomData;
use std::ops::Range;
use std::slice;

use crate::panels::LANES;
use crate::{Tile, Write};

pub(crate) use interleaved::Interleaved;

/// Most rows of codes in a tile.
pub(crate) const COLUMNS: usize = 6;

/// One step of a tile: products of the bytes of a 32-bit lane, and what adds them to the lane's sums.
pub(crate) trait Step {
    /// `w * x` in the step's own widths.
    ///
    /// # Safety
    /// The processor has AVX2.
    unsafe fn multiply(w: __m256i, x: __m256i) -> __m256i;

    /// `acc + products`.
    ///
    /// # Safety
    /// The processor has AVX2.
    unsafe fn add(acc: __m256i, products: __m256i) -> __m256i;
}

/// Four unsigned bytes times four signed bytes, added in pairs to two i16 sums, modulo 2^16.
///
/// With weights of at most 2 the instruction itself never saturates: 2 * 2 * 128 = 512.
pub(crate) struct Bytes;

impl Step for Bytes {
    #[inline(always)]
    unsafe fn multiply(w: __m256i, x: __m256i) -> __m256i {
        // SAFETY: the caller has AVX2.
        unsafe { _mm256_maddubs_epi16(w, x) }
    }

    #[inline(always)]
    unsafe fn add(acc: __m256i, products: __m256i) -> __m256i {
        // SAFETY: as above.
        unsafe { _mm256_add_epi16(acc, products) }
    }
}

/// Two i16 times two i16, added to one i32 sum.
pub(crate) struct Words;

impl Step for Words {
    #[inline(always)]
    unsafe fn multiply(w: __m256i, x: __m256i) -> __m256i {
        // SAFETY: the caller has AVX2.
        unsafe { _mm256_madd_epi16(w, x) }
    }

    #[inline(always)]
    unsafe fn add(acc: __m256i, products: __m256i) -> __m256i {
        // SAFETY: as above.
        unsafe { _mm256_add_epi32(acc, products) }
    }
}

/// Adds the products of `C` rows of codes, a lane of each in turn, with the two halves of a panel to
/// `acc`.
#[target_feature(enable = "avx2")]
#[inline]
pub(crate) fn tile<S: Step, const C: usize>(
    weights: &[Line],
    codes: &[i32],
    mut acc: [[__m256i; 2]; C],
) -> [[__m256i; 2]; C] {
    const STEPS: usize = 4;
    assert_eq!(
        codes.len(),
        weights.len() * C,
        "a step of codes for each of weights"
    );
    let weights = weights.as_chunks::<STEPS>().0.iter();
    for (weights, codes) in weights.zip(codes.as_chunks::<C>().0.as_chunks::<STEPS>().0) {
        for (weights, codes) in weights.iter().zip(codes) {
            // SAFETY: a line has two registers, and is aligned for them.
            let [low, high] = unsafe {
                let weights = weights.0.as_ptr().cast();
                [
                    _mm256_load_si256(weights),
                    _mm256_load_si256(weights.add(1)),
                ]
            };
            for (acc, x) in acc.iter_mut().zip(codes) {
                let x = _mm256_set1_epi32(*x);
                // Two multiplications, then two additions: by turns they take 6% longer (Zen 3).
                // SAFETY: this processor has AVX2.
                unsafe {
                    let (first, second) = (S::multiply(low, x), S::multiply(high, x));
                    let (first, second) = (pinned(first), pinned(second));
                    acc[0] = pinned(S::add(acc[0], first));
                    acc[1] = pinned(S::add(acc[1], second));
                }
            }
        }
    }
    acc
}

/// `value`, in a register here and now.
///
/// Integer additions may be reordered, and the compiler does so to shorten chains that are short
/// enough; the sums of several steps then live at once and most of them go through memory.
#[target_feature(enable = "avx2")]
#[inline]
fn pinned(mut value: __m256i) -> __m256i {
    // SAFETY: the assembly is empty.
    unsafe { asm!("/* {0} */", inout(ymm_reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

/// The weights of one step, expanded, for the two halves of a panel.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Line(pub(crate) [u8; 64]);

impl Line {
    /// All bytes zero.
    pub(crate) const ZERO: Self = Self([0; 64]);
}

/// Where the results of one panel go: a column of up to sixteen values in each row.
#[derive(Clone, Copy)]
pub(crate) struct Column<'a> {
    start: *mut f32,
    stride: usize,
    rows: usize,
    /// Values in a row, at most [`LANES`].
    len: usize,
    write: Write,
    tile: PhantomData<&'a mut f32>,
}

impl<'a> Column<'a> {
    /// The column of the tile's panel `panel`.
    pub(crate) fn new(out: &'a mut Tile<'_, f32>, panel: usize, write: Write) -> Self {
        assert!(panel * LANES < out.cols(), "panel outside the tile");
        Self {
            // SAFETY: the column starts inside each row.
            start: unsafe { out.as_mut_ptr().add(panel * LANES) },
            stride: out.stride(),
            rows: out.rows(),
            len: (out.cols() - panel * LANES).min(LANES),
            write,
            tile: PhantomData,
        }
    }

    /// Fetches where the results of some rows go.
    #[target_feature(enable = "avx2")]
    #[inline]
    pub(crate) fn fetch(&self, rows: Range<usize>) {
        for row in rows {
            let start = self.start.wrapping_add(row * self.stride);
            _mm_prefetch::<_MM_HINT_ET0>(start.cast_const().cast());
        }
    }

    /// Writes the sixteen results of one row, dropping those of padding.
    #[target_feature(enable = "avx2")]
    #[inline]
    pub(crate) fn put(&mut self, row: usize, mut values: [__m256; 2]) {
        assert!(row < self.rows, "row outside the tile");
        // SAFETY: the row lies in the tile that `new` borrowed.
        let start = unsafe { self.start.add(row * self.stride) };
        if self.len < LANES {
            // SAFETY: `len` values from there on are in the tile.
            return put_some(
                unsafe { slice::from_raw_parts_mut(start, self.len) },
                self.write,
                values,
            );
        }
        // SAFETY: all sixteen values are in the tile.
        unsafe {
            if self.write == Write::Add {
                values[0] = _mm256_add_ps(_mm256_loadu_ps(start), values[0]);
                values[1] = _mm256_add_ps(_mm256_loadu_ps(start.add(8)), values[1]);
            }
            _mm256_storeu_ps(start, values[0]);
            _mm256_storeu_ps(start.add(8), values[1]);
        }
    }
}

#[target_feature(enable = "avx2")]
#[cold]
fn put_some(out: &mut [f32], write: Write, values: [__m256; 2]) {
    let mut all = [0.0; LANES];
    // SAFETY: `all` has room for both halves.
    unsafe {
        _mm256_storeu_ps(all.as_mut_ptr(), values[0]);
        _mm256_storeu_ps(all.as_mut_ptr().add(8), values[1]);
    }
    for (out, value) in out.iter_mut().zip(all) {
        write.put(out, value);
    }
}

/// `f32(sums) * factor`, each rounded once.
#[target_feature(enable = "avx2")]
#[inline]
pub(crate) fn scaled(sums: [__m256i; 2], factor: [__m256; 2]) -> [__m256; 2] {
    [
        _mm256_mul_ps(_mm256_cvtepi32_ps(sums[0]), factor[0]),
        _mm256_mul_ps(_mm256_cvtepi32_ps(sums[1]), factor[1]),
    ]
}

/// Adds sums in place.
#[target_feature(enable = "avx2")]
#[inline]
pub(crate) fn add<const C: usize>(sums: &mut [[__m256i; 2]; C], others: &[[__m256i; 2]]) {
    for (sum, other) in sums.iter_mut().zip(others) {
        sum[0] = _mm256_add_epi32(sum[0], other[0]);
        sum[1] = _mm256_add_epi32(sum[1], other[1]);
    }
}

/// What a tile of 16-bit weights and codes reads and writes.
pub(crate) struct WordPart<'a> {
    /// Expanded weights of one panel and one block of columns.
    pub(crate) weights: &'a [Line],
    /// Interleaved codes of the tile and the block.
    pub(crate) codes: &'a [i32],
    /// Sums over earlier blocks.
    pub(crate) sums: &'a mut [[__m256i; 2]],
    /// Whether the block is the first one, and the last one.
    pub(crate) place: (bool, bool),
}

/// The sums of `C` rows over one block of columns.
#[target_feature(enable = "avx2")]
#[inline]
pub(crate) fn word_sums<const C: usize>(weights: &[Line], codes: &[i32]) -> [[__m256i; 2]; C] {
    tile::<Words, C>(weights, codes, [[_mm256_setzero_si256(); 2]; C])
}

/// The sums of `C` rows over one block of columns, kept for the next block or, times their
/// factors, written to the rows from `row` on.
#[target_feature(enable = "avx2")]
#[inline]
pub(crate) fn word_tile<const C: usize>(
    part: WordPart<'_>,
    factor: &impl Fn(usize) -> [__m256; 2],
    row: usize,
    column: &mut Column<'_>,
) {
    let mut acc = word_sums::<C>(part.weights, part.codes);
    let (first, last) = part.place;
    if !first {
        add(&mut acc, part.sums);
    }
    if last {
        for (c, &sums) in acc.iter().enumerate() {
            column.put(row + c, scaled(sums, factor(c)));
        }
    } else {
        part.sums.copy_from_slice(&acc);
    }
}

/// Calls a function generic over the number of rows in a tile.
macro_rules! for_columns {
    ($count:expr, $function:ident $(::<$($t:ty),+>)? ($($argument:expr),* $(,)?)) => {
        match $count {
            1 => $function::<$($($t,)+)? 1>($($argument),*),
            2 => $function::<$($($t,)+)? 2>($($argument),*),
            3 => $function::<$($($t,)+)? 3>($($argument),*),
            4 => $function::<$($($t,)+)? 4>($($argument),*),
            5 => $function::<$($($t,)+)? 5>($($argument),*),
            _ => $function::<$($($t,)+)? 6>($($argument),*),
        }
    };
}
pub(crate) use for_columns;

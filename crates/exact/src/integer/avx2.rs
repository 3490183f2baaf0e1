//! AVX2 building blocks of the integer products.
//!
//! A tile is one panel (two registers of eight rows) times up to [`COLUMNS`] rows of codes: twelve
//! accumulators, two registers of weights, one broadcast and one product fill the sixteen
//! registers. Weights are expanded once into a buffer in the first-level cache and used for all
//! rows of codes, so that the loop holds nothing but loads, multiplications and additions.

use std::arch::x86_64::*;
use std::ops::Range;

use crate::panels::LANES;
use crate::{Tile, Write};

/// Most rows of codes in a tile.
pub(crate) const COLUMNS: usize = 6;

/// Bytes of codes that a pass over the panels rereads: they stay in the second-level cache.
const CHUNK_BYTES: usize = 192 << 10;

/// Fewest rows of codes for which a panel is expanded.
const CHUNK_ROWS: usize = 8 * COLUMNS;

/// One step of a tile: products of the bytes of a 32-bit lane, added to the lane's sums.
pub(crate) trait Step {
    /// `acc + w * x` in the step's own widths.
    ///
    /// # Safety
    /// The processor has AVX2.
    unsafe fn accumulate(acc: __m256i, w: __m256i, x: __m256i) -> __m256i;
}

/// Four unsigned bytes times four signed bytes, added in pairs to two i16 sums, modulo 2^16.
///
/// With weights of at most 2 the instruction itself never saturates: 2 * 2 * 128 = 512.
pub(crate) struct Bytes;

impl Step for Bytes {
    #[inline(always)]
    unsafe fn accumulate(acc: __m256i, w: __m256i, x: __m256i) -> __m256i {
        // SAFETY: the caller has AVX2.
        unsafe { _mm256_add_epi16(acc, _mm256_maddubs_epi16(w, x)) }
    }
}

/// Two i16 times two i16, added to one i32 sum.
pub(crate) struct Words;

impl Step for Words {
    #[inline(always)]
    unsafe fn accumulate(acc: __m256i, w: __m256i, x: __m256i) -> __m256i {
        // SAFETY: the caller has AVX2.
        unsafe { _mm256_add_epi32(acc, _mm256_madd_epi16(w, x)) }
    }
}

/// Sums of `C` rows of codes with the two halves of a panel, from `init` on.
///
/// # Safety
/// `w` is valid for `2 * steps` registers, and each of the `C` rows, `stride` bytes apart from `x`
/// on, for `4 * steps` bytes. `steps` is a multiple of four.
#[target_feature(enable = "avx2")]
#[inline]
pub(crate) unsafe fn tile<S: Step, const C: usize>(
    w: *const __m256i,
    steps: usize,
    x: *const u8,
    stride: usize,
    init: [__m256i; C],
) -> [[__m256i; 2]; C] {
    let mut acc = init.map(|value| [value; 2]);
    for first in (0..steps).step_by(4) {
        for step in first..first + 4 {
            // SAFETY: `step < steps`, and the caller vouches for both memories up to there.
            unsafe {
                let (low, high) = (
                    _mm256_load_si256(w.add(2 * step)),
                    _mm256_load_si256(w.add(2 * step + 1)),
                );
                for (c, acc) in acc.iter_mut().enumerate() {
                    let x = x.add(c * stride + 4 * step).cast::<i32>();
                    let x = _mm256_set1_epi32(x.read_unaligned());
                    acc[0] = S::accumulate(acc[0], low, x);
                    acc[1] = S::accumulate(acc[1], high, x);
                }
            }
        }
    }
    acc
}

/// A buffer of expanded weights, aligned for whole registers.
#[repr(C, align(64))]
pub(crate) struct Expanded<const N: usize>(pub(crate) [u8; N]);

/// Ranges of at most `most` that cover `0..len` and differ in length by at most one.
pub(crate) fn even(len: usize, most: usize) -> impl Iterator<Item = Range<usize>> + Clone {
    let count = len.div_ceil(most).max(1);
    (0..count).map(move |i| len * i / count..len * (i + 1) / count)
}

/// Chunks of rows of codes, each `bytes` long, for one pass over the panels.
pub(crate) fn chunks(rows: usize, bytes: usize) -> impl Iterator<Item = Range<usize>> + Clone {
    even(rows, (CHUNK_BYTES / bytes).max(CHUNK_ROWS))
}

/// Where the results of one row of codes and one panel go.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    start: *mut f32,
    /// Values left in the row, at most [`LANES`].
    len: usize,
    write: Write,
}

impl Target {
    /// The place of panel `panel` of the tile in row `row`.
    #[inline]
    pub(crate) fn new(out: &mut Tile<'_, f32>, row: usize, panel: usize, write: Write) -> Self {
        let values = &mut out.row_mut(row)[panel * LANES..];
        Self {
            start: values.as_mut_ptr(),
            len: values.len().min(LANES),
            write,
        }
    }

    /// Writes the sixteen results, dropping those of padding.
    #[target_feature(enable = "avx2")]
    #[inline]
    pub(crate) fn put(self, values: [__m256; 2]) {
        if self.len < LANES {
            return self.put_some(values);
        }
        for (half, value) in values.into_iter().enumerate() {
            // SAFETY: all sixteen values lie in the row that `new` borrowed.
            unsafe {
                let at = self.start.add(half * 8);
                let value = match self.write {
                    Write::Replace => value,
                    Write::Add => _mm256_add_ps(_mm256_loadu_ps(at), value),
                };
                _mm256_storeu_ps(at, value);
            }
        }
    }

    #[target_feature(enable = "avx2")]
    #[cold]
    fn put_some(self, values: [__m256; 2]) {
        let mut all = [0.0; LANES];
        // SAFETY: `all` has room for both halves, and `len` values lie in the row.
        let out = unsafe {
            _mm256_storeu_ps(all.as_mut_ptr(), values[0]);
            _mm256_storeu_ps(all.as_mut_ptr().add(8), values[1]);
            std::slice::from_raw_parts_mut(self.start, self.len)
        };
        for (out, value) in out.iter_mut().zip(all) {
            match self.write {
                Write::Replace => *out = value,
                Write::Add => *out += value,
            }
        }
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

//! The prototype that the kernels are measured against: ternary products by dot products.
//!
//! 256 weights in 64 bytes: byte j holds the codes w+1 of columns j, j+64, j+128 and j+192, so
//! columns are padded to 256. Rows are summed up one by one, four rows or four by four at a time.

#![cfg(target_arch = "x86_64")]

use std::arch::x86_64::*;

/// Columns in 64 bytes.
const BLOCK: usize = 256;

/// A packed matrix.
pub(crate) struct Matrix {
    bytes: Vec<u8>,
    rows: usize,
    /// Columns, padded.
    cols: usize,
}

/// Activations padded like the matrix.
pub(crate) struct Rows {
    codes: Vec<i8>,
    sums: Vec<i32>,
}

impl Matrix {
    /// Packs row-major weights.
    pub(crate) fn new(weights: &[i8], rows: usize, cols: usize) -> Self {
        let padded = cols.next_multiple_of(BLOCK);
        let mut bytes = Vec::new();
        for row in weights.chunks_exact(cols) {
            let mut row = row.to_vec();
            row.resize(padded, 0);
            for block in row.chunks_exact(BLOCK) {
                bytes.extend((0..64).map(|j| {
                    (0..4).fold(0, |byte, g| {
                        byte | ((block[g * 64 + j] + 1) as u8) << (2 * g)
                    })
                }));
            }
        }
        Self {
            bytes,
            rows,
            cols: padded,
        }
    }

    /// Bytes of the packed matrix.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Products with all rows of activations, token-major.
    pub(crate) fn product(&self, x: &Rows, out: &mut [i32]) {
        if is_x86_feature_detected!("avx512vnni") {
            // SAFETY: the processor has the instructions, and the shapes are those of packing.
            unsafe { self.product512(x, out) }
        } else {
            assert!(is_x86_feature_detected!("avx2"), "the prototype needs AVX2");
            for ((codes, &sum), out) in x
                .codes
                .chunks_exact(self.cols)
                .zip(&x.sums)
                .zip(out.chunks_exact_mut(self.rows))
            {
                // SAFETY: the processor has AVX2, and the shapes are those of packing.
                unsafe { self.vector256(codes, sum, out) }
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    unsafe fn product512(&self, x: &Rows, out: &mut [i32]) {
        // SAFETY: rows and tokens are multiples of the tile in every measured shape.
        unsafe {
            match x.sums.len() {
                1 => self.tile512::<4, 1>(x, out),
                _ => self.tile512::<4, 4>(x, out),
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    unsafe fn tile512<const R: usize, const C: usize>(&self, x: &Rows, out: &mut [i32]) {
        let mask = _mm512_set1_epi8(3);
        let (row_bytes, k) = (self.cols / 4, self.cols);
        for r0 in (0..self.rows).step_by(R) {
            for c0 in (0..x.sums.len()).step_by(C) {
                let mut acc = [[_mm512_setzero_si512(); C]; R];
                for b in (0..row_bytes).step_by(64) {
                    let mut codes = [_mm512_setzero_si512(); R];
                    for (r, codes) in codes.iter_mut().enumerate() {
                        let at = (r0 + r) * row_bytes + b;
                        // SAFETY: the caller's shapes are multiples of the tile.
                        *codes = unsafe { _mm512_loadu_si512(self.bytes.as_ptr().add(at).cast()) };
                    }
                    for g in 0..4 {
                        let group = codes.map(|codes| match g {
                            0 => codes,
                            1 => _mm512_srli_epi16::<2>(codes),
                            2 => _mm512_srli_epi16::<4>(codes),
                            _ => _mm512_srli_epi16::<6>(codes),
                        });
                        let group = group.map(|codes| _mm512_and_si512(codes, mask));
                        #[expect(
                            clippy::needless_range_loop,
                            reason = "rows and columns of the register tile, as in the products' layout"
                        )]
                        for c in 0..C {
                            let at = (c0 + c) * k + b * 4 + g * 64;
                            // SAFETY: as above.
                            let x = unsafe { _mm512_loadu_si512(x.codes.as_ptr().add(at).cast()) };
                            for r in 0..R {
                                acc[r][c] = _mm512_dpbusd_epi32(acc[r][c], group[r], x);
                            }
                        }
                    }
                }
                for (r, acc) in acc.into_iter().enumerate() {
                    for (c, acc) in acc.into_iter().enumerate() {
                        let sum = _mm512_reduce_add_epi32(acc) - x.sums[c0 + c];
                        out[(c0 + c) * self.rows + r0 + r] = sum;
                    }
                }
            }
        }
    }

    /// Four rows at a time times one row of activations.
    #[target_feature(enable = "avx2")]
    unsafe fn vector256(&self, x: &[i8], sum: i32, out: &mut [i32]) {
        const R: usize = 4;
        let (mask, ones) = (_mm256_set1_epi8(3), _mm256_set1_epi16(1));
        let row_bytes = self.cols / 4;
        for (r0, out) in out.chunks_exact_mut(R).enumerate() {
            let mut acc = [_mm256_setzero_si256(); R];
            // SAFETY: `bytes` has four rows from here on for every chunk of `out`.
            let base = unsafe { self.bytes.as_ptr().add(r0 * R * row_bytes) };
            for b in (0..row_bytes).step_by(64) {
                for half in 0..2 {
                    // SAFETY: the row of activations is as long as the padded columns.
                    let x = unsafe {
                        let x = x.as_ptr().add(b * 4 + half * 32);
                        [0, 64, 128, 192].map(|at| _mm256_loadu_si256(x.add(at).cast()))
                    };
                    for (r, acc) in acc.iter_mut().enumerate() {
                        // SAFETY: as for `base`.
                        let w = unsafe {
                            _mm256_loadu_si256(base.add(r * row_bytes + b + half * 32).cast())
                        };
                        let groups = [
                            w,
                            _mm256_srli_epi16::<2>(w),
                            _mm256_srli_epi16::<4>(w),
                            _mm256_srli_epi16::<6>(w),
                        ];
                        let mut pairs = _mm256_setzero_si256();
                        for (group, x) in groups.into_iter().zip(x) {
                            let product = _mm256_maddubs_epi16(_mm256_and_si256(group, mask), x);
                            pairs = _mm256_add_epi16(pairs, product);
                        }
                        *acc = _mm256_add_epi32(*acc, _mm256_madd_epi16(pairs, ones));
                    }
                }
            }
            for (acc, out) in acc.into_iter().zip(out) {
                let mut lanes = [0i32; 8];
                // SAFETY: eight lanes of 32 bits.
                unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), acc) };
                *out = lanes.iter().sum::<i32>() - sum;
            }
        }
    }
}

impl Rows {
    /// Pads row-major activations.
    pub(crate) fn new(codes: &[i8], cols: usize) -> Self {
        let padded = cols.next_multiple_of(BLOCK);
        let mut all = Vec::new();
        for row in codes.chunks_exact(cols) {
            all.extend_from_slice(row);
            all.resize(all.len().next_multiple_of(padded), 0);
        }
        let sums = codes
            .chunks_exact(cols)
            .map(|row| row.iter().map(|&x| i32::from(x)).sum());
        Self {
            sums: sums.collect(),
            codes: all,
        }
    }
}

//! Wide codes as balanced digits to base 256: q = first + 256 second + 65,536 third, each in
//! -128..=127.

use std::arch::x86_64::*;

/// Codes in a register of 16-bit lanes.
const WORDS: usize = 32;

/// The first number whose two lower digits are negative: 65,536 - 32,640 = 128 * 257.
const CARRY: i16 = 32_640;

/// The first `count` of 32 lanes, or all.
fn lanes(count: usize) -> u32 {
    if count < WORDS {
        (1 << count) - 1
    } else {
        u32::MAX
    }
}

/// The first and the second digits of the lower sixteen bits of codes.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(in crate::integer) fn lower(low: &[i16], first: &mut [i8], second: &mut [i8]) {
    let rows = first.chunks_mut(WORDS).zip(second.chunks_mut(WORDS));
    for (low, (first, second)) in low.chunks(WORDS).zip(rows) {
        assert!(low.len() == first.len() && low.len() == second.len());
        let lanes = lanes(low.len());
        // SAFETY: `lanes` has only lanes that the three slices have.
        unsafe {
            let low = _mm512_maskz_loadu_epi16(lanes, low.as_ptr());
            // Taking the first digit off carries into the second where it is negative. This may
            // wrap: what is lost belongs to the third.
            let rest = _mm512_add_epi16(low, _mm512_set1_epi16(128));
            let upper = _mm512_cvtepi16_epi8(_mm512_srli_epi16::<8>(rest));
            _mm256_mask_storeu_epi8(first.as_mut_ptr(), lanes, _mm512_cvtepi16_epi8(low));
            _mm256_mask_storeu_epi8(second.as_mut_ptr(), lanes, upper);
        }
    }
}

/// The third digits of up to 64 codes: the upper part, and one more where the lower parts carry
/// into it. Zeros behind them.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
pub(in crate::integer) fn third(low: &[i16], high: &[i8]) -> __m512i {
    assert!(low.len() == high.len() && (1..=2 * WORDS).contains(&low.len()));
    let mask = u64::MAX >> (2 * WORDS - low.len());
    // SAFETY: the masks leave out what lies behind the codes.
    unsafe {
        let words = [
            _mm512_maskz_loadu_epi16(mask as u32, low.as_ptr()),
            _mm512_maskz_loadu_epi16((mask >> 32) as u32, low.as_ptr().wrapping_add(WORDS)),
        ];
        let [first, second] =
            words.map(|words| u64::from(_mm512_cmpge_epi16_mask(words, _mm512_set1_epi16(CARRY))));
        let high = _mm512_maskz_loadu_epi8(mask, high.as_ptr());
        _mm512_mask_add_epi8(high, first | second << 32, high, _mm512_set1_epi8(1))
    }
}

//! What the machine could do at best: multiplications in registers, and a plain read.

use std::hint::black_box;

use crate::measure::{Work, seconds};

/// Instructions in flight at a time.
const CHAINS: usize = 12;

/// The best multiply-accumulate rate of one core.
pub(crate) struct Peak {
    /// The instruction that gives it.
    pub(crate) instruction: &'static str,
    /// GMAC/s.
    pub(crate) rate: f64,
}

/// Measures `vpdpbusd` where the processor has it, else `vpmaddubsw`, without any additions.
#[cfg(target_arch = "x86_64")]
pub(crate) fn peak() -> Option<Peak> {
    const STEPS: usize = 10_000;
    let (instruction, lanes, work): (_, _, Work<'_>) = if is_x86_feature_detected!("avx512vnni") {
        // SAFETY: the processor has the instruction.
        (
            "vpdpbusd",
            64,
            Box::new(|| unsafe { dpbusd(black_box(STEPS)) }),
        )
    } else if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has the instruction.
        (
            "vpmaddubsw",
            32,
            Box::new(|| unsafe { maddubs(black_box(STEPS)) }),
        )
    } else {
        return None;
    };
    let time = seconds(&mut [work])[0];
    Some(Peak {
        instruction,
        rate: (STEPS * CHAINS * lanes) as f64 / time / 1e9,
    })
}

/// No peak is known elsewhere.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn peak() -> Option<Peak> {
    None
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn maddubs(steps: usize) {
    use std::arch::x86_64::*;
    let mut chains = [_mm256_set1_epi8(3); CHAINS];
    let factor = black_box(_mm256_set1_epi8(2));
    for _ in 0..steps {
        for chain in &mut chains {
            *chain = _mm256_maddubs_epi16(*chain, factor);
        }
    }
    black_box(chains);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn dpbusd(steps: usize) {
    use std::arch::x86_64::*;
    let mut chains = [_mm512_setzero_si512(); CHAINS];
    let (left, right) = black_box((_mm512_set1_epi8(1), _mm512_set1_epi8(2)));
    for _ in 0..steps {
        for chain in &mut chains {
            *chain = _mm512_dpbusd_epi32(*chain, left, right);
        }
    }
    black_box(chains);
}

/// GB/s of one core reading `memory` in order and adding it up.
pub(crate) fn plain_read(memory: &[u8]) -> f64 {
    let work: Work<'_> = Box::new(|| {
        let mut sums = [0u64; 16];
        for line in memory.chunks_exact(128) {
            for (sum, word) in sums.iter_mut().zip(line.chunks_exact(8)) {
                let word = word.try_into().expect("eight bytes");
                *sum = sum.wrapping_add(u64::from_le_bytes(word));
            }
        }
        black_box(sums);
    });
    memory.len() as f64 / seconds(&mut [work])[0] / 1e9
}

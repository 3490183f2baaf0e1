//! What the machine could do at best: multiplications in registers, and a plain read.

use std::hint::black_box;

use r3mes_exact::Isa;

use crate::measure::{Work, seconds};

/// Instructions in flight at a time.
const CHAINS: usize = 12;

/// Tiles of sums: more would leave no registers for factors of more than one.
#[cfg(target_arch = "x86_64")]
const TILES: usize = 4;

/// Bytes ahead of their use at which memory is fetched.
#[cfg(target_arch = "x86_64")]
const AHEAD: usize = 1024;

/// The best multiply-accumulate rate of one core.
pub(crate) struct Peak {
    /// The instruction that gives it.
    pub(crate) instruction: &'static str,
    /// GMAC/s.
    pub(crate) rate: f64,
}

/// Measures the multiplication that the kernels of `isa` are made of, without any additions.
#[cfg(target_arch = "x86_64")]
pub(crate) fn peak(isa: Isa) -> Option<Peak> {
    const STEPS: usize = 10_000;
    let (instruction, macs, work): (_, _, Work<'_>) = match isa {
        // SAFETY: the back end was chosen because the processor has the instruction.
        Isa::Amx => (
            "tdpbssd",
            TILES * 16 * 16 * 64,
            Box::new(|| unsafe { tdpbssd(black_box(STEPS)) }),
        ),
        // SAFETY: as above.
        Isa::Avx512 => (
            "vpdpbusd",
            CHAINS * 64,
            Box::new(|| unsafe { dpbusd(black_box(STEPS)) }),
        ),
        // SAFETY: as above.
        Isa::Avx2 => (
            "vpmaddubsw",
            CHAINS * 32,
            Box::new(|| unsafe { maddubs(black_box(STEPS)) }),
        ),
        _ => return None,
    };
    let time = seconds(&mut [work])[0];
    Some(Peak {
        instruction,
        rate: (STEPS * macs) as f64 / time / 1e9,
    })
}

/// No peak is known elsewhere.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn peak(_: Isa) -> Option<Peak> {
    None
}

/// Four tiles of sums, all times the same tiles of zeros.
#[cfg(target_arch = "x86_64")]
unsafe fn tdpbssd(steps: usize) {
    /// What `ldtilecfg` reads: palette 1, tiles 0 to 7 of sixteen rows of 64 bytes.
    #[repr(C, align(64))]
    struct Configuration {
        palette: [u8; 16],
        widths: [u16; 16],
        rows: [u8; 16],
    }
    let mut configuration = Configuration {
        palette: [0; 16],
        widths: [0; 16],
        rows: [0; 16],
    };
    configuration.palette[0] = 1;
    configuration.widths[..8].fill(64);
    configuration.rows[..8].fill(16);
    // SAFETY: the machine has the instructions, as the caller knows; only registers are used.
    unsafe {
        std::arch::asm!(
            "ldtilecfg [{configuration}]",
            "tilezero tmm4",
            "tilezero tmm6",
            "2:",
            "tdpbssd tmm0, tmm4, tmm6",
            "tdpbssd tmm1, tmm4, tmm6",
            "tdpbssd tmm2, tmm4, tmm6",
            "tdpbssd tmm3, tmm4, tmm6",
            "dec {steps}",
            "jnz 2b",
            "tilerelease",
            configuration = in(reg) &raw const configuration,
            steps = inout(reg) steps => _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm6") _,
            options(nostack, readonly),
        );
    }
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

/// Reads `memory` once, in order.
pub(crate) fn read_in_order(memory: &[u8]) -> Work<'_> {
    Box::new(|| read::<1>(memory))
}

/// Reads `memory` once, in four places in turn, which is faster on some processors.
pub(crate) fn read_in_turns(memory: &[u8]) -> Work<'_> {
    Box::new(|| read::<4>(memory))
}

/// Adds up lines of `STREAMS` parts of the memory in turn, having fetched them before: processors
/// do not look past the end of a page by themselves.
fn read<const STREAMS: usize>(memory: &[u8]) {
    const LINE: usize = 64;
    let part = memory.len() / STREAMS / LINE * LINE;
    let mut sums = [0u64; LINE / 8];
    for at in (0..part).step_by(LINE) {
        for stream in 0..STREAMS {
            let line = &memory[stream * part + at..][..LINE];
            #[cfg(target_arch = "x86_64")]
            {
                use std::arch::x86_64::*;
                // SAFETY: prefetching never faults.
                unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().wrapping_add(AHEAD).cast()) };
            }
            for (sum, word) in sums.iter_mut().zip(line.chunks_exact(8)) {
                let word = word.try_into().expect("eight bytes");
                *sum = sum.wrapping_add(u64::from_le_bytes(word));
            }
        }
    }
    black_box(sums);
}

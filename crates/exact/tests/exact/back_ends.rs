//! Every back end of this machine against the scalar one and against the pinned hashes.

use proptest::prelude::*;
use r3mes_exact::{Cpu, CpuOptions, GOLDEN, Golden, Isa, golden, transcript};

fn cpu(isa: Isa, threads: usize) -> Cpu {
    let isa = Some(isa);
    Cpu::new(CpuOptions { isa, threads }).expect("an available back end")
}

fn lines(hashes: &[Golden]) -> String {
    hashes
        .iter()
        .map(|golden| format!("{golden:?}\n"))
        .collect()
}

#[test]
fn golden_hashes_are_pinned_for_every_back_end_and_number_of_threads() {
    let pinned: String = GOLDEN
        .iter()
        .map(|(name, hash)| format!("{name} {hash}\n"))
        .collect();
    for isa in Isa::available() {
        for threads in [1, 3] {
            let device = cpu(isa, threads);
            let found = lines(&golden(&device).expect("finite values"));
            assert_eq!(found, pinned, "{isa} with {threads} threads");
        }
    }
}

#[test]
fn every_back_end_that_the_machine_has_is_run() {
    let ran = Isa::available();
    println!("back ends run here: {ran:?}");
    assert!(ran.contains(&Isa::Scalar));
    if cfg!(target_arch = "aarch64") {
        // Part of the architecture.
        assert!(ran.contains(&Isa::Neon));
    }
    // The kernel's own list of instructions, not the detection under test.
    let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let has = |flag: &str| flags.split_whitespace().any(|word| word == flag);
    if cfg!(target_arch = "x86_64") && !flags.is_empty() {
        assert_eq!(ran.contains(&Isa::Avx2), has("avx2"));
        let wanted = ["avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni"];
        let avx512 = wanted.into_iter().all(has);
        assert_eq!(ran.contains(&Isa::Avx512), avx512);
        // Linux lists AMX only if it saves the tiles, and grants them to every process that asks.
        let amx = ["amx_tile", "amx_int8"].into_iter().all(has);
        assert_eq!(ran.contains(&Isa::Amx), avx512 && amx);
    }
    for isa in [Isa::Avx2, Isa::Avx512, Isa::Amx, Isa::Neon] {
        let options = CpuOptions {
            isa: Some(isa),
            threads: 1,
        };
        assert_eq!(Cpu::new(options).is_ok(), ran.contains(&isa), "{isa}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn every_back_end_equals_the_scalar_one(seed: u64, threads in 1usize..=4) {
        let expected = transcript(&cpu(Isa::Scalar, 1), seed).expect("finite values");
        for isa in Isa::available() {
            let found = transcript(&cpu(isa, threads), seed).expect("finite values");
            prop_assert_eq!(lines(&found), lines(&expected), "{} with {} threads", isa, threads);
        }
    }
}

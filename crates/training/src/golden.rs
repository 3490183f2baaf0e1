//! Golden hashes: what every machine must compute. A role compares them before it works.

use r3mes_exact::{CanonicalHasher, Device, Philox, signed_unit, undisturbed};
use r3mes_model::{MemoryLimit, Model};
use r3mes_types::{Hash, task::Task};

use crate::aggregate::aggregate;
use crate::dataset::Shard;
use crate::job::Job;
use crate::package::{Package, Shape};
use crate::round::RoundProgress;
use crate::state::{StepState, hash_floats};
use crate::step::{StepMemory, step};
use crate::synthetic::{SyntheticShape, first_task, hyper_parameters};

/// What [`step_hash`] must give, in hexadecimal: version 1 of the exact arithmetic. A change here is
/// a new version.
pub const STEP: &str = "d08fcc0f5ccc3b0953d86ab1615cb131433eb86dbcddbf4f3fbb6d9f84775244";

/// What [`round_hash`] must give, in hexadecimal.
pub const ROUND: &str = "3668ff144ff803d8928695ad7d769d8416c027aee082c7aea5239509f17cc4fc";

/// What [`package_hash`] must give, in hexadecimal.
pub const PACKAGE: &str = "44a5880bd7ce3cda355335c560884f096ff5970f7a609657ed78ab3209a524fe";

/// Scale exponents of the chunks of a golden update: the largest and the smallest among them. From
/// behind, small entries meet large ones: their sums lie on halves of f32's steps.
const EXPONENTS: [i8; 6] = [0, -40, -1, -7, -40, -18];
/// Entries of a chunk of a golden update, and how many of them are sent.
const CHUNK: usize = 64;
const SENT: usize = 48;

/// Most bytes that the golden model's step works in.
const MEMORY: MemoryLimit = MemoryLimit { bytes: 1 << 30 };

/// The hash of the state after the second step on a small synthetic model: the first step that has
/// moments behind it.
///
/// # Panics
/// If the device cannot run the golden model at all.
#[must_use]
pub fn step_hash<D: Device>(device: D) -> Hash {
    let model = Model::load(device, &SyntheticShape::GOLDEN.model(1));
    let mut memory = StepMemory::new(MEMORY);
    let (shard, task, start) = work_of(&model, 1);
    let job = Job::new(&model, &shard, &task).expect("the golden task fits its model");
    let mut state = start;
    for _ in 0..2 {
        state = step(&job, &state, &mut memory)
            .expect("the golden model is finite")
            .0;
    }
    state.hash()
}

/// The hash of the adapter after a round of three miners with four steps each, on the same model.
///
/// # Panics
/// If the device cannot run the golden model at all.
#[must_use]
pub fn round_hash<D: Device>(device: D) -> Hash {
    let model = Model::load(device, &SyntheticShape::GOLDEN.model(1));
    let mut memory = StepMemory::new(MEMORY);
    let mut packages = Vec::new();
    let mut adapter = Vec::new();
    for miner in 1..=3 {
        let (shard, task, start) = work_of(&model, miner);
        let job = Job::new(&model, &shard, &task).expect("the golden task fits its model");
        adapter.clone_from(&start.adapter);
        let mut progress = RoundProgress::new(start);
        while !progress.is_complete(&job) {
            progress
                .advance(&job, &mut memory)
                .expect("the golden model is finite");
        }
        let finished = progress
            .finish(&job, &adapter, None, &[miner; 32])
            .expect("the golden update is small");
        packages.push(finished.package);
    }
    let next = aggregate(&adapter, &packages).expect("all packages have one shape");
    hash_floats(&next.adapter)
}

/// The hash of packages, error feedback and aggregates of updates whose entries lie on halves of the
/// quantizer's steps, or beside them.
///
/// # Panics
/// If such an update cannot be packed at all.
#[must_use]
pub fn package_hash() -> Hash {
    let shape = Shape::new(EXPONENTS.len() * CHUNK, CHUNK, SENT).expect("a shape within bounds");
    let start: Vec<f32> = Philox::from_seed(0)
        .words()
        .take(shape.parameters)
        .map(signed_unit)
        .collect();
    let mut hasher = CanonicalHasher::default();
    let mut pack = |update: &[f32], feedback: &mut [f32]| {
        let package = Package::compress(shape, 0.95, feedback, update).expect("no entry is large");
        hasher.bytes(&package.encode());
        hasher.f32(feedback);
        package
    };
    let first = near_halves(1);
    let backwards: Vec<f32> = first.iter().rev().copied().collect();
    let mut packages = Vec::new();
    for update in [first, backwards, near_halves(2)] {
        let mut feedback = vec![-0.0; shape.parameters];
        packages.push(pack(&update, &mut feedback));
        // What is left decays, and is rounded, before the next update is added: none, here.
        pack(&vec![-0.0; shape.parameters], &mut feedback);
    }
    // Two of the same norm are added as they are; of three, one is scaled down.
    for packages in [&packages[..2], &packages] {
        let next = aggregate(&start, packages).expect("all packages have one shape");
        hasher.f32(&next.adapter);
    }
    Hash::from(hasher.finish())
}

/// An update whose entries lie on halves of the steps of their chunk's scale or one unit in the last
/// place beside, with the largest that the scale has, zeros and subnormals.
fn near_halves(seed: u64) -> Vec<f32> {
    let mut words = Philox::from_seed(seed).words();
    let mut below = |n: u32| words.next().expect("a stream has no end") % n;
    let mut update = Vec::with_capacity(EXPONENTS.len() * CHUNK);
    for exponent in EXPONENTS {
        let scale = power_of_two(exponent);
        let tiny = [0, 1 << 31, 1, 0x807F_FFFF].map(f32::from_bits);
        let fixed = [127.0, -126.5, 0.5, -0.5, 1.5, 2.5];
        update.extend(tiny);
        update.extend(undisturbed(|| fixed.map(|code| code * scale)));
        while !update.len().is_multiple_of(CHUNK) {
            let half = (below(127) as f32 + 0.5) * scale;
            let beside = half.to_bits() - 1 + below(3);
            update.push(f32::from_bits(beside | (below(2) << 31)));
        }
    }
    update
}

/// 2^`exponent`, which is a normal number.
fn power_of_two(exponent: i8) -> f32 {
    f32::from_bits(((i32::from(exponent) + 127) as u32) << 23)
}

/// Data, task and first state of a miner of the golden round.
fn work_of<D: Device>(model: &Model<D>, miner: u8) -> (Shard, Task, StepState) {
    let shard = SyntheticShape::GOLDEN.shard(u64::from(miner), 5000);
    let (task, start) = first_task(model, &shard, hyper_parameters(2, 70), miner);
    (shard, task, start)
}

#[cfg(test)]
mod tests {
    use r3mes_exact::{Cpu, CpuOptions, Isa, disturbed};

    use super::*;

    #[test]
    fn golden_hashes_are_pinned_for_every_back_end() {
        for isa in Isa::available() {
            let options = CpuOptions {
                isa: Some(isa),
                threads: 2,
            };
            let device = Cpu::new(options).unwrap();
            assert_eq!(step_hash(device.clone()).to_string(), STEP, "{isa}");
            assert_eq!(round_hash(device).to_string(), ROUND, "{isa}");
        }
        assert_eq!(package_hash().to_string(), PACKAGE);
    }

    #[test]
    fn golden_updates_have_halves_to_even_and_odd_codes_in_every_chunk() {
        for (chunk, exponent) in near_halves(1).chunks_exact(CHUNK).zip(EXPONENTS) {
            let steps = |e: &f32| f64::from(e.abs()) / f64::from(power_of_two(exponent));
            let halves = chunk.iter().map(steps).filter(|steps| steps.fract() == 0.5);
            let (odd, even): (Vec<f64>, Vec<f64>) =
                halves.partition(|steps| *steps as u32 % 2 == 1);
            assert!(
                odd.len() > 2 && even.len() > 2,
                "{exponent}: {odd:?} {even:?}"
            );
            let beside = chunk.iter().map(steps).filter(|steps| {
                let past = steps.fract() - 0.5;
                past != 0.0 && past.abs() < 1e-4
            });
            assert!(beside.count() > 10, "{exponent}");
        }
    }

    #[test]
    fn golden_hashes_do_not_depend_on_what_other_libraries_left() {
        let options = CpuOptions {
            isa: None,
            threads: 2,
        };
        let hashes = || {
            let device = Cpu::new(options).unwrap();
            [
                step_hash(device.clone()),
                round_hash(device),
                package_hash(),
            ]
            .map(|hash| hash.to_string())
        };
        assert_eq!(disturbed(hashes), [STEP, ROUND, PACKAGE]);
    }
}

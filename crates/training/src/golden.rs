//! Golden hashes: what every machine must compute. A role compares them before it works.

use r3mes_exact::Device;
use r3mes_model::{MemoryLimit, Model};
use r3mes_types::{Hash, task::Task};

use crate::aggregate::aggregate;
use crate::dataset::Shard;
use crate::job::Job;
use crate::round::RoundProgress;
use crate::state::{StepState, hash_floats};
use crate::step::{StepMemory, step};
use crate::synthetic::{SyntheticShape, first_task, hyper_parameters};

/// What [`step_hash`] must give, in hexadecimal: version 1 of the exact arithmetic. A change here is
/// a new version.
pub const STEP: &str = "d08fcc0f5ccc3b0953d86ab1615cb131433eb86dbcddbf4f3fbb6d9f84775244";

/// What [`round_hash`] must give, in hexadecimal.
pub const ROUND: &str = "3668ff144ff803d8928695ad7d769d8416c027aee082c7aea5239509f17cc4fc";

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
    }

    #[test]
    fn golden_hashes_do_not_depend_on_what_other_libraries_left() {
        let options = CpuOptions {
            isa: None,
            threads: 2,
        };
        let hashes = || {
            let device = Cpu::new(options).unwrap();
            [step_hash(device.clone()), round_hash(device)].map(|hash| hash.to_string())
        };
        assert_eq!(disturbed(hashes), [STEP, ROUND]);
    }
}

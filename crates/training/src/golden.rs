//! Golden hashes: what every machine must compute. `r3mes golden` shows whether it does; no role asks.

use r3mes_exact::Device;
use r3mes_model::{MemoryLimit, Model};
use r3mes_types::Hash;

use crate::aggregate::aggregate;
use crate::job::Job;
use crate::round::RoundProgress;
use crate::state::{StepState, hash_floats};
use crate::step::{StepMemory, step};
use crate::synthetic::{SyntheticShape, first_task, hyper_parameters};

/// Hashes of a fixed training step and a fixed round on a small synthetic model. A machine whose
/// hashes are not [`GOLDEN`] computes something else than the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Golden {
    /// The state after the second step, which has moments behind it.
    pub step: Hash,
    /// The adapter after a round of three miners with four steps each.
    pub round: Hash,
}

/// The hashes of version 1 of the exact arithmetic, in hexadecimal: step, round.
pub const GOLDEN: [&str; 2] = [
    "d08fcc0f5ccc3b0953d86ab1615cb131433eb86dbcddbf4f3fbb6d9f84775244",
    "3668ff144ff803d8928695ad7d769d8416c027aee082c7aea5239509f17cc4fc",
];

/// Computes the golden hashes on `device`.
///
/// # Panics
/// If the device cannot run the golden model at all.
#[must_use]
pub fn golden<D: Device>(device: D) -> Golden {
    let shape = SyntheticShape::GOLDEN;
    let model = Model::load(device, &shape.model(1));
    let mut memory = StepMemory::new(MemoryLimit { bytes: 1 << 30 });
    let mut step_hash = None;
    let mut packages = Vec::new();
    let mut first_start = Vec::new();
    for miner in 1..=3 {
        let shard = shape.shard(u64::from(miner), 5000);
        let (task, start) = first_task(&model, &shard, hyper_parameters(2, 70), miner);
        let job = Job::new(&model, &shard, &task).expect("the golden task fits its model");
        let second = |start: &StepState, memory: &mut StepMemory<D>| {
            let (first, _) = step(&job, start, memory).expect("the golden model is finite");
            step(&job, &first, memory)
                .expect("the golden model is finite")
                .0
                .hash()
        };
        step_hash.get_or_insert_with(|| second(&start, &mut memory));
        first_start.clone_from(&start.adapter);
        let mut progress = RoundProgress::new(start);
        while !progress.is_complete(&job) {
            progress
                .advance(&job, &mut memory)
                .expect("the golden model is finite");
        }
        let finished = progress
            .finish(&job, &first_start, None, &[miner; 32])
            .expect("the golden update is small");
        packages.push(finished.package);
    }
    let next = aggregate(&first_start, &packages).expect("all packages have one shape");
    Golden {
        step: step_hash.expect("there is a first miner"),
        round: hash_floats(&next.adapter),
    }
}

//! A model of one small block, and whole rounds on it.

use r3mes_exact::{Cpu, CpuOptions};
use r3mes_model::{MemoryLimit, Model};
use r3mes_training::dataset::Shard;
use r3mes_training::job::Job;
use r3mes_training::round::{FinishedRound, RoundProgress};
use r3mes_training::state::StepState;
use r3mes_training::step::StepMemory;
use r3mes_training::synthetic::{SyntheticShape, first_task, hyper_parameters};
use r3mes_types::task::{HyperParameters, Task};

/// H of the rounds under test: so many that an audited step has neighbours on both sides.
pub(crate) const STEPS: u32 = 5;
pub(crate) const SECRET: [u8; 32] = [7; 32];
const AMPLE: MemoryLimit = MemoryLimit { bytes: 1 << 28 };

const TINY: SyntheticShape = SyntheticShape {
    hidden: 64,
    ffn: 64,
    layers: 1,
    heads: 2,
    kv_heads: 1,
    vocab: 80,
    context: 24,
};

pub(crate) fn model() -> Model<Cpu> {
    let options = CpuOptions {
        isa: None,
        threads: 1,
    };
    Model::load(Cpu::new(options).unwrap(), &TINY.model(5))
}

/// Four sequences a step; half of every chunk of 512 is sent, so that feedback stays behind.
pub(crate) fn hyper() -> HyperParameters {
    HyperParameters {
        chunk: 512,
        top_k: 64,
        ..hyper_parameters(4, 16)
    }
}

/// Miner number `miner` with its shard and its task.
pub(crate) struct Miner {
    pub(crate) shard: Shard,
    pub(crate) task: Task,
    pub(crate) start: StepState,
}

impl Miner {
    pub(crate) fn new(model: &Model<Cpu>, miner: u8) -> Self {
        let shard = TINY.shard(u64::from(miner), 600);
        let (task, start) = first_task(model, &shard, hyper(), miner);
        let task = Task {
            steps: STEPS,
            ..task
        };
        Self { shard, task, start }
    }

    pub(crate) fn job<'a>(&'a self, model: &'a Model<Cpu>) -> Job<'a, Cpu> {
        Job::new(model, &self.shard, &self.task).unwrap()
    }

    /// The round as an honest miner plays it, with all states on the way.
    pub(crate) fn honest(
        &self,
        model: &Model<Cpu>,
        feedback: Option<Vec<f32>>,
    ) -> (FinishedRound, Vec<StepState>) {
        let job = self.job(model);
        let mut progress = RoundProgress::new(self.start.clone());
        let mut states = vec![self.start.clone()];
        while !progress.is_complete(&job) {
            progress.advance(&job, &mut memory()).unwrap();
            states.push(progress.state.clone());
        }
        let finished = progress
            .finish(&job, &self.start.adapter, feedback, &SECRET)
            .unwrap();
        (finished, states)
    }
}

pub(crate) fn memory() -> StepMemory<Cpu> {
    StepMemory::new(AMPLE)
}

//! This project's side of benches/pytorch: one training step for each line read, answered with
//! its milliseconds by the clock and by the processor, and the loss.
//!
//! `cargo bench -p r3mes-training --bench beside_pytorch -- THREADS`

use std::error::Error;
use std::io;
use std::time::Instant;

use r3mes_exact::{Cpu, CpuOptions};
use r3mes_model::{MemoryLimit, Model};
use r3mes_training::job::Job;
use r3mes_training::step::{StepMemory, step};
use r3mes_training::synthetic::{SyntheticShape, first_task, hyper_parameters};
use rustix::time::{ClockId, clock_gettime};

/// The shape that benches/pytorch/step.py has.
const SHAPE: SyntheticShape = SyntheticShape {
    hidden: 384,
    ffn: 1024,
    layers: 6,
    heads: 6,
    kv_heads: 6,
    vocab: 4096,
    context: 256,
};
const BATCH: u32 = 4;
const SEQUENCE: u32 = 256;

fn main() -> Result<(), Box<dyn Error>> {
    let mut numbers = std::env::args().filter_map(|argument| argument.parse().ok());
    let threads = numbers.next().unwrap_or(1);
    let device = Cpu::new(CpuOptions { isa: None, threads })?;
    let model = Model::load(device, &SHAPE.model(1));
    let shard = SHAPE.shard(2, 1 << 16);
    let hyper = hyper_parameters(BATCH, SEQUENCE);
    let (task, mut state) = first_task(&model, &shard, hyper, 1);
    let job = Job::new(&model, &shard, &task)?;
    let mut memory = StepMemory::new(MemoryLimit { bytes: 2 << 30 });
    for line in io::stdin().lines() {
        line?;
        let (wall, cpu) = (Instant::now(), processor_seconds());
        let (next, loss) = step(&job, &state, &mut memory)?;
        let cpu = processor_seconds() - cpu;
        let wall = wall.elapsed().as_secs_f64();
        println!("{} {} {:.4}", wall * 1e3, cpu * 1e3, loss.mean());
        state = next;
    }
    Ok(())
}

/// Processor time of this process.
fn processor_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

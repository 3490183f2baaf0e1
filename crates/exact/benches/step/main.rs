//! One LoRA training step on random weights, by part: `cargo bench -p r3mes-exact --bench step`,
//! with `-- wide` one shape only, with `-- avx2` another back end, with `-- 2` on one and on two
//! threads.
//!
//! The least of several steps counts: with one thread of the thread's processor time, so that other
//! processes on the machine show little, otherwise of the time that passes. Shapes: `demo` (6 layers,
//! d 288, ffn 768, vocabulary 32,000, batch 4 x 128) and `wide` (6 layers, d 384, ffn 1024, vocabulary
//! 4096, batch 4 x 256).

mod times;

mod backward;
mod forward;
mod network;

use std::collections::BTreeMap;
use std::error::Error;

use r3mes_exact::{Cpu, CpuOptions, Isa};
use rustix::time::ClockId;

use crate::network::{SHAPES, Shape, Step};
use crate::times::now;

/// Steps of which the fastest counts, part by part.
const STEPS: usize = 5;

fn main() -> Result<(), Box<dyn Error>> {
    let (mut isa, mut threads, mut name) = (Isa::best(), 1, None);
    for arg in std::env::args().skip(1).filter(|arg| !arg.starts_with('-')) {
        if let Ok(number) = arg.parse() {
            threads = number;
        } else if let Ok(found) = arg.parse() {
            isa = found;
        } else {
            name = Some(arg);
        }
    }
    let mut counts = vec![1, threads];
    counts.dedup();
    for (shape_name, shape) in &SHAPES {
        if name.as_deref().is_none_or(|name| name == *shape_name) {
            report(shape_name, shape, isa, &counts)?;
        }
    }
    Ok(())
}

/// Prints the milliseconds of each part, in one column for each number of threads.
fn report(name: &str, shape: &Shape, isa: Isa, counts: &[usize]) -> Result<(), Box<dyn Error>> {
    let mut columns = Vec::new();
    for threads in counts {
        let device = Cpu::new(CpuOptions {
            isa: Some(isa),
            threads: *threads,
        })?;
        let clock = if *threads == 1 {
            ClockId::ThreadCPUTime
        } else {
            ClockId::Monotonic
        };
        let mut step = Step::new(device, shape, clock)?;
        let mut best = BTreeMap::new();
        for _ in 0..STEPS {
            step.times.parts.clear();
            let start = now(clock);
            step.run()?;
            step.times.add("whole step", start);
            for (part, time) in &step.times.parts {
                let least = best.entry(*part).or_insert(f64::INFINITY);
                *least = least.min(*time);
            }
        }
        columns.push(best);
    }
    println!("{name} on {isa}, ms on {counts:?} threads");
    for part in columns[0].keys() {
        print!("  {part:<18}");
        for column in &columns {
            print!(" {:8.2}", column[part] * 1e3);
        }
        println!();
    }
    Ok(())
}

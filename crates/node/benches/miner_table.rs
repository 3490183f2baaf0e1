//! The figures that an earlier miner engine gave for itself, measured here: each row
//! in a process of its own, so that its peak memory is that of the row alone.
//!
//! `cargo bench -p r3mes-node --bench miner_table`. One thread; arithmetic in processor time, the
//! least of many batches; the upload by the clock, its median.

use std::error::Error;
use std::hint::black_box;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use r3mes_blobs::{BlobStore, DiskOptions, DiskStore};
use r3mes_exact::{
    AdamW, Bytes, Cpu, CpuBuffer, CpuCodes, CpuOptions, CpuTernary, Device, LoraBackward, LoraSite,
    NotFinite, Philox, Write, signed_unit, ternary,
};
use r3mes_model::{MemoryLimit, Model, PackedModel};
use r3mes_training::dataset::Shard;
use r3mes_training::job::Job;
use r3mes_training::package::{Package, Shape};
use r3mes_training::presets::demonstration;
use r3mes_training::step::{StepMemory, step};
use r3mes_training::synthetic::first_task;
use r3mes_types::Hash;
use rustix::time::{ClockId, clock_gettime};

/// Width of the linear layer that the earlier engine named, and the rank of its LoRA pair.
const WIDTH: usize = 768;
const RANK: usize = 8;
/// Bytes of the upload.
const UPLOAD: usize = 1_000_000;
/// Shortest time that one batch takes, and how long a row is measured.
const BATCH_SECONDS: f64 = 5e-3;
const ROW_SECONDS: f64 = 3.0;

type Failure = Box<dyn Error>;

/// What is measured, and what the earlier engine said of it.
struct Row {
    what: &'static str,
    shape: &'static str,
    /// Milliseconds and megabytes of the earlier engine.
    earlier: (f64, f64),
    /// Gives milliseconds.
    measure: fn() -> Result<f64, Failure>,
}

const FORWARD: (f64, f64) = (2.3, 45.0);
const STEP: (f64, f64) = (15.7, 120.0);
const PACKAGE: (f64, f64) = (0.8, 12.0);
const BLOB: (f64, f64) = (45.2, 8.0);

const ROWS: [Row; 8] = [
    Row {
        what: "forward",
        shape: "768 to 768, rank 8, 1 token",
        earlier: FORWARD,
        measure: || forward(1),
    },
    Row {
        what: "forward",
        shape: "768 to 768, rank 8, 4 tokens",
        earlier: FORWARD,
        measure: || forward(4),
    },
    Row {
        what: "forward",
        shape: "768 to 768, rank 8, 512 tokens",
        earlier: FORWARD,
        measure: || forward(512),
    },
    Row {
        what: "LoRA step",
        shape: "768 to 768, rank 8, batch 4 x 1 token",
        earlier: STEP,
        measure: || linear_step(4, 1),
    },
    Row {
        what: "LoRA step",
        shape: "768 to 768, rank 8, batch 4 x 128 tokens",
        earlier: STEP,
        measure: || linear_step(4, 128),
    },
    Row {
        what: "LoRA step",
        shape: "the demonstration's whole model, batch 4 x 128 tokens",
        earlier: STEP,
        measure: model_step,
    },
    Row {
        what: "package encoding",
        shape: "12,288 numbers (768 to 768, rank 8), 512 of each 4096",
        earlier: PACKAGE,
        measure: || package(2 * WIDTH * RANK),
    },
    Row {
        what: "blob upload",
        shape: "1 MB into the disk store, flushed",
        earlier: BLOB,
        measure: upload,
    },
];

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1).filter(|word| word != "--bench");
    if let Some(index) = arguments.next() {
        let row = ROWS.get(index.parse::<usize>()?).ok_or("no such row")?;
        let ms = (row.measure)()?;
        println!("{ms} {}", peak_megabytes()?);
        return Ok(());
    }
    println!("| what | shape | ms | earlier, ms | ratio | peak, MB | earlier, MB | ratio |");
    println!("|---|---|---:|---:|---:|---:|---:|---:|");
    for (index, row) in ROWS.iter().enumerate() {
        let output = Command::new(std::env::current_exe()?)
            .arg(index.to_string())
            .output()?;
        let said = String::from_utf8(output.stdout)?;
        let mut figures = said.split_whitespace().map(str::parse::<f64>);
        let (Some(ms), Some(peak)) = (figures.next(), figures.next()) else {
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(format!("row {index} was not measured: {error}").into());
        };
        let ((ms, peak), (earlier_ms, earlier_peak)) = ((ms?, peak?), row.earlier);
        println!(
            "| {} | {} | {ms:.4} | {earlier_ms} | {:.0} | {peak:.1} | {earlier_peak} | {:.1} |",
            row.what,
            row.shape,
            earlier_ms / ms,
            earlier_peak / peak
        );
    }
    Ok(())
}

/// A linear layer with a LoRA pair, and memory for `rows` tokens.
struct Linear {
    device: Cpu,
    rows: usize,
    site: LoraSite,
    weights: CpuTernary,
    adapter: CpuBuffer<f32>,
    x: CpuBuffer<f32>,
    codes: CpuCodes,
    hidden: CpuBuffer<f32>,
    y: CpuBuffer<f32>,
}

impl Linear {
    fn new(rows: usize) -> Result<Self, Failure> {
        let device = Cpu::new(CpuOptions {
            isa: None,
            threads: 1,
        })?;
        let words = || Philox::from_seed(1).words();
        let numbers = |len: usize| words().take(len).map(signed_unit).collect::<Vec<f32>>();
        let weights: Vec<i8> = words()
            .take(WIDTH * WIDTH)
            .map(|word| (word % 3) as i8 - 1)
            .collect();
        let panels = Bytes::from_slice(&ternary::pack(&weights, WIDTH, WIDTH)?);
        Ok(Self {
            rows,
            site: LoraSite {
                a: 0,
                b: RANK * WIDTH,
                rank: RANK,
                inputs: WIDTH,
                outputs: WIDTH,
                scale: 2.0,
            },
            weights: device.ternary(panels, WIDTH, WIDTH, 0.05),
            adapter: device.upload(&numbers(2 * RANK * WIDTH)),
            x: device.upload(&numbers(rows * WIDTH)),
            codes: device.codes(rows, WIDTH),
            hidden: device.zeros(rows * RANK),
            y: device.zeros(rows * WIDTH),
            device,
        })
    }

    /// int8 codes of the input, ternary product, LoRA.
    fn forward(&mut self) -> Result<(), NotFinite> {
        let Self {
            device,
            site,
            weights,
            adapter,
            x,
            codes,
            hidden,
            y,
            ..
        } = self;
        device.quantize(x, self.rows, codes)?;
        device.ternary_forward(weights, codes, y);
        device.lora_forward(site, adapter, codes, hidden, y);
        Ok(())
    }
}

fn forward(rows: usize) -> Result<f64, Failure> {
    let mut linear = Linear::new(rows)?;
    least(|| Ok(linear.forward()?))
}

/// Forward, gradients of input and LoRA pair, AdamW.
fn linear_step(batch: usize, tokens: usize) -> Result<f64, Failure> {
    let rows = batch * tokens;
    let mut linear = Linear::new(rows)?;
    let device = linear.device.clone();
    let parameters = linear.site.len();
    let sequences = vec![tokens; batch];
    let dy = device.upload(&vec![1e-3; rows * WIDTH]);
    let mut dx = device.zeros(rows * WIDTH);
    let mut gradient = device.zeros(parameters);
    let (mut first, mut second) = (device.zeros(parameters), device.zeros(parameters));
    let mut optimizer = AdamW {
        learning_rate: 1e-4,
        beta1: 0.9,
        beta2: 0.999,
        c1: 0.1,
        c2: 0.001,
        epsilon: 1e-8,
        weight_decay: 0.0,
        t: 0,
    };
    least(|| {
        linear.forward()?;
        device.ternary_backward(&linear.weights, &dy, rows, Write::Replace, &mut dx)?;
        device.clear(&mut gradient, parameters);
        let pass = LoraBackward {
            adapter: &linear.adapter,
            x: &linear.codes,
            hidden: &linear.hidden,
            dy: &dy,
            sequences: &sequences,
            gradient: &mut gradient,
            dx: Some(&mut dx),
        };
        device.lora_backward(&linear.site, pass);
        optimizer.t += 1;
        let moments = [&mut first, &mut second];
        device.adamw(&optimizer, &gradient, &mut linear.adapter, moments);
        Ok(())
    })
}

/// What a miner of the demonstration does in each of its steps.
fn model_step() -> Result<f64, Failure> {
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets");
    let device = Cpu::new(CpuOptions {
        isa: None,
        threads: 1,
    })?;
    let packed = PackedModel::open(&assets.join("stories15m-b158/model.r3mes"))?;
    let model = Model::load(device, &packed);
    let vocabulary = u32::try_from(model.config().vocab)?;
    let tokens = Philox::from_seed(2).words().map(|word| word % vocabulary);
    let shard = Shard::new(
        Hash::of(b"random tokens"),
        vocabulary,
        tokens.take(1 << 14).collect(),
    )?;
    let (task, mut state) = first_task(&model, &shard, demonstration(1).0, 1);
    let job = Job::new(&model, &shard, &task)?;
    let mut memory = StepMemory::new(MemoryLimit { bytes: 256 << 20 });
    least(|| {
        state = step(&job, &state, &mut memory)?.0;
        Ok(())
    })
}

/// Error feedback, top-k, int8 codes and the canonical encoding.
fn package(parameters: usize) -> Result<f64, Failure> {
    let hyper = demonstration(1).0;
    let shape = Shape::new(parameters, hyper.chunk as usize, hyper.top_k as usize)?;
    let words = Philox::from_seed(3).words().take(parameters);
    let update: Vec<f32> = words.map(signed_unit).collect();
    let mut feedback = vec![0.0; parameters];
    least(|| {
        let package = Package::compress(shape, 0.95, &mut feedback, &update)?;
        black_box(package.encode());
        Ok(())
    })
}

/// The median of many files, each of other bytes.
fn upload() -> Result<f64, Failure> {
    let folder = tempfile::tempdir()?;
    let store = DiskStore::open(folder.path(), DiskOptions::default())?;
    let mut file = vec![0; UPLOAD];
    let mut times = Vec::new();
    for seed in 0..50 {
        let words = Philox::from_seed(seed).words();
        for (bytes, word) in file.chunks_exact_mut(4).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        let begin = Instant::now();
        black_box(store.put(&file)?);
        times.push(begin.elapsed());
    }
    times.sort_unstable();
    Ok(times[times.len() / 2].as_secs_f64() * 1e3)
}

/// The least milliseconds of processor time that one call of `work` takes.
fn least(mut work: impl FnMut() -> Result<(), Failure>) -> Result<f64, Failure> {
    let begin = processor_seconds();
    work()?;
    let once = processor_seconds() - begin;
    let repeats = (BATCH_SECONDS / once.max(1e-7)).ceil() as usize;
    let mut best = f64::INFINITY;
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs_f64(ROW_SECONDS) {
        let begin = processor_seconds();
        for _ in 0..repeats {
            work()?;
        }
        best = best.min((processor_seconds() - begin) / repeats as f64);
    }
    Ok(best * 1e3)
}

/// Processor time of this process.
fn processor_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// The most memory that this process has held, program and libraries included.
fn peak_megabytes() -> Result<f64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next());
    let kibibytes: f64 = kibibytes.ok_or("there is no VmHWM")?.parse()?;
    Ok(kibibytes * 1024.0 / 1e6)
}

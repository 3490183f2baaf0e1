//! This project's side of benches/llama_cpp: commands come line by line, and each is answered with
//! its milliseconds by the clock and by the processor.
//!
//! - `product OUTPUTS INPUTS ROWS`: quantizing that many rows and multiplying them with a ternary
//!   matrix;
//! - `open FILE`: a packed model, for the following;
//! - `prefill TOKENS`: a prompt from nothing to logits, which are answered with the likeliest token;
//! - `decode POSITIONS TOKENS`: tokens one by one after that many positions, per token.
//!
//! `cargo bench -p r3mes-model --bench beside_llama_cpp -- THREADS`

use std::error::Error;
use std::io;
use std::path::Path;
use std::time::Instant;

use r3mes_exact::{
    Bytes, Cpu, CpuBuffer, CpuCodes, CpuOptions, CpuTernary, Device, NotFinite, Philox,
    signed_unit, ternary,
};
use r3mes_model::{
    AdvanceError, Cache, InferenceWorkspace, LogitRows, Model, PackedModel, Segment,
};
use rustix::time::{ClockId, clock_gettime};

/// Shortest time that products are repeated for.
const BATCH_SECONDS: f64 = 5e-3;

fn main() -> Result<(), Box<dyn Error>> {
    let mut numbers = std::env::args().filter_map(|argument| argument.parse().ok());
    let threads = numbers.next().unwrap_or(1);
    let device = Cpu::new(CpuOptions { isa: None, threads })?;
    let mut product: Option<([usize; 3], Product)> = None;
    let mut opened: Option<Opened> = None;
    for line in io::stdin().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |index: usize| -> Result<usize, Box<dyn Error>> {
            let word = words.get(index).ok_or("a number is missing")?;
            Ok(word.parse()?)
        };
        let answer = match words.first().copied() {
            Some("product") => {
                let shape = [number(1)?, number(2)?, number(3)?];
                if product.as_ref().is_none_or(|(held, _)| *held != shape) {
                    product = Some((shape, Product::new(&device, shape)?));
                }
                let (_, product) = product.as_mut().ok_or("it was just made")?;
                product.time()?
            }
            Some("open") => {
                let file = words.get(1).ok_or("a file is missing")?;
                let packed = PackedModel::open(Path::new(file))?;
                opened = Some(Opened::new(Model::load(device.clone(), &packed)));
                "0 0".to_owned()
            }
            Some("prefill") => opened
                .as_mut()
                .ok_or("open a model first")?
                .prefill(number(1)?)?,
            Some("decode") => {
                let opened = opened.as_mut().ok_or("open a model first")?;
                opened.decode(number(1)?, number(2)?)?
            }
            _ => return Err(format!("unknown command `{line}`").into()),
        };
        println!("{answer}");
    }
    Ok(())
}

/// Processor time of this process.
fn processor_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// Milliseconds of `work` by the clock and by the processor, divided by `parts`.
fn timed<E>(parts: usize, work: impl FnOnce() -> Result<(), E>) -> Result<(f64, f64), E> {
    let (wall, cpu) = (Instant::now(), processor_seconds());
    work()?;
    let cpu = processor_seconds() - cpu;
    let scale = 1e3 / parts as f64;
    Ok((wall.elapsed().as_secs_f64() * scale, cpu * scale))
}

struct Product {
    device: Cpu,
    rows: usize,
    weights: CpuTernary,
    x: CpuBuffer<f32>,
    codes: CpuCodes,
    y: CpuBuffer<f32>,
}

impl Product {
    fn new(device: &Cpu, [outputs, inputs, rows]: [usize; 3]) -> Result<Self, Box<dyn Error>> {
        let words = || Philox::from_seed(1).words();
        let weights: Vec<i8> = words()
            .take(outputs * inputs)
            .map(|word| (word % 3) as i8 - 1)
            .collect();
        let panels = ternary::pack(&weights, outputs, inputs)?;
        let x: Vec<f32> = words().take(rows * inputs).map(signed_unit).collect();
        Ok(Self {
            weights: device.ternary(Bytes::from_slice(&panels), outputs, inputs, 0.05),
            x: device.upload(&x),
            codes: device.codes(rows, inputs),
            y: device.zeros(rows * outputs),
            device: device.clone(),
            rows,
        })
    }

    fn once(&mut self) -> Result<(), NotFinite> {
        self.device.quantize(&self.x, self.rows, &mut self.codes)?;
        self.device
            .ternary_forward(&self.weights, &self.codes, &mut self.y);
        Ok(())
    }

    fn time(&mut self) -> Result<String, NotFinite> {
        let (_, once) = timed(1, || self.once())?;
        let repeats = (BATCH_SECONDS * 1e3 / once.max(1e-4)).ceil() as usize;
        let (wall, cpu) = timed(repeats, || (0..repeats).try_for_each(|_| self.once()))?;
        Ok(format!("{wall} {cpu}"))
    }
}

/// A model with a sequence that commands extend.
struct Opened {
    model: Model<Cpu>,
    cache: Cache<Cpu>,
    workspace: InferenceWorkspace<Cpu>,
}

impl Opened {
    fn new(model: Model<Cpu>) -> Self {
        Self {
            cache: model.cache(),
            workspace: InferenceWorkspace::new(),
            model,
        }
    }

    /// The token at a position; the same on both sides.
    fn token(&self, position: usize) -> u32 {
        ((position * 7919 + 13) % self.model.config().vocab) as u32
    }

    /// Extends the sequence to `len` positions in one pass.
    fn extend(&mut self, len: usize) -> Result<(), AdvanceError> {
        let tokens: Vec<u32> = (self.cache.len()..len).map(|at| self.token(at)).collect();
        let mut segments = [Segment {
            tokens: &tokens,
            cache: &mut self.cache,
            logits: LogitRows::Last,
        }];
        self.model.advance(None, &mut segments, &mut self.workspace)
    }

    fn prefill(&mut self, tokens: usize) -> Result<String, AdvanceError> {
        self.model.truncate(&mut self.cache, 0);
        let (wall, cpu) = timed(1, || self.extend(tokens))?;
        let logits = self.workspace.logits(0).iter().enumerate();
        let likeliest = logits
            .max_by(|a, b| a.1.total_cmp(b.1))
            .map_or(0, |best| best.0);
        Ok(format!("{wall} {cpu} {likeliest}"))
    }

    fn decode(&mut self, positions: usize, tokens: usize) -> Result<String, AdvanceError> {
        if self.cache.len() < positions {
            self.extend(positions)?;
        }
        self.model.truncate(&mut self.cache, positions);
        let (wall, cpu) = timed(tokens, || {
            (1..=tokens).try_for_each(|step| self.extend(positions + step))
        })?;
        Ok(format!("{wall} {cpu}"))
    }
}

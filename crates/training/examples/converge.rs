//! Trains the demo model in one process, as the network would: miners, packages, aggregation, and
//! the held-out loss after every round.
//!
//! `cargo run --release -p r3mes-training --example converge -- --beacon 7 --miners 3`

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use r3mes_exact::{Cpu, CpuOptions};
use r3mes_model::{
    Adapter, LoadedAdapter, MemoryLimit, Model, PackedModel, Tokenizer, TrainingWorkspace,
};
use r3mes_training::aggregate::aggregate;
use r3mes_training::dataset::{Shard, split};
use r3mes_training::evaluate::held_out_loss;
use r3mes_training::job::{EXACT_VERSION, Job, adapter_layout, initial_adapter};
use r3mes_training::round::RoundProgress;
use r3mes_training::state::StepState;
use r3mes_training::step::StepMemory;
use r3mes_training::text::normalize;
use r3mes_types::task::{AdapterRef, F32Bits, HyperParameters, ShardRef, Targets, Task};
use r3mes_types::{Address, Cid, Hasher};

const MEMORY: MemoryLimit = MemoryLimit { bytes: 2 << 30 };

struct Settings(BTreeMap<String, String>);

impl Settings {
    fn parse() -> Result<Self> {
        let mut found = BTreeMap::new();
        let mut arguments = std::env::args().skip(1);
        while let Some(name) = arguments.next() {
            let name = name
                .strip_prefix("--")
                .context("settings begin with --")?
                .to_owned();
            found.insert(name, arguments.next().context("a setting needs a value")?);
        }
        Ok(Self(found))
    }

    fn get<T: std::str::FromStr>(&self, name: &str, default: T) -> Result<T> {
        match self.0.get(name).map(|text| text.parse()) {
            None => Ok(default),
            Some(Ok(value)) => Ok(value),
            Some(Err(_)) => bail!("--{name} is not a valid value"),
        }
    }
}

fn bits(value: f32) -> F32Bits {
    F32Bits(value.to_bits())
}

fn main() -> Result<()> {
    let settings = Settings::parse()?;
    let assets = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../assets"));
    let folder = assets.join("stories15m-b158");
    let model: PathBuf = settings.get("model", folder.join("model.r3mes"))?;
    let tokenizer: PathBuf = settings.get("tokenizer", folder.join("tokenizer.json"))?;
    let miners: usize = settings.get("miners", 3)?;
    let shards: usize = settings.get("shards", miners)?;
    let absent: usize = settings.get("absent", 0)?;
    let rounds: u32 = settings.get("rounds", 12)?;
    let every: u32 = settings.get("every", 4)?;
    let first_rate: f32 = settings.get("rate", 6e-3)?;
    let last_rate: f32 = settings.get("last-rate", 0.2)?;

    let options = CpuOptions {
        isa: None,
        threads: settings.get("threads", 1)?,
    };
    let model = Model::load(Cpu::new(options)?, &PackedModel::open(&model)?);
    let tokenizer = Tokenizer::open(&tokenizer)?;
    let mut hyper = HyperParameters {
        batch: settings.get("batch", 4)?,
        sequence: settings.get("sequence", 128)?,
        rank: 8,
        alpha: bits(16.0),
        targets: Targets::ALL,
        learning_rate: bits(first_rate),
        beta1: bits(settings.get("beta1", 0.9)?),
        beta2: bits(settings.get("beta2", 0.999)?),
        c1: bits(settings.get("c1", 0.1)?),
        c2: bits(settings.get("c2", 0.001)?),
        epsilon: bits(1e-8),
        weight_decay: bits(0.0),
        chunk: 4096,
        top_k: settings.get("top-k", 512)?,
        decay: bits(settings.get("decay", 0.95)?),
    };
    let steps: u32 = settings.get("steps", 8)?;
    let sequence = hyper.sequence as usize;

    let mut texts = Vec::new();
    for name in ["bryant-stories", "burgess-busterbrown", "carroll-alice"] {
        let text = std::fs::read_to_string(assets.join(format!("texts/{name}.txt")))?;
        texts.push(tokenizer.encode(&normalize(&text))?);
    }
    let split = split(&texts, shards, sequence);
    let vocabulary = u32::try_from(tokenizer.vocabulary())?;
    let shards = split
        .shards
        .into_iter()
        .map(|tokens| Shard::new(tokenizer.hash(), vocabulary, tokens));
    let shards: Vec<Shard> = shards.collect::<Result<_, _>>()?;
    let sample = settings.get("sample", 1)?;
    let texts = split.held_out.iter();
    let held_out: Vec<Vec<&[u32]>> = texts
        .map(|text| text.chunks_exact(sequence + 1).step_by(sample).collect())
        .collect();
    println!(
        "{} tokens to train on, {} held-out windows",
        shards.iter().map(|s| s.tokens().len()).sum::<usize>(),
        held_out.iter().map(Vec::len).sum::<usize>()
    );

    let layout = adapter_layout(model.config(), &hyper)?;
    let beacon = Hasher::new("r3mes converge example")
        .number(settings.get("beacon", 1)?)
        .finish();
    let mut adapter = initial_adapter(&layout, &beacon);
    let mut workspace = TrainingWorkspace::new(MEMORY);
    let mut measure = |adapter: &Adapter| -> Result<f64> {
        let loaded = LoadedAdapter::new(model.device(), &layout, adapter)?;
        Ok(held_out_loss(&model, Some(&loaded), &held_out, 4, &mut workspace)?.mean())
    };
    let before = measure(&adapter)?;
    println!("round  0: held-out {before:.4}");

    let mut memory = StepMemory::new(MEMORY);
    let mut feedback: Vec<Option<Vec<f32>>> = vec![None; miners];
    for round in 0..rounds {
        let began = Instant::now();
        let along = f64::from(round) / f64::from(rounds.saturating_sub(1).max(1));
        let rate = f64::from(first_rate) * (1.0 - along * (1.0 - f64::from(last_rate)));
        hyper.learning_rate = bits(rate as f32);
        let start = StepState::start(adapter.numbers().to_vec());
        let mut packages = Vec::new();
        let (mut bytes, mut trained) = (0, 0.0);
        for (miner, feedback) in feedback.iter_mut().enumerate().take(miners - absent) {
            let index = (miner + round as usize) % shards.len();
            let shard = &shards[index];
            let task = Task {
                run: 1,
                round,
                miner: Address::from([miner as u8 + 1; 20]),
                model: model.id(),
                exact_version: EXACT_VERSION,
                adapter_seed: beacon,
                start: AdapterRef {
                    cid: None,
                    adapter: adapter.hash(),
                    state: start.hash(),
                },
                shard: ShardRef {
                    index: index as u32,
                    cid: Cid::raw(&shard.encode()),
                    tokens: shard.tokens().len() as u64,
                },
                steps,
                hyper: hyper.clone(),
                beacon: Hasher::new("r3mes converge round")
                    .part(beacon.as_ref())
                    .number(u64::from(round))
                    .finish(),
                feedback: feedback.as_deref().map(r3mes_training::state::hash_floats),
            };
            let job = Job::new(&model, shard, &task)?;
            let mut progress = RoundProgress::new(job.start(adapter.clone())?);
            while !progress.is_complete(&job) {
                progress.advance(&job, &mut memory)?;
            }
            trained +=
                progress.losses.iter().map(|loss| loss.mean()).sum::<f64>() / f64::from(steps);
            let finished =
                progress.finish(&job, &start.adapter, feedback.take(), &[miner as u8; 32])?;
            bytes += finished.package_bytes.len();
            *feedback = Some(finished.feedback);
            packages.push(finished.package);
        }
        let next = aggregate(adapter.numbers(), &packages)?;
        adapter = Adapter::from_numbers(&layout, next.adapter)?;
        let seconds = began.elapsed().as_secs_f64();
        let trained = trained / packages.len() as f64;
        print!(
            "round {:2}: {seconds:5.2} s, trained on {trained:.4}, {bytes} bytes",
            round + 1
        );
        if (round + 1) % every == 0 || round + 1 == rounds {
            let loss = measure(&adapter)?;
            print!(
                ", held-out {loss:.4} ({:.1}% lower)",
                100.0 * (1.0 - loss / before)
            );
        }
        println!();
    }
    Ok(())
}

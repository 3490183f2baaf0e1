//! Tokens per second of the exact engine when it advances one stream, and when it advances more
//! in one step. Every stream's tokens are compared with those that it gets alone.
//!
//! `cargo bench -p r3mes-inference --bench serving`, or with a packed model that has the
//! demonstration's vocabulary: `-- MODEL.r3mes`. One kernel thread; the time is the processor's,
//! which other programs on the machine hardly change, and the best of several turns.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use r3mes_exact::{Cpu, CpuOptions, Philox, signed_unit};
use r3mes_inference::exact::{self, ExactEngine, Limits, Parts};
use r3mes_inference::{Engine, GenerationError, Prompt, Request, Sampling};
use r3mes_model::{
    Adapter, AdapterLayout, ChatTemplate, LoraConfig, Model, PLAIN_TEMPLATE, PackedModel, Tokenizer,
};
use r3mes_types::SecretKey;
use rustix::time::{ClockId, clock_gettime};

const BASE: &str = "base";
const TUNED: &str = "base-tuned";
const STREAMS: [usize; 4] = [1, 2, 4, 8];
/// Tokens of every prompt and of every answer.
const PROMPT: usize = 16;
const TOKENS: usize = 48;
const TURNS: usize = 12;

fn main() -> Result<(), Box<dyn Error>> {
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/stories15m-b158");
    let named = std::env::args().nth(1).filter(|name| name != "--bench");
    let file = named.map_or_else(|| assets.join("model.r3mes"), PathBuf::from);
    let device = Cpu::new(CpuOptions {
        isa: None,
        threads: 1,
    })?;
    println!("{} back end, one thread\n", device.isa());
    let model = Arc::new(Model::load(device, &PackedModel::open(&file)?));
    let (engine, worker) = exact::engine(Parts {
        model: Arc::clone(&model),
        tokenizer: Arc::new(Tokenizer::open(&assets.join("tokenizer.json"))?),
        template: ChatTemplate::new(PLAIN_TEMPLATE, "<s>", "</s>")?,
        name: BASE.to_owned(),
        key: SecretKey::from_bytes(&[7; 32])?,
        limits: Limits::default(),
    });
    engine.serve_adapter(TUNED, LoraConfig::DEFAULT, &adapter(&model)?, None)?;
    let working = std::thread::spawn(move || worker.run());

    println!("| model | tokens are | streams | tokens/s | of one stream |");
    println!("|---|---|---:|---:|---:|");
    for name in [BASE, TUNED] {
        for (how, sampling) in [("the likeliest", Sampling::GREEDY), ("drawn", drawn())] {
            measure(&engine, name, how, &sampling)?;
        }
    }
    engine.stop();
    working.join().map_err(|_| "the worker panicked")?;
    Ok(())
}

/// Prints the rows of one model and one way of choosing tokens.
fn measure(
    engine: &ExactEngine<Cpu>,
    name: &str,
    how: &str,
    sampling: &Sampling,
) -> Result<(), Box<dyn Error>> {
    let vocab = engine.model().config().vocab;
    let ask = |stream| request(name, sampling, vocab, stream);
    let mut alone = Vec::new();
    for stream in 0..STREAMS[STREAMS.len() - 1] {
        alone.extend(answers(engine, vec![ask(stream)])?);
    }
    let mut best = [f64::INFINITY; STREAMS.len()];
    for _ in 0..TURNS {
        for (best, streams) in best.iter_mut().zip(STREAMS) {
            let begin = processor_seconds();
            let together = answers(engine, (0..streams).map(ask).collect())?;
            *best = best.min(processor_seconds() - begin);
            if together != alone[..streams] {
                return Err(format!("a stream among {streams} differs from itself alone").into());
            }
        }
    }
    let rate = |index: usize| (STREAMS[index] * TOKENS) as f64 / best[index];
    for (index, streams) in STREAMS.iter().enumerate() {
        let (rate, one) = (rate(index), rate(0));
        println!(
            "| {name} | {how} | {streams} | {rate:.0} | {:.2} |",
            rate / one
        );
    }
    Ok(())
}

/// Token ids of the answers to requests that run at the same time.
fn answers(
    engine: &ExactEngine<Cpu>,
    requests: Vec<Request>,
) -> Result<Vec<Vec<u32>>, Box<dyn Error>> {
    let running: Vec<_> = requests
        .into_iter()
        .map(|request| engine.submit(request))
        .collect::<Result<_, _>>()?;
    let ended: Vec<_> = running
        .into_iter()
        .map(|generation| generation.blocking_answer())
        .collect::<Result<_, GenerationError>>()?;
    let tokens = |answer: r3mes_inference::Answer| {
        let receipt = answer
            .completion
            .receipt
            .ok_or("an answer has no receipt")?;
        Ok(receipt.claim.output.to_vec())
    };
    ended.into_iter().map(tokens).collect()
}

/// The request of one stream: a prompt of its own and a seed of its own.
fn request(model: &str, sampling: &Sampling, vocab: usize, stream: usize) -> Request {
    let words = Philox::from_seed(stream as u64).words();
    let prompt = words.map(|word| 3 + word % (vocab as u32 - 3));
    Request {
        model: model.to_owned(),
        prompt: Prompt::Tokens(prompt.take(PROMPT).collect()),
        sampling: Sampling {
            seed: stream as u64,
            ..*sampling
        },
        max_tokens: Some(TOKENS),
        stop: Vec::new(),
        ignore_eos: true,
        logprobs: None,
        nonce: [0; 32],
    }
}

fn drawn() -> Sampling {
    Sampling {
        temperature: 0.8,
        top_p: 0.95,
        ..Sampling::GREEDY
    }
}

/// An adapter of random numbers on every linear.
fn adapter(model: &Model<Cpu>) -> Result<Adapter, Box<dyn Error>> {
    let layout = AdapterLayout::new(model.config(), LoraConfig::DEFAULT)?;
    let words = Philox::from_seed(1).words().take(layout.len());
    let numbers = words.map(|word| signed_unit(word) * 0.02).collect();
    Ok(Adapter::from_numbers(&layout, numbers)?)
}

/// Processor time of this process.
fn processor_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

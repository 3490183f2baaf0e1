//! `r3mes generate`, `r3mes pack` and `r3mes golden`: work on this machine alone.

use std::{path::Path, sync::Arc};

use anyhow::Context;
use r3mes_exact::Bytes;
use r3mes_inference::{
    Answer, Engine, FinishReason, Prompt, Request, Sampling,
    exact::{self, Limits, Parts},
};
use r3mes_model::{
    Adapter, AdapterLayout, Checkpoint, LoraConfig, Model, PackedModel, Tokenizer,
    pack as pack_model,
};
use r3mes_types::{Hash, SecretKey};
use serde::Serialize;

use super::{
    args::{Generate, Overrides, Pack},
    output::Output,
};
use crate::{
    agents, assets,
    config::Config,
    golden::{self, Hashes},
};

/// Name under which a local engine serves the base model, and the adapter on it.
const LOCAL: [&str; 2] = ["base", "tuned"];

/// What `r3mes generate` added to a prompt.
#[derive(Serialize)]
struct Generated {
    text: String,
    tokens: usize,
    finish_reason: &'static str,
    seed: u64,
    model: String,
}

/// `r3mes generate`
pub(super) fn generate(
    typed: &Generate,
    overrides: &Overrides,
    out: &Output,
) -> anyhow::Result<()> {
    let mut config = Config::default();
    overrides.apply(&mut config)?;
    let (packed, tokenizer) = local_model(typed)?;
    let model = Arc::new(Model::load(agents::device(&config)?, &packed));
    let mut key = zeroize::Zeroizing::new([0; 32]);
    getrandom::fill(key.as_mut())?;
    let (engine, worker) = exact::engine(Parts {
        model: Arc::clone(&model),
        tokenizer: Arc::new(tokenizer),
        template: packed.chat_template()?,
        name: LOCAL[0].to_owned(),
        key: SecretKey::from_bytes(&key)?,
        limits: Limits::default(),
    });
    let mut name = LOCAL[0];
    if let Some(path) = &typed.adapter {
        let bytes =
            std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let layout = AdapterLayout::new(model.config(), LoraConfig::DEFAULT)?;
        let adapter = Adapter::from_bytes(&layout, &bytes).with_context(|| {
            format!(
                "{} is not an adapter of rank 8 for this model",
                path.display()
            )
        })?;
        engine.serve_adapter(LOCAL[1], LoraConfig::DEFAULT, &adapter, None)?;
        name = LOCAL[1];
    }
    let thread = std::thread::spawn(move || worker.run());
    let request = Request {
        model: name.to_owned(),
        prompt: Prompt::Text(typed.prompt.clone()),
        sampling: Sampling {
            temperature: typed.temperature,
            top_p: typed.top_p,
            seed: typed.seed,
            ..Sampling::GREEDY
        },
        max_tokens: Some(typed.max_tokens as usize),
        stop: Vec::new(),
        ignore_eos: false,
        logprobs: None,
        nonce: [0; 32],
    };
    let answer = engine.submit(request)?.blocking_answer()?;
    engine.stop();
    drop(engine);
    thread
        .join()
        .map_err(|_| anyhow::anyhow!("the engine panicked"))?;
    tell(&answer, typed, packed.id(), model.config().context, out)
}

/// Says what was generated.
fn tell(
    answer: &Answer,
    typed: &Generate,
    model: Hash,
    context: usize,
    out: &Output,
) -> anyhow::Result<()> {
    let end = &answer.completion;
    let generated = Generated {
        text: answer.text.clone(),
        tokens: end.completion_tokens,
        finish_reason: end.finish.name(),
        seed: typed.seed,
        model: model.to_string(),
    };
    if end.finish == FinishReason::Length && generated.tokens < typed.max_tokens as usize {
        eprintln!(
            "stopped after {} of {} tokens: the model holds {context} tokens, prompt and answer together",
            generated.tokens, typed.max_tokens
        );
    }
    out.show(&generated, || format!("{}{}", typed.prompt, answer.text))
}

fn local_model(typed: &Generate) -> anyhow::Result<(PackedModel, Tokenizer)> {
    let Some(file) = &typed.model else {
        return Ok((
            PackedModel::from_bytes(&Bytes::from_slice(assets::BASE_MODEL))?,
            Tokenizer::from_bytes(assets::BASE_TOKENIZER)?,
        ));
    };
    let packed = PackedModel::open(file)
        .with_context(|| format!("cannot use the model {}", file.display()))?;
    let tokenizer = match &typed.tokenizer {
        Some(tokenizer) => Tokenizer::open(tokenizer)?,
        None => Tokenizer::open(&file.with_file_name("tokenizer.json"))?,
    };
    Ok((packed, tokenizer))
}

#[derive(Serialize)]
struct Packed {
    file: String,
    model: String,
    bytes: u64,
}

/// `r3mes pack`
pub(super) fn pack(typed: &Pack, out: &Output) -> anyhow::Result<()> {
    let checkpoint = Checkpoint::open(&typed.checkpoint, None)?;
    let packed = pack_model(&checkpoint, &typed.output)?;
    let report = Packed {
        file: typed.output.display().to_string(),
        model: packed.id().to_string(),
        bytes: file_bytes(&typed.output)?,
    };
    out.show(&report, || {
        format!(
            "{}: {} bytes, model {}",
            report.file, report.bytes, report.model
        )
    })
}

fn file_bytes(path: &Path) -> anyhow::Result<u64> {
    Ok(std::fs::metadata(path)
        .with_context(|| format!("cannot read {}", path.display()))?
        .len())
}

#[derive(Serialize)]
struct GoldenReport {
    backend: String,
    hashes: Hashes,
}

/// `r3mes golden`: after the hashes, an error if one is not what it must be.
pub(super) fn golden(hashes_only: bool, overrides: &Overrides, out: &Output) -> anyhow::Result<()> {
    let mut config = Config::default();
    overrides.apply(&mut config)?;
    let device = agents::device(&config)?;
    let isa = device.isa();
    let report = GoldenReport {
        backend: isa.to_string(),
        hashes: golden::hashes(&device)?,
    };
    let lines = || {
        let lines = report.hashes.iter();
        lines
            .map(|(name, hash)| format!("{hash}  {name}\n"))
            .collect::<String>()
    };
    match hashes_only {
        true => out.show(&report.hashes, lines)?,
        false => out.show(&report, || {
            format!("back end {}\n{}", report.backend, lines())
        })?,
    }
    Ok(golden::compare(isa, &report.hashes, &golden::pinned())?)
}

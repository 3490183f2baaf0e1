//! Golden hashes: what this machine computes, to be compared with every other machine.

use std::{collections::BTreeMap, sync::Arc};

use r3mes_exact::{Bytes, Cpu};
use r3mes_inference::{
    Engine, Prompt, Request, Sampling,
    exact::{self, Limits, Parts},
};
use r3mes_model::{ChatTemplate, Model, PLAIN_TEMPLATE, PackedModel, Tokenizer};
use r3mes_types::SecretKey;

use crate::assets;

/// Text that the golden generation goes on from.
const PROMPT: &str = "Once upon a time, in a forest far away,";
/// Tokens of the golden generation.
const TOKENS: usize = 24;
/// Seed of the golden generation.
const SEED: u64 = 42;

/// Every golden hash by its name, in hexadecimal.
///
/// # Errors
/// When the machine cannot compute them at all.
pub fn hashes(device: Cpu) -> anyhow::Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    let training = r3mes_training::golden::golden(device.clone());
    all.insert("training step".to_owned(), training.step.to_string());
    all.insert("training round".to_owned(), training.round.to_string());
    all.insert("generation".to_owned(), generation(device)?);
    Ok(all)
}

/// The chained hash over every hidden state of a sampled generation on the base model.
fn generation(device: Cpu) -> anyhow::Result<String> {
    let packed = PackedModel::from_bytes(&Bytes::from_slice(assets::BASE_MODEL))?;
    let (engine, worker) = exact::engine(Parts {
        model: Arc::new(Model::load(device, &packed)),
        tokenizer: Arc::new(Tokenizer::from_bytes(assets::BASE_TOKENIZER)?),
        template: ChatTemplate::new(PLAIN_TEMPLATE, "", "")?,
        name: assets::BASE_MODEL_NAME.to_owned(),
        key: SecretKey::from_bytes(&[1; 32])?,
        limits: Limits::default(),
    });
    let thread = std::thread::spawn(move || worker.run());
    let request = Request {
        model: assets::BASE_MODEL_NAME.to_owned(),
        prompt: Prompt::Text(PROMPT.to_owned()),
        sampling: Sampling {
            temperature: 0.8,
            top_p: 0.95,
            seed: SEED,
            ..Sampling::GREEDY
        },
        max_tokens: Some(TOKENS),
        stop: Vec::new(),
        ignore_eos: true,
        logprobs: None,
        nonce: [0; 32],
    };
    let answer = engine.submit(request)?.blocking_answer()?;
    engine.stop();
    thread
        .join()
        .map_err(|_| anyhow::anyhow!("the engine panicked"))?;
    let receipt = answer
        .completion
        .receipt
        .ok_or_else(|| anyhow::anyhow!("the engine gave no receipt"))?;
    Ok(receipt.claim.transcript.to_string())
}

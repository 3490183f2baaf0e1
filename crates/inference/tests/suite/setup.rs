//! An engine on the demonstration's base model.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use r3mes_exact::{Cpu, CpuOptions, Philox, signed_unit};
use r3mes_inference::exact::{self, ExactEngine, Limits, Parts, Worker};
use r3mes_inference::{Answer, Engine, Prompt, Request, Sampling};
use r3mes_model::{
    Adapter, AdapterLayout, ChatTemplate, LoraConfig, Model, PLAIN_TEMPLATE, PackedModel, Tokenizer,
};
use r3mes_types::SecretKey;

pub(crate) const BASE: &str = "stories";

fn asset(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../assets/stories15m-b158")
        .join(name)
}

/// The base model, loaded once for all tests.
pub(crate) fn model() -> Arc<Model<Cpu>> {
    static MODEL: OnceLock<Arc<Model<Cpu>>> = OnceLock::new();
    let load = || {
        let packed = PackedModel::open(&asset("model.r3mes")).unwrap();
        Arc::new(Model::load(
            Cpu::new(CpuOptions {
                isa: None,
                threads: 1,
            })
            .unwrap(),
            &packed,
        ))
    };
    Arc::clone(MODEL.get_or_init(load))
}

pub(crate) fn tokenizer() -> Arc<Tokenizer> {
    static TOKENIZER: OnceLock<Arc<Tokenizer>> = OnceLock::new();
    let load = || Arc::new(Tokenizer::open(&asset("tokenizer.json")).unwrap());
    Arc::clone(TOKENIZER.get_or_init(load))
}

pub(crate) fn key() -> SecretKey {
    SecretKey::from_bytes(&[7; 32]).unwrap()
}

/// What an engine is made of.
pub(crate) fn parts(limits: Limits) -> Parts<Cpu> {
    Parts {
        model: model(),
        tokenizer: tokenizer(),
        template: ChatTemplate::new(PLAIN_TEMPLATE, "<s>", "</s>").unwrap(),
        name: BASE.into(),
        key: key(),
        limits,
    }
}

/// An engine whose worker has not been started.
pub(crate) fn idle(limits: Limits) -> (ExactEngine<Cpu>, Worker<Cpu>) {
    exact::engine(parts(limits))
}

/// An engine at work; stopped when dropped.
pub(crate) struct Running {
    pub(crate) engine: ExactEngine<Cpu>,
    thread: Option<JoinHandle<()>>,
}

pub(crate) fn running(limits: Limits) -> Running {
    let (engine, worker) = idle(limits);
    start(engine, worker)
}

pub(crate) fn start(engine: ExactEngine<Cpu>, worker: Worker<Cpu>) -> Running {
    Running {
        engine,
        thread: Some(std::thread::spawn(move || worker.run())),
    }
}

impl Running {
    pub(crate) fn answer(&self, request: Request) -> Answer {
        self.engine
            .submit(request)
            .unwrap()
            .blocking_answer()
            .unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.engine.stop();
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(
            std::thread::panicking() || matches!(ended, Some(Ok(()))),
            "the worker panicked"
        );
    }
}

/// A request for up to `tokens` tokens after `text`, sampled.
pub(crate) fn request(text: &str, tokens: usize, seed: u64) -> Request {
    Request {
        model: BASE.into(),
        prompt: Prompt::Text(text.into()),
        sampling: Sampling {
            temperature: 0.9,
            top_p: 0.95,
            top_k: 0,
            presence_penalty: 0.1,
            frequency_penalty: 0.2,
            repetition_penalty: 1.1,
            seed,
        },
        max_tokens: Some(tokens),
        stop: Vec::new(),
        ignore_eos: false,
        logprobs: None,
        nonce: [9; 32],
    }
}

pub(crate) fn greedy(text: &str, tokens: usize) -> Request {
    Request {
        sampling: Sampling::GREEDY,
        ..request(text, tokens, 0)
    }
}

pub(crate) fn ids(answer: &Answer) -> Vec<u32> {
    answer
        .completion
        .receipt
        .as_ref()
        .unwrap()
        .claim
        .output
        .to_vec()
}

/// An adapter that changes what the model says.
pub(crate) fn adapter(seed: u64) -> Adapter {
    let layout = AdapterLayout::new(model().config(), LoraConfig::DEFAULT).unwrap();
    let words = Philox::from_seed(seed).words().take(layout.len());
    let numbers = words.map(|word| signed_unit(word) * 0.05).collect();
    Adapter::from_numbers(&layout, numbers).unwrap()
}

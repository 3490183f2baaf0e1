//! Adapters are swapped while chat answers stream: nobody notices, and every receipt is true.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use futures::{StreamExt, future};
use r3mes_blobs::MemoryStore;
use r3mes_exact::{Cpu, CpuOptions, Philox, signed_unit};
use r3mes_gateway::openai::{Api, ApiLimits, RECEIPT_HEADER};
use r3mes_http::metrics::Metrics;
use r3mes_inference::{
    Evidence, Receipt,
    exact::{self, ExactEngine, Limits, Parts},
    verify,
};
use r3mes_model::{
    Adapter, AdapterLayout, ChatTemplate, LoadedAdapter, LoraConfig, Model, PLAIN_TEMPLATE,
    PackedModel, Tokenizer,
};
use r3mes_types::{Hash, SecretKey};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tracing::{Dispatch, dispatcher};

use super::support::{Running, client};

const TUNED: &str = "stories-tuned";
const STREAMS: usize = 6;
const TOKENS: u64 = 24;

fn asset(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../assets/stories15m-b158")
        .join(name)
}

/// An engine that works on a thread of its own, which logs to `dispatch` if there is one.
pub(super) fn engine(
    dispatch: Option<Dispatch>,
) -> (Arc<ExactEngine<Cpu>>, std::thread::JoinHandle<()>) {
    let options = CpuOptions {
        isa: None,
        threads: 1,
    };
    let packed = PackedModel::open(&asset("model.r3mes")).unwrap();
    let (engine, worker) = exact::engine(Parts {
        model: Arc::new(Model::load(Cpu::new(options).unwrap(), &packed)),
        tokenizer: Arc::new(Tokenizer::open(&asset("tokenizer.json")).unwrap()),
        template: ChatTemplate::new(PLAIN_TEMPLATE, "<s>", "</s>").unwrap(),
        name: "stories".to_owned(),
        key: SecretKey::from_bytes(&[7; 32]).unwrap(),
        limits: Limits::default(),
    });
    let working = std::thread::spawn(move || {
        let _logging = dispatch.as_ref().map(dispatcher::set_default);
        worker.run();
    });
    (Arc::new(engine), working)
}

fn adapter(layout: &AdapterLayout, seed: u64) -> Adapter {
    let words = Philox::from_seed(seed).words().take(layout.len());
    let numbers = words.map(|word| signed_unit(word) * 0.03).collect();
    Adapter::from_numbers(layout, numbers).unwrap()
}

/// What a client saw of one streamed answer.
struct Seen {
    text: String,
    tokens: u64,
    finish: String,
    receipt: String,
}

/// Asks for one chat answer, tells of every event, and reads to the end.
async fn chat(url: String, seed: usize, events: mpsc::UnboundedSender<()>) -> Seen {
    let body = json!({
        "model": TUNED,
        "messages": [{ "role": "user", "content": "Tell me about a dog." }],
        "max_tokens": TOKENS, "temperature": 0.9, "seed": seed, "ignore_eos": true,
        "stream": true, "stream_options": { "include_usage": true },
    });
    let asked = client().post(url).json(&body).send().await.unwrap();
    assert_eq!(asked.status(), 200);
    let receipt = asked.headers()[RECEIPT_HEADER].to_str().unwrap().to_owned();
    let mut seen = Seen {
        text: String::new(),
        tokens: 0,
        finish: String::new(),
        receipt,
    };
    let (mut unread, mut done) = (String::new(), false);
    let mut pieces = asked.bytes_stream();
    while let Some(piece) = pieces.next().await {
        unread.push_str(std::str::from_utf8(&piece.unwrap()).unwrap());
        while let Some((event, rest)) = unread.split_once("\n\n") {
            let data = event.strip_prefix("data: ").unwrap();
            assert!(!done, "something follows the end");
            done = data == "[DONE]";
            if !done {
                seen.read(&serde_json::from_str(data).unwrap());
                // Nobody listens any more once all swaps are made.
                let _ = events.send(());
            }
            unread = rest.to_owned();
        }
    }
    assert!(done && unread.is_empty(), "the stream broke off");
    seen
}

impl Seen {
    fn read(&mut self, event: &Value) {
        let choice = &event["choices"][0];
        self.text += choice["delta"]["content"].as_str().unwrap_or_default();
        self.finish += choice["finish_reason"].as_str().unwrap_or_default();
        if let Some(tokens) = event["usage"]["completion_tokens"].as_u64() {
            self.tokens = tokens;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn adapters_swapped_under_streamed_chats_drop_none_and_every_receipt_recomputes() {
    let (engine, worker) = engine(None);
    let model = Arc::clone(engine.model());
    let layout = AdapterLayout::new(model.config(), LoraConfig::DEFAULT).unwrap();
    let adapters: Vec<Adapter> = (1..=3).map(|seed| adapter(&layout, seed)).collect();
    let serve = |index: usize| {
        let adapter = &adapters[index % adapters.len()];
        engine
            .serve_adapter(TUNED, LoraConfig::DEFAULT, adapter, Some(index as u64))
            .unwrap();
    };
    serve(0);
    let (store, metrics) = (Arc::new(MemoryStore::new()), Metrics::new());
    let api = Api::new(engine.clone(), store, &metrics, ApiLimits::default()).unwrap();
    let running = Running::start(api.router()).await;

    let (events, mut happened) = mpsc::unbounded_channel();
    let url = running.url("/v1/chat/completions");
    let mut asked = Vec::new();
    for seed in 0..STREAMS {
        asked.push(tokio::spawn(chat(url.clone(), seed, events.clone())));
        // An answer has begun; the next one meets another adapter beside it.
        for _ in 0..3 {
            happened.recv().await.unwrap();
            serve(seed + 1);
        }
    }
    drop(events);
    let mut swaps = STREAMS;
    while happened.recv().await.is_some() {
        swaps += 1;
        serve(swaps);
    }

    let by_hash: BTreeMap<Hash, &Adapter> = adapters
        .iter()
        .map(|adapter| (adapter.hash(), adapter))
        .collect();
    let mut used = BTreeSet::new();
    for seen in future::join_all(asked).await {
        let seen = seen.unwrap();
        assert_eq!((seen.tokens, seen.finish.as_str()), (TOKENS, "length"));
        let bytes = client().get(running.url(&seen.receipt)).send().await;
        let bytes = bytes.unwrap().bytes().await.unwrap();
        let receipt = Receipt::from_bytes(&bytes).unwrap();
        assert_eq!(receipt.claim.output.len() as u64, seen.tokens);
        let mut decoder = engine.tokenizer().decoder(&receipt.claim.prompt);
        let pieces = receipt
            .claim
            .output
            .iter()
            .map(|token| decoder.push(*token).unwrap());
        let text: String = pieces.collect();
        assert_eq!(text + &decoder.finish().unwrap(), seen.text);

        let hash = receipt.claim.adapter.as_ref().unwrap().hash;
        let loaded = LoadedAdapter::new(model.device(), &layout, by_hash[&hash]).unwrap();
        let evidence = Evidence {
            model: &model,
            adapter: Some((&loaded, hash)),
            tokenizer: engine.tokenizer(),
        };
        verify(&receipt, &evidence).unwrap();
        used.insert(hash);
    }
    assert!(used.len() > 1, "all answers came from one adapter");
    running.stop().await;
    engine.stop();
    tokio::task::spawn_blocking(move || worker.join().unwrap())
        .await
        .unwrap();
}

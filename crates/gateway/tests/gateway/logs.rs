//! What the log has of a request: where it went, and never what was asked or answered.

use std::{
    collections::BTreeSet,
    io,
    sync::{Arc, Mutex, mpsc},
};

use r3mes_blobs::MemoryStore;
use r3mes_gateway::openai::{Api, ApiLimits};
use r3mes_http::{metrics::Metrics, requests::REQUEST_ID};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};
use tracing::{Dispatch, dispatcher};
use tracing_subscriber::fmt::format::FmtSpan;

use super::{
    support::{Running, client},
    swaps::engine,
};

const PROMPT: &str = "Zebediah Quillfeather met a dog.";
const TOKEN: &str = "Bearer swordfish-9182";
const QUERY: &str = "sesame-5531";

/// Everything that is logged, as JSON lines.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// What collects all there is to log.
    fn collector(&self) -> Dispatch {
        let log = self.clone();
        let collector = tracing_subscriber::fmt()
            .json()
            .with_max_level(tracing::Level::TRACE)
            .with_span_events(FmtSpan::FULL)
            .with_writer(move || log.clone());
        Dispatch::new(collector.finish())
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

/// A runtime whose every thread logs to the same place.
fn runtime(dispatch: &Dispatch) -> Runtime {
    let dispatch = dispatch.clone();
    Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        // For as long as the thread lives.
        .on_thread_start(move || std::mem::forget(dispatcher::set_default(&dispatch)))
        .build()
        .unwrap()
}

/// All texts and numbers of a JSON value, as text.
fn leaves(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| leaves(item, found)),
        Value::Object(fields) => fields.values().for_each(|field| leaves(field, found)),
        Value::String(text) => {
            found.insert(text.clone());
        }
        _ => {}
    }
}

#[tokio::test]
async fn a_completion_is_logged_with_its_route_and_sizes_and_without_any_of_its_words() {
    let log = Log::default();
    let dispatch = log.collector();
    // With a single collector the first thread that comes by decides what is collected at all, and other
    // tests have threads without one.
    let _second = Dispatch::new(tracing_subscriber::registry());
    let serving = runtime(&dispatch);
    let (engine, worker) = engine(Some(dispatch));
    let (store, metrics) = (Arc::new(MemoryStore::new()), Metrics::new());
    let api = Api::new(engine.clone(), store, &metrics, ApiLimits::default()).unwrap();
    let (started, running) = mpsc::channel();
    serving.spawn(async move {
        started.send(Running::start(api.router()).await).unwrap();
    });
    let running = tokio::task::spawn_blocking(move || running.recv().unwrap())
        .await
        .unwrap();

    let asked = client()
        .post(running.url(&format!("/v1/completions?key={QUERY}")))
        .header("Authorization", TOKEN)
        .header(REQUEST_ID, "order-7")
        .json(&json!({
            "model": "stories", "prompt": PROMPT, "max_tokens": 24, "temperature": 0.9,
            "seed": 5, "ignore_eos": true, "logprobs": 0,
        }));
    let answer = asked.send().await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()[REQUEST_ID]),
        (200, &"order-7".parse().unwrap())
    );
    let answer: Value = answer.json().await.unwrap();
    running.stop().await;
    engine.stop();
    tokio::task::spawn_blocking(move || {
        worker.join().unwrap();
        drop(serving);
    })
    .await
    .unwrap();

    let text = log.text();
    let answered = answer["choices"][0]["text"].as_str().unwrap();
    let tokens = answer["choices"][0]["logprobs"]["tokens"]
        .as_array()
        .unwrap();
    let tokens: Vec<&str> = tokens.iter().map(|token| token.as_str().unwrap()).collect();
    assert_eq!(tokens.len(), 24);
    let mut values = BTreeSet::new();
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    lines.iter().for_each(|line| leaves(line, &mut values));
    for value in &values {
        for secret in [PROMPT, "Quillfeather", "swordfish", QUERY, answered.trim()] {
            assert!(!value.contains(secret), "{secret:?} is in the log: {value}");
        }
        for window in tokens.windows(3) {
            let words = window.concat();
            assert!(!value.contains(&words), "{words:?} is in the log: {value}");
        }
        // A word alone would be a field of its own.
        let bare = value.trim_matches('"');
        assert!(!tokens.contains(&bare), "the token {bare:?} is in the log");
    }

    let in_span = |name: &str, message: &str| {
        let found = lines.iter().find(|line| {
            let spans = line["spans"].as_array();
            let named = |span: &Value| span["name"] == name;
            line["fields"]["message"] == message && spans.is_some_and(|all| all.iter().any(named))
        });
        let line =
            found.unwrap_or_else(|| panic!("{message} in {name} is not in the log:\n{text}"));
        let spans = line["spans"].as_array().unwrap();
        spans
            .iter()
            .find(|span| span["name"] == name)
            .unwrap()
            .clone()
    };
    let span = in_span("http.request.answer", "http.request.answered");
    assert_eq!(span["method"], "POST");
    assert_eq!(span["route"], "/v1/completions");
    assert_eq!(
        (&span["request"], &span["status"]),
        (&json!("order-7"), &json!(200))
    );
    let span = in_span("inference.request.answer", "inference.request.answered");
    assert_eq!(
        (&span["model"], &span["max_tokens"]),
        (&json!("stories"), &json!(24))
    );
    assert!(span["prompt_tokens"].as_u64() > Some(4), "{span}");
    // An answer that ends on another thread is still known to be of its request.
    in_span("http.request.answer", "inference.request.answered");
}

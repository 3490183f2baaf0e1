//! Time to the first token, and tokens per second, of answers streamed as server-sent events:
//! client, gateway of the network, serving node and exact engine on one machine, the client's
//! connections open already.
//!
//! `cargo bench -p r3mes-gateway --bench streaming`. Time by the clock, so the machine should be
//! quiet; the median and the worst of all streams.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use r3mes_blobs::MemoryStore;
use r3mes_exact::{Cpu, CpuOptions};
use r3mes_gateway::openai::{
    Api, ApiLimits, Network, NetworkLimits, ServingDirectory, ServingNode,
};
use r3mes_http::{metrics::Metrics, server};
use r3mes_inference::exact::{self, Limits, Parts};
use r3mes_inference::{Engine, Prompt, Request, Sampling};
use r3mes_model::{ChatTemplate, Model, PLAIN_TEMPLATE, PackedModel, Tokenizer};
use r3mes_types::SecretKey;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

type Failure = Box<dyn Error + Send + Sync>;

const MODEL: &str = "stories";
const PROMPT: &str = "Once upon a time, there was a little girl";
const TOKENS: usize = 128;
const ROUNDS: usize = 12;

/// What a client has seen of one stream.
struct Seen {
    /// From the request to the first piece of text.
    first: Duration,
    /// From the first piece to the last.
    rest: Duration,
    /// Tokens, as the answer's usage says.
    tokens: u64,
}

struct OneNode(ServingNode);

impl ServingDirectory for OneNode {
    fn serving_nodes(&self) -> Vec<ServingNode> {
        vec![self.0.clone()]
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let shutdown = CancellationToken::new();
    let (engine, working) = engine()?;
    let (store, metrics) = (Arc::new(MemoryStore::new()), Metrics::new());
    let api = Api::new(engine.clone(), store, &metrics, ApiLimits::default())?;
    let node = listen(api.router(), &shutdown).await?;
    let directory = Arc::new(OneNode(ServingNode {
        address: "remes1node".to_owned(),
        api: node.clone(),
    }));
    let network = Network::new(directory, &Metrics::new(), NetworkLimits::default())?;
    let gateway = listen(network.router(), &shutdown).await?;

    println!("{TOKENS} tokens after a short prompt; one kernel thread\n");
    println!(
        "| asked | streams | first token, ms: median | worst | tokens/s of a stream | of all |"
    );
    println!("|---|---:|---:|---:|---:|---:|");
    for (what, base) in [("serving node", &node), ("gateway", &gateway)] {
        for streams in [1, 8] {
            measure(what, base, streams).await?;
        }
    }
    let begin = Instant::now();
    let alone = engine.submit(request())?;
    let alone = tokio::task::spawn_blocking(|| alone.blocking_answer()).await??;
    let rate = alone.completion.completion_tokens as f64 / begin.elapsed().as_secs_f64();
    println!("| engine, without HTTP | 1 | - | - | {rate:.0} | {rate:.0} |");

    shutdown.cancel();
    engine.stop();
    working.join().map_err(|_| "the worker panicked")?;
    Ok(())
}

/// The demonstration's base model on one thread.
fn engine() -> Result<(Arc<exact::ExactEngine<Cpu>>, std::thread::JoinHandle<()>), Failure> {
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/stories15m-b158");
    let device = Cpu::new(CpuOptions {
        isa: None,
        threads: 1,
    })?;
    let packed = PackedModel::open(&assets.join("model.r3mes"))?;
    let (engine, worker) = exact::engine(Parts {
        model: Arc::new(Model::load(device, &packed)),
        tokenizer: Arc::new(Tokenizer::open(&assets.join("tokenizer.json"))?),
        template: ChatTemplate::new(PLAIN_TEMPLATE, "<s>", "</s>")?,
        name: MODEL.to_owned(),
        key: SecretKey::from_bytes(&[7; 32])?,
        limits: Limits::default(),
    });
    Ok((Arc::new(engine), std::thread::spawn(move || worker.run())))
}

/// What the streams ask, put to the engine itself.
fn request() -> Request {
    Request {
        model: MODEL.to_owned(),
        prompt: Prompt::Text(PROMPT.to_owned()),
        sampling: Sampling::GREEDY,
        max_tokens: Some(TOKENS),
        stop: Vec::new(),
        ignore_eos: true,
        logprobs: None,
        nonce: [0; 32],
    }
}

/// Serves a router on a free port; its base URL.
async fn listen(router: Router, shutdown: &CancellationToken) -> Result<String, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let limits = server::Limits::default();
    tokio::spawn(server::serve(listener, router, limits, shutdown.clone()));
    Ok(url)
}

/// Prints the row of one server and one number of streams.
async fn measure(what: &str, base: &str, streams: usize) -> Result<(), Failure> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let (mut firsts, mut rates, mut totals) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let begin = Instant::now();
        let asked = (0..streams).map(|_| tokio::spawn(stream(client.clone(), base.to_owned())));
        let mut tokens = 0;
        for seen in futures::future::join_all(asked).await {
            let seen = seen??;
            tokens += seen.tokens;
            if round > 0 {
                firsts.push(seen.first.as_secs_f64() * 1e3);
                rates.push((seen.tokens - 1) as f64 / seen.rest.as_secs_f64());
            }
        }
        // The first round opens the connections.
        if round > 0 {
            totals.push(tokens as f64 / begin.elapsed().as_secs_f64());
        }
    }
    for figures in [&mut firsts, &mut rates, &mut totals] {
        figures.sort_by(f64::total_cmp);
    }
    let median = |figures: &[f64]| figures[figures.len() / 2];
    println!(
        "| {what} | {streams} | {:.1} | {:.1} | {:.0} | {:.0} |",
        median(&firsts),
        firsts[firsts.len() - 1],
        median(&rates),
        median(&totals)
    );
    Ok(())
}

/// Asks for one answer and reads it event by event.
async fn stream(client: reqwest::Client, base: String) -> Result<Seen, Failure> {
    let body = json!({
        "model": MODEL,
        "prompt": PROMPT,
        "max_tokens": TOKENS,
        "temperature": 0,
        "ignore_eos": true,
        "stream": true,
        "stream_options": { "include_usage": true },
    });
    let begin = Instant::now();
    let asked = client.post(format!("{base}/v1/completions")).json(&body);
    let mut response = asked.send().await?.error_for_status()?;
    let (mut first, mut last, mut tokens) = (None, begin, None);
    let mut unread = String::new();
    while let Some(piece) = response.chunk().await? {
        unread.push_str(std::str::from_utf8(&piece)?);
        while let Some((event, rest)) = unread.split_once("\n\n") {
            let data = event
                .strip_prefix("data: ")
                .ok_or("an event without data")?;
            if data != "[DONE]" {
                let event: Value = serde_json::from_str(data)?;
                if event["choices"][0]["text"]
                    .as_str()
                    .is_some_and(|text| !text.is_empty())
                {
                    last = Instant::now();
                    first.get_or_insert(last);
                }
                tokens = event["usage"]["completion_tokens"].as_u64().or(tokens);
            }
            unread = rest.to_owned();
        }
    }
    let first = first.ok_or("a stream without text")?;
    Ok(Seen {
        first: first - begin,
        rest: last - first,
        tokens: tokens.ok_or("a stream without usage")?,
    })
}

//! Client, broker and node over loopback TCP in one process: what a call costs, and what with TLS.
//!
//! `cargo bench -p r3mes-functions --bench loopback [-- SECONDS]` prints two tables; each figure is taken
//! for so many seconds (2 when absent). All three share this machine's processors.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use ed25519_consensus::SigningKey;
use r3mes_functions::{
    broker::{Broker, Limits},
    client::{Client, ClientConfig},
    node::{self, Node, NodeConfig},
    registry::FunctionInfo,
    serve::Hub,
    tls::{Authority, ServerTls},
    tokens::Tokens,
    wire::messages::CallHead,
};
use tokio::{net::TcpListener, sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Items that one call of `count` yields.
const ITEMS: usize = 100_000;

#[tokio::main]
async fn main() -> Outcome<()> {
    let seconds = std::env::args().filter_map(|word| word.parse().ok()).next();
    let each = Duration::from_secs(seconds.unwrap_or(2));
    measure(each, None).await?;
    let folder = tempfile::tempdir()?;
    let authority = Authority::create(folder.path())?;
    measure(each, Some(&authority)).await
}

/// Prints a table, with TLS by a certificate of `authority` or without.
async fn measure(each: Duration, authority: Option<&Authority>) -> Outcome<()> {
    let tls = match authority {
        None => None,
        Some(authority) => {
            let hosts = ["127.0.0.1".to_owned()];
            let issued = authority.issue("server", &hosts, Duration::from_secs(24 * 3600))?;
            Some(ServerTls::from_files(&issued.certificate, &issued.key)?)
        }
    };
    let (scheme, ca) = match authority {
        None => ("", None),
        Some(authority) => ("tls://", Some(authority.certificate())),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = format!("{scheme}{}", listener.local_addr()?);
    let broker = Broker::new(Limits::default(), Tokens::default(), BTreeMap::new(), 1);
    let hub = Arc::new(Hub::new(broker, mpsc::unbounded_channel().0));
    let stop = CancellationToken::new();
    tokio::spawn({
        let stop = stop.clone();
        async move { hub.serve(listener, tls, stop).await }
    });
    tokio::spawn(node(&address, ca.clone())?.run(stop.clone()));
    let config = ClientConfig {
        broker: address,
        token: None,
        ca,
    };
    let client = Arc::new(Client::connect(&config).await?);
    while client.functions().await?.is_empty() {
        tokio::task::yield_now().await;
    }

    let with = if authority.is_some() { "TLS" } else { "no TLS" };
    println!("| with {with} | figure |");
    println!("|---|---:|");
    let mut times = one_after_the_other(&client, each).await?;
    times.sort_unstable();
    println!(
        "| call, median | {} µs |",
        times[times.len() / 2].as_micros()
    );
    println!(
        "| call, 99% | {} µs |",
        times[times.len() * 99 / 100].as_micros()
    );
    println!(
        "| calls/s, 64 at a time | {:.0} |",
        at_a_time(&client, 64, each).await?
    );
    let mut best = Duration::MAX;
    for _ in 0..10 {
        best = best.min(round_trip(&client, 10_000_000).await?);
    }
    println!(
        "| 10 MB there and back, best of 10 | {:.1} ms |",
        best.as_secs_f64() * 1e3
    );
    let took = round_trip(&client, 1_000_000_000).await?;
    println!("| 1 GB there and back | {:.2} s |", took.as_secs_f64());
    println!("| items/s of one stream | {:.0} |", items(&client).await?);
    println!();
    stop.cancel();
    Ok(())
}

fn node(broker: &str, ca: Option<PathBuf>) -> Outcome<Node> {
    let mut node = Node::new(NodeConfig {
        broker: broker.to_owned(),
        id: "bench".into(),
        key: SigningKey::from([7; 32]),
        token: None,
        ca,
        capabilities: Default::default(),
        max_concurrent: 64,
        resources: BTreeMap::new(),
    });
    let info = |name| FunctionInfo {
        max_concurrent: 64,
        ..FunctionInfo::new(name)
    };
    node.register(info("echo"), |call| {
        node::answer(call, async |bytes| Ok(bytes))
    })?;
    node.register(info("count"), |call| async move {
        let item = Bytes::from_static(b"eight by");
        for _ in 0..ITEMS {
            if call.output.item(item.clone()).await.is_err() {
                break;
            }
        }
        Ok(())
    })?;
    Ok(node)
}

async fn echo(client: &Client, argument: Bytes) -> Outcome<Bytes> {
    let reply = client.call(&CallHead::new("echo"), argument).await?;
    Ok(reply.result().await?)
}

async fn one_after_the_other(client: &Client, each: Duration) -> Outcome<Vec<Duration>> {
    let (mut times, until) = (Vec::new(), Instant::now() + each);
    while Instant::now() < until {
        let began = Instant::now();
        echo(client, Bytes::from_static(b"argument")).await?;
        times.push(began.elapsed());
    }
    Ok(times)
}

async fn at_a_time(client: &Arc<Client>, callers: usize, each: Duration) -> Outcome<f64> {
    let (mut calling, began) = (JoinSet::new(), Instant::now());
    for _ in 0..callers {
        let client = Arc::clone(client);
        calling.spawn(async move {
            let mut calls = 0u32;
            while began.elapsed() < each {
                echo(&client, Bytes::from_static(b"argument")).await?;
                calls += 1;
            }
            Outcome::Ok(calls)
        });
    }
    let mut calls = 0;
    while let Some(done) = calling.join_next().await {
        calls += done??;
    }
    Ok(f64::from(calls) / began.elapsed().as_secs_f64())
}

async fn round_trip(client: &Client, bytes: usize) -> Outcome<Duration> {
    let payload = Bytes::from(vec![0x5a; bytes]);
    let began = Instant::now();
    let back = echo(client, payload.clone()).await?;
    let took = began.elapsed();
    match back == payload {
        true => Ok(took),
        false => Err("other bytes came back".into()),
    }
}

async fn items(client: &Client) -> Outcome<f64> {
    let began = Instant::now();
    let mut reply = client.call(&CallHead::new("count"), "").await?;
    let mut items = 0u32;
    while reply.item().await?.is_some() {
        items += 1;
    }
    Ok(f64::from(items) / began.elapsed().as_secs_f64())
}

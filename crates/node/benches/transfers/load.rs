//! Sends transactions as fast as a chain takes them, and measures until the last stands in a block.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::http::{Connection, Endpoint, request};

/// Calls in a request: CometBFT's own limit on JSON-RPC batches.
const BATCH: usize = 10;
/// Transactions that wait for a block, from which on no more are sent.
const WINDOW: usize = 5_000;
/// How often it is asked how many wait.
const POLL: Duration = Duration::from_millis(10);
/// Pause of a sender that has to wait.
const PAUSE: Duration = Duration::from_millis(1);
/// How long the blocks are waited for once all is sent.
const PATIENCE: Duration = Duration::from_secs(120);

/// The transactions of one connection, in the order in which they are to be sent.
pub(crate) type Lane = Vec<Vec<u8>>;

/// Sends `lanes`, each over a connection of its own, spread over `endpoints`. Gives the time from the
/// first request until no transaction waits at any of them.
pub(crate) fn send(endpoints: &[Endpoint], lanes: &[Lane]) -> anyhow::Result<Duration> {
    // Everything is written out before the clock starts.
    let requests: Vec<Vec<Batch>> = lanes.iter().map(batches).collect();
    let connections = (0..lanes.len())
        .map(|lane| Connection::open(&endpoints[lane % endpoints.len()]))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let mut watches = endpoints
        .iter()
        .map(Connection::open)
        .collect::<anyhow::Result<Vec<_>>>()?;
    let (waiting, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let begin = Instant::now();
    thread::scope(|scope| {
        let (waiting, failed) = (&waiting, &failed);
        let senders: Vec<_> = connections
            .into_iter()
            .zip(&requests)
            .map(|(connection, batches)| {
                scope.spawn(move || {
                    let sent = send_lane(connection, batches, waiting, failed);
                    failed.fetch_or(sent.is_err(), Ordering::Relaxed);
                    sent
                })
            })
            .collect();
        while !senders.iter().all(thread::ScopedJoinHandle::is_finished) {
            waiting.store(most_waiting(&mut watches)?, Ordering::Relaxed);
            thread::sleep(POLL);
        }
        for sender in senders {
            sender.join().expect("senders do not panic")?;
        }
        let sent = Instant::now();
        while most_waiting(&mut watches)? > 0 {
            anyhow::ensure!(sent.elapsed() < PATIENCE, "transactions wait and wait");
            thread::sleep(POLL);
        }
        Ok(begin.elapsed())
    })
}

/// Some transactions with the request that carries them.
struct Batch {
    request: Vec<u8>,
    txs: Vec<Value>,
}

impl Batch {
    fn new(txs: Vec<Value>) -> Self {
        let calls = txs.iter().enumerate().map(|(id, tx)| {
            json!({"jsonrpc": "2.0", "id": id, "method": "broadcast_tx_sync", "params": {"tx": tx}})
        });
        Self {
            request: request(&Value::Array(calls.collect())),
            txs,
        }
    }
}

fn batches(lane: &Lane) -> Vec<Batch> {
    lane.chunks(BATCH)
        .map(|txs| Batch::new(txs.iter().map(|tx| STANDARD.encode(tx).into()).collect()))
        .collect()
}

fn send_lane(
    mut connection: Connection,
    batches: &[Batch],
    waiting: &AtomicUsize,
    failed: &AtomicBool,
) -> anyhow::Result<()> {
    for batch in batches {
        while waiting.load(Ordering::Relaxed) >= WINDOW && !failed.load(Ordering::Relaxed) {
            thread::sleep(PAUSE);
        }
        let mut refused = without_room(&connection.exchange(&batch.request)?, &batch.txs)?;
        while !refused.is_empty() && !failed.load(Ordering::Relaxed) {
            thread::sleep(PAUSE);
            let again = Batch::new(refused);
            refused = without_room(&connection.exchange(&again.request)?, &again.txs)?;
        }
    }
    Ok(())
}

/// The transactions of a batch for which there was no room.
fn without_room(answers: &Value, txs: &[Value]) -> anyhow::Result<Vec<Value>> {
    let answers = answers.as_array().context("no array of answers")?;
    anyhow::ensure!(answers.len() == txs.len(), "too few answers");
    let mut refused = Vec::new();
    for (answer, tx) in answers.iter().zip(txs) {
        if answer["result"]["code"] == 0 {
            continue;
        }
        let why = answer.to_string();
        anyhow::ensure!(why.contains("mempool is full"), "refused: {why}");
        refused.push(tx.clone());
    }
    Ok(refused)
}

/// How many transactions wait at the endpoint where the most do.
fn most_waiting(watches: &mut [Connection]) -> anyhow::Result<usize> {
    let mut most = 0;
    for watch in watches {
        let answer = watch.call("num_unconfirmed_txs", json!({}))?;
        let waiting = answer["total"].as_str().context("no number of waiting")?;
        most = most.max(waiting.parse()?);
    }
    Ok(most)
}

/// How many transactions of the blocks above `after` succeeded. The ledger's blocks begin with the
/// proposer's own transaction, which does not count.
pub(crate) fn succeeded(endpoint: &Endpoint, after: u64, ledger: bool) -> anyhow::Result<usize> {
    let mut connection = Connection::open(endpoint)?;
    let newest = height(&mut connection)?;
    let mut count = 0;
    for height in after + 1..=newest {
        let results = connection.call("block_results", json!({"height": height.to_string()}))?;
        let results = results["txs_results"].as_array().map(Vec::as_slice);
        let sent = results.unwrap_or_default().iter().skip(usize::from(ledger));
        count += sent.filter(|result| result["code"] == 0).count();
    }
    Ok(count)
}

/// The newest height.
pub(crate) fn height(connection: &mut Connection) -> anyhow::Result<u64> {
    let status = connection.call("status", json!({}))?;
    let height = status["sync_info"]["latest_block_height"].as_str();
    Ok(height.context("no height")?.parse()?)
}

//! Signed transfers per second through engine `local` and through CometBFT with one and four
//! validators, beside CometBFT's own example `kvstore`, all over JSON-RPC from outside.
//!
//! `cargo bench -p r3mes-node --bench transfers [-- --quick]`. It needs the program CometBFT
//! (tools/programs). Every chain is a fresh one of real processes on this machine, and takes its turn in
//! every round; the table has the best turn of each.
//!
//! A transfer is a transaction of its own with a secp256k1 signature, from one of 1,000 accounts to
//! another, signed before the clock starts. `kvstore` takes transactions of the same length, which it
//! neither verifies nor keeps on disk. 100 connections send requests of ten `broadcast_tx_sync` each;
//! the clock stops when no transaction waits any more, and then every result is looked at. The sender
//! shares the processor with the chain; processor time is that of the chain's processes alone, which
//! other work on the machine changes little.

use std::collections::BTreeMap;
use std::thread;

use anyhow::Context;
use r3mes_gateway::rpc::Client;
use r3mes_types::auth::QueryAccount;
use r3mes_types::bank::{Balance, MsgSend};
use r3mes_types::tx::{Fee, Signer, Unsigned};
use r3mes_types::{Amount, SecretKey};

mod chain;
mod cpu;
mod http;
mod load;

use chain::{CHAIN_ID, Chain, Kind};
use http::Connection;
use load::Lane;

/// Accounts that send.
const SENDERS: usize = 1_000;
/// Connections at once.
const LANES: usize = 100;
/// What a transfer may cost.
const GAS: u64 = 60_000;
/// The least gas price of a network that says nothing else, times [`GAS`].
const FEE: Amount = Amount::new(60);

/// How much is measured.
#[derive(Clone, Copy)]
struct Extent {
    rounds: usize,
    /// Transactions through `local`, one validator, four validators.
    txs: [usize; 3],
}

const FULL: Extent = Extent {
    rounds: 3,
    txs: [60_000, 20_000, 10_000],
};
const QUICK: Extent = Extent {
    rounds: 1,
    txs: [20_000, 5_000, 2_000],
};

impl Extent {
    fn txs(&self, kind: Kind) -> usize {
        match kind {
            Kind::Local => self.txs[0],
            Kind::Ledger(1) | Kind::KvStore(1) => self.txs[1],
            Kind::Ledger(_) | Kind::KvStore(_) => self.txs[2],
        }
    }
}

fn main() -> anyhow::Result<()> {
    let extent = match std::env::args().any(|argument| argument == "--quick") {
        true => QUICK,
        false => FULL,
    };
    let mut keys: Vec<SecretKey> = (1..=SENDERS as u64).map(key).collect::<Result<_, _>>()?;
    keys.sort_by_key(SecretKey::address);
    let order = [
        Kind::Local,
        Kind::KvStore(1),
        Kind::Ledger(1),
        Kind::KvStore(4),
        Kind::Ledger(4),
    ];
    let mut best: BTreeMap<Kind, Measured> = BTreeMap::new();
    for round in 1..=extent.rounds {
        for kind in order {
            let measured = measure(kind, extent.txs(kind), &keys)?;
            let Measured { rate, micros } = measured;
            eprintln!(
                "round {round} of {}: {kind:?} {rate:.0}/s, {micros:.0} µs",
                extent.rounds
            );
            let known = best.entry(kind).or_insert(measured);
            known.rate = known.rate.max(rate);
            known.micros = known.micros.min(micros);
        }
    }
    let table = [
        ("engine `local`", Kind::Local, Kind::KvStore(1)),
        ("CometBFT, 1 validator", Kind::Ledger(1), Kind::KvStore(1)),
        ("CometBFT, 4 validators", Kind::Ledger(4), Kind::KvStore(4)),
    ];
    println!(
        "| through | transfers/s | processor time of each, µs | `kvstore`, transactions/s | processor time of each, µs | ratio |"
    );
    println!("|---|---:|---:|---:|---:|---:|");
    for (through, ours, theirs) in table {
        let (ours, theirs) = (best[&ours], best[&theirs]);
        println!(
            "| {through} | {:.0} | {:.0} | {:.0} | {:.0} | {:.2} |",
            ours.rate,
            ours.micros,
            theirs.rate,
            theirs.micros,
            ours.rate / theirs.rate
        );
    }
    Ok(())
}

fn key(number: u64) -> Result<SecretKey, r3mes_types::KeyError> {
    let mut bytes = [1; 32];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    SecretKey::from_bytes(&bytes)
}

/// What a chain did.
#[derive(Clone, Copy)]
struct Measured {
    /// Transactions per second.
    rate: f64,
    /// Microseconds of processor time for each, of all its processes.
    micros: f64,
}

/// What a fresh chain does.
fn measure(kind: Kind, txs: usize, keys: &[SecretKey]) -> anyhow::Result<Measured> {
    let dir = tempfile::tempdir()?;
    let balance = |key: &SecretKey| Balance {
        address: key.address(),
        amount: Amount::remes(1_000),
    };
    let balances: Vec<Balance> = keys.iter().map(balance).collect();
    let chain = Chain::start(kind, dir.path(), &balances)?;
    let lanes = match &chain.ledger {
        Some(url) => transfers(keys, &account_numbers(url, keys)?, txs)?,
        None => pairs(
            txs,
            transfers(keys, &vec![0; keys.len()], SENDERS)?[0][0].len(),
        ),
    };
    let sent: usize = lanes.iter().map(Vec::len).sum();
    let before = load::height(&mut Connection::open(&chain.endpoints[0])?)?;
    let used = cpu::used(&chain.ids())?;
    let took = load::send(&chain.endpoints, &lanes)?;
    let used = cpu::used(&chain.ids())? - used;
    let succeeded = load::succeeded(&chain.endpoints[0], before, chain.ledger.is_some())?;
    anyhow::ensure!(
        succeeded == sent,
        "{kind:?}: {succeeded} of {sent} transactions succeeded"
    );
    Ok(Measured {
        rate: sent as f64 / took.as_secs_f64(),
        micros: used.as_secs_f64() * 1e6 / sent as f64,
    })
}

/// The numbers of the keys' accounts.
fn account_numbers(url: &str, keys: &[SecretKey]) -> anyhow::Result<Vec<u64>> {
    let client = Client::new(url)?;
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let mut numbers = Vec::new();
        for key in keys {
            let address = key.address();
            let account = client.query(&QueryAccount { address }).await?.account;
            numbers.push(account.context("the genesis made no account")?.number);
        }
        Ok(numbers)
    })
}

/// About `count` signed transfers, each account's in order on one lane. Signed by all processors.
fn transfers(keys: &[SecretKey], numbers: &[u64], count: usize) -> anyhow::Result<Vec<Lane>> {
    let each = (count / keys.len()) as u64;
    let of_lane = |lane: usize| -> anyhow::Result<Lane> {
        let mut signed = Lane::new();
        for sequence in 0..each {
            for sender in (lane..keys.len()).step_by(LANES) {
                let to = keys[(sender + 1) % keys.len()].address();
                let send = MsgSend::new(keys[sender].address(), to, Amount::new(1));
                let signer = Signer {
                    chain_id: CHAIN_ID,
                    account_number: numbers[sender],
                    sequence,
                };
                let unsigned = Unsigned::new(vec![send.into()]).with_fee(Fee::of(FEE, GAS));
                signed.push(unsigned.sign(&keys[sender], &signer)?);
            }
        }
        Ok(signed)
    };
    let workers = thread::available_parallelism()?.get();
    thread::scope(|scope| {
        let parts: Vec<_> = (0..workers)
            .map(|worker| {
                let lanes = (0..LANES).filter(move |lane| lane % workers == worker);
                scope.spawn(move || {
                    let signed = lanes.map(|lane| Ok((lane, of_lane(lane)?)));
                    signed.collect::<anyhow::Result<Vec<_>>>()
                })
            })
            .collect();
        let mut lanes = BTreeMap::new();
        for part in parts {
            lanes.extend(part.join().expect("signing does not panic")?);
        }
        Ok(lanes.into_values().collect())
    })
}

/// `count` transactions of `kvstore`, each `length` bytes: a key of its own and a value.
fn pairs(count: usize, length: usize) -> Vec<Lane> {
    let pair = |number: usize| format!("{:v<length$}", format!("k{number}=")).into_bytes();
    (0..LANES)
        .map(|lane| (lane..count).step_by(LANES).map(pair).collect())
        .collect()
}

//! Signed transfers per second through engine `local`, with files on disk.
//!
//! ```text
//! cargo run --release -p r3mes-consensus --example transfers -- 20000 200
//! ```
//!
//! The arguments are the number of transfers and of senders. Every transfer is a transaction of its
//! own with its own secp256k1 signature, checked on its way into the mempool and executed in a block;
//! blocks are written through to disk. Signing happens before the clock starts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use r3mes_consensus::app::{LedgerApp, storage_options};
use r3mes_consensus::application::Query;
use r3mes_consensus::genesis::Genesis;
use r3mes_consensus::key::ValidatorKey;
use r3mes_consensus::local::{Config, ConsensusHandle, Parts, TxState, open};
use r3mes_consensus::store::BlockStore;
use r3mes_ledger::genesis::{DEVELOPMENT_CHAIN, DEVELOPMENT_SECRET, development};
use r3mes_state::Storage;
use r3mes_types::auth::{AccountAnswer, QueryAccount};
use r3mes_types::bank::{Balance, MsgSend};
use r3mes_types::beacon::HashChains;
use r3mes_types::query::Query as _;
use r3mes_types::tx::{Fee, Signer, Unsigned};
use r3mes_types::wire::{List, Wire};
use r3mes_types::{Amount, Coin, SecretKey};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

type Error = Box<dyn std::error::Error + Send + Sync>;

const CHAIN: &str = "bench-1";
const PATIENCE: Duration = Duration::from_secs(120);

fn key(number: u64) -> Result<SecretKey, Error> {
    let mut bytes = [1; 32];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    Ok(SecretKey::from_bytes(&bytes)?)
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let transfers: u64 = arguments.next().map_or(Ok(20_000), |n| n.parse())?;
    let senders: u64 = arguments.next().map_or(Ok(200), |n| n.parse())?;
    let per_sender = transfers / senders;

    let mut keys = (0..senders).map(key).collect::<Result<Vec<_>, _>>()?;
    keys.sort_by_key(SecretKey::address);
    let validator = ValidatorKey::from_seed(&[5; 32]);
    let balances: Vec<Balance> = keys
        .iter()
        .map(|key| Balance {
            address: key.address(),
            amount: Amount::remes(1_000_000),
        })
        .collect();
    let mut genesis = development(CHAIN, keys[0].address(), &balances);
    let mut validators = genesis.validators.to_vec();
    validators[0].key = validator.public_key();
    genesis.validators = List::new(validators)?;

    let directory = tempfile::tempdir()?;
    let storage = Storage::open(directory.path().join("state"), storage_options())?;
    let beacon = HashChains::new(DEVELOPMENT_SECRET, DEVELOPMENT_CHAIN);
    let chain = Genesis::of_ledger(&genesis, &validator)?;
    let app = Arc::new(LedgerApp::new(genesis, storage, Some(beacon)));
    let store = BlockStore::open(directory.path().join("blocks"))?;
    let parts = Parts::new(chain, validator, app, store);
    let (engine, handle) = open(parts, Config::default())?;
    let shutdown = CancellationToken::new();
    let engine = tokio::spawn(engine.run(shutdown.clone()));

    println!(
        "signing {} transfers of {senders} senders",
        per_sender * senders
    );
    let mut signed = Vec::new();
    for (i, key) in keys.iter().enumerate() {
        let to = keys[(i + 1) % keys.len()].address();
        let number = account_number(&handle, key).await?;
        signed.push(sign(key, to, number, per_sender)?);
    }

    let started = Instant::now();
    let mut sending = JoinSet::new();
    for txs in signed {
        sending.spawn(send_all(handle.clone(), txs));
    }
    while let Some(sent) = sending.join_next().await {
        sent??;
    }
    let seconds = started.elapsed().as_secs_f64();
    let latest = handle.latest();
    let mut executed = 0;
    for height in 1..=latest.height {
        let results = handle.block_results(height).await?;
        let results = results.map(|output| output.tx_results).unwrap_or_default();
        executed += results
            .iter()
            .filter(|result| result.code == 0 && result.gas_used > 0)
            .count();
    }
    shutdown.cancel();
    engine.await??;
    println!(
        "{executed} transfers executed in {} blocks, {seconds:.2} s: {:.0} per second",
        latest.height,
        executed as f64 / seconds
    );
    if executed as u64 != per_sender * senders {
        return Err("not every transfer was executed".into());
    }
    Ok(())
}

async fn account_number(handle: &ConsensusHandle, key: &SecretKey) -> Result<u64, Error> {
    let question = QueryAccount {
        address: key.address(),
    };
    let query = Query {
        path: QueryAccount::PATH.into(),
        data: question.encode(),
        ..Query::default()
    };
    let answer = handle.query(query).await?;
    let account = AccountAnswer::decode(&answer.value)?.account;
    Ok(account.ok_or("the genesis made no account")?.number)
}

fn sign(
    key: &SecretKey,
    to: r3mes_types::Address,
    account_number: u64,
    count: u64,
) -> Result<Vec<Vec<u8>>, Error> {
    let message = MsgSend {
        from_address: key.address(),
        to_address: to,
        amount: List::new(vec![Coin(Amount::new(1))])?,
    };
    let unsigned =
        Unsigned::new(vec![message.into()]).with_fee(Fee::of(Amount::new(1_000), 100_000));
    (0..count)
        .map(|sequence| {
            let signer = Signer {
                chain_id: CHAIN,
                account_number,
                sequence,
            };
            Ok(unsigned.sign(key, &signer)?)
        })
        .collect()
}

/// Sends one sender's transactions in order, and waits for the last.
async fn send_all(handle: ConsensusHandle, txs: Vec<Vec<u8>>) -> Result<(), Error> {
    let mut last = None;
    for tx in txs {
        let added = handle.broadcast(tx).await?;
        if added.check.code != 0 {
            return Err(added.check.log.into());
        }
        last = Some(added.hash);
    }
    match last {
        Some(hash) => match handle.wait_for_tx(hash, PATIENCE).await? {
            TxState::Included(_) => Ok(()),
            other => Err(format!("the last transfer is {other:?}").into()),
        },
        None => Ok(()),
    }
}

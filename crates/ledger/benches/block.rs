//! How long the ledger takes for a block of transfers, without disk: `cargo bench -p r3mes-ledger`.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use r3mes_ledger::block::BlockInput;
use r3mes_ledger::genesis::{self, DEVELOPMENT_CHAIN, DEVELOPMENT_SECRET};
use r3mes_ledger::store::{Block, Committed};
use r3mes_ledger::{Known, Ledger, Waiting, auth, beacon};
use r3mes_types::bank::{Balance, MsgSend};
use r3mes_types::beacon::HashChain;
use r3mes_types::tx::{Fee, Signer, Tx, Unsigned, reveal_tx};
use r3mes_types::{Amount, Millis, SecretKey};

const CHAIN_ID: &str = "r3mes-bench";
const TRANSFERS: u64 = 200;
const ACCOUNTS: u8 = 100;

fn key(index: u8) -> SecretKey {
    SecretKey::from_bytes(&[index + 1; 32]).expect("small numbers are keys")
}

/// The state after genesis, and its first block: transfers of many accounts.
fn block() -> (BTreeMap<Vec<u8>, Vec<u8>>, BlockInput) {
    let balances: Vec<Balance> = (0..ACCOUNTS)
        .map(|index| Balance {
            address: key(index).address(),
            amount: Amount::remes(1_000),
        })
        .collect();
    let genesis = genesis::development(CHAIN_ID, key(0).address(), &balances);
    let (changes, _) = Ledger::init_chain(&genesis).expect("the development genesis is valid");
    let state: BTreeMap<_, _> = changes
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
        .collect();
    let proposer = genesis.validators[0].key.address();
    let chain = HashChain::new(&DEVELOPMENT_SECRET, DEVELOPMENT_CHAIN);
    let reveal = beacon::preimage(&Committed(&state), &proposer, &[chain], 1);
    let mut txs = vec![reveal_tx(&reveal.expect("the chain is registered"))];
    txs.extend((0..TRANSFERS).map(|number| transfer(&state, number)));
    let input = BlockInput {
        height: 1,
        time: genesis.time.after(Millis::new(1)),
        proposer,
        last_commit: Vec::new(),
        misbehaviour: Vec::new(),
        txs,
    };
    (state, input)
}

fn transfer(state: &BTreeMap<Vec<u8>, Vec<u8>>, number: u64) -> Vec<u8> {
    let from = key((number % u64::from(ACCOUNTS)) as u8);
    let to = key(((number + 1) % u64::from(ACCOUNTS)) as u8).address();
    let account = auth::ACCOUNTS.get(&Committed(state), &from.address());
    let account = account.ok().flatten().expect("genesis made the account");
    let signer = Signer {
        chain_id: CHAIN_ID,
        account_number: account.number,
        sequence: number / u64::from(ACCOUNTS),
    };
    let send = MsgSend::new(from.address(), to, Amount::new(1));
    Unsigned::new(vec![send.into()])
        .with_fee(Fee::of(Amount::new(1_000), 1_000_000))
        .sign(&from, &signer)
        .expect("one short message fits")
}

fn finalize(criterion: &mut Criterion) {
    let (state, input) = block();
    let mut group = criterion.benchmark_group("ledger");
    group
        .throughput(Throughput::Elements(TRANSFERS))
        .sample_size(20);
    let verified: BTreeMap<&[u8], Arc<Tx>> = input.txs[1..]
        .iter()
        .map(|tx| (tx.as_slice(), Tx::parse(tx).expect("it was made above")))
        .map(|(bytes, tx)| (bytes, Arc::new(tx)))
        .collect();
    let unknown: Known<'_> = &|_| None;
    for (name, known) in [
        ("verifying signatures", unknown),
        ("signatures verified", &|tx| verified.get(tx).cloned()),
    ] {
        group.bench_function(format!("finalize, {name}"), |bencher| {
            bencher.iter(|| {
                let output = Ledger::finalize_block(&state, black_box(&input), known);
                let results = output.expect("the block is valid").tx_results;
                assert!(results.iter().all(|result| result.code == 0));
            });
        });
    }
    let next = Block {
        height: input.height,
        time: input.time,
    };
    group.throughput(Throughput::Elements(1));
    group.bench_function("check a transfer", |bencher| {
        bencher.iter(|| {
            let tx = black_box(&input.txs[1]);
            Ledger::check_tx(&state, next, &Waiting::default(), tx, &|_| None)
        });
    });
    group.finish();
}

criterion_group!(benches, finalize);
criterion_main!(benches);

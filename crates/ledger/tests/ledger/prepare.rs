use r3mes_ledger::{Ledger, Proposal};
use r3mes_types::Amount;
use r3mes_types::bank::MsgSend;
use r3mes_types::tx::{Fee, Signer, Tx, Unsigned};

use crate::chain::{CHAIN_ID, Chain, GAS, address, key};

fn tx(chain: &Chain, from: u8, sequence: u64, fee: u64) -> Vec<u8> {
    let account = r3mes_ledger::auth::ACCOUNTS
        .get(&chain.view(), &address(from))
        .unwrap()
        .unwrap();
    let signer = Signer {
        chain_id: CHAIN_ID,
        account_number: account.number,
        sequence,
    };
    let send = MsgSend::new(address(from), address(0), Amount::new(1));
    let fee = Fee::of(Amount::new(fee), GAS);
    Unsigned::new(vec![send.into()])
        .with_fee(fee)
        .sign(&key(from), &signer)
        .unwrap()
}

fn prepare(chain: &Chain, max_bytes: u64, candidates: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let proposal = Proposal {
        block: chain.next_block(),
        proposer: Chain::proposer(),
        chains: std::slice::from_ref(&chain.beacon),
        max_bytes,
    };
    Ledger::prepare(&chain.state, &proposal, candidates, &|_| None).unwrap()
}

#[test]
fn a_prepared_block_is_accepted_and_orders_by_fee_within_sequences() {
    let mut chain = Chain::new();
    let candidates = [
        tx(&chain, 1, 1, 90_000),
        tx(&chain, 1, 0, 3_000),
        tx(&chain, 2, 0, 5_000),
        tx(&chain, 3, 0, 4_000),
        tx(&chain, 4, 7, 80_000),
        tx(&chain, 5, 0, 10),
        b"not a transaction".to_vec(),
    ];
    let txs = prepare(&chain, 1 << 20, &candidates);
    let order: Vec<(u8, u64)> = txs[1..]
        .iter()
        .map(|bytes| {
            let tx = Tx::parse(bytes).unwrap();
            let from = (0..6).find(|index| address(*index) == tx.signer()).unwrap();
            (from, tx.sequence)
        })
        .collect();
    assert_eq!(order, [(2, 0), (3, 0), (1, 0), (1, 1)]);
    let input = chain.input_with(txs);
    let results = chain.run(&input);
    assert!(results.iter().all(|result| result.code == 0));
}

#[test]
fn a_prepared_block_keeps_to_its_limit_of_bytes() {
    let chain = Chain::new();
    let candidates: Vec<_> = (0..20)
        .map(|sequence| tx(&chain, 1, sequence, 2_000))
        .collect();
    let max_bytes = 2_000;
    let txs = prepare(&chain, max_bytes, &candidates);
    let bytes: usize = txs.iter().map(Vec::len).sum();
    assert!(bytes as u64 <= max_bytes);
    assert!(
        bytes as u64 + candidates[0].len() as u64 > max_bytes,
        "and uses it"
    );
}

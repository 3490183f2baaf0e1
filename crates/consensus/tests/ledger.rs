//! The ledger under engine `local`: signed transfers, the beacon, proofs, restarts.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ics23::HostFunctionsManager;
use r3mes_consensus::app::{LedgerApp, storage_options};
use r3mes_consensus::application::{Application, Query};
use r3mes_consensus::genesis::{Genesis, GenesisError};
use r3mes_consensus::key::ValidatorKey;
use r3mes_consensus::local::{Config, ConsensusHandle, EngineError, Inclusion, Parts, open};
use r3mes_consensus::store::BlockStore;
use r3mes_ledger::genesis::{DEVELOPMENT_CHAIN, DEVELOPMENT_SECRET};
use r3mes_state::{Storage, proof_spec};
use r3mes_types::SecretKey;
use r3mes_types::auth::QueryAccount;
use r3mes_types::beacon::{HashChain, HashChains, QueryChain};
use r3mes_types::query::Query as Question;
use r3mes_types::tx::Signer;
use r3mes_types::wire::{List, Wire};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

#[path = "support/bank.rs"]
mod bank;

use bank::{CHAIN, key, ledger_genesis, send, validator};

const PATIENCE: Duration = Duration::from_secs(20);

struct Running {
    handle: ConsensusHandle,
    shutdown: CancellationToken,
    engine: JoinHandle<Result<(), EngineError>>,
}

fn start(directory: &Path) -> Running {
    start_with(directory, DEVELOPMENT_CHAIN)
}

/// Starts with beacon chains of `length` elements.
fn start_with(directory: &Path, length: u64) -> Running {
    let mut genesis = ledger_genesis();
    let mut validators = genesis.validators.to_vec();
    validators[0].chain_end = HashChain::new(&DEVELOPMENT_SECRET, length).end();
    validators[0].chain_length = length;
    genesis.validators = List::new(validators).unwrap();
    let chain = Genesis::of_ledger(&genesis, &validator()).unwrap();
    let storage = Storage::open(directory.join("state"), storage_options()).unwrap();
    let chains = HashChains::new(DEVELOPMENT_SECRET, length);
    let app = Arc::new(LedgerApp::new(genesis, storage, Some(chains)));
    let store = BlockStore::open(directory.join("blocks")).unwrap();
    let config = Config {
        interval: Duration::ZERO,
        proof_block_after: None,
        ..Config::default()
    };
    let (engine, handle) = open(Parts::new(chain, validator(), app, store), config).unwrap();
    let shutdown = CancellationToken::new();
    Running {
        engine: tokio::spawn(engine.run(shutdown.clone())),
        handle,
        shutdown,
    }
}

impl Running {
    async fn ask<Q: Question>(&self, question: &Q) -> Q::Answer {
        let query = Query {
            path: Q::PATH.into(),
            data: question.encode(),
            ..Query::default()
        };
        let answer = self.handle.query(query).await.unwrap();
        assert_eq!(answer.code, 0, "{}", answer.log);
        Q::Answer::decode(&answer.value).unwrap()
    }

    async fn transfer(&self, from: &SecretKey, to: &SecretKey) -> Vec<u8> {
        let question = QueryAccount {
            address: from.address(),
        };
        let account = self.ask(&question).await.account.unwrap();
        let signer = Signer {
            chain_id: CHAIN,
            account_number: account.number,
            sequence: account.sequence,
        };
        send(from, to, &signer)
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.engine.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn signed_transfers_are_executed_proved_and_kept_over_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path());
    for _ in 0..3 {
        let tx = running.transfer(&key(1), &key(2)).await;
        let outcome = running
            .handle
            .broadcast_and_wait(tx, PATIENCE)
            .await
            .unwrap();
        let Inclusion::Included(info) = outcome else {
            panic!("not included: {outcome:?}")
        };
        assert_eq!(info.result.code, 0, "{}", info.result.log);
        assert!(info.result.gas_used > 0);
    }
    let tx = running.transfer(&key(1), &key(2)).await;
    let mut forged = tx.clone();
    *forged.last_mut().unwrap() ^= 1;
    let refused = running.handle.broadcast(forged).await.unwrap();
    assert_ne!(refused.check.code, 0);

    let proved = running.handle.latest().height;
    running.handle.make_block().await.unwrap();
    let query = Query {
        path: QueryAccount::PATH.into(),
        data: QueryAccount {
            address: key(1).address(),
        }
        .encode(),
        height: Some(proved),
        prove: true,
    };
    let answer = running.handle.query(query).await.unwrap();
    let next = running.handle.block(proved + 1).await.unwrap().unwrap();
    let (_, proof) = &answer.proofs[0];
    let Some(ics23::commitment_proof::Proof::Exist(exist)) = &proof.proof else {
        panic!("the account exists")
    };
    assert!(ics23::verify_membership::<HostFunctionsManager>(
        proof,
        &proof_spec(),
        &next.block.header.app_hash.as_bytes().to_vec(),
        &answer.key,
        &exist.value,
    ));

    let before = running.handle.latest();
    running.stop().await;
    let running = start(directory.path());
    assert_eq!(running.handle.latest(), before);
    let tx = running.transfer(&key(2), &key(3)).await;
    let outcome = running
        .handle
        .broadcast_and_wait(tx, PATIENCE)
        .await
        .unwrap();
    assert!(matches!(outcome, Inclusion::Included(info) if info.result.code == 0));
    running.stop().await;
}

#[tokio::test]
async fn many_transfers_of_one_sender_share_a_block() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path());
    let question = QueryAccount {
        address: key(1).address(),
    };
    let account = running.ask(&question).await.account.unwrap();
    let mut hashes = Vec::new();
    for sequence in 0..20 {
        let signer = Signer {
            chain_id: CHAIN,
            account_number: account.number,
            sequence,
        };
        let added = running
            .handle
            .broadcast(send(&key(1), &key(2), &signer))
            .await
            .unwrap();
        assert_eq!(added.check.code, 0, "{}", added.check.log);
        hashes.push(added.hash);
    }
    for hash in hashes {
        let state = running.handle.wait_for_tx(hash, PATIENCE).await.unwrap();
        let included = matches!(&state, r3mes_consensus::local::TxState::Included(info) if info.result.code == 0);
        assert!(included, "{state:?}");
    }
    assert!(running.handle.latest().height < 20);
    running.stop().await;
}

#[tokio::test]
async fn recorded_inputs_give_another_ledger_the_same_hashes() {
    let directory = tempfile::tempdir().unwrap();
    let running = start(directory.path());
    for _ in 0..5 {
        let tx = running.transfer(&key(1), &key(2)).await;
        running
            .handle
            .broadcast_and_wait(tx, PATIENCE)
            .await
            .unwrap();
    }
    let newest = running.handle.latest();
    let chain = running.handle.genesis().clone();
    running.stop().await;
    let store = BlockStore::open(directory.path().join("blocks")).unwrap();
    let storage = Storage::memory(storage_options()).unwrap();
    let replayed = LedgerApp::new(ledger_genesis(), storage, None);
    replayed.init_chain().unwrap();
    for height in 1..=newest.height {
        let input = store.input(&chain, height).unwrap().unwrap();
        let output = replayed.finalize(&input).unwrap();
        replayed.commit().unwrap();
        assert_eq!(store.results(height).unwrap(), Some(output));
    }
    assert_eq!(
        replayed.committed().unwrap().unwrap().app_hash,
        newest.app_hash
    );
}

#[tokio::test]
async fn blocks_go_on_when_beacon_chains_are_used_up_and_over_restarts() {
    const LENGTH: u64 = 3;
    let directory = tempfile::tempdir().unwrap();
    let validator = validator().public_key().address();
    let mut ends = BTreeSet::new();
    // With three elements each, every third block changes the chain.
    for _ in 0..2 {
        let running = start_with(directory.path(), LENGTH);
        for _ in 0..4 * LENGTH {
            let tx = running.transfer(&key(1), &key(2)).await;
            let outcome = running.handle.broadcast_and_wait(tx, PATIENCE).await;
            assert!(matches!(outcome.unwrap(), Inclusion::Included(_)));
            let chain = running.ask(&QueryChain { validator }).await.chain.unwrap();
            ends.extend(chain.next_end);
        }
        running.stop().await;
    }
    // A new successor was registered for every chain that began.
    assert!(ends.len() as u64 >= 2 * 4 - 1, "{ends:?}");
}

#[test]
fn a_genesis_of_several_validators_is_refused() {
    let mut genesis = ledger_genesis();
    let other = ValidatorKey::from_seed(&[6; 32]);
    let error = Genesis::of_ledger(&genesis, &other).unwrap_err();
    assert!(matches!(error, GenesisError::Validators { .. }), "{error}");
    let mut validators = genesis.validators.to_vec();
    validators.push(validators[0]);
    genesis.validators = List::new(validators).unwrap();
    assert!(Genesis::of_ledger(&genesis, &validator()).is_err());
}

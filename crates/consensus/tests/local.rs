//! Engine `local` as its users see it: a light client that is not ours, senders, a clock, a kill.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use r3mes_consensus::application::{Application, Query};
use r3mes_consensus::block::{SignedBlock, tx_hash};
use r3mes_consensus::clock::ManualClock;
use r3mes_consensus::genesis::Genesis;
use r3mes_consensus::key::ValidatorKey;
use r3mes_consensus::local::{
    BroadcastError, Config, ConsensusHandle, EngineError, Inclusion, Parts, WaitError, open,
};
use r3mes_consensus::mempool::{AddError, Limits};
use r3mes_consensus::store::BlockStore;
use r3mes_state::{Storage, proof_spec};
use r3mes_types::{Millis, Time};
use tendermint::block::signed_header::SignedHeader;
use tendermint::{AppHash, Hash};
use tendermint_light_client_verifier::options::Options;
use tendermint_light_client_verifier::types::{TrustedBlockState, UntrustedBlockState};
use tendermint_light_client_verifier::{ProdVerifier, Verdict, Verifier};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

#[path = "support/kv.rs"]
mod kv;

use kv::{Kv, tx};

const GENESIS_TIME: Time = Time::from_nanos(1_700_000_000_000_000_000);
/// Long enough for anything that should happen; only failures wait so long.
const PATIENCE: Duration = Duration::from_secs(20);

struct Running {
    handle: ConsensusHandle,
    clock: ManualClock,
    shutdown: CancellationToken,
    engine: JoinHandle<Result<(), EngineError>>,
}

fn quick() -> Config {
    Config {
        interval: Duration::ZERO,
        proof_block_after: None,
        ..Config::default()
    }
}

fn parts(app: Arc<dyn Application>, store: BlockStore, clock: &ManualClock) -> Parts {
    Parts {
        genesis: Genesis::new("local-1", GENESIS_TIME).unwrap(),
        key: ValidatorKey::from_seed(&[9; 32]),
        app,
        store,
        clock: Arc::new(clock.clone()),
    }
}

fn start(config: Config) -> Running {
    let app = Kv::new(Storage::memory(kv::options()).unwrap());
    start_with(Arc::new(app), BlockStore::memory().unwrap(), config)
}

fn start_with(app: Arc<dyn Application>, store: BlockStore, config: Config) -> Running {
    let clock = ManualClock::new(GENESIS_TIME);
    let (engine, handle) = open(parts(app, store, &clock), config).unwrap();
    let shutdown = CancellationToken::new();
    Running {
        engine: tokio::spawn(engine.run(shutdown.clone())),
        handle,
        clock,
        shutdown,
    }
}

impl Running {
    async fn commit(&self, tx: Vec<u8>) -> r3mes_consensus::local::TxInfo {
        self.clock.advance(Duration::from_secs(1));
        match self.handle.broadcast_and_wait(tx, PATIENCE).await.unwrap() {
            Inclusion::Included(info) => info,
            other => panic!("not included: {other:?}"),
        }
    }

    async fn value(&self, key: &str) -> Option<String> {
        let query = Query {
            data: key.into(),
            ..Query::default()
        };
        let value = self.handle.query(query).await.unwrap().value;
        (!value.is_empty()).then(|| String::from_utf8(value).unwrap())
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.engine.await.unwrap().unwrap();
    }
}

fn signed_header(signed: &SignedBlock) -> SignedHeader {
    SignedHeader::new(signed.block.header.clone(), signed.commit.clone()).unwrap()
}

/// What a light client that trusts `trusted` says about `untrusted`.
fn verify(running: &Running, trusted: &SignedBlock, untrusted: &SignedHeader) -> Verdict {
    let validators = running.handle.validators(1).unwrap();
    let trusted = &trusted.block.header;
    let options = Options {
        trust_threshold: Default::default(),
        trusting_period: Duration::from_secs(1_000_000),
        clock_drift: Duration::from_secs(1),
    };
    ProdVerifier::default().verify_update_header(
        UntrustedBlockState {
            signed_header: untrusted,
            validators,
            next_validators: Some(validators),
        },
        TrustedBlockState {
            chain_id: &trusted.chain_id,
            header_time: trusted.time,
            height: trusted.height,
            next_validators: validators,
            next_validators_hash: trusted.next_validators_hash,
        },
        &options,
        (trusted.time + Duration::from_secs(100_000)).unwrap(),
    )
}

#[tokio::test]
async fn a_light_client_accepts_every_header_and_no_tampered_one() {
    const BLOCKS: u64 = 60;
    let running = start(quick());
    for i in 0..BLOCKS {
        running
            .commit(tx("a", i, &format!("k{}", i % 7), &i.to_string()))
            .await;
    }
    let mut chain = Vec::new();
    for height in 1..=BLOCKS {
        chain.push(running.handle.block(height).await.unwrap().unwrap());
    }
    for (i, block) in chain.iter().enumerate().skip(1) {
        for trusted in [&chain[0], &chain[i - 1]] {
            assert_eq!(
                verify(&running, trusted, &signed_header(block)),
                Verdict::Success
            );
        }
        assert_eq!(block.block.header.last_block_id, Some(chain[i - 1].id));
        assert_eq!(block.block.last_commit.as_ref(), Some(&chain[i - 1].commit));
        assert!(block.block.header.time > chain[i - 1].block.header.time);
        // Everything that a block says about the one before is what that one did.
        let results = running
            .handle
            .block_results(i as u64)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(block.block.header.app_hash.as_bytes(), results.app_hash);
        let results_hash = r3mes_consensus::block::results_hash(&results.tx_results);
        assert_eq!(
            block.block.header.last_results_hash,
            Some(Hash::Sha256(results_hash))
        );
    }

    let honest = signed_header(&chain[30]);
    let tampered: [fn(&mut SignedHeader); 5] = [
        |signed| signed.header.app_hash = AppHash::try_from(vec![1; 32]).unwrap(),
        |signed| signed.header.data_hash = Some(Hash::Sha256([2; 32])),
        |signed| signed.header.time = (signed.header.time + Duration::from_nanos(1)).unwrap(),
        |signed| signed.commit.block_id.part_set_header.total += 1,
        |signed| {
            if let tendermint::block::CommitSig::BlockIdFlagCommit { timestamp, .. } =
                &mut signed.commit.signatures[0]
            {
                *timestamp = (*timestamp + Duration::from_nanos(1)).unwrap();
            }
        },
    ];
    for (i, tamper) in tampered.into_iter().enumerate() {
        let mut signed = honest.clone();
        tamper(&mut signed);
        let verdict = verify(&running, &chain[0], &signed);
        assert!(matches!(verdict, Verdict::Invalid(_)), "{i}: {verdict:?}");
    }
    running.stop().await;
}

#[tokio::test]
async fn the_hashes_of_a_known_chain_are_pinned() {
    let running = start(quick());
    for i in 0..3 {
        running.commit(tx("a", i, "key", &i.to_string())).await;
    }
    let third = running.handle.block(3).await.unwrap().unwrap();
    assert_eq!(
        third.id.hash.to_string(),
        "FA574EAD0F5F7DD48E8DB9A9D83D40A1CA2B0D5823161267FF443EA732D8FED0"
    );
    running.stop().await;
}

#[tokio::test]
async fn a_value_is_proved_against_the_next_header() {
    let running = start(quick());
    running.commit(tx("a", 0, "key", "value")).await;
    running.commit(tx("a", 1, "other", "x")).await;
    let query = Query {
        data: b"kv/key".to_vec(),
        height: Some(1),
        prove: true,
        ..Query::default()
    };
    let answer = running.handle.query(query).await.unwrap();
    let header = running.handle.block(2).await.unwrap().unwrap().block.header;
    assert!(ics23::verify_membership::<ics23::HostFunctionsManager>(
        &answer.proofs[0].1,
        &proof_spec(),
        &header.app_hash.as_bytes().to_vec(),
        b"kv/key",
        b"value",
    ));
    running.stop().await;
}

#[tokio::test]
async fn a_sender_s_waiting_transactions_count_and_what_no_longer_fits_is_dropped() {
    let slow = Config {
        interval: Duration::from_secs(3_600),
        ..quick()
    };
    let running = start(slow);
    // The first block has passed, so that the next one is an hour away.
    running.handle.make_block().await.unwrap();
    let hashes = [
        tx("a", 0, "x", "1"),
        tx("a", 1, "y", "2"),
        tx("a", 2, "z", "unfit"),
    ];
    for (i, tx) in hashes.iter().enumerate() {
        let added = running.handle.broadcast(tx.clone()).await.unwrap();
        assert_eq!(added.check.code, 0, "{i}");
    }
    let late = running
        .handle
        .broadcast(tx("a", 2, "z", "4"))
        .await
        .unwrap();
    assert_eq!(late.check.log, "expected sequence 3, got 2");
    let again = running.handle.broadcast(hashes[0].clone()).await;
    assert!(matches!(
        again,
        Err(BroadcastError::Mempool(AddError::Duplicate))
    ));

    running.handle.make_block().await.unwrap();
    assert_eq!(running.value("kv/y").await.as_deref(), Some("2"));
    assert!(running.handle.is_waiting(&tx_hash(&hashes[2])));
    let waiting = running.handle.clone();
    let waits = tokio::spawn(async move {
        let next = tx("a", 3, "w", "5");
        waiting.broadcast_and_wait(next, PATIENCE).await.unwrap()
    });
    while running.handle.status().await.unwrap().waiting.0 < 2 {
        tokio::task::yield_now().await;
    }
    // The unfit one keeps its place until a block has nothing else; then both go: the second was
    // built on it.
    running.handle.make_block().await.unwrap();
    running.handle.make_block().await.unwrap();
    assert!(!running.handle.is_waiting(&tx_hash(&hashes[2])));
    let outcome = waits.await.unwrap();
    assert!(
        matches!(outcome, Inclusion::Included(_) | Inclusion::Dropped(_)),
        "{outcome:?}"
    );
    running.stop().await;
}

#[tokio::test]
async fn obligations_go_first_and_nobody_fills_the_mempool_alone() {
    let config = Config {
        interval: Duration::from_secs(3_600),
        mempool: Limits {
            txs: 12,
            txs_per_sender: 8,
            tx_bytes: 100,
            ..Limits::default()
        },
        ..quick()
    };
    let running = start(config);
    running.handle.make_block().await.unwrap();
    for i in 0..8 {
        running
            .handle
            .broadcast(tx("spam", i, "k", "1"))
            .await
            .unwrap();
    }
    let ninth = running.handle.broadcast(tx("spam", 8, "k", "1")).await;
    assert!(matches!(
        ninth,
        Err(BroadcastError::Mempool(AddError::SenderFull { limit: 8 }))
    ));
    let long = running.handle.broadcast(vec![b'x'; 101]).await;
    assert!(matches!(
        long,
        Err(BroadcastError::Mempool(AddError::TooLarge {
            bytes: 101,
            limit: 100
        }))
    ));
    for i in 0..4 {
        running
            .handle
            .broadcast(tx("node", i, "owed", &i.to_string()))
            .await
            .unwrap();
    }
    let full = running.handle.broadcast(tx("late", 0, "k", "1")).await;
    assert!(matches!(
        full,
        Err(BroadcastError::Mempool(AddError::Full { txs: 12, .. }))
    ));

    let height = running.handle.make_block().await.unwrap().height;
    let data = running
        .handle
        .block(height)
        .await
        .unwrap()
        .unwrap()
        .block
        .data;
    let senders: Vec<&[u8]> = data
        .iter()
        .map(|tx| tx.split(|byte| *byte == b'/').next().unwrap())
        .collect();
    assert_eq!(senders[0], b"proposer");
    assert!(senders[1..5].iter().all(|sender| *sender == b"node"));
    assert!(senders[5..].iter().all(|sender| *sender == b"spam"));
    assert_eq!(senders.len(), 13);
    running.stop().await;
}

#[tokio::test]
async fn a_block_is_made_at_the_next_deadline_and_none_without_a_reason() {
    let running = start(quick());
    let millis = GENESIS_TIME.nanos() / 1_000_000 + 60_000;
    let set = running
        .commit(tx("a", 0, "deadline", &millis.to_string()))
        .await;
    let early = running
        .handle
        .wait_for_height(set.height, Duration::from_millis(100))
        .await;
    assert!(
        matches!(early, Err(WaitError::TimedOut { .. })),
        "{early:?}"
    );

    let deadline = Time::from_nanos(0).after(Millis::new(millis));
    running.clock.set(deadline);
    let latest = running
        .handle
        .wait_for_height(set.height, PATIENCE)
        .await
        .unwrap();
    assert_eq!(latest.time, deadline);
    let met = running.value("kv/deadline-met").await;
    assert_eq!(met, Some(deadline.nanos().to_string()));
    let idle = running
        .handle
        .wait_for_height(latest.height, Duration::from_millis(100))
        .await;
    assert!(idle.is_err(), "{idle:?}");
    running.stop().await;
}

#[tokio::test]
async fn time_increases_although_the_clock_stands_still() {
    let running = start(quick());
    let mut last = GENESIS_TIME;
    for _ in 0..5 {
        let latest = running.handle.make_block().await.unwrap();
        assert!(latest.time > last);
        last = latest.time;
    }
    running.stop().await;
}

#[tokio::test]
async fn a_proof_block_follows_the_last_transaction_once() {
    let running = start(Config {
        proof_block_after: Some(Duration::from_millis(1)),
        ..quick()
    });
    let info = running.commit(tx("a", 0, "k", "v")).await;
    let proof = running
        .handle
        .wait_for_height(info.height, PATIENCE)
        .await
        .unwrap();
    assert_eq!(proof.height, info.height + 1);
    let further = running
        .handle
        .wait_for_height(proof.height, Duration::from_millis(200))
        .await;
    assert!(further.is_err(), "{further:?}");
    running.stop().await;
}

#[tokio::test]
async fn transactions_are_found_by_hash_with_their_results() {
    let running = start(quick());
    let sent = tx("a", 0, "key", "value");
    let refused = tx("a", 1, "refuse", "x");
    let included = running.commit(sent.clone()).await;
    assert_eq!(included.result.data, b"value");
    let failed = running.commit(refused).await;
    assert_eq!((failed.result.code, failed.index), (1, 1));
    let found = running.handle.tx(tx_hash(&sent)).await.unwrap();
    assert_eq!(found, Some(included.clone()));
    let block = running
        .handle
        .block(included.height)
        .await
        .unwrap()
        .unwrap();
    let Hash::Sha256(hash) = block.id.hash else {
        panic!("a block has a hash")
    };
    assert_eq!(
        running.handle.block_by_hash(hash).await.unwrap(),
        Some(block)
    );
    assert_eq!(running.handle.tx([0; 32]).await.unwrap(), None);
    assert_eq!(running.handle.block(99).await.unwrap(), None);
    assert!(running.handle.validators(99).is_none());
    running.stop().await;
}

fn open_files(directory: &Path) -> (Arc<Kv>, BlockStore) {
    let storage = Storage::open(directory.join("state"), kv::options()).unwrap();
    let store = BlockStore::open(directory.join("blocks")).unwrap();
    (Arc::new(Kv::new(storage)), store)
}

const CHILD_DIRECTORY: &str = "R3MES_CONSENSUS_TEST_DIRECTORY";

/// Run by the test below in a process of its own: makes blocks until it is killed.
#[tokio::test]
async fn an_engine_in_its_own_process_makes_blocks_until_it_is_killed() {
    let Ok(directory) = std::env::var(CHILD_DIRECTORY) else {
        return;
    };
    let (app, store) = open_files(Path::new(&directory));
    let running = start_with(app, store, quick());
    let mut sequence = running
        .value("sequence/a")
        .await
        .map_or(0, |s| s.parse().unwrap());
    loop {
        let info = running
            .commit(tx("a", sequence, "count", &sequence.to_string()))
            .await;
        println!("committed {} {sequence}", info.height);
        sequence += 1;
    }
}

#[tokio::test]
async fn a_killed_engine_goes_on_with_every_transaction_that_it_had_confirmed() {
    let directory = tempfile::tempdir().unwrap();
    for kill_after in [1, 9, 30] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "an_engine_in_its_own_process_makes_blocks_until_it_is_killed",
            ])
            .args(["--nocapture", "--test-threads=1"])
            .env(CHILD_DIRECTORY, directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let confirmed = lines
            .map(Result::unwrap)
            .filter_map(|line| line.split_once("committed ").map(|(_, at)| at.to_owned()))
            .nth(kill_after - 1)
            .unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let (height, sequence) = confirmed.split_once(' ').unwrap();
        let (height, sequence): (u64, u64) = (height.parse().unwrap(), sequence.parse().unwrap());

        let (app, store) = open_files(directory.path());
        let running = start_with(app, store.clone(), quick());
        let latest = running.handle.latest();
        assert!(latest.height >= height);
        let count: u64 = running.value("kv/count").await.unwrap().parse().unwrap();
        assert!(count >= sequence);

        // The same blocks give an undisturbed application the same state.
        let undisturbed = Kv::new(Storage::memory(kv::options()).unwrap());
        undisturbed.init_chain().unwrap();
        for height in 1..=latest.height {
            undisturbed
                .finalize(
                    &store
                        .input(running.handle.genesis(), height)
                        .unwrap()
                        .unwrap(),
                )
                .unwrap();
            undisturbed.commit().unwrap();
        }
        let app_hash = undisturbed.committed().unwrap().unwrap().app_hash;
        assert_eq!(app_hash, latest.app_hash);
        running.stop().await;
    }
}

/// Run by the test below in a process of its own: makes blocks until a file cannot grow, and says
/// how the engine ended.
#[tokio::test]
async fn an_engine_in_its_own_process_makes_blocks_until_the_disk_is_full() {
    let Ok(directory) = std::env::var(FULL_DISK_DIRECTORY) else {
        return;
    };
    let (app, store) = open_files(Path::new(&directory));
    let running = start_with(app, store, quick());
    let value = "x".repeat(VALUE_BYTES);
    for sequence in 1.. {
        running.clock.advance(Duration::from_secs(1));
        let key = format!("large{sequence}");
        let sent = running
            .handle
            .broadcast_and_wait(tx("a", sequence, &key, &value), PATIENCE);
        let Ok(Inclusion::Included(info)) = sent.await else {
            break;
        };
        println!("committed {} {sequence}", info.height);
    }
    let error = running.engine.await.unwrap().unwrap_err();
    let mut said = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        said = format!("{said}: {cause}");
        source = cause.source();
    }
    println!("ended {said}");
}

const FULL_DISK_DIRECTORY: &str = "R3MES_CONSENSUS_TEST_FULL_DISK";
/// What one transaction puts into the state.
const VALUE_BYTES: usize = 20_000;
/// How far the files may still grow, in the half kilobytes that the shell counts in.
const ROOM_BLOCKS: u64 = 2048;

/// The shell's limit on the length of files stands in for the end of the disk.
#[tokio::test]
async fn an_engine_on_a_full_disk_says_so_loses_nothing_and_goes_on_once_there_is_space() {
    let directory = tempfile::tempdir().unwrap();
    let (app, store) = open_files(directory.path());
    let running = start_with(app, store, quick());
    running.commit(tx("a", 0, "first", "kept")).await;
    running.stop().await;
    let length = |name| {
        std::fs::metadata(directory.path().join(name))
            .unwrap()
            .len()
    };
    let limit = length("state").max(length("blocks")) / 512 + ROOM_BLOCKS;

    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f $0; exec \"$@\""])
        .arg(limit.to_string())
        .arg(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "an_engine_in_its_own_process_makes_blocks_until_the_disk_is_full",
        ])
        .args(["--nocapture", "--test-threads=1"])
        .env(FULL_DISK_DIRECTORY, directory.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    let after = |word| said.lines().filter_map(move |line| line.split_once(word));
    let ended = after("ended ").next().unwrap().1;
    assert!(
        ended.contains("disk") && ended.contains("File too large"),
        "{ended}"
    );
    let (height, sequence) = after("committed ")
        .next_back()
        .and_then(|(_, at)| at.split_once(' '))
        .unwrap();
    let (height, sequence): (u64, u64) = (height.parse().unwrap(), sequence.parse().unwrap());

    let (app, store) = open_files(directory.path());
    let running = start_with(app, store, quick());
    assert!(running.handle.latest().height >= height);
    assert_eq!(running.value("kv/first").await.as_deref(), Some("kept"));
    for sequence in 1..=sequence {
        let value = running.value(&format!("kv/large{sequence}")).await.unwrap();
        assert_eq!(value.len(), VALUE_BYTES, "{sequence}");
    }
    // The block that the disk had no place for may have come to be decided or not.
    let next = running.value("sequence/a").await.unwrap().parse().unwrap();
    assert!(next == sequence + 1 || next == sequence + 2);
    running.commit(tx("a", next, "last", "written")).await;
    assert_eq!(running.value("kv/last").await.as_deref(), Some("written"));
    running.stop().await;
}

//! Crashes between any two writes.

use std::path::Path;

use r3mes_state::Storage;
use r3mes_types::Time;

use super::*;
use crate::block::SignedBlock;

#[path = "../../tests/support/kv.rs"]
mod kv;

use kv::Kv;

const SYNC_EVERY: u64 = 4;
const BLOCKS: u64 = 10;

fn open(directory: &Path) -> Chain {
    let storage = Storage::open(directory.join("state"), kv::options()).unwrap();
    let store = BlockStore::open(directory.join("blocks")).unwrap();
    let time = Time::from_nanos(1_000_000_000);
    let genesis = Arc::new(Genesis::new("crash-1", time).unwrap());
    let key = ValidatorKey::from_seed(&[1; 32]);
    Chain::open(genesis, key, Arc::new(Kv::new(storage)), store, SYNC_EVERY).unwrap()
}

/// What is proposed at `height` is the same in every run.
fn candidates(height: u64) -> Vec<Vec<u8>> {
    let key = format!("key{}", height % 3);
    vec![
        kv::tx("a", height - 1, &key, &height.to_string()),
        kv::tx("b", height - 1, "refuse", "1"),
    ]
}

fn propose(chain: &Chain) -> SignedBlock {
    let height = chain.tip.height + 1;
    let now = Time::from_nanos((10 + height) * 1_000_000_000);
    chain.propose(now, &candidates(height)).unwrap()
}

/// Makes the next block, but no more than `steps` of its writes.
fn make_block(chain: &mut Chain, steps: usize) {
    let signed = propose(chain);
    if steps > 0 {
        chain.save(&signed).unwrap();
    }
    if steps > 1 {
        let output = chain.execute(&signed).unwrap();
        if steps > 2 {
            chain.record(&signed, &output).unwrap();
        }
        if steps > 3 {
            chain.commit(&signed, &output).unwrap();
        }
    }
}

const ALL: usize = 4;

fn hashes_without_a_crash() -> Vec<([u8; 32], [u8; 32])> {
    let directory = tempfile::tempdir().unwrap();
    let mut chain = open(directory.path());
    let mut hashes = Vec::new();
    for _ in 0..BLOCKS {
        make_block(&mut chain, ALL);
        hashes.push((chain.tip.app_hash, chain.tip.results_hash));
    }
    hashes
}

/// Copies the files as a crash of the machine would leave them: nothing that was only in memory.
fn crash(directory: &Path) -> tempfile::TempDir {
    let after = tempfile::tempdir().unwrap();
    for file in ["state", "blocks"] {
        std::fs::copy(directory.join(file), after.path().join(file)).unwrap();
    }
    after
}

#[test]
fn a_crash_after_any_write_of_any_block_changes_no_hash() {
    let expected = hashes_without_a_crash();
    let mut lost_states = 0;
    for height in 1..=BLOCKS {
        for steps in 0..=ALL {
            let before = tempfile::tempdir().unwrap();
            let mut chain = open(before.path());
            for _ in 1..height {
                make_block(&mut chain, ALL);
            }
            make_block(&mut chain, steps);
            let after = crash(before.path());
            drop(chain);
            let storage = Storage::open(after.path().join("state"), kv::options()).unwrap();
            let state = storage.version().unwrap().unwrap_or(0);
            drop(storage);

            let mut chain = open(after.path());
            let reached = if steps > 0 { height } else { height - 1 };
            assert_eq!(chain.tip.height, reached, "block {height}, {steps} writes");
            assert!(reached - state <= SYNC_EVERY, "{state} {reached}");
            lost_states += reached - state;
            while chain.tip.height < BLOCKS {
                make_block(&mut chain, ALL);
                let at = chain.tip.height as usize - 1;
                let hashes = (chain.tip.app_hash, chain.tip.results_hash);
                assert_eq!(hashes, expected[at], "block {height}, {steps} writes");
            }
        }
    }
    assert!(lost_states > 0, "the crashes took nothing away");
}

#[test]
fn a_clean_stop_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut chain = open(directory.path());
    for _ in 0..3 {
        make_block(&mut chain, ALL);
    }
    chain.sync().unwrap();
    let tip = chain.tip.clone();
    let after = crash(directory.path());
    drop(chain);
    let storage = Storage::open(after.path().join("state"), kv::options()).unwrap();
    assert_eq!(storage.version().unwrap(), Some(3));
    drop(storage);
    assert_eq!(open(after.path()).tip.app_hash, tip.app_hash);
}

#[test]
fn a_store_is_continued_only_with_its_own_genesis_key_and_state() {
    let directory = tempfile::tempdir().unwrap();
    let mut chain = open(directory.path());
    make_block(&mut chain, ALL);
    chain.sync().unwrap();
    let (genesis, app, store) = (
        chain.genesis.clone(),
        chain.app.clone(),
        chain.store.clone(),
    );
    drop(chain);

    let reopen = |genesis: Arc<Genesis>, seed, app: Arc<dyn Application>| {
        let key = ValidatorKey::from_seed(&[seed; 32]);
        Chain::open(genesis, key, app, store.clone(), SYNC_EVERY).err()
    };
    let other = Arc::new(Genesis::new("another-1", genesis.time).unwrap());
    assert!(matches!(
        reopen(other, 1, app.clone()),
        Some(EngineError::Genesis)
    ));
    assert!(matches!(
        reopen(genesis.clone(), 2, app.clone()),
        Some(EngineError::Key { height: 1 })
    ));
    let storage = Storage::memory(kv::options()).unwrap();
    let changes = [(b"kv/genesis".to_vec(), Some(b"2".to_vec()))];
    storage.commit(0, changes.into()).unwrap();
    assert!(matches!(
        reopen(genesis.clone(), 1, Arc::new(Kv::new(storage.clone()))),
        Some(EngineError::Diverged { height: 1 })
    ));
    storage.commit(1, [].into()).unwrap();
    storage.commit(2, [].into()).unwrap();
    assert!(matches!(
        reopen(genesis.clone(), 1, Arc::new(Kv::new(storage))),
        Some(EngineError::StateAhead {
            state: 2,
            blocks: 1
        })
    ));
    assert!(reopen(genesis, 1, app).is_none());
}

#[test]
fn recorded_inputs_replayed_elsewhere_give_the_same_results() {
    let directory = tempfile::tempdir().unwrap();
    let mut chain = open(directory.path());
    for _ in 0..BLOCKS {
        make_block(&mut chain, ALL);
    }
    let replayed = Kv::new(Storage::memory(kv::options()).unwrap());
    replayed.init_chain().unwrap();
    for height in 1..=BLOCKS {
        let input = chain.store.input(&chain.genesis, height).unwrap().unwrap();
        let output = replayed.finalize(&input).unwrap();
        replayed.commit().unwrap();
        assert_eq!(chain.store.results(height).unwrap(), Some(output));
    }
}

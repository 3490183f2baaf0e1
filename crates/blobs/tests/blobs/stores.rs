//! What every store must do.

use std::time::Duration;

use r3mes_blobs::{BlobStore, Cid, DiskOptions, DiskStore, GetError, MemoryStore};

use super::support::{block, content, name};

/// Runs a check on an empty store of each kind, without a grace period.
pub(crate) fn on_each_store(check: fn(&dyn BlobStore)) {
    check(&MemoryStore::with_grace(Duration::ZERO));
    let folder = tempfile::tempdir().unwrap();
    let options = DiskOptions {
        grace: Duration::ZERO,
        ..DiskOptions::default()
    };
    check(&DiskStore::open(folder.path(), options).unwrap());
}

#[test]
fn files_of_all_lengths_come_back() {
    on_each_store(|store| {
        for len in [0, 1, 1_048_575, 1_048_576, 1_048_577, 5_000_000] {
            let file = content(len as u64, len);
            let cid = store.put(&file).unwrap();
            assert_eq!(store.get(&cid, len as u64).unwrap(), file);
            assert!(store.missing(&cid).unwrap().is_empty());
        }
    });
}

#[test]
fn a_file_over_the_limit_of_the_reader_is_refused() {
    on_each_store(|store| {
        let cid = store.put(&content(1, 3_000_000)).unwrap();
        let error = store.get(&cid, 2_999_999).unwrap_err();
        assert!(matches!(
            error,
            GetError::TooLarge {
                size: 3_000_000,
                ..
            }
        ));
    });
}

#[test]
fn an_absent_block_is_none_and_an_absent_file_names_what_is_missing() {
    on_each_store(|store| {
        let cid = Cid::raw(b"nobody stored this");
        assert!(store.block(&cid).unwrap().is_none());
        assert!(!store.contains(&cid).unwrap());
        let error = store.get(&cid, 100).unwrap_err();
        assert!(matches!(error, GetError::Missing { cid: named } if named == cid));
        assert_eq!(store.missing(&cid).unwrap(), [cid]);
    });
}

#[test]
fn storing_twice_is_storing_once() {
    on_each_store(|store| {
        let one = block(1, 100);
        store.insert(&[one.clone(), one.clone()]).unwrap();
        store.insert(std::slice::from_ref(&one)).unwrap();
        assert_eq!(store.usage().unwrap().blocks, 1);
        assert_eq!(store.usage().unwrap().bytes, 100);
    });
}

#[test]
fn garbage_is_what_no_pin_reaches() {
    on_each_store(|store| {
        let kept = content(1, 3_000_000);
        let root = store.put(&kept).unwrap();
        let lost = store.put(&content(2, 3_000_000)).unwrap();
        store.pin(&root, &name("keep")).unwrap();
        let collected = store.collect_garbage(0).unwrap();
        assert_eq!(collected.removed.blocks, 4);
        assert_eq!(collected.kept, store.usage().unwrap());
        assert_eq!(store.get(&root, u64::MAX).unwrap(), kept);
        assert!(!store.contains(&lost).unwrap());
    });
}

#[test]
fn blocks_shared_by_a_pinned_file_stay() {
    on_each_store(|store| {
        let mut file = content(1, 2 << 20);
        let pinned = store.put(&file).unwrap();
        file.extend([0; 10]);
        let longer = store.put(&file).unwrap();
        store.pin(&pinned, &name("keep")).unwrap();
        // The last chunk and the root of the longer file go, the shared two stay.
        assert_eq!(store.collect_garbage(0).unwrap().removed.blocks, 2);
        assert_eq!(store.get(&pinned, u64::MAX).unwrap().len(), 2 << 20);
        assert_eq!(store.missing(&longer).unwrap(), [longer]);
    });
}

#[test]
fn a_root_pinned_under_two_names_needs_both_removed() {
    on_each_store(|store| {
        let root = store.put(b"shared").unwrap();
        store.pin(&root, &name("round-1")).unwrap();
        store.pin(&root, &name("round-2")).unwrap();
        store.pin(&root, &name("round-2")).unwrap();
        assert_eq!(store.pins().unwrap().len(), 2);
        assert_eq!(store.unpin_all(&name("round-1")).unwrap(), 1);
        assert_eq!(store.collect_garbage(0).unwrap().removed.blocks, 0);
        assert!(store.unpin(&root, &name("round-2")).unwrap());
        assert!(!store.unpin(&root, &name("round-2")).unwrap());
        assert_eq!(store.collect_garbage(0).unwrap().removed.blocks, 1);
    });
}

#[test]
fn collection_stops_once_little_enough_is_stored() {
    on_each_store(|store| {
        for seed in 0..4 {
            store.insert(&[block(seed, 1000)]).unwrap();
            // File systems count time in ticks; order within one does not matter to anybody.
        }
        let collected = store.collect_garbage(2500).unwrap();
        assert_eq!(collected.removed.blocks, 2);
        assert_eq!(collected.kept.bytes, 2000);
    });
}

#[test]
fn a_pin_may_come_before_its_blocks() {
    on_each_store(|store| {
        let source = MemoryStore::new();
        let root = source.put(&content(1, 3_000_000)).unwrap();
        store.pin(&root, &name("coming")).unwrap();
        assert_eq!(store.missing(&root).unwrap(), [root]);
        let node = source.block(&root).unwrap().unwrap();
        store.insert(std::slice::from_ref(&node)).unwrap();
        let leaves = store.missing(&root).unwrap();
        assert_eq!(leaves, node.links().unwrap());
        let leaf = source.any_block(&leaves[1]).unwrap().unwrap();
        store.insert(&[leaf]).unwrap();
        assert_eq!(store.collect_garbage(0).unwrap().removed.blocks, 0);
        assert_eq!(
            store.missing(&root).unwrap(),
            [leaves[0].clone(), leaves[2].clone()]
        );
    });
}

#[test]
fn a_recent_block_is_not_garbage() {
    let store = MemoryStore::new();
    store.insert(&[block(1, 10)]).unwrap();
    assert_eq!(store.collect_garbage(0).unwrap().removed.blocks, 0);
    let folder = tempfile::tempdir().unwrap();
    let store = DiskStore::open(folder.path(), DiskOptions::default()).unwrap();
    store.insert(&[block(1, 10)]).unwrap();
    assert_eq!(store.collect_garbage(0).unwrap().removed.blocks, 0);
}

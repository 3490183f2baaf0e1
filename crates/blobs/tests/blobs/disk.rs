//! What only the disk store can do wrong.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use r3mes_blobs::{
    AnyCid, BlobStore, Cid, DiskOptions, DiskStore, FileReader, GetError, StoreError,
};

use super::support::{block, content, name, own};

fn open(folder: &Path) -> DiskStore {
    let options = DiskOptions {
        grace: Duration::ZERO,
        ..DiskOptions::default()
    };
    DiskStore::open(folder, options).unwrap()
}

fn file_of(store: &DiskStore, cid: impl Into<AnyCid>) -> PathBuf {
    let name = cid.into().to_string();
    let shard = &name[name.len() - 3..name.len() - 1];
    store.folder().join("blocks").join(shard).join(name)
}

fn entries(folder: &Path) -> usize {
    fs::read_dir(folder).unwrap().count()
}

#[test]
fn what_is_stored_survives_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let file = content(1, 2_500_000);
    let root = {
        let store = open(folder.path());
        let root = store.put(&file).unwrap();
        store.pin(&root, &name("keep")).unwrap();
        root
    };
    let store = open(folder.path());
    assert_eq!(store.get(&root, u64::MAX).unwrap(), file);
    assert_eq!(store.pins().unwrap()[0].root, root);
    assert_eq!(store.collect_garbage(0).unwrap().removed.blocks, 0);
    assert_eq!(entries(&folder.path().join("tmp")), 0);
}

#[test]
fn chunks_stay_what_they_are_while_others_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let file = content(3, 20_500_000);
    let root = store.put(&file).unwrap();
    let mut reader = FileReader::open(&store, root).unwrap();
    let mut chunks = Vec::new();
    while let Some(chunk) = reader.next_chunk().unwrap() {
        chunks.push(chunk);
        // Its memory is for blocks that come.
        if chunks.len().is_multiple_of(3) {
            let read = store.block(&Cid::raw(&chunks[0])).unwrap();
            assert_eq!(read.unwrap().bytes(), &chunks[0]);
        }
    }
    assert!(chunks.concat() == file);
}

#[test]
fn one_bad_chunk_of_those_read_ahead_is_named_after_the_good_ones() {
    let file = content(5, 8_000_000);
    let chunks: Vec<&[u8]> = file.chunks(1 << 20).collect();
    for bad in 0..chunks.len() {
        for damaged in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            let store = open(folder.path());
            let root = store.put(&file).unwrap();
            let cid = Cid::raw(chunks[bad]);
            let path = file_of(&store, cid);
            if damaged {
                let mut bytes = fs::read(&path).unwrap();
                bytes[77] ^= 1;
                fs::write(&path, bytes).unwrap();
            } else {
                fs::remove_file(&path).unwrap();
            }
            let mut reader = FileReader::open(&store, root).unwrap();
            for good in &chunks[..bad] {
                assert!(reader.next_chunk().unwrap().unwrap() == *good);
            }
            let named = match reader.next_chunk().unwrap_err() {
                GetError::Missing { cid } if !damaged => cid,
                GetError::Store {
                    source: StoreError::Corrupt { cid, quarantined },
                    ..
                } if damaged => {
                    assert!(quarantined.exists());
                    cid
                }
                error => panic!("{error:?}"),
            };
            assert_eq!(named, cid);
        }
    }
}

#[test]
fn a_damaged_block_is_set_aside_and_can_be_stored_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let one = block(1, 1000);
    store.insert(std::slice::from_ref(&one)).unwrap();
    let path = file_of(&store, one.cid());
    let mut bytes = fs::read(&path).unwrap();
    bytes[500] ^= 1;
    fs::write(&path, bytes).unwrap();

    let error = store.any_block(one.cid()).unwrap_err();
    let StoreError::Corrupt { cid, quarantined } = error else {
        panic!("{error:?}");
    };
    assert_eq!(cid, *one.cid());
    assert!(quarantined.exists());
    assert!(store.any_block(one.cid()).unwrap().is_none());
    store.insert(std::slice::from_ref(&one)).unwrap();
    assert_eq!(store.any_block(one.cid()).unwrap(), Some(one));
}

#[test]
fn a_block_cut_short_or_swollen_is_damaged_and_mended_by_storing() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let one = block(1, 1000);
    for wrong in [vec![], content(1, 999), vec![0; 3 << 20]] {
        store.insert(std::slice::from_ref(&one)).unwrap();
        fs::write(file_of(&store, one.cid()), &wrong).unwrap();
        // Storing notices the wrong length by itself.
        store.insert(std::slice::from_ref(&one)).unwrap();
        assert_eq!(store.any_block(one.cid()).unwrap(), Some(one.clone()));
        fs::write(file_of(&store, one.cid()), &wrong).unwrap();
        let error = store.any_block(one.cid()).unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
    }
}

#[test]
fn garbage_collection_removes_nothing_when_a_pinned_node_is_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let root = store.put(&content(1, 3_000_000)).unwrap();
    store.pin(&root, &name("keep")).unwrap();
    fs::write(file_of(&store, root), b"damaged").unwrap();
    let error = store.collect_garbage(0).unwrap_err();
    assert!(matches!(error, StoreError::Unreadable { .. }), "{error:?}");
    assert_eq!(store.usage().unwrap().blocks, 3);
}

#[test]
fn oldest_blocks_go_first() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let blocks: Vec<_> = (0..3).map(|seed| block(seed, 1000)).collect();
    store.insert(&blocks).unwrap();
    let hour = Duration::from_secs(3600);
    for (age, one) in [3, 1, 2].into_iter().zip(&blocks) {
        let file = fs::File::options()
            .write(true)
            .open(file_of(&store, one.cid()))
            .unwrap();
        let since = std::time::SystemTime::now() - hour * age;
        file.set_modified(since).unwrap();
    }
    // Storing the oldest again makes it the youngest.
    store.insert(&[blocks[0].clone()]).unwrap();
    store.collect_garbage(2000).unwrap();
    let here: Vec<_> = blocks
        .iter()
        .map(|one| store.contains_any(one.cid()).unwrap())
        .collect();
    assert_eq!(here, [true, true, false]);
}

#[test]
fn the_size_limit_evicts_unpinned_blocks_and_then_refuses() {
    let folder = tempfile::tempdir().unwrap();
    let options = DiskOptions {
        max_bytes: 2500,
        grace: Duration::ZERO,
        ..DiskOptions::default()
    };
    let store = DiskStore::open(folder.path(), options).unwrap();
    let blocks: Vec<_> = (0..4).map(|seed| block(seed, 1000)).collect();
    store.pin(&own(&blocks[0]), &name("a")).unwrap();
    store.pin(&own(&blocks[2]), &name("c")).unwrap();
    for one in &blocks[..3] {
        store.insert(std::slice::from_ref(one)).unwrap();
    }
    assert!(!store.contains_any(blocks[1].cid()).unwrap());
    let error = store.insert(&blocks[3..]).unwrap_err();
    assert!(
        matches!(
            error,
            StoreError::Full {
                used: 2000,
                needed: 1000,
                limit: 2500
            }
        ),
        "{error:?}"
    );
    assert!(store.contains_any(blocks[0].cid()).unwrap());
    assert!(store.contains_any(blocks[2].cid()).unwrap());
}

#[test]
fn a_store_without_flushes_keeps_and_gives_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let options = DiskOptions {
        durable: false,
        ..DiskOptions::default()
    };
    let store = DiskStore::open(folder.path(), options).unwrap();
    let file = content(1, 3_000_000);
    let root = store.put(&file).unwrap();
    store.pin(&root, &name("keep")).unwrap();
    let again = open(folder.path());
    assert_eq!(again.get(&root, 3_000_000).unwrap(), file);
    assert_eq!(again.pins().unwrap().len(), 1);
    // What a power failure may leave of a file: its name without its bytes.
    fs::write(file_of(&store, root), b"").unwrap();
    let error = store.get(&root, 3_000_000).unwrap_err();
    assert!(error.to_string().contains(&root.to_string()), "{error}");
    assert!(!store.contains(&root).unwrap(), "it was set aside");
    assert_eq!(store.put(&file).unwrap(), root);
    assert_eq!(store.get(&root, 3_000_000).unwrap(), file);
}

#[test]
fn leftovers_of_a_crash_are_cleared() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()));
    let tmp = folder.path().join("tmp");
    fs::write(tmp.join("1-2"), b"half a block").unwrap();
    drop(open(folder.path()));
    assert_eq!(entries(&tmp), 0);
}

#[test]
fn a_folder_with_other_things_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("thesis.txt"), b"do not touch").unwrap();
    let error = DiskStore::open(folder.path(), DiskOptions::default()).unwrap_err();
    assert!(matches!(error, StoreError::Foreign { .. }), "{error:?}");
    assert_eq!(entries(folder.path()), 1);

    let later = tempfile::tempdir().unwrap();
    fs::write(later.path().join("version"), b"2\n").unwrap();
    let error = DiskStore::open(later.path(), DiskOptions::default()).unwrap_err();
    assert!(error.to_string().contains("version 1"), "{error}");
}

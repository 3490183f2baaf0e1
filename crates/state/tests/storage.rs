//! The database of versions against a plain map, its proofs against the `ics23` crate, and its file
//! against a process that dies.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use ics23::HostFunctionsManager;
use proptest::prelude::*;
use r3mes_state::{
    Changes, CommitError, MAX_KEY_BYTES, OpenError, Options, ProveError, Read, Snapshot, Storage,
    proof_spec,
};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

fn put(key: &str, value: &str) -> (Vec<u8>, Option<Vec<u8>>) {
    (key.into(), Some(value.into()))
}

fn apply(map: &mut Map, changes: &Changes) {
    for (key, value) in changes {
        match value {
            Some(value) => map.insert(key.clone(), value.clone()),
            None => map.remove(key),
        };
    }
}

fn proves(snapshot: &Snapshot, key: &[u8], value: Option<&[u8]>) -> bool {
    let proof = snapshot.prove(key).unwrap();
    let root = snapshot.root().to_vec();
    match value {
        Some(value) => ics23::verify_membership::<HostFunctionsManager>(
            &proof,
            &proof_spec(),
            &root,
            key,
            value,
        ),
        None => {
            ics23::verify_non_membership::<HostFunctionsManager>(&proof, &proof_spec(), &root, key)
        }
    }
}

/// The root that a new database has after the content of `map` was put at once.
fn root_of(map: &Map) -> [u8; 32] {
    let storage = Storage::memory(Options::default()).unwrap();
    let changes = map.iter().map(|(k, v)| (k.clone(), Some(v.clone())));
    storage.commit(1, changes.collect()).unwrap()
}

fn changes() -> impl Strategy<Value = Changes> {
    prop::collection::btree_map(
        prop::collection::vec(0u8..4, 1..4),
        prop::option::weighted(0.6, prop::collection::vec(any::<u8>(), 1..3)),
        0..12,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn kept_versions_read_and_prove_like_plain_maps_and_roots_depend_on_content_only(
        history in prop::collection::vec(changes(), 1..12),
        keep_versions in 1u64..6,
        sync_every in 1u64..4,
    ) {
        let options = Options { keep_versions, sync_every, ..Options::default() };
        let storage = Storage::memory(options).unwrap();
        let mut maps = vec![Map::new()];
        let mut roots = vec![[0; 32]];
        for (i, changes) in history.iter().enumerate() {
            let mut map = maps[i].clone();
            apply(&mut map, changes);
            let root = storage.commit(i as u64 + 1, changes.clone()).unwrap();
            prop_assert_eq!(root, root_of(&map));
            roots.push(root);
            maps.push(map);
        }
        for (version, map) in maps.iter().enumerate().skip(1) {
            let kept = version as u64 + keep_versions > history.len() as u64;
            let Some(snapshot) = storage.snapshot(version as u64).unwrap() else {
                prop_assert!(!kept);
                continue;
            };
            prop_assert!(kept);
            prop_assert_eq!(snapshot.scan(&[], None, usize::MAX).unwrap(),
                map.clone().into_iter().collect::<Vec<_>>());
            prop_assert_eq!(snapshot.root(), roots[version]);
            for key in maps.iter().flat_map(Map::keys) {
                let value = map.get(key).map(Vec::as_slice);
                let read = snapshot.get(key).unwrap();
                prop_assert_eq!(read.as_deref(), value);
                if !map.is_empty() {
                    prop_assert!(proves(&snapshot, key, value));
                    prop_assert!(!proves(&snapshot, key, Some(b"forged")));
                }
            }
        }
    }
}

#[test]
fn the_root_of_a_known_state_is_pinned() {
    let storage = Storage::memory(Options::default()).unwrap();
    let changes = (0..100).map(|i| put(&format!("key/{i}"), &format!("value {i}")));
    let root = storage.commit(1, changes.collect()).unwrap();
    assert_eq!(
        hex::encode(root),
        "6e2411263fb0db8abdef20e456bd1a4ae7200eba1ca3102ec4b35d13b07cb56a"
    );
}

#[test]
fn a_snapshot_stays_while_later_versions_are_committed_and_pruned() {
    let options = Options {
        keep_versions: 1,
        ..Options::default()
    };
    let storage = Storage::memory(options).unwrap();
    storage.commit(1, [put("a", "1")].into()).unwrap();
    let first = storage.latest().unwrap();
    for version in 2..20 {
        let changes = [put("a", &version.to_string()), put("b", "x")].into();
        storage.commit(version, changes).unwrap();
    }
    assert!(storage.snapshot(1).unwrap().is_none());
    assert_eq!(first.get(b"a").unwrap(), Some(b"1".to_vec()));
    assert!(proves(&first, b"a", Some(b"1")));
    assert!(proves(&first, b"b", None));
}

#[test]
fn a_key_removed_and_put_again_is_proved_in_each_version() {
    let storage = Storage::memory(Options {
        keep_versions: 3,
        ..Options::default()
    })
    .unwrap();
    let present = |version: u64| version % 2 == 1;
    for version in 1..12 {
        let value = present(version).then(|| b"v".to_vec());
        let changes = [(b"key".to_vec(), value), put("other", &version.to_string())];
        storage.commit(version, changes.into()).unwrap();
        for kept in version.saturating_sub(2).max(1)..=version {
            let snapshot = storage.snapshot(kept).unwrap().unwrap();
            let value = present(kept).then_some(b"v".as_slice());
            assert!(
                proves(&snapshot, b"key", value),
                "version {kept} after {version}"
            );
            assert!(proves(&snapshot, b"never", None));
        }
    }
}

#[test]
fn what_a_version_does_not_need_leaves_the_database() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.redb");
    let options = Options {
        keep_versions: 4,
        sync_every: 64,
        ..Options::default()
    };
    let storage = Storage::open(&path, options).unwrap();
    let mut sizes = Vec::new();
    for version in 1..=600u64 {
        let changes =
            (0..10).map(|i| put(&format!("{}", (version * 7 + i) % 50), &version.to_string()));
        storage.commit(version, changes.collect()).unwrap();
        if version % 300 == 0 {
            sizes.push(std::fs::metadata(&path).unwrap().len());
        }
    }
    assert!(sizes[1] <= sizes[0] * 5 / 4, "{sizes:?}");
}

#[test]
fn versions_follow_without_gaps_and_bounds_hold() {
    let storage = Storage::memory(Options::default()).unwrap();
    assert_eq!(storage.version().unwrap(), None);
    assert!(matches!(
        storage.latest().unwrap().prove(b"a"),
        Err(ProveError::Empty)
    ));
    storage.commit(7, [put("a", "1")].into()).unwrap();
    for version in [6, 7, 9] {
        assert!(matches!(
            storage.commit(version, Changes::new()),
            Err(CommitError::Version { latest: 7, .. })
        ));
    }
    let long = vec![0; MAX_KEY_BYTES + 1];
    assert!(matches!(
        storage.commit(8, [(long, Some(vec![]))].into()),
        Err(CommitError::TooLong { what: "key", .. })
    ));
    assert!(matches!(
        storage.commit(8, [put("a", "")].into()),
        Err(CommitError::Empty { what: "value", .. })
    ));
    assert_eq!(storage.version().unwrap(), Some(7));
    storage.commit(8, Changes::new()).unwrap();
}

#[test]
fn a_staged_version_is_written_only_on_the_version_it_was_staged_on() {
    let storage = Storage::memory(Options::default()).unwrap();
    storage.commit(1, [put("a", "1")].into()).unwrap();
    let first = storage.stage(2, [put("a", "2")].into()).unwrap();
    let second = storage.stage(2, [put("a", "3")].into()).unwrap();
    assert_eq!(storage.version().unwrap(), Some(1));
    storage.write(second).unwrap();
    assert!(matches!(
        storage.write(first),
        Err(CommitError::Version {
            version: 2,
            latest: 2
        })
    ));
    let value = storage.latest().unwrap().get(b"a").unwrap();
    assert_eq!(value, Some(b"3".to_vec()));
}

#[test]
fn a_whole_state_takes_the_place_of_another_at_any_later_version() {
    let storage = Storage::memory(Options::default()).unwrap();
    storage
        .commit(7, [put("a", "1"), put("b", "1"), put("c", "1")].into())
        .unwrap();
    let new: Map = [
        (b"a".to_vec(), b"1".to_vec()),
        (b"d".to_vec(), b"2".to_vec()),
    ]
    .into();
    let entries = || {
        new.iter()
            .map(|(k, v)| (k.clone(), Some(v.clone())))
            .collect()
    };
    for version in [6, 7] {
        let refused = storage.stage_whole(version, entries());
        assert!(matches!(
            refused,
            Err(CommitError::Version { latest: 7, .. })
        ));
    }
    let staged = storage.stage_whole(30, entries()).unwrap();
    assert_eq!(staged.root(), root_of(&new));
    storage.write(staged).unwrap();
    let latest = storage.latest().unwrap();
    assert_eq!(latest.version(), 30);
    for key in ["a", "b", "c", "d"] {
        let value = new.get(key.as_bytes());
        assert_eq!(latest.get(key.as_bytes()).unwrap().as_ref(), value);
        assert!(proves(&latest, key.as_bytes(), value.map(Vec::as_slice)));
    }
    // The one before can still be read, and nothing lies between.
    let before = storage.snapshot(7).unwrap().unwrap();
    assert_eq!(before.get(b"b").unwrap(), Some(b"1".to_vec()));
    assert!(storage.snapshot(20).unwrap().is_none());
    storage.commit(31, [put("b", "3")].into()).unwrap();
}

#[test]
fn a_database_in_use_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.redb");
    let storage = Storage::open(&path, Options::default()).unwrap();
    let error = Storage::open(&path, Options::default()).unwrap_err();
    assert!(matches!(error, OpenError::InUse { .. }), "{error}");
    assert!(error.to_string().contains("state.redb"));
    drop(storage);
    Storage::open(&path, Options::default()).unwrap();
}

/// Changes of `version` in the test below, the same in both processes.
fn scripted(version: u64) -> Changes {
    (0..20)
        .map(|i| {
            let key = format!("{}", (version * 31 + i * i) % 97);
            let value = (!(version + i).is_multiple_of(5)).then(|| version.to_be_bytes().to_vec());
            (key.into_bytes(), value)
        })
        .collect()
}

const CHILD_DATABASE: &str = "R3MES_STATE_TEST_DATABASE";

/// Run by the test below in a process of its own: commits until it is killed.
#[test]
fn a_writer_in_its_own_process_commits_until_it_is_killed() {
    let Ok(path) = std::env::var(CHILD_DATABASE) else {
        return;
    };
    let storage = Storage::open(path, killed_options()).unwrap();
    let first = storage.version().unwrap().map_or(1, |version| version + 1);
    for version in first.. {
        storage.commit(version, scripted(version)).unwrap();
        println!("committed {version}");
    }
}

fn killed_options() -> Options {
    Options {
        keep_versions: 5,
        sync_every: 3,
        ..Options::default()
    }
}

#[test]
fn a_killed_writer_leaves_a_whole_version_with_its_root() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.redb");
    for kill_after in [1, 4, 17] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "a_writer_in_its_own_process_commits_until_it_is_killed",
            ])
            .args(["--nocapture", "--test-threads=1"])
            .env(CHILD_DATABASE, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let committed = lines
            .map(Result::unwrap)
            .filter_map(|line| line.split_once("committed ").map(|(_, n)| n.to_owned()))
            .nth(kill_after - 1)
            .unwrap();
        child.kill().unwrap();
        child.wait().unwrap();

        let storage = Storage::open(&path, killed_options()).unwrap();
        let version = storage.version().unwrap().unwrap_or(0);
        let lost = killed_options().sync_every - 1;
        assert!(version + lost >= committed.parse().unwrap());
        let mut map = Map::new();
        (1..=version).for_each(|version| apply(&mut map, &scripted(version)));
        if version > 0 {
            assert_eq!(storage.latest().unwrap().root(), root_of(&map));
        }
    }
}

//! Several processes on one folder, and processes that are killed.

use std::{
    env,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use r3mes_blobs::{BlobStore, Cid, DiskOptions, DiskStore};

use super::support::{content, name};

const FOLDER: &str = "BLOBS_TEST_FOLDER";
const SEED: &str = "BLOBS_TEST_SEED";
const FILES: &str = "BLOBS_TEST_FILES";

const FILE_BYTES: usize = 1_500_000;

/// What a writer says before each CID that it has stored and pinned.
const STORED: &str = "stored ";
/// What a writer says before the reason why it could not store a file.
const REFUSED: &str = "refused ";

fn options() -> DiskOptions {
    DiskOptions {
        grace: Duration::from_secs(60),
        ..DiskOptions::default()
    }
}

/// Not a test by itself: the body of the processes that the tests below start.
#[test]
#[ignore = "runs as a child process of the other tests"]
fn writer() {
    let number = |key: &str| -> u64 { env::var(key).unwrap().parse().unwrap() };
    let store = DiskStore::open(env::var(FOLDER).unwrap(), options()).unwrap();
    for index in 0..number(FILES) {
        let file = content(number(SEED) * 1000 + index, FILE_BYTES);
        let cid = store.put(&file).unwrap();
        store.pin(&cid, &name("writer")).unwrap();
        println!("\n{STORED}{cid}");
    }
}

fn spawn_writer(folder: &Path, seed: u64, files: u64) -> Child {
    Command::new(env::current_exe().unwrap())
        .args([
            "--exact",
            "blobs::processes::writer",
            "--ignored",
            "--nocapture",
        ])
        .env(FOLDER, folder)
        .env(SEED, seed.to_string())
        .env(FILES, files.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Not a test by itself: stores one file, says why that failed, and then stores a small one.
#[test]
#[ignore = "runs as a child process of the other tests"]
fn writer_on_a_full_disk() {
    let store = DiskStore::open(env::var(FOLDER).unwrap(), options()).unwrap();
    let error = store.put(&content(1, FILE_BYTES)).unwrap_err();
    let cause = std::error::Error::source(&error).unwrap();
    println!("\n{REFUSED}{cause}");
    let cid = store.put(&content(2, 1000)).unwrap();
    println!("\n{STORED}{cid}");
}

/// The shell's limit on the length of files stands in for the end of the disk: writes fail in the
/// middle of a block.
#[test]
fn a_full_disk_is_an_error_and_leaves_the_store_whole() {
    let folder = tempfile::tempdir().unwrap();
    let kept = {
        let store = DiskStore::open(folder.path(), options()).unwrap();
        let kept = store.put(&content(3, FILE_BYTES)).unwrap();
        store.pin(&kept, &name("kept")).unwrap();
        kept
    };
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 128; exec \"$0\" \"$@\""])
        .arg(env::current_exe().unwrap())
        .args([
            "--exact",
            "blobs::processes::writer_on_a_full_disk",
            "--ignored",
            "--nocapture",
        ])
        .env(FOLDER, folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    let line = |prefix| said.lines().find_map(|line| line.strip_prefix(prefix));
    let refused = line(REFUSED).unwrap();
    assert!(
        refused.contains("write") && refused.contains("tmp"),
        "{refused}"
    );
    let small: Cid = line(STORED).unwrap().parse().unwrap();

    let store = DiskStore::open(folder.path(), options()).unwrap();
    assert_eq!(
        store.get(&kept, FILE_BYTES as u64).unwrap(),
        content(3, FILE_BYTES)
    );
    assert_eq!(store.get(&small, 1000).unwrap(), content(2, 1000));
    // Two leaves and their node, and the small file: nothing of the one that did not fit.
    assert_eq!(store.usage().unwrap().blocks, 4);
    let left = std::fs::read_dir(folder.path().join("tmp"))
        .unwrap()
        .count();
    assert_eq!(left, 0);
}

fn stored_by(child: &mut Child, at_most: usize) -> Vec<Cid> {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines
        .map_while(Result::ok)
        .filter_map(|line| line.strip_prefix(STORED)?.parse().ok())
        .take(at_most)
        .collect()
}

#[test]
fn processes_write_one_folder_while_garbage_is_collected() {
    let folder = tempfile::tempdir().unwrap();
    let store = DiskStore::open(folder.path(), options()).unwrap();
    // Seed 1 twice: the same files by two processes at once.
    let mut writers = [1, 1, 2].map(|seed| spawn_writer(folder.path(), seed, 8));
    let roots: Vec<Cid> = std::thread::scope(|scope| {
        let collector = scope.spawn(|| {
            for _ in 0..50 {
                store.collect_garbage(0).unwrap();
            }
        });
        let stored = writers
            .iter_mut()
            .flat_map(|writer| stored_by(writer, usize::MAX))
            .collect();
        collector.join().unwrap();
        stored
    });
    for mut writer in writers {
        assert!(writer.wait().unwrap().success());
    }
    assert_eq!(roots.len(), 24);
    assert_eq!(store.pins().unwrap().len(), 16);
    for root in &roots {
        assert_eq!(store.get(root, u64::MAX).unwrap().len(), FILE_BYTES);
    }
    store.collect_garbage(0).unwrap();
    assert!(
        roots
            .iter()
            .all(|root| store.missing(root).unwrap().is_empty())
    );
}

#[test]
fn a_killed_writer_loses_nothing_that_it_had_stored() {
    let folder = tempfile::tempdir().unwrap();
    for (seed, stored_before) in [(1, 1), (2, 3), (3, 6)] {
        let mut writer = spawn_writer(folder.path(), seed, 1000);
        let roots = stored_by(&mut writer, stored_before);
        writer.kill().unwrap();
        writer.wait().unwrap();
        assert_eq!(roots.len(), stored_before);

        let store = DiskStore::open(folder.path(), options()).unwrap();
        for (index, root) in roots.iter().enumerate() {
            let expected = content(seed * 1000 + index as u64, FILE_BYTES);
            assert_eq!(store.get(root, u64::MAX).unwrap(), expected);
        }
        // Whatever else lies under `blocks` is whole, too.
        for pin in store.pins().unwrap() {
            assert!(store.missing(&pin.root).unwrap().is_empty());
            store.get(&pin.root, u64::MAX).unwrap();
        }
        assert_eq!(folder.path().join("tmp").read_dir().unwrap().count(), 0);
    }
}

//! Adding and getting files of 1 MB and 100 MB, in memory and on the disk (flushed).
//!
//! `cargo bench -p r3mes-blobs`; the folder is made under `TMPDIR`.

use std::{hint::black_box, time::Duration};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use r3mes_blobs::{BlobStore, DiskOptions, DiskStore, MemoryStore};

const SIZES: [(&str, usize); 2] = [("1MB", 1_000_000), ("100MB", 100_000_000)];

/// Bytes that repeat nowhere, and differ from call to call, so that nothing is stored already.
fn content(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

fn on_store(criterion: &mut Criterion, kind: &str, store: &dyn BlobStore) {
    let mut seed = 0;
    for (name, len) in SIZES {
        let mut group = criterion.benchmark_group(kind);
        group
            .sample_size(10)
            .measurement_time(Duration::from_secs(5));
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(BenchmarkId::new("add", name), |bencher| {
            bencher.iter_custom(|rounds| {
                let mut spent = Duration::ZERO;
                for _ in 0..rounds {
                    seed += 1;
                    let file = content(seed, len);
                    let begin = std::time::Instant::now();
                    black_box(store.put(&file).expect("there is room"));
                    spent += begin.elapsed();
                    store.collect_garbage(0).expect("the store is sound");
                }
                spent
            });
        });
        let cid = store.put(&content(0, len)).expect("there is room");
        group.bench_function(BenchmarkId::new("get", name), |bencher| {
            bencher.iter(|| black_box(store.get(&cid, u64::MAX).expect("it was stored")));
        });
        group.finish();
    }
}

fn blobs(criterion: &mut Criterion) {
    on_store(
        criterion,
        "memory",
        &MemoryStore::with_grace(Duration::ZERO),
    );
    let folder = tempfile::tempdir().expect("a folder can be made");
    let options = DiskOptions {
        grace: Duration::ZERO,
        ..DiskOptions::default()
    };
    let store = DiskStore::open(folder.path(), options).expect("the folder is empty");
    on_store(criterion, "disk", &store);
}

criterion_group!(benches, blobs);
criterion_main!(benches);

//! Tokens a second, prefill and decoding, alone and in a batch, for three shapes with random
//! weights: `cargo bench -p r3mes-model --bench generation [-- SHAPE] [THREADS]`.

#[path = "../tests/suite/synthetic.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod synthetic;

use std::time::Instant;

use r3mes_exact::Cpu;
use r3mes_model::{InferenceWorkspace, LogitRows, Model, Segment, pack_in_memory};
use synthetic::{BITNET, PLAIN, Shape, Storage};

const SHAPES: [(&str, Shape); 3] = [
    (
        "demo",
        Shape {
            hidden: 288,
            ffn: 768,
            layers: 6,
            heads: 6,
            kv_heads: 6,
            vocab: 32_000,
            context: 1024,
            ..PLAIN
        },
    ),
    (
        "d768x12",
        Shape {
            hidden: 768,
            ffn: 2048,
            layers: 12,
            heads: 12,
            kv_heads: 12,
            vocab: 32_000,
            context: 1024,
            ..PLAIN
        },
    ),
    (
        "2B-4T",
        Shape {
            hidden: 2560,
            ffn: 6912,
            layers: 30,
            heads: 20,
            kv_heads: 5,
            vocab: 128_256,
            context: 1024,
            tied: true,
            ..BITNET
        },
    ),
];

/// Prompt tokens of the prefill figure, in one pass.
const PREFILL: usize = 512;
/// Streams of the batched figure.
const STREAMS: usize = 8;
/// Decoding steps of each measurement.
const STEPS: usize = 32;
/// Measurements, of which the median counts.
const REPEATS: usize = 5;

fn main() {
    // Cargo passes `--bench` along.
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with("--"))
        .collect();
    let threads = arguments.iter().find_map(|a| a.parse().ok()).unwrap_or(1);
    println!("{threads} threads, tokens/s, median of {REPEATS}");
    println!(
        "{:<10} {:>12} {:>10} {:>14} {:>8}",
        "shape", "prefill 512", "decode 1", "decode 8", "gain"
    );
    for (name, shape) in SHAPES {
        let wanted = arguments
            .iter()
            .filter(|a| a.parse::<usize>().is_err())
            .collect::<Vec<_>>();
        if !wanted.is_empty() && !wanted.iter().any(|a| *a == name) {
            continue;
        }
        let checkpoint = shape.checkpoint(
            1,
            Storage::PackedCodes {
                scale_divides: false,
            },
        );
        let packed = pack_in_memory(&checkpoint).expect("synthetic checkpoints pack");
        drop(checkpoint);
        let model = Model::load(synthetic::cpu(threads), &packed);
        let prefill = prefill(&model, shape.vocab);
        let single = decode(&model, shape.vocab, 1);
        let batch = decode(&model, shape.vocab, STREAMS);
        let gain = batch / single;
        println!("{name:<10} {prefill:>12.1} {single:>10.1} {batch:>14.1} {gain:>7.2}x");
    }
}

/// Tokens a second of a prompt in one pass.
fn prefill(model: &Model<Cpu>, vocab: usize) -> f64 {
    let tokens = synthetic::tokens(3, PREFILL, vocab);
    let mut workspace = InferenceWorkspace::new();
    let seconds = median(|| {
        let mut cache = model.cache();
        let segment = Segment {
            tokens: &tokens,
            cache: &mut cache,
            logits: LogitRows::Last,
        };
        model
            .advance(None, &mut [segment], &mut workspace)
            .expect("synthetic models are finite");
    });
    PREFILL as f64 / seconds
}

/// Tokens a second of several streams that advance together, from position 64 on.
fn decode(model: &Model<Cpu>, vocab: usize, streams: usize) -> f64 {
    let prompt = synthetic::tokens(4, 64, vocab);
    let next = synthetic::tokens(5, STEPS, vocab);
    let mut workspace = InferenceWorkspace::new();
    let mut caches: Vec<_> = (0..streams).map(|_| model.cache()).collect();
    let mut advance = |caches: &mut [r3mes_model::Cache<Cpu>], tokens: &[u32]| {
        let segment = |cache| Segment {
            tokens,
            cache,
            logits: LogitRows::Last,
        };
        let mut segments: Vec<_> = caches.iter_mut().map(segment).collect();
        model
            .advance(None, &mut segments, &mut workspace)
            .expect("synthetic models are finite");
    };
    advance(&mut caches, &prompt);
    let seconds = median(|| {
        for cache in &mut caches {
            model.truncate(cache, prompt.len());
        }
        for token in &next {
            advance(&mut caches, std::slice::from_ref(token));
        }
    });
    (streams * STEPS) as f64 / seconds
}

fn median(mut work: impl FnMut()) -> f64 {
    work();
    let mut seconds: Vec<f64> = (0..REPEATS)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed().as_secs_f64()
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    seconds[REPEATS / 2]
}

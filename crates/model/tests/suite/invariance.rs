//! A token's results are the same bits in every arrangement of the computation.

#![expect(
    clippy::disallowed_methods,
    reason = "a perplexity is reported, not computed exactly"
)]

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use r3mes_exact::{Cpu, CpuOptions, Isa};
use r3mes_model::{
    AdvanceError, Batch, InferenceWorkspace, LinearSet, LoadedAdapter, LogitRows, LoraConfig,
    MemoryLimit, Model, Segment, TrainingWorkspace,
};

use crate::synthetic::{BITNET, PLAIN, Shape, loaded, scalar, tokens};

const LORA: LoraConfig = LoraConfig {
    rank: 3,
    alpha: 6.0,
    targets: LinearSet::ALL,
};

/// Logits and final state of a position, as bits.
#[derive(Clone, Debug, PartialEq)]
struct Outcome {
    logits: Vec<u32>,
    codes: Vec<i8>,
    scale: u32,
}

/// Results of every position of `tokens`, computed in calls of the given sizes.
fn in_chunks(
    model: &Model<Cpu>,
    adapter: Option<&LoadedAdapter<Cpu>>,
    tokens: &[u32],
    chunks: &[usize],
) -> Vec<Outcome> {
    let mut workspace = InferenceWorkspace::new();
    let mut cache = model.cache();
    let mut rest = tokens;
    let mut outcomes = Vec::new();
    for &chunk in chunks.iter().cycle() {
        let (now, later) = rest.split_at(chunk.min(rest.len()));
        let segment = Segment {
            tokens: now,
            cache: &mut cache,
            logits: LogitRows::All,
        };
        model
            .advance(adapter, &mut [segment], &mut workspace)
            .unwrap();
        outcomes.extend((0..now.len()).map(|row| outcome(&workspace, row, row)));
        rest = later;
        if rest.is_empty() {
            break;
        }
    }
    outcomes
}

fn outcome(workspace: &InferenceWorkspace<Cpu>, row: usize, index: usize) -> Outcome {
    let (codes, scale) = workspace.final_state(row);
    let logits = workspace
        .logits(index)
        .iter()
        .map(|logit| logit.to_bits())
        .collect();
    Outcome {
        logits,
        codes: codes.to_vec(),
        scale: scale.to_bits(),
    }
}

fn both_ways(shape: Shape) {
    let model = shape.model(11, 1);
    let adapter = loaded(&model, LORA, 5);
    let tokens = tokens(1, 150, shape.vocab);
    for adapter in [None, Some(&adapter)] {
        let whole = in_chunks(&model, adapter, &tokens, &[150]);
        for chunks in [&[1][..], &[64], &[63, 2], &[7, 100]] {
            assert!(
                in_chunks(&model, adapter, &tokens, chunks) == whole,
                "{chunks:?}"
            );
        }
    }
}

#[test]
fn a_token_of_a_llama_gives_the_same_bits_in_any_chunking() {
    both_ways(PLAIN);
}

#[test]
fn a_token_of_a_bitnet_gives_the_same_bits_in_any_chunking() {
    both_ways(BITNET);
}

/// What the computation of some sequences may look like.
#[derive(Clone, Debug)]
struct Arrangement {
    shape: Shape,
    seed: u64,
    adapted: bool,
    /// Tokens of each sequence.
    lengths: Vec<usize>,
    /// How many tokens of each sequence a call has at most, call after call and then again.
    calls: Vec<Vec<usize>>,
    threads: usize,
}

fn any_shape() -> impl Strategy<Value = Shape> {
    let heads = (1usize..=2, 1usize..=3, select(vec![4, 12, 16, 20]));
    let sizes = (1usize..=90, 1usize..=2, 3usize..=120);
    let forms = any::<[bool; 4]>();
    (heads, sizes, forms).prop_map(|(heads, sizes, [relu2, sub_norm, interleaved, tied])| {
        let ((kv_heads, group, head_dim), (ffn, layers, vocab)) = (heads, sizes);
        Shape {
            hidden: kv_heads * group * head_dim,
            ffn,
            layers,
            heads: kv_heads * group,
            kv_heads,
            vocab,
            context: 160,
            relu2,
            sub_norm,
            interleaved,
            tied,
        }
    })
}

prop_compose! {
    fn any_arrangement()(sequences in 1usize..=4)(
        shape in any_shape(),
        seed in 0u64..1_000,
        adapted in any::<bool>(),
        lengths in vec(prop_oneof![1usize..=8, 1usize..=160], sequences),
        calls in vec(vec(prop_oneof![Just(0), Just(1), 2usize..=160], sequences), 1..6),
        threads in 1usize..=5,
    ) -> Arrangement {
        Arrangement { shape, seed, adapted, lengths, calls, threads }
    }
}

/// Results of every position of all sequences, computed together.
fn together(
    model: &Model<Cpu>,
    adapter: Option<&LoadedAdapter<Cpu>>,
    sequences: &[Vec<u32>],
    calls: &[Vec<usize>],
) -> Vec<Vec<Outcome>> {
    let mut workspace = InferenceWorkspace::new();
    let mut caches: Vec<_> = sequences.iter().map(|_| model.cache()).collect();
    let mut outcomes = vec![Vec::new(); sequences.len()];
    for call in calls.iter().cycle() {
        let rest = sequences.iter().zip(&outcomes);
        let rest: Vec<&[u32]> = rest.map(|(all, done)| &all[done.len()..]).collect();
        let mut counts: Vec<usize> = rest
            .iter()
            .zip(call)
            .map(|(r, n)| r.len().min(*n))
            .collect();
        if counts.iter().all(|count| *count == 0) {
            let Some(next) = rest.iter().position(|rest| !rest.is_empty()) else {
                return outcomes;
            };
            counts[next] = 1;
        }
        let parts = rest.iter().zip(&counts).zip(&mut caches);
        let mut segments: Vec<_> = parts
            .filter(|((_, count), _)| **count > 0)
            .map(|((rest, count), cache)| Segment {
                tokens: &rest[..*count],
                cache,
                logits: LogitRows::All,
            })
            .collect();
        model
            .advance(adapter, &mut segments, &mut workspace)
            .unwrap();
        let mut rows = 0..counts.iter().sum::<usize>();
        for (outcomes, count) in outcomes.iter_mut().zip(counts) {
            outcomes.extend(
                rows.by_ref()
                    .take(count)
                    .map(|row| outcome(&workspace, row, row)),
            );
        }
    }
    outcomes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_token_gives_the_same_bits_in_any_arrangement(arrangement in any_arrangement()) {
        let Arrangement { shape, seed, adapted, lengths, calls, threads } = arrangement;
        let packed = shape.packed(seed);
        let sequences: Vec<Vec<u32>> = lengths
            .iter()
            .zip(seed..)
            .map(|(len, seed)| tokens(seed, *len, shape.vocab))
            .collect();
        let definition = Model::load(scalar(), &packed);
        let adapter = adapted.then(|| loaded(&definition, LORA, seed));
        let alone: Vec<Vec<Outcome>> = sequences
            .iter()
            .map(|tokens| in_chunks(&definition, adapter.as_ref(), tokens, &[tokens.len()]))
            .collect();
        for isa in Isa::available() {
            let device = Cpu::new(CpuOptions { isa: Some(isa), threads }).unwrap();
            let model = Model::load(device, &packed);
            let adapter = adapted.then(|| loaded(&model, LORA, seed));
            let found = together(&model, adapter.as_ref(), &sequences, &calls);
            prop_assert!(found == alone, "{} with {} threads", isa, threads);
        }
    }
}

#[test]
fn a_truncated_cache_continues_as_if_the_rest_had_never_been() {
    let model = PLAIN.model(11, 1);
    let (first, second) = (tokens(1, 80, PLAIN.vocab), tokens(2, 30, PLAIN.vocab));
    let mut workspace = InferenceWorkspace::new();
    let mut cache = model.cache();
    let mut run = |tokens: &[u32], cache: &mut _| {
        let segment = Segment {
            tokens,
            cache,
            logits: LogitRows::Last,
        };
        model.advance(None, &mut [segment], &mut workspace).unwrap();
        outcome(&workspace, tokens.len() - 1, 0)
    };
    run(&first, &mut cache);
    model.truncate(&mut cache, 50);
    let continued = run(&second, &mut cache);
    let fresh = run(&[&first[..50], &second].concat(), &mut model.cache());
    assert!(continued == fresh);
}

#[test]
fn training_and_inference_see_the_same_logits() {
    let model = PLAIN.model(11, 1);
    let adapter = loaded(&model, LORA, 5);
    let tokens = tokens(1, 100, PLAIN.vocab);
    let batch = Batch::new(model.config(), vec![&tokens]).unwrap();
    let mut workspace = TrainingWorkspace::new(MemoryLimit { bytes: 1 << 28 });
    let loss = model.loss(Some(&adapter), &batch, &mut workspace).unwrap();
    let outcomes = in_chunks(&model, Some(&adapter), &tokens[..99], &[99]);
    let mut mean = 0.0;
    for (outcome, &target) in outcomes.iter().zip(&tokens[1..]) {
        let logits: Vec<f64> = outcome
            .logits
            .iter()
            .map(|&bits| f64::from(f32::from_bits(bits)))
            .collect();
        let z: f64 = logits.iter().map(|logit| logit.exp()).sum();
        mean += (z.ln() - logits[target as usize]) / 99.0;
    }
    assert!((mean - loss.mean()).abs() < 1e-5, "{mean} {}", loss.mean());
}

#[test]
fn segments_that_do_not_fit_are_refused_and_leave_the_caches_alone() {
    let model = PLAIN.model(11, 1);
    let mut workspace = InferenceWorkspace::new();
    let mut cache = model.cache();
    let long = tokens(1, 161, PLAIN.vocab);
    let mut try_tokens = |tokens: &[u32]| {
        let segment = Segment {
            tokens,
            cache: &mut cache,
            logits: LogitRows::Last,
        };
        let refused = model
            .advance(None, &mut [segment], &mut workspace)
            .unwrap_err();
        assert_eq!(cache.len(), 0);
        refused
    };
    assert!(matches!(
        try_tokens(&[]),
        AdvanceError::Empty { segment: 0 }
    ));
    assert!(matches!(
        try_tokens(&[1, 100]),
        AdvanceError::Token {
            token: 100,
            vocab: 100
        }
    ));
    assert!(matches!(
        try_tokens(&long),
        AdvanceError::ContextFull {
            len: 161,
            context: 160,
            ..
        }
    ));
}

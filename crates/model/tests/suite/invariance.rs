//! A token's results are the same bits in every arrangement of the computation.

#![expect(
    clippy::disallowed_methods,
    reason = "a perplexity is reported, not computed exactly"
)]

use r3mes_exact::Cpu;
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

#[test]
fn a_token_gives_the_same_bits_with_any_kernels_and_any_number_of_threads() {
    let packed = PLAIN.packed(11);
    let tokens = tokens(1, 90, PLAIN.vocab);
    let reference = Model::load(scalar(), &packed);
    let expected = in_chunks(
        &reference,
        Some(&loaded(&reference, LORA, 5)),
        &tokens,
        &[90],
    );
    for threads in [1, 2, 5] {
        let model = PLAIN.model(11, threads);
        let adapter = loaded(&model, LORA, 5);
        assert!(
            in_chunks(&model, Some(&adapter), &tokens, &[40]) == expected,
            "{threads}"
        );
    }
}

#[test]
fn a_token_gives_the_same_bits_alone_and_in_a_ragged_batch() {
    let model = PLAIN.model(11, 2);
    let adapter = loaded(&model, LORA, 5);
    let prompts: Vec<Vec<u32>> = [3, 70, 1, 65, 20]
        .iter()
        .zip(10..)
        .map(|(&len, seed)| tokens(seed, len + 4, PLAIN.vocab))
        .collect();
    let alone: Vec<Vec<Outcome>> = prompts
        .iter()
        .map(|tokens| in_chunks(&model, Some(&adapter), tokens, &[tokens.len()]))
        .collect();

    let mut workspace = InferenceWorkspace::new();
    let mut caches: Vec<_> = prompts.iter().map(|_| model.cache()).collect();
    // First all but four tokens of each, which differ in number; then one token of each at a time.
    for step in 0..5 {
        let range = |prompt: &Vec<u32>| match step {
            0 => 0..prompt.len() - 4,
            _ => prompt.len() - 5 + step..prompt.len() - 4 + step,
        };
        let mut segments: Vec<_> = prompts
            .iter()
            .zip(&mut caches)
            .map(|(prompt, cache)| Segment {
                tokens: &prompt[range(prompt)],
                cache,
                logits: LogitRows::Last,
            })
            .collect();
        model
            .advance(Some(&adapter), &mut segments, &mut workspace)
            .unwrap();
        assert_eq!(workspace.logit_rows(), prompts.len());
        let mut row = 0;
        for (index, prompt) in prompts.iter().enumerate() {
            row += range(prompt).len();
            let last = range(prompt).end - 1;
            assert!(
                outcome(&workspace, row - 1, index) == alone[index][last],
                "{index} {step}"
            );
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

//! The base model of the demonstration, as it lies in assets/.

use std::path::{Path, PathBuf};

use r3mes_exact::{Cpu, Device, Philox};
use r3mes_model::{
    Adapter, AdapterLayout, Batch, InferenceWorkspace, LoadedAdapter, LogitRows, LoraConfig,
    MemoryLimit, Model, PackedModel, Segment, Tokenizer, TrainingWorkspace,
};

use crate::synthetic::cpu;

const MODEL_ID: &str = "5ac97d1da1394a3abf968c0ba81c2b2dc70552453487c60da889c9cf2b0cb730";
const TOKENIZER_HASH: &str = "905e0ef3c7bb08ee94b6e8ccd49267c67b91bd112038303154bd763850c72dc4";

fn asset(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../assets")
        .join(name)
}

fn model() -> Model<Cpu> {
    let packed = PackedModel::open(&asset("stories15m-b158/model.r3mes")).unwrap();
    Model::load(cpu(2), &packed)
}

fn tokenizer() -> Tokenizer {
    Tokenizer::open(&asset("stories15m-b158/tokenizer.json")).unwrap()
}

#[test]
fn model_and_tokenizer_are_the_pinned_ones_and_their_provenance_says_so() {
    assert_eq!(model().id().to_string(), MODEL_ID);
    assert_eq!(tokenizer().hash().to_string(), TOKENIZER_HASH);
    assert_eq!(tokenizer().vocabulary(), model().config().vocab);
    let provenance = std::fs::read_to_string(asset("stories15m-b158/PROVENANCE.md")).unwrap();
    assert!(provenance.contains(MODEL_ID) && provenance.contains(TOKENIZER_HASH));
}

/// The lines of a paragraph joined by spaces, paragraphs by newlines.
fn prepared(text: &str) -> String {
    let text = text.replace("\r\n", "\n");
    let paragraphs = text.split("\n\n").map(|paragraph| {
        let lines = paragraph
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty());
        lines.collect::<Vec<_>>().join(" ")
    });
    paragraphs
        .filter(|paragraph| !paragraph.is_empty())
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn held_out_stories_cost_the_base_model_5_924_nats_and_an_untrained_adapter_changes_nothing() {
    let (model, tokenizer) = (model(), tokenizer());
    let mut held_out = Vec::new();
    for name in ["bryant-stories", "burgess-busterbrown", "carroll-alice"] {
        let text = std::fs::read_to_string(asset(&format!("texts/{name}.txt"))).unwrap();
        let tokens = tokenizer.encode(&prepared(&text)).unwrap();
        held_out.push(tokens[tokens.len() * 9 / 10..].to_vec());
    }
    let windows = |tokens: &'_ [u32]| -> Vec<Vec<u32>> {
        tokens
            .windows(129)
            .step_by(128)
            .map(<[u32]>::to_vec)
            .collect()
    };
    let mut workspace = TrainingWorkspace::new(MemoryLimit { bytes: 64 << 20 });
    let mut mean = 0.0;
    for tokens in &held_out {
        let windows = windows(tokens);
        let batch =
            Batch::new(model.config(), windows.iter().map(Vec::as_slice).collect()).unwrap();
        mean += model.loss(None, &batch, &mut workspace).unwrap().mean() / 3.0;
    }
    assert!((mean - 5.924).abs() < 0.002, "{mean}");

    let layout = AdapterLayout::new(model.config(), LoraConfig::DEFAULT).unwrap();
    let adapter = Adapter::initial(&layout, &Philox::from_seed(1));
    let adapter = LoadedAdapter::new(model.device(), &layout, &adapter).unwrap();
    let few = windows(&held_out[0][..600]);
    let few = Batch::new(model.config(), few.iter().map(Vec::as_slice).collect()).unwrap();
    let with = model.loss(Some(&adapter), &few, &mut workspace).unwrap();
    assert_eq!(with, model.loss(None, &few, &mut workspace).unwrap());
}

#[test]
fn steps_against_the_gradient_lower_the_loss() {
    let (model, tokenizer) = (model(), tokenizer());
    let text = "Then the little bear went down to the brook to catch a fat trout for his dinner, \
        and his mother sat upon the bank and watched him, and was very proud indeed.";
    let tokens = tokenizer.encode(text).unwrap();
    let batch = Batch::new(model.config(), vec![&tokens]).unwrap();
    let layout = AdapterLayout::new(model.config(), LoraConfig::DEFAULT).unwrap();
    let adapter = Adapter::initial(&layout, &Philox::from_seed(1));
    let mut adapter = LoadedAdapter::new(model.device(), &layout, &adapter).unwrap();
    let mut workspace = TrainingWorkspace::new(MemoryLimit { bytes: 64 << 20 });
    let mut gradient = model.device().zeros(layout.len());
    let mut losses = Vec::new();
    for _ in 0..6 {
        let loss = model
            .loss_and_gradients(&adapter, &batch, &mut workspace, &mut gradient)
            .unwrap();
        losses.push(loss.mean());
        let mut numbers = adapter.download(model.device()).unwrap().into_numbers();
        let mut slopes = vec![0.0; layout.len()];
        model.device().read(&gradient, 0, &mut slopes);
        for (number, slope) in numbers.iter_mut().zip(slopes) {
            *number -= 0.05 * slope;
        }
        model.device().write(adapter.numbers_mut(), 0, &numbers);
    }
    assert!(losses.is_sorted_by(|a, b| a > b), "{losses:?}");
    assert!(losses[5] < losses[0] - 0.2, "{losses:?}");
}

#[test]
fn the_tokenizer_is_incremental_and_reversible() {
    let tokenizer = tokenizer();
    for text in [
        "Once upon a time, there was a cat.",
        "naïve ☃ snowman 🐻",
        "  two  spaces",
    ] {
        let ids = tokenizer.encode(text).unwrap();
        assert_eq!(tokenizer.decode(&ids).unwrap(), text);
        for cut in 0..ids.len() {
            let mut decoder = tokenizer.decoder(&ids[..cut]);
            let mut rest = String::new();
            for &id in &ids[cut..] {
                rest += &decoder.push(id).unwrap();
            }
            rest += &decoder.finish().unwrap();
            let before = tokenizer.decode(&ids[..cut]).unwrap();
            if !before.ends_with(char::REPLACEMENT_CHARACTER) {
                assert_eq!(before + &rest, text, "cut at {cut}");
            }
        }
    }
}

#[test]
fn the_likeliest_continuation_is_a_story() {
    let (model, tokenizer) = (model(), tokenizer());
    let mut tokens = tokenizer
        .encode("Once upon a time, there was a little")
        .unwrap();
    tokens.insert(0, model.config().bos.unwrap());
    let (mut cache, mut workspace) = (model.cache(), InferenceWorkspace::new());
    let mut answer = Vec::new();
    let mut next = tokens;
    for _ in 0..12 {
        let segment = Segment {
            tokens: &next,
            cache: &mut cache,
            logits: LogitRows::Last,
        };
        model.advance(None, &mut [segment], &mut workspace).unwrap();
        let logits = workspace.logits(0);
        let best = (0..logits.len())
            .max_by(|&a, &b| logits[a].total_cmp(&logits[b]))
            .unwrap();
        answer.push(best as u32);
        next = vec![best as u32];
    }
    assert_eq!(
        tokenizer.decode(&answer).unwrap(),
        "girl named Lily. She loved to play outside in the"
    );
}

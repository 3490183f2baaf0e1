use proptest::prelude::*;
use r3mes_training::dataset::{PIECE_TOKENS, Shard, ShardError, split};
use r3mes_types::Hash;

fn tokenizer() -> Hash {
    Hash::of(b"a tokenizer")
}

proptest! {
    #[test]
    fn a_shard_survives_its_encoding(
        vocabulary in prop_oneof![Just(5u32), Just(32_000), Just(65_536), Just(65_537), Just(200_000)],
        raw in prop::collection::vec(any::<u32>(), 0..100),
    ) {
        let tokens = raw.iter().map(|token| token % vocabulary).collect();
        let shard = Shard::new(tokenizer(), vocabulary, tokens).unwrap();
        prop_assert_eq!(Shard::decode(&shard.encode()), Ok(shard));
    }

    #[test]
    fn whatever_is_accepted_is_canonical(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in 0usize..3,
        tail in prop::collection::vec(any::<u8>(), 0..3),
    ) {
        let shard = Shard::new(tokenizer(), 300, (0..50).collect()).unwrap();
        let mut bytes = shard.encode();
        for (index, value) in changes {
            let at = index.index(bytes.len());
            bytes[at] = value;
        }
        bytes.truncate(bytes.len() - cut);
        bytes.extend(tail);
        if let Ok(other) = Shard::decode(&bytes) {
            prop_assert_eq!(other.encode(), bytes);
        }
    }

    #[test]
    fn every_training_token_is_dealt_once_and_no_held_out_one(
        lengths in prop::collection::vec(0usize..9000, 1..4),
        shards in 1usize..5,
    ) {
        // Each token says which text and place it comes from.
        let texts: Vec<Vec<u32>> = lengths.iter().enumerate()
            .map(|(text, &length)| (0..length as u32).map(|at| (text as u32) << 16 | at).collect())
            .collect();
        let split = split(&texts, shards, 16);
        let mut dealt: Vec<u32> = split.shards.concat();
        dealt.sort_unstable();
        let training = texts.iter().flat_map(|text| &text[..text.len() * 9 / 10]).copied();
        prop_assert_eq!(dealt, training.collect::<Vec<u32>>());
        for (text, held_out) in texts.iter().zip(&split.held_out) {
            for window in held_out.chunks(17) {
                let from = (window[0] & 0xffff) as usize;
                prop_assert!(from >= text.len() * 9 / 10);
                prop_assert_eq!(window, &text[from..from + 17]);
            }
            let windows = (text.len() - text.len() * 9 / 10).saturating_sub(1) / 16;
            prop_assert_eq!(held_out.len(), 17 * windows);
        }
    }
}

#[test]
fn every_shard_holds_some_of_every_long_text() {
    let texts: Vec<Vec<u32>> = (0..3).map(|text| vec![text; 8 * PIECE_TOKENS]).collect();
    for shard in split(&texts, 3, 128).shards {
        assert!((0..3).all(|text| shard.contains(&text)));
    }
}

#[test]
fn a_token_outside_the_vocabulary_is_named() {
    let error = Shard::new(tokenizer(), 10, vec![3, 10]).unwrap_err();
    assert_eq!(
        error,
        ShardError::Token {
            token: 10,
            position: 1,
            vocabulary: 10
        }
    );
}

#[test]
fn windows_of_a_held_out_shard_overlap_by_one_token() {
    let split = split(&[(0..100).collect()], 1, 4);
    let shard = Shard::new(tokenizer(), 100, split.held_out.concat()).unwrap();
    let windows: Vec<_> = shard.windows(4).collect();
    assert_eq!(windows, [[90, 91, 92, 93, 94], [94, 95, 96, 97, 98]]);
}

#[test]
fn the_encoding_of_a_shard_is_pinned() {
    let small = Shard::new(tokenizer(), 32_000, (0..1000).map(|i| i * 31).collect()).unwrap();
    let large = Shard::new(tokenizer(), 70_000, (0..1000).map(|i| i * 69).collect()).unwrap();
    assert_eq!(
        Hash::of(&small.encode()).to_string(),
        "d44eb4946ef99c3766828b3252e722fa8d21e78e6d188f565bc83bfe0552eb59"
    );
    assert_eq!(
        Hash::of(&large.encode()).to_string(),
        "9acd9ed137a08b51d764725eb80f1b36543a254da28834fd03f48c35746907ec"
    );
}

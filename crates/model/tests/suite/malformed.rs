//! Bytes that are not a packed model, a checkpoint, a tokenizer or an adapter never panic.

use proptest::prelude::*;
use r3mes_exact::Bytes;
use r3mes_model::{
    Adapter, AdapterLayout, Checkpoint, LoraConfig, PackedModel, Tokenizer, pack_in_memory,
};

use crate::synthetic::{BITNET, PLAIN, Shape, Storage};

/// A shape whose files are small enough to damage thousands of them.
const TINY: Shape = Shape {
    hidden: 16,
    ffn: 16,
    layers: 1,
    heads: 2,
    vocab: 20,
    ..BITNET
};

fn packed_bytes(shape: Shape) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.r3mes");
    r3mes_model::pack(&shape.checkpoint(5, Storage::TernaryInt8), &path).unwrap();
    std::fs::read(&path).unwrap()
}

/// Ways to damage bytes.
#[derive(Clone, Debug)]
enum Damage {
    Flip { at: usize, bit: u8 },
    Cut { at: usize },
    Insert { at: usize, byte: u8 },
    Overwrite { at: usize, bytes: Vec<u8> },
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<usize>();
    prop_oneof![
        4 => (at, 0..8_u8).prop_map(|(at, bit)| Damage::Flip { at, bit }),
        1 => at.prop_map(|at| Damage::Cut { at }),
        1 => (at, any::<u8>()).prop_map(|(at, byte)| Damage::Insert { at, byte }),
        2 => (at, proptest::collection::vec(any::<u8>(), 1..16))
            .prop_map(|(at, bytes)| Damage::Overwrite { at, bytes }),
    ]
}

impl Damage {
    /// Damages the first `reach` bytes.
    fn apply(&self, bytes: &mut Vec<u8>, reach: usize) {
        let reach = reach.min(bytes.len()).max(1);
        match self {
            Self::Flip { at, bit } => bytes[at % reach] ^= 1 << bit,
            Self::Cut { at } => bytes.truncate(at % reach),
            Self::Insert { at, byte } => bytes.insert(at % reach, *byte),
            Self::Overwrite { at, bytes: new } => {
                let at = at % reach;
                let end = (at + new.len()).min(bytes.len());
                bytes[at..end].copy_from_slice(&new[..end - at]);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_damaged_packed_file_is_refused_or_another_model(damage in damage(), all in any::<bool>()) {
        let good = packed_bytes(TINY);
        let id = PackedModel::from_bytes(&Bytes::from_slice(&good)).unwrap().id();
        let mut bytes = good.clone();
        damage.apply(&mut bytes, if all { usize::MAX } else { 2000 });
        if let Ok(model) = PackedModel::from_bytes(&Bytes::from_slice(&bytes)) {
            prop_assert_eq!(bytes == good, model.id() == id);
        }
    }

    #[test]
    fn a_damaged_checkpoint_never_panics(damage in damage(), all in any::<bool>()) {
        let mut bytes = TINY.tensors(5, Storage::TernaryInt8).serialize();
        damage.apply(&mut bytes, if all { usize::MAX } else { 2000 });
        let shards = vec![("model.safetensors".into(), Bytes::from_slice(&bytes))];
        let config = TINY.config_json("");
        if let Ok(checkpoint) = Checkpoint::from_parts(config.as_bytes(), shards, None) {
            let _ = pack_in_memory(&checkpoint);
        }
    }

    #[test]
    fn a_damaged_configuration_never_panics(damage in damage()) {
        let mut json = TINY.config_json("").into_bytes();
        damage.apply(&mut json, usize::MAX);
        let shard = Bytes::from_slice(&TINY.tensors(5, Storage::TernaryInt8).serialize());
        let _ = Checkpoint::from_parts(&json, vec![("model.safetensors".into(), shard)], None);
    }

    #[test]
    fn bytes_that_are_no_tokenizer_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Tokenizer::from_bytes(&bytes).is_err());
    }

    #[test]
    fn bytes_of_any_length_are_an_adapter_or_refused(extra in -9_i64..9, word in any::<u32>()) {
        let packed = TINY.packed(5);
        let lora = LoraConfig { rank: 1, ..LoraConfig::DEFAULT };
        let layout = AdapterLayout::new(packed.config(), lora).unwrap();
        let mut bytes = word.to_le_bytes().repeat(layout.len());
        bytes.resize((bytes.len() as i64 + extra) as usize, 0);
        let read = Adapter::from_bytes(&layout, &bytes);
        prop_assert_eq!(read.is_ok(), extra == 0 && f32::from_bits(word).is_finite());
        if let Ok(adapter) = read {
            prop_assert_eq!(adapter.to_bytes(), bytes);
        }
    }
}

#[test]
fn refusals_of_a_packed_file_say_what_is_wrong() {
    let good = packed_bytes(PLAIN);
    let refusal = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        PackedModel::from_bytes(&Bytes::from_slice(&bytes))
            .unwrap_err()
            .to_string()
    };
    let find = |text: &str| {
        good.windows(text.len())
            .position(|w| w == text.as_bytes())
            .unwrap()
    };
    for (change, said) in [
        (
            &(|b: &mut Vec<u8>| b.clear()) as &dyn Fn(&mut Vec<u8>),
            "shorter than eight",
        ),
        (&|b| b[7] = 1, "too long"),
        (&|b| b.truncate(100), "ends inside its header"),
        (&|b| b[20] = b'!', "JSON"),
        (&|b| b[find("packed-1") + 7] = b'2', "r3mes-packed-2"),
        (&|b| b[find("\"dtype\":\"I8\"") + 9] = b'U', "damaged"),
        (&|b| b.push(0), "bytes, but its header asks for"),
        (&|b| *b.last_mut().unwrap() = 0xff, "layers.1.down.panels"),
    ] {
        let refused = refusal(change);
        assert!(refused.contains(said), "{refused:?} does not say {said:?}");
    }
}

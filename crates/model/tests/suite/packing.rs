//! From checkpoints to packed files.

use r3mes_exact::{Bytes, disturbed};
use r3mes_model::{
    ChatFormat, Checkpoint, CheckpointError, LinearFormat, Message, PackedModel, pack,
    pack_in_memory,
};

use crate::synthetic::{BITNET, PLAIN, Shape, Storage};

#[test]
fn equal_weights_in_any_storage_are_the_same_model() {
    let expected = BITNET.packed(5).id();
    let from = |storage| pack_in_memory(&BITNET.checkpoint(5, storage)).unwrap().id();
    assert_eq!(from(Storage::TernaryInt8), expected);
    assert_eq!(
        from(Storage::PackedCodes {
            scale_divides: false
        }),
        expected
    );
}

#[test]
fn a_scale_divides_where_the_published_layout_has_it_divide() {
    // 1 / (1 / s) may differ from s in its last bit, but not for powers of two.
    let with = |storage, scale: f32| {
        let mut tensors = BITNET.tensors(5, storage);
        let names = tensors.list.iter().map(|tensor| tensor.0.clone());
        let names: Vec<String> = names
            .filter(|name| name.ends_with("_proj.weight_scale"))
            .collect();
        assert!(!names.is_empty());
        for name in names {
            tensors.replace(&name, |bytes| *bytes = scale.to_le_bytes().to_vec());
        }
        pack_in_memory(&BITNET.checkpoint_of(&tensors, storage))
            .unwrap()
            .id()
    };
    let codes = |scale_divides| Storage::PackedCodes { scale_divides };
    let expected = with(Storage::TernaryInt8, 0.25);
    assert_eq!(with(codes(false), 0.25), expected);
    assert_eq!(with(codes(true), 4.0), expected);
    assert_ne!(with(codes(true), 0.25), expected);
}

#[test]
fn a_packed_file_is_pinned() {
    let ids = [PLAIN, BITNET].map(|shape| shape.packed(5).id().to_string());
    assert_eq!(
        ids,
        [
            "4b322aa80b09e708f4022f30792de2e24f9fe27d593174a2cb690b0382fea419",
            "23e0fc6e9be92d9ac0e1a50806219ddcd25394621d14eab7affbd484787a78f7"
        ]
    );
}

#[test]
fn a_packed_file_does_not_depend_on_what_other_libraries_left() {
    let divides = Storage::PackedCodes {
        scale_divides: true,
    };
    for (storage, linears) in [
        (Storage::Bf16, LinearFormat::Ternary),
        (Storage::Bf16, LinearFormat::Int8),
        (divides, LinearFormat::Ternary),
    ] {
        // The scales of the last one divide, as those of published models do.
        let extra = r#", "quantization_config": {"quant_method": "bitnet"}"#;
        let config = BITNET.config_json(extra);
        let shard = Bytes::from_slice(&BITNET.tensors(5, storage).serialize());
        let id = || {
            let shards = vec![("model.safetensors".into(), shard.clone())];
            let checkpoint = Checkpoint::from_parts(config.as_bytes(), shards, Some(linears));
            pack_in_memory(&checkpoint.unwrap()).unwrap().id()
        };
        assert_eq!(disturbed(id), id(), "{linears:?}");
    }
}

/// A folder with a small checkpoint and these files beside it.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    write("config.json", PLAIN.config_json("").as_bytes());
    let tensors = PLAIN.tensors(5, Storage::TernaryInt8);
    write("model.safetensors", &tensors.serialize());
    for (name, text) in files {
        write(name, text.as_bytes());
    }
    folder
}

#[test]
fn a_chat_template_is_packed_with_its_model_and_is_part_of_its_id() {
    let said = r#"{"chat_template": "{{ bos_token }}\"{{ messages[0].content }}\"\n",
        "bos_token": "<s>", "eos_token": {"content": "</s>"}}"#;
    let folder = folder(&[("tokenizer_config.json", said)]);
    let path = folder.path().join("model.r3mes");
    let packed = pack(&Checkpoint::open(folder.path(), None).unwrap(), &path).unwrap();
    let format = ChatFormat {
        template: "{{ bos_token }}\"{{ messages[0].content }}\"\n".into(),
        bos: "<s>".into(),
        eos: "</s>".into(),
    };
    assert_eq!(packed.chat(), Some(&format));
    assert_eq!(
        packed.id().to_string(),
        "78bf9d39cf2005eb1fd5a9d4dec9f689c7d6477819d8cac4a6e2168e036690bc"
    );
    let plain = PLAIN.packed(5);
    assert_eq!(plain.chat(), None);
    assert_ne!(packed.id(), plain.id());
    let hello = [Message {
        role: "user".into(),
        content: "hello".into(),
    }];
    let prompt = |model: &PackedModel| model.chat_template().unwrap().render(&hello).unwrap();
    assert_eq!(prompt(&packed), "<s>\"hello\"");
    assert_eq!(prompt(&plain), "hello");
}

#[test]
fn a_chat_template_that_nobody_could_use_is_refused_when_it_is_packed() {
    for (template, said) in [
        ("{% if x %}", "does not compile"),
        (
            "{{ raise_exception('roles') }}",
            "refuses this conversation",
        ),
    ] {
        let folder = folder(&[("chat_template.jinja", template)]);
        let path = folder.path().join("model.r3mes");
        let refusal = pack(&Checkpoint::open(folder.path(), None).unwrap(), &path).unwrap_err();
        let cause = std::error::Error::source(&refusal).unwrap().to_string();
        assert!(
            refusal.to_string().contains("chat_template.jinja"),
            "{refusal}"
        );
        assert!(cause.contains(said), "{cause}");
        assert!(!path.exists());
    }
    let folder = folder(&[("tokenizer_config.json", "{}]")]);
    assert!(Checkpoint::open(folder.path(), None).is_err());
}

#[test]
fn a_file_on_disk_is_the_model_in_memory() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.r3mes");
    let packed = pack(&PLAIN.checkpoint(5, Storage::TernaryInt8), &path).unwrap();
    assert_eq!(packed.id(), PLAIN.packed(5).id());
    assert_eq!(PackedModel::open(&path).unwrap().id(), packed.id());
    let files = std::fs::read_dir(directory.path()).unwrap().count();
    assert_eq!(files, 1, "no temporary file is left");
}

#[test]
fn a_checkpoint_is_read_from_a_directory_whole_or_in_shards() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        std::fs::write(directory.path().join(name), bytes).unwrap();
    };
    write("config.json", PLAIN.config_json("").as_bytes());
    let mut first = PLAIN.tensors(5, Storage::TernaryInt8);
    write("model.safetensors", &first.serialize());
    let open = || Checkpoint::open(directory.path(), None).unwrap();
    let whole = pack_in_memory(&open()).unwrap().id();

    std::fs::remove_file(directory.path().join("model.safetensors")).unwrap();
    let mut second = PLAIN.tensors(5, Storage::TernaryInt8);
    second.list = first.list.split_off(9);
    write("a.safetensors", &first.serialize());
    write("b.safetensors", &second.serialize());
    let names = |tensors: &crate::synthetic::Tensors, file: &str| {
        let entry = |name: &String| format!("\"{name}\": \"{file}\"");
        tensors
            .list
            .iter()
            .map(|tensor| entry(&tensor.0))
            .collect::<Vec<_>>()
            .join(",")
    };
    let map = [
        names(&first, "a.safetensors"),
        names(&second, "b.safetensors"),
    ]
    .join(",");
    write(
        "model.safetensors.index.json",
        format!("{{\"weight_map\": {{{map}}}}}").as_bytes(),
    );
    assert_eq!(pack_in_memory(&open()).unwrap().id(), whole);

    let outside = format!(
        "{{\"weight_map\": {{{}}}}}",
        names(&first, "../a.safetensors")
    );
    write("model.safetensors.index.json", outside.as_bytes());
    let error = Checkpoint::open(directory.path(), None).unwrap_err();
    assert!(error.to_string().contains("../a.safetensors"), "{error}");
}

#[test]
fn floating_weights_become_ternary_for_bitnet_and_int8_otherwise() {
    let bitnet = PLAIN.checkpoint(5, Storage::Bf16);
    assert_eq!(bitnet.config().linears, LinearFormat::Ternary);
    pack_in_memory(&bitnet).unwrap();

    let config = PLAIN.config_json("").replace("\"bitnet\"", "\"llama\"");
    let shard = Bytes::from_slice(&PLAIN.tensors(5, Storage::Bf16).serialize());
    let shards = vec![("model.safetensors".to_owned(), shard)];
    let open =
        |linears| Checkpoint::from_parts(config.as_bytes(), shards.clone(), linears).unwrap();
    assert_eq!(open(None).config().linears, LinearFormat::Int8);
    assert_eq!(
        open(Some(LinearFormat::Ternary)).config().linears,
        LinearFormat::Ternary
    );
    let packed = pack_in_memory(&open(None)).unwrap();
    assert_eq!(packed.config().linears, LinearFormat::Int8);
}

/// The error of a checkpoint of `shape` after `change`, when it is opened or packed.
fn refusal(
    shape: Shape,
    storage: Storage,
    change: impl FnOnce(&mut crate::synthetic::Tensors),
) -> CheckpointError {
    let mut tensors = shape.tensors(5, storage);
    change(&mut tensors);
    let shards = vec![(
        "model.safetensors".into(),
        Bytes::from_slice(&tensors.serialize()),
    )];
    let opened = Checkpoint::from_parts(shape.config_json("").as_bytes(), shards, None);
    let checkpoint = match opened {
        Ok(checkpoint) => checkpoint,
        Err(error) => return error,
    };
    match pack_in_memory(&checkpoint).unwrap_err() {
        r3mes_model::PackError::Checkpoint(error) => error,
        other => panic!("{other}"),
    }
}

#[test]
fn damaged_checkpoints_are_refused_with_the_tensor_and_the_place() {
    let gate = "model.layers.1.mlp.gate_proj.weight";
    let ternary = Storage::TernaryInt8;
    let error = refusal(PLAIN, ternary, |t| t.replace(gate, |bytes| bytes[50] = 2));
    assert!(
        matches!(&error, CheckpointError::Code { name, row: 1, column: 2, value: 2 }
        if name == gate),
        "{error}"
    );

    let codes = Storage::PackedCodes {
        scale_divides: false,
    };
    let error = refusal(PLAIN, codes, |t| t.replace(gate, |bytes| bytes[0] = 0b1100));
    assert!(
        matches!(
            error,
            CheckpointError::Code {
                row: 20,
                column: 0,
                value: 3,
                ..
            }
        ),
        "{error}"
    );

    let error = refusal(PLAIN, ternary, |t| t.replace(gate, |bytes| bytes.fill(0)));
    assert!(
        matches!(&error, CheckpointError::AllZero { name } if name == gate),
        "{error}"
    );

    let scale = "model.layers.0.self_attn.o_proj.weight_scale";
    let negative = (-0.5_f32).to_le_bytes();
    let error = refusal(PLAIN, ternary, |t| {
        t.replace(scale, |b| b.copy_from_slice(&negative))
    });
    assert!(
        matches!(
            error,
            CheckpointError::Scale {
                index: 0,
                value: -0.5,
                ..
            }
        ),
        "{error}"
    );

    let gain = "model.layers.0.input_layernorm.weight";
    let nan = f32::NAN.to_le_bytes();
    let error = refusal(PLAIN, ternary, |t| {
        t.replace(gain, |b| b[8..12].copy_from_slice(&nan))
    });
    assert!(
        matches!(error, CheckpointError::NotFinite { index: 2, .. }),
        "{error}"
    );

    let error = refusal(PLAIN, ternary, |t| t.list.retain(|tensor| tensor.0 != gate));
    assert!(
        matches!(&error, CheckpointError::Missing { name } if name == gate),
        "{error}"
    );

    let error = refusal(PLAIN, ternary, |t| {
        let tensor = t.list.iter_mut().find(|tensor| tensor.0 == gate).unwrap();
        tensor.0 = "model.layers.0.mlp.gate_proj.bias".into();
    });
    assert!(
        matches!(error, CheckpointError::Unexpected { .. }),
        "{error}"
    );

    let other = Shape {
        hidden: 64,
        ..PLAIN
    };
    let error = refusal(other, ternary, |t| *t = PLAIN.tensors(5, ternary));
    assert!(matches!(error, CheckpointError::Shape { .. }), "{error}");
}

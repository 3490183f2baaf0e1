//! A small model as people bring it.

use std::{fs, path::Path};

use serde_json::Value;

/// Tokens that the model embeds.
const ROWS: usize = 64;

/// How it is talked with.
const TEMPLATE: &str = "{% for m in messages %}{{ m.role }} said: {{ m.content }}\n{% endfor %}";

/// A checkpoint in Hugging Face layout with one small block of floating weights, and a tokenizer of
/// letters.
pub(crate) fn write(folder: &Path) {
    const WIDTH: usize = 32;
    let mut shapes = vec![
        ("model.embed_tokens.weight".to_owned(), vec![ROWS, WIDTH]),
        ("model.norm.weight".to_owned(), vec![WIDTH]),
    ];
    for name in ["input_layernorm", "post_attention_layernorm"] {
        shapes.push((format!("model.layers.0.{name}.weight"), vec![WIDTH]));
    }
    let linears = ["self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o"];
    let linears = linears
        .into_iter()
        .chain(["mlp.gate", "mlp.up", "mlp.down"]);
    for name in linears {
        let name = format!("model.layers.0.{name}_proj.weight");
        shapes.push((name, vec![WIDTH, WIDTH]));
    }
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, shape) in shapes {
        let from = data.len();
        for index in 0..shape.iter().product() {
            let number = (index % 7) as f32 - 2.5;
            data.extend(number.to_le_bytes());
        }
        let offsets = [from, data.len()];
        let entry = serde_json::json!({ "dtype": "F32", "shape": shape, "data_offsets": offsets });
        header.insert(name, entry);
    }
    let header = Value::from(header).to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend(data);
    let config = serde_json::json!({
        "model_type": "llama", "hidden_size": WIDTH, "intermediate_size": WIDTH,
        "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2,
        "vocab_size": ROWS, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": true,
    });
    fs::create_dir(folder).unwrap();
    fs::write(folder.join("model.safetensors"), file).unwrap();
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let said = serde_json::json!({ "chat_template": TEMPLATE, "bos_token": null });
    fs::write(folder.join("tokenizer_config.json"), said.to_string()).unwrap();
    let tokenizer = folder.join("tokenizer.json");
    fs::write(tokenizer, tokenizer_of_letters().to_string()).unwrap();
}

/// A token for each small letter and mark; everything else is unknown.
fn tokenizer_of_letters() -> Value {
    let tokens = ["<unk>".to_owned(), "\n".to_owned()].into_iter();
    let marks = (' '..='@').filter(|mark| !mark.is_ascii_digit());
    let letters = marks.chain('a'..='z').map(String::from);
    let vocabulary: serde_json::Map<String, Value> = tokens
        .chain(letters)
        .zip(0_u32..)
        .map(|(token, id)| (token, Value::from(id)))
        .collect();
    assert!(vocabulary.len() <= ROWS);
    serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": {"type": "Lowercase"}, "pre_tokenizer": null, "post_processor": null,
        "decoder": {"type": "Fuse"},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "ignore_merges": false, "vocab": vocabulary, "merges": [],
        },
    })
}

//! Checkpoints in Hugging Face's layout: `config.json` beside safetensors, in one file or many, and the
//! chat template if there is one.
//!
//! Linear weights are read in any of four forms: int8 holding {-1, 0, 1} beside a
//! `weight_scale`; four two-bit codes to a byte, as published BitNet models have them; and
//! floating numbers, quantized here either to ternary or to int8 by row.

mod chat;
mod error;
mod float;
mod quantize;

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::Path;

use r3mes_exact::Bytes;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

use crate::chat::ChatFormat;
use crate::config::{HuggingFaceConfig, ModelConfig, ScaleMeaning};
use crate::linear::{Linear, LinearFormat};

pub use error::CheckpointError;

/// Most files that one checkpoint may be split into.
pub const MAX_SHARDS: usize = 1024;
/// Largest `config.json` or index that is read, in bytes.
pub const MAX_JSON_BYTES: u64 = 64 << 20;

/// A checkpoint whose configuration and tensor list have been checked. Weights are read when
/// asked for, one tensor at a time.
#[derive(Debug)]
pub struct Checkpoint {
    config: ModelConfig,
    chat: Option<ChatFormat>,
    scale: ScaleMeaning,
    tensors: BTreeMap<String, Tensor>,
}

/// An integer matrix with its scales: one for all, or one per row.
#[derive(Debug, PartialEq)]
pub(crate) struct QuantizedMatrix {
    /// Row-major values.
    pub(crate) codes: Vec<i8>,
    /// One scale, or one for each row.
    pub(crate) scales: Vec<f32>,
}

#[derive(Debug)]
struct Tensor {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Bytes,
}

impl Checkpoint {
    /// Opens the checkpoint in `directory`.
    ///
    /// `linears` says how floating linear weights are to be quantized; without it they become
    /// ternary when the configuration speaks of BitNet, and int8 by row otherwise.
    ///
    /// # Errors
    /// When a file cannot be read, or the configuration and the tensors do not fit together.
    pub fn open(directory: &Path, linears: Option<LinearFormat>) -> Result<Self, CheckpointError> {
        let config = read_json(&directory.join("config.json"))?;
        let single = directory.join("model.safetensors");
        let names = if single.exists() {
            vec!["model.safetensors".to_owned()]
        } else {
            shard_names(&read_json(&directory.join("model.safetensors.index.json"))?)?
        };
        let mut shards = Vec::with_capacity(names.len());
        for name in names {
            let path = directory.join(&name);
            let read = |source| CheckpointError::Read {
                path: path.display().to_string(),
                source,
            };
            let bytes = File::open(&path)
                .and_then(|file| Bytes::map(&file))
                .map_err(read)?;
            shards.push((name, bytes));
        }
        let chat = chat::open(directory)?;
        Ok(Self {
            chat,
            ..Self::from_parts(&config, shards, linears)?
        })
    }

    /// Takes a checkpoint from the contents of its files: `config.json`, and the named shards. It
    /// brings no chat template.
    ///
    /// # Errors
    /// When the configuration and the tensors do not fit together.
    pub fn from_parts(
        config_json: &[u8],
        shards: Vec<(String, Bytes)>,
        linears: Option<LinearFormat>,
    ) -> Result<Self, CheckpointError> {
        let raw = HuggingFaceConfig::parse(config_json)?;
        let mut tensors = BTreeMap::new();
        for (file, bytes) in shards {
            add_tensors(&mut tensors, &file, &bytes)?;
        }
        let query = tensors.get("model.layers.0.self_attn.q_proj.weight");
        let linears = match query.map(|tensor: &Tensor| tensor.dtype) {
            Some(Dtype::I8 | Dtype::U8) => LinearFormat::Ternary,
            _ => linears.unwrap_or(raw.preferred_format()),
        };
        let sub_norm = tensors.contains_key("model.layers.0.self_attn.attn_sub_norm.weight");
        let has_head = tensors.contains_key("lm_head.weight");
        let scale = raw.scale;
        let config = raw.into_config(sub_norm, has_head, linears)?;
        let checkpoint = Self {
            config,
            chat: None,
            scale,
            tensors,
        };
        checkpoint.check_names()?;
        Ok(checkpoint)
    }

    /// The shape of the model.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The chat template that the checkpoint brings, if it does.
    pub fn chat(&self) -> Option<&ChatFormat> {
        self.chat.as_ref()
    }

    /// The weights of one linear, quantized as the configuration says.
    pub(crate) fn linear(
        &self,
        layer: usize,
        linear: Linear,
    ) -> Result<QuantizedMatrix, CheckpointError> {
        let base = format!("model.layers.{layer}.{}", linear.hugging_face_name());
        let (rows, columns) = self.config.dimensions(linear);
        let name = format!("{base}.weight");
        let tensor = self.tensor(&name)?;
        let matrix = match (tensor.dtype, self.config.linears) {
            (Dtype::I8, LinearFormat::Ternary) => {
                tensor.expect_shape(&name, &[rows, columns])?;
                let codes = quantize::ternary_int8(&name, columns, &tensor.bytes)?;
                // Int8 ternary checkpoints always multiply by their scale.
                let scale = self.weight_scale(&base, ScaleMeaning::Multiplier)?;
                QuantizedMatrix {
                    codes,
                    scales: vec![scale],
                }
            }
            (Dtype::U8, LinearFormat::Ternary) => {
                tensor.expect_shape(&name, &[rows.div_ceil(4), columns])?;
                if !rows.is_multiple_of(4) {
                    let (found, expected) = (tensor.shape.clone(), vec![rows, columns]);
                    return Err(CheckpointError::Shape {
                        name,
                        found,
                        expected,
                    });
                }
                let codes = quantize::unpack_codes(&name, rows, columns, &tensor.bytes)?;
                let scale = self.weight_scale(&base, self.scale)?;
                QuantizedMatrix {
                    codes,
                    scales: vec![scale],
                }
            }
            (_, LinearFormat::Ternary) => {
                quantize::to_ternary(&self.floats(&name, &[rows, columns])?)
            }
            (_, LinearFormat::Int8) => {
                quantize::rows_to_int8(&self.floats(&name, &[rows, columns])?, columns)
            }
        };
        if matrix.codes.iter().all(|&code| code == 0) {
            return Err(CheckpointError::AllZero { name });
        }
        Ok(matrix)
    }

    /// The scale of one ternary linear.
    pub(crate) fn linear_scale(
        &self,
        layer: usize,
        linear: Linear,
    ) -> Result<f32, CheckpointError> {
        let base = format!("model.layers.{layer}.{}", linear.hugging_face_name());
        match self.tensor(&format!("{base}.weight"))?.dtype {
            Dtype::I8 => self.weight_scale(&base, ScaleMeaning::Multiplier),
            Dtype::U8 => self.weight_scale(&base, self.scale),
            _ => Ok(self.linear(layer, linear)?.scales[0]),
        }
    }

    /// The embedding, int8 with a scale for each row.
    pub(crate) fn embedding(&self) -> Result<QuantizedMatrix, CheckpointError> {
        self.token_matrix("model.embed_tokens")
    }

    /// The output head of a model that does not use its embedding, int8 with a scale per row.
    pub(crate) fn head(&self) -> Result<QuantizedMatrix, CheckpointError> {
        self.token_matrix("lm_head")
    }

    /// The gains of a norm of block `layer`, by its name there.
    pub(crate) fn layer_gain(
        &self,
        layer: usize,
        norm: &str,
        width: usize,
    ) -> Result<Vec<f32>, CheckpointError> {
        self.floats(&format!("model.layers.{layer}.{norm}.weight"), &[width])
    }

    /// The gains of the last norm.
    pub(crate) fn final_gain(&self) -> Result<Vec<f32>, CheckpointError> {
        self.floats("model.norm.weight", &[self.config.hidden])
    }

    fn token_matrix(&self, base: &str) -> Result<QuantizedMatrix, CheckpointError> {
        let (rows, columns) = (self.config.vocab, self.config.hidden);
        let name = format!("{base}.weight");
        let tensor = self.tensor(&name)?;
        let matrix = if tensor.dtype == Dtype::I8 {
            tensor.expect_shape(&name, &[rows, columns])?;
            let codes = quantize::plain_int8(&name, columns, &tensor.bytes)?;
            let scale_name = format!("{base}.weight_scale");
            let scales = self.floats(&scale_name, &[rows])?;
            quantize::check_scales(&scale_name, &scales)?;
            QuantizedMatrix { codes, scales }
        } else {
            quantize::rows_to_int8(&self.floats(&name, &[rows, columns])?, columns)
        };
        if matrix.codes.iter().all(|&code| code == 0) {
            return Err(CheckpointError::AllZero { name });
        }
        Ok(matrix)
    }

    fn weight_scale(&self, base: &str, meaning: ScaleMeaning) -> Result<f32, CheckpointError> {
        let name = format!("{base}.weight_scale");
        let given = self.floats(&name, &[1])?[0];
        let scale = match meaning {
            ScaleMeaning::Multiplier => given,
            ScaleMeaning::Divisor => 1.0 / given,
        };
        quantize::check_scales(&name, &[given])?;
        quantize::check_scales(&name, &[scale])?;
        Ok(scale)
    }

    fn floats(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, CheckpointError> {
        let tensor = self.tensor(name)?;
        tensor.expect_shape(name, shape)?;
        let values = float::widen(tensor.dtype, &tensor.bytes).ok_or_else(|| {
            CheckpointError::ElementType {
                name: name.to_owned(),
                found: format!("{:?}", tensor.dtype),
                expected: "F32, F16 or BF16",
            }
        })?;
        match values.iter().position(|value| !value.is_finite()) {
            Some(index) => Err(CheckpointError::NotFinite {
                name: name.to_owned(),
                index,
            }),
            None => Ok(values),
        }
    }

    fn tensor(&self, name: &str) -> Result<&Tensor, CheckpointError> {
        self.tensors
            .get(name)
            .ok_or_else(|| CheckpointError::Missing {
                name: name.to_owned(),
            })
    }

    /// Refuses tensors that packing would silently drop, a bias for one.
    fn check_names(&self) -> Result<(), CheckpointError> {
        match self.tensors.keys().find(|name| !self.uses(name)) {
            Some(name) => Err(CheckpointError::Unexpected { name: name.clone() }),
            None => Ok(()),
        }
    }

    fn uses(&self, name: &str) -> bool {
        if name.ends_with("rotary_emb.inv_freq") {
            // A table that some checkpoints carry along; it follows from the configuration.
            return true;
        }
        let base = name
            .strip_suffix(".weight")
            .or_else(|| name.strip_suffix(".weight_scale"));
        let Some(base) = base else { return false };
        let Some(in_layer) = base.strip_prefix("model.layers.") else {
            // A tied checkpoint may repeat the embedding as its head.
            return matches!(base, "model.embed_tokens" | "model.norm" | "lm_head");
        };
        let Some((layer, part)) = in_layer.split_once('.') else {
            return false;
        };
        let sub_norm = matches!(part, "self_attn.attn_sub_norm" | "mlp.ffn_sub_norm");
        layer
            .parse::<usize>()
            .is_ok_and(|layer| layer < self.config.layers)
            && (Linear::ALL
                .iter()
                .any(|linear| linear.hugging_face_name() == part)
                || matches!(part, "input_layernorm" | "post_attention_layernorm")
                || (sub_norm && self.config.sub_norm))
    }
}

impl Tensor {
    fn expect_shape(&self, name: &str, expected: &[usize]) -> Result<(), CheckpointError> {
        let scalar = expected == [1] && self.shape.is_empty();
        if self.shape == expected || scalar {
            return Ok(());
        }
        let (found, expected) = (self.shape.clone(), expected.to_vec());
        Err(CheckpointError::Shape {
            name: name.to_owned(),
            found,
            expected,
        })
    }
}

/// Adds the tensors of one shard to `tensors`.
fn add_tensors(
    tensors: &mut BTreeMap<String, Tensor>,
    file: &str,
    bytes: &Bytes,
) -> Result<(), CheckpointError> {
    let shard = |source| CheckpointError::Shard {
        file: file.to_owned(),
        source,
    };
    let (header, metadata) = SafeTensors::read_metadata(bytes).map_err(shard)?;
    let data = bytes.slice(header + size_of::<u64>()..bytes.len());
    for (name, info) in metadata.tensors() {
        let (start, end) = info.data_offsets;
        let tensor = Tensor {
            dtype: info.dtype,
            shape: info.shape.clone(),
            bytes: data.slice(Range { start, end }),
        };
        if tensors.insert(name.clone(), tensor).is_some() {
            let reason = format!("`{name}` is in more than one shard");
            return Err(CheckpointError::Index { reason });
        }
    }
    Ok(())
}

/// The files that an index names, each once, in order of name.
fn shard_names(index: &[u8]) -> Result<Vec<String>, CheckpointError> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let index: Index = serde_json::from_slice(index).map_err(|error| CheckpointError::Index {
        reason: error.to_string(),
    })?;
    let mut names: Vec<String> = index.weight_map.into_values().collect();
    names.sort_unstable();
    names.dedup();
    if names.len() > MAX_SHARDS {
        let reason = format!("it names {} files, more than {MAX_SHARDS}", names.len());
        return Err(CheckpointError::Index { reason });
    }
    if let Some(name) = names
        .iter()
        .find(|name| name.contains(['/', '\\']) || *name == "..")
    {
        let reason = format!("`{name}` is not the name of a file beside it");
        return Err(CheckpointError::Index { reason });
    }
    Ok(names)
}

fn read_json(path: &Path) -> Result<Vec<u8>, CheckpointError> {
    let read = |source| CheckpointError::Read {
        path: path.display().to_string(),
        source,
    };
    let bytes = std::fs::metadata(path).map_err(read)?.len();
    if bytes > MAX_JSON_BYTES {
        return Err(CheckpointError::TooLarge {
            path: path.display().to_string(),
            bytes,
        });
    }
    std::fs::read(path).map_err(read)
}

//! What a Hugging Face `config.json` says, as far as it matters here.

use r3mes_exact::undisturbed;
use serde::Deserialize;

use super::{Activation, ConfigError, ModelConfig, ModelShape, RopeLayout};
use crate::linear::LinearFormat;

/// How a published checkpoint of packed codes means its `weight_scale`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ScaleMeaning {
    /// Weight = code * scale (`autobitlinear`, offline).
    Multiplier,
    /// Weight = code / scale (`bitlinear`).
    Divisor,
}

/// A Hugging Face `config.json`, as far as it matters here.
#[derive(Debug)]
pub(crate) struct HuggingFaceConfig {
    raw: RawConfig,
    /// Meaning of `weight_scale` beside packed codes.
    pub(crate) scale: ScaleMeaning,
}

impl HuggingFaceConfig {
    /// Reads `config.json`, refusing what is not implemented.
    pub(crate) fn parse(json: &[u8]) -> Result<Self, ConfigError> {
        // Numbers are read, and rounded to f32 below, as everywhere.
        let raw: RawConfig =
            undisturbed(|| serde_json::from_slice(json)).map_err(ConfigError::Json)?;
        let unsupported =
            |field, value: String, hint| Err(ConfigError::Unsupported { field, value, hint });
        if let Some(scaling) = raw.rope_scaling.as_ref().filter(|v| !v.is_null()) {
            return unsupported("rope_scaling", scaling.to_string(), "only plain RoPE is");
        }
        if raw.attention_bias || raw.mlp_bias {
            return unsupported("attention_bias", "true".into(), "linears have no bias here");
        }
        let scale = match &raw.quantization_config {
            None => ScaleMeaning::Multiplier,
            Some(q) => q.scale_meaning()?,
        };
        Ok(Self { raw, scale })
    }

    /// What floating linear weights become unless the caller asks otherwise.
    pub(crate) fn preferred_format(&self) -> LinearFormat {
        let bitnet = self.raw.model_type == "bitnet" || self.raw.quantization_config.is_some();
        if bitnet {
            LinearFormat::Ternary
        } else {
            LinearFormat::Int8
        }
    }

    /// Completes the shape with what only the checkpoint's tensors tell.
    pub(crate) fn into_config(
        self,
        sub_norm: bool,
        has_head: bool,
        linears: LinearFormat,
    ) -> Result<ModelConfig, ConfigError> {
        let raw = self.raw;
        let activation = match raw.hidden_act.as_str() {
            "silu" | "swish" => Activation::Silu,
            "relu2" => Activation::Relu2,
            other => {
                return Err(ConfigError::Unsupported {
                    field: "hidden_act",
                    value: other.to_owned(),
                    hint: "silu and relu2 are",
                });
            }
        };
        let head_dim = match raw.head_dim {
            Some(head_dim) => head_dim,
            None => raw
                .hidden_size
                .checked_div(raw.num_attention_heads)
                .unwrap_or(0),
        };
        ModelConfig::new(ModelShape {
            hidden: raw.hidden_size,
            ffn: raw.intermediate_size,
            layers: raw.num_hidden_layers,
            heads: raw.num_attention_heads,
            kv_heads: raw.num_key_value_heads.unwrap_or(raw.num_attention_heads),
            head_dim,
            vocab: raw.vocab_size,
            context: raw.max_position_embeddings,
            norm_epsilon: undisturbed(|| raw.rms_norm_eps as f32),
            rope_theta: raw.rope_theta,
            rope: if raw.rope_interleaved {
                RopeLayout::Interleaved
            } else {
                RopeLayout::HalfSplit
            },
            activation,
            tied_head: raw.tie_word_embeddings || !has_head,
            sub_norm,
            linears,
            bos: raw.bos_token_id,
            eos: raw.eos_token_id.map_or_else(Vec::new, TokenIds::into_vec),
        })
    }
}

#[derive(Debug, Deserialize)]
struct RawConfig {
    #[serde(default)]
    model_type: String,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    vocab_size: usize,
    max_position_embeddings: usize,
    rms_norm_eps: f64,
    #[serde(default = "default_rope_theta")]
    rope_theta: f64,
    #[serde(default)]
    rope_interleaved: bool,
    rope_scaling: Option<serde_json::Value>,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    hidden_act: String,
    #[serde(default)]
    tie_word_embeddings: bool,
    bos_token_id: Option<u32>,
    eos_token_id: Option<TokenIds>,
    quantization_config: Option<RawQuantization>,
}

fn default_rope_theta() -> f64 {
    10_000.0
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum TokenIds {
    One(u32),
    Many(Vec<u32>),
}

impl TokenIds {
    fn into_vec(self) -> Vec<u32> {
        match self {
            Self::One(id) => vec![id],
            Self::Many(ids) => ids,
        }
    }
}

#[derive(Debug, Deserialize)]
struct RawQuantization {
    quant_method: String,
    linear_class: Option<String>,
}

impl RawQuantization {
    fn scale_meaning(&self) -> Result<ScaleMeaning, ConfigError> {
        if self.quant_method != "bitnet" {
            return Err(ConfigError::Unsupported {
                field: "quantization_config.quant_method",
                value: self.quant_method.clone(),
                hint: "bitnet is, and checkpoints without quantization are",
            });
        }
        match self.linear_class.as_deref() {
            None | Some("bitlinear") => Ok(ScaleMeaning::Divisor),
            Some("autobitlinear") => Ok(ScaleMeaning::Multiplier),
            Some(other) => Err(ConfigError::Unsupported {
                field: "quantization_config.linear_class",
                value: other.to_owned(),
                hint: "bitlinear and autobitlinear are",
            }),
        }
    }
}

//! What shape a model has: read from a Hugging Face `config.json`, checked once, then trusted.

mod hugging_face;

use std::ops::Deref;

use serde::{Deserialize, Serialize};

use crate::linear::{Linear, LinearFormat};

pub(crate) use hugging_face::{HuggingFaceConfig, ScaleMeaning};

/// Most layers a model may have.
pub const MAX_LAYERS: usize = 512;
/// Widest hidden state.
pub const MAX_HIDDEN: usize = 65_536;
/// Widest feed-forward state.
pub const MAX_FFN: usize = 65_536;
/// Largest vocabulary.
pub const MAX_VOCAB: usize = 1 << 20;
/// Longest context, in tokens.
pub const MAX_CONTEXT: usize = 1 << 20;
/// Most attention heads.
pub const MAX_HEADS: usize = 1024;
/// Widest attention head.
pub const MAX_HEAD_DIM: usize = 512;
/// Most end-of-sequence tokens.
pub const MAX_EOS: usize = 16;

/// How rotary position embedding pairs the dimensions of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RopeLayout {
    /// Dimension `i` turns with `i + head_dim / 2` (Hugging Face's Llama).
    HalfSplit,
    /// Dimension `2i` turns with `2i + 1` (the original Llama).
    Interleaved,
}

/// The nonlinearity of the feed-forward network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `silu(gate) * up`: SwiGLU.
    Silu,
    /// `relu(gate)^2 * up`: squared ReLU, of the published BitNet b1.58 models.
    Relu2,
}

/// The plain figures of a model's shape. Check them into a [`ModelConfig`] before use.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelShape {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width inside the feed-forward network.
    pub ffn: usize,
    /// Transformer blocks.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; a divisor of `heads`.
    pub kv_heads: usize,
    /// Width of one head; even.
    pub head_dim: usize,
    /// Tokens in the vocabulary.
    pub vocab: usize,
    /// Most positions of one sequence.
    pub context: usize,
    /// Added to the mean square in every RMS norm.
    pub norm_epsilon: f32,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Pairing of the rotary dimensions.
    pub rope: RopeLayout,
    /// Feed-forward nonlinearity.
    pub activation: Activation,
    /// Whether the output head is the embedding matrix.
    pub tied_head: bool,
    /// Whether there is a norm before the output and down projections (SubLN).
    pub sub_norm: bool,
    /// How the weights of the linear layers are stored.
    pub linears: LinearFormat,
    /// Token that begins a text, if the model knows one.
    pub bos: Option<u32>,
    /// Tokens that end a text.
    pub eos: Vec<u32>,
}

/// The checked shape of a model; reads like a [`ModelShape`].
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig(ModelShape);

/// Why a model's configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The text is not the JSON object that was expected.
    #[error("the model's configuration is not valid: check config.json")]
    Json(#[source] serde_json::Error),
    /// A figure lies outside what this implementation accepts.
    #[error("`{field}` is {value}, but must be {expected}")]
    OutOfRange {
        /// Name of the setting, as in `config.json`.
        field: &'static str,
        /// What was found.
        value: String,
        /// What is accepted.
        expected: String,
    },
    /// The configuration asks for something that is not implemented.
    #[error("`{field}` = {value} is not supported: {hint}")]
    Unsupported {
        /// Name of the setting, as in `config.json`.
        field: &'static str,
        /// What was found.
        value: String,
        /// What would be accepted.
        hint: &'static str,
    },
}

impl ModelConfig {
    /// Checks `shape`.
    ///
    /// # Errors
    /// [`ConfigError::OutOfRange`] names the first figure that does not fit.
    pub fn new(shape: ModelShape) -> Result<Self, ConfigError> {
        let within = |field, value: usize, most: usize| {
            let expected = format!("between 1 and {most}");
            ensure(field, value, (1..=most).contains(&value), expected)
        };
        within("hidden_size", shape.hidden, MAX_HIDDEN)?;
        within("intermediate_size", shape.ffn, MAX_FFN)?;
        within("num_hidden_layers", shape.layers, MAX_LAYERS)?;
        within("num_attention_heads", shape.heads, MAX_HEADS)?;
        within("num_key_value_heads", shape.kv_heads, MAX_HEADS)?;
        within("head_dim", shape.head_dim, MAX_HEAD_DIM)?;
        within("vocab_size", shape.vocab, MAX_VOCAB)?;
        within("max_position_embeddings", shape.context, MAX_CONTEXT)?;
        within("heads * head_dim", shape.heads * shape.head_dim, MAX_HIDDEN)?;
        let divides = shape.heads.is_multiple_of(shape.kv_heads);
        let expected = format!("a divisor of the {} attention heads", shape.heads);
        ensure("num_key_value_heads", shape.kv_heads, divides, expected)?;
        let even = shape.head_dim.is_multiple_of(2);
        ensure("head_dim", shape.head_dim, even, "even".into())?;
        let epsilon = shape.norm_epsilon;
        let small = epsilon > 0.0 && epsilon < 1.0;
        ensure("rms_norm_eps", epsilon, small, "above 0 and below 1".into())?;
        let theta = shape.rope_theta;
        let sane = theta > 1.0 && theta <= 1e12;
        ensure("rope_theta", theta, sane, "above 1 and at most 1e12".into())?;
        let few = shape.eos.len() <= MAX_EOS;
        ensure(
            "eos_token_id",
            shape.eos.len(),
            few,
            format!("at most {MAX_EOS} tokens"),
        )?;
        for &id in shape.eos.iter().chain(&shape.bos) {
            let known = (id as usize) < shape.vocab;
            ensure(
                "bos_token_id or eos_token_id",
                id,
                known,
                "in the vocabulary".into(),
            )?;
        }
        Ok(Self(shape))
    }

    /// Output and input width of a linear layer.
    pub fn dimensions(&self, linear: Linear) -> (usize, usize) {
        let query = self.heads * self.head_dim;
        let key = self.kv_heads * self.head_dim;
        match linear {
            Linear::Query => (query, self.hidden),
            Linear::Key | Linear::Value => (key, self.hidden),
            Linear::Output => (self.hidden, query),
            Linear::Gate | Linear::Up => (self.ffn, self.hidden),
            Linear::Down => (self.hidden, self.ffn),
        }
    }

    /// The configuration as packed files store it: one line of JSON without floating text.
    pub(crate) fn to_packed_json(&self) -> String {
        let stored = PackedConfig {
            hidden: self.hidden,
            ffn: self.ffn,
            layers: self.layers,
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            vocab: self.vocab,
            context: self.context,
            norm_epsilon_bits: self.norm_epsilon.to_bits(),
            rope_theta_bits: self.rope_theta.to_bits(),
            rope: self.rope,
            activation: self.activation,
            tied_head: self.tied_head,
            sub_norm: self.sub_norm,
            linears: self.linears,
            bos: self.bos,
            eos: self.eos.clone(),
        };
        serde_json::to_string(&stored).expect("integers, names and lists always serialise")
    }

    /// Reads what [`Self::to_packed_json`] wrote.
    pub(crate) fn from_packed_json(json: &str) -> Result<Self, ConfigError> {
        let stored: PackedConfig = serde_json::from_str(json).map_err(ConfigError::Json)?;
        Self::new(ModelShape {
            hidden: stored.hidden,
            ffn: stored.ffn,
            layers: stored.layers,
            heads: stored.heads,
            kv_heads: stored.kv_heads,
            head_dim: stored.head_dim,
            vocab: stored.vocab,
            context: stored.context,
            norm_epsilon: f32::from_bits(stored.norm_epsilon_bits),
            rope_theta: f64::from_bits(stored.rope_theta_bits),
            rope: stored.rope,
            activation: stored.activation,
            tied_head: stored.tied_head,
            sub_norm: stored.sub_norm,
            linears: stored.linears,
            bos: stored.bos,
            eos: stored.eos,
        })
    }
}

impl Deref for ModelConfig {
    type Target = ModelShape;

    fn deref(&self) -> &ModelShape {
        &self.0
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PackedConfig {
    hidden: usize,
    ffn: usize,
    layers: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    vocab: usize,
    context: usize,
    norm_epsilon_bits: u32,
    rope_theta_bits: u64,
    rope: RopeLayout,
    activation: Activation,
    tied_head: bool,
    sub_norm: bool,
    linears: LinearFormat,
    bos: Option<u32>,
    eos: Vec<u32>,
}

fn ensure(
    field: &'static str,
    value: impl ToString,
    holds: bool,
    expected: String,
) -> Result<(), ConfigError> {
    if holds {
        return Ok(());
    }
    Err(ConfigError::OutOfRange {
        field,
        value: value.to_string(),
        expected,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEMO: &str = r#"{"hidden_size": 288, "intermediate_size": 768, "num_hidden_layers": 6,
        "num_attention_heads": 6, "num_key_value_heads": 6, "vocab_size": 32000,
        "max_position_embeddings": 256, "rms_norm_eps": 1e-05, "rope_theta": 10000.0,
        "rope_interleaved": true, "hidden_act": "silu", "tie_word_embeddings": true,
        "bos_token_id": 1, "eos_token_id": 2}"#;

    fn demo() -> ModelConfig {
        let parsed = HuggingFaceConfig::parse(DEMO.as_bytes()).unwrap();
        parsed
            .into_config(false, false, LinearFormat::Ternary)
            .unwrap()
    }

    #[test]
    fn a_hugging_face_configuration_becomes_a_checked_shape() {
        let config = demo();
        assert_eq!(
            (config.hidden, config.head_dim, config.rope),
            (288, 48, RopeLayout::Interleaved)
        );
        assert_eq!(config.norm_epsilon, 1e-5);
        assert_eq!(config.dimensions(Linear::Down), (288, 768));
    }

    #[test]
    fn the_packed_form_reads_back_and_holds_no_floating_text() {
        let json = demo().to_packed_json();
        assert!(!json.contains('.'), "{json}");
        assert_eq!(ModelConfig::from_packed_json(&json).unwrap(), demo());
    }

    #[test]
    fn figures_out_of_range_are_named() {
        let broken = DEMO.replace("\"num_key_value_heads\": 6", "\"num_key_value_heads\": 4");
        let parsed = HuggingFaceConfig::parse(broken.as_bytes()).unwrap();
        let error = parsed
            .into_config(false, false, LinearFormat::Ternary)
            .unwrap_err();
        assert!(error.to_string().contains("num_key_value_heads"), "{error}");
    }

    #[test]
    fn what_is_not_implemented_is_refused_by_name() {
        let scaled = DEMO.replacen('{', r#"{"rope_scaling": {"factor": 2},"#, 1);
        let error = HuggingFaceConfig::parse(scaled.as_bytes()).unwrap_err();
        assert!(error.to_string().contains("rope_scaling"), "{error}");
    }
}

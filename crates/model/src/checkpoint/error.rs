//! Why checkpoints are refused.

use super::MAX_JSON_BYTES;
use crate::config::ConfigError;

/// Why a checkpoint is refused.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// A file could not be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: String,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// A file of text is larger than any sensible one.
    #[error("{path} has {bytes} bytes, more than the {MAX_JSON_BYTES} accepted")]
    TooLarge {
        /// The file.
        path: String,
        /// Its size.
        bytes: u64,
    },
    /// The configuration is refused.
    #[error("the checkpoint's configuration is refused")]
    Config(#[from] ConfigError),
    /// The list of shards is not as it should be.
    #[error("model.safetensors.index.json is not a valid index: {reason}")]
    Index {
        /// What is wrong with it.
        reason: String,
    },
    /// There is a chat template, but not as it should be.
    #[error("the checkpoint's chat template cannot be read: {reason}")]
    ChatTemplate {
        /// What is wrong, and in which file.
        reason: String,
    },
    /// A shard is not a safetensors file.
    #[error("{file} is not a valid safetensors file")]
    Shard {
        /// The file.
        file: String,
        /// What the parser said.
        #[source]
        source: safetensors::SafeTensorError,
    },
    /// A tensor that the configuration asks for is not there.
    #[error("the checkpoint has no tensor `{name}`, which its configuration asks for")]
    Missing {
        /// Its name.
        name: String,
    },
    /// Tensors that this implementation would have to leave out.
    #[error("the checkpoint has a tensor `{name}` that a model of this kind does not use")]
    Unexpected {
        /// Its name.
        name: String,
    },
    /// A tensor's shape contradicts the configuration.
    #[error("tensor `{name}` has shape {found:?}, but the configuration asks for {expected:?}")]
    Shape {
        /// Its name.
        name: String,
        /// Shape found.
        found: Vec<usize>,
        /// Shape asked for.
        expected: Vec<usize>,
    },
    /// A tensor's element type cannot be used in its place.
    #[error("tensor `{name}` holds {found}, but {expected} is needed there")]
    ElementType {
        /// Its name.
        name: String,
        /// Type found.
        found: String,
        /// Types accepted.
        expected: &'static str,
    },
    /// A code is none of the three weights.
    #[error("tensor `{name}` has the value {value} at row {row}, column {column}: not ternary")]
    Code {
        /// Its name.
        name: String,
        /// Row of the first such value.
        row: usize,
        /// Column of the first such value.
        column: usize,
        /// The value: a weight for int8 tensors, the raw code for packed ones.
        value: i32,
    },
    /// A tensor is zero throughout.
    #[error("tensor `{name}` is zero throughout: the checkpoint is damaged or unfinished")]
    AllZero {
        /// Its name.
        name: String,
    },
    /// A number is infinite or not a number.
    #[error("tensor `{name}` is not finite at element {index}")]
    NotFinite {
        /// Its name.
        name: String,
        /// The first such element.
        index: usize,
    },
    /// A scale is not a positive finite number.
    #[error("tensor `{name}` holds the scale {value} at element {index}, which is not positive")]
    Scale {
        /// Its name.
        name: String,
        /// The first such element.
        index: usize,
        /// The scale.
        value: f32,
    },
}

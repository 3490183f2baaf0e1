//! The packed model file: what a node stores, maps into memory and computes from.
//!
//! A `.r3mes` file is a safetensors file whose header follows from the model's configuration
//! and chat template: names, order, shapes and offsets of its tensors are fixed, so that equal models
//! are equal files. Its BLAKE3 is the **model id**. Every tensor starts at a multiple of 64 bytes;
//! weights lie in the panels that the kernels read (docs/spec/model.md).

mod header;

pub use header::{FORMAT, MAX_HEADER_BYTES};

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::Path;

use r3mes_exact::panels::PanelError;
use r3mes_exact::{Bytes, int8, ternary};
use r3mes_types::Hash;

use crate::chat::{ChatError, ChatFormat, ChatTemplate, PLAIN_TEMPLATE};
use crate::config::{ConfigError, ModelConfig};
use crate::linear::{Linear, LinearFormat};
use header::{Header, read_header};

pub(crate) use header::encode_header;

/// Rows of a panel; vectors are padded with zeros to a multiple of this.
const LANES: usize = 16;
/// Alignment of the data and of every tensor in it, in bytes.
const ALIGNMENT: usize = r3mes_exact::ALIGNMENT;

/// A packed model whose every byte has been checked.
#[derive(Clone, Debug)]
pub struct PackedModel {
    config: ModelConfig,
    chat: Option<ChatFormat>,
    id: Hash,
    entries: Vec<Entry>,
    data: Bytes,
}

/// What a tensor of a packed file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Int8 panels of the embedding.
    Embedding,
    /// Row scales of the embedding.
    EmbeddingScales,
    /// Int8 panels of an untied head.
    Head,
    /// Row scales of an untied head.
    HeadScales,
    /// Gains of the last norm.
    FinalGain,
    /// One scale per linear, layers and linears in canonical order; ternary models only.
    LinearScales,
    /// Gains before attention.
    AttentionGain(usize),
    /// Gains before attention's output projection (SubLN).
    AttentionSubGain(usize),
    /// Gains before the feed-forward network.
    FeedForwardGain(usize),
    /// Gains before the down projection (SubLN).
    FeedForwardSubGain(usize),
    /// Panels of a linear.
    Weights(usize, Linear),
    /// Row scales of an int8 linear.
    RowScales(usize, Linear),
}

/// One tensor of a packed file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) part: Part,
    kind: Kind,
    /// Bytes of it, counted from the beginning of the data.
    range: Range<usize>,
}

/// What the elements of a tensor are, with the sizes that count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Ternary { rows: usize, columns: usize },
    Int8 { rows: usize, columns: usize },
    Gains { len: usize },
    Scales { len: usize },
}

/// Why a file is not a packed model.
#[derive(Debug, thiserror::Error)]
pub enum PackedError {
    /// The file cannot be read.
    #[error("the packed model cannot be read")]
    Read {
        /// What is wrong.
        #[source]
        source: std::io::Error,
    },
    /// The file could not be opened or mapped.
    #[error("cannot open the packed model {path}")]
    Open {
        /// The file.
        path: String,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// The file is too short, or its header too long or not JSON.
    #[error("not a packed model: {reason}")]
    Header {
        /// What is wrong.
        reason: &'static str,
    },
    /// The format is of another version.
    #[error("the file's format is `{found}`, but this program reads `{FORMAT}`: pack it again")]
    Format {
        /// What the file says.
        found: String,
    },
    /// The configuration in the file is refused.
    #[error("the packed model's configuration is refused")]
    Config(#[source] ConfigError),
    /// The chat template in the file, or a token of it, is refused.
    #[error("the packed model's chat template is refused")]
    Chat(#[source] ChatError),
    /// The header is not the one that the configuration implies.
    #[error("the header is not the one that its configuration implies: the file is damaged")]
    NotCanonical,
    /// The file ends too early or too late.
    #[error("the file has {found} bytes, but its header asks for {expected}")]
    Length {
        /// Bytes asked for.
        expected: usize,
        /// Bytes found.
        found: usize,
    },
    /// The weights of a tensor are not as they must be.
    #[error("tensor `{name}` of the packed model is damaged")]
    Weights {
        /// Its name.
        name: String,
        /// What is wrong with it.
        #[source]
        source: PanelError,
    },
    /// A number of a tensor is not as it must be.
    #[error("tensor `{name}` of the packed model holds {value} at element {index}: {expected}")]
    Number {
        /// Its name.
        name: String,
        /// Which of its elements.
        index: usize,
        /// What is there.
        value: f32,
        /// What should be.
        expected: &'static str,
    },
}

impl PackedModel {
    /// Maps the file at `path` and checks all of it.
    ///
    /// # Errors
    /// When the file cannot be opened, or is not exactly a packed model.
    pub fn open(path: &Path) -> Result<Self, PackedError> {
        let open = |source| PackedError::Open {
            path: path.display().to_string(),
            source,
        };
        let bytes = File::open(path)
            .and_then(|file| Bytes::map(&file))
            .map_err(open)?;
        Self::from_bytes(&bytes)
    }

    /// Takes the contents of a packed file and checks all of them.
    ///
    /// # Errors
    /// When they are not exactly a packed model.
    pub fn from_bytes(bytes: &Bytes) -> Result<Self, PackedError> {
        let Header {
            config,
            chat,
            entries,
            length,
        } = read_header(&mut &bytes[..])?;
        let expected = 8 + length + data_len(&entries);
        if bytes.len() != expected {
            return Err(PackedError::Length {
                expected,
                found: bytes.len(),
            });
        }
        let data = bytes.slice(8 + length..bytes.len());
        for entry in &entries {
            entry.check(&data)?;
        }
        Ok(Self {
            config,
            chat,
            id: Hash::of(bytes),
            entries,
            data,
        })
    }

    /// The shape of the model that begins in `file`; what follows the header is neither read nor
    /// checked.
    ///
    /// # Errors
    /// When it cannot be read, or does not begin as a packed model does.
    pub fn read_config(file: &mut impl Read) -> Result<ModelConfig, PackedError> {
        Ok(read_header(file)?.config)
    }

    /// The shape of the model.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The chat template that the model brings, if it does: not yet compiled.
    pub fn chat(&self) -> Option<&ChatFormat> {
        self.chat.as_ref()
    }

    /// The template that its conversations go through: its own, or [`PLAIN_TEMPLATE`].
    ///
    /// # Errors
    /// When its own does not compile, or does not render the shortest conversation.
    pub fn chat_template(&self) -> Result<ChatTemplate, ChatError> {
        match &self.chat {
            Some(format) => format.compile(),
            None => ChatTemplate::new(PLAIN_TEMPLATE, "", ""),
        }
    }

    /// BLAKE3 of the file.
    pub fn id(&self) -> Hash {
        self.id
    }

    /// The bytes of one part.
    ///
    /// # Panics
    /// When a model of this configuration has no such part.
    pub(crate) fn bytes(&self, part: Part) -> Bytes {
        let entry = self.entries.iter().find(|entry| entry.part == part);
        let entry = entry.expect("parts are asked for as the configuration has them");
        self.data.slice(entry.range.clone())
    }

    /// The first `len` numbers of one part.
    pub(crate) fn numbers(&self, part: Part, len: usize) -> Vec<f32> {
        let mut numbers = read_numbers(&self.bytes(part));
        numbers.truncate(len);
        numbers
    }
}

impl Entry {
    /// Bytes that the tensor occupies.
    pub(crate) fn len(&self) -> usize {
        self.range.len()
    }

    /// Name of the tensor in the file.
    fn name(&self) -> String {
        match self.part {
            Part::Embedding => "embedding.panels".into(),
            Part::EmbeddingScales => "embedding.scales".into(),
            Part::Head => "head.panels".into(),
            Part::HeadScales => "head.scales".into(),
            Part::FinalGain => "final_norm.gain".into(),
            Part::LinearScales => "linears.scales".into(),
            Part::AttentionGain(layer) => format!("layers.{layer}.attention_norm.gain"),
            Part::AttentionSubGain(layer) => format!("layers.{layer}.attention_sub_norm.gain"),
            Part::FeedForwardGain(layer) => format!("layers.{layer}.feed_forward_norm.gain"),
            Part::FeedForwardSubGain(layer) => {
                format!("layers.{layer}.feed_forward_sub_norm.gain")
            }
            Part::Weights(layer, linear) => format!("layers.{layer}.{}.panels", linear.name()),
            Part::RowScales(layer, linear) => format!("layers.{layer}.{}.scales", linear.name()),
        }
    }

    fn header_fields(&self) -> (&'static str, Vec<usize>) {
        match self.kind {
            Kind::Ternary { rows, columns } => (
                "U8",
                vec![rows.div_ceil(LANES), columns.div_ceil(LANES), 64],
            ),
            Kind::Int8 { rows, columns } => (
                "I8",
                vec![
                    rows.div_ceil(LANES),
                    columns.next_multiple_of(LANES) / 4,
                    64,
                ],
            ),
            Kind::Gains { len } | Kind::Scales { len } => {
                ("F32", vec![len.next_multiple_of(LANES)])
            }
        }
    }

    fn check(&self, data: &Bytes) -> Result<(), PackedError> {
        let bytes = &data[self.range.clone()];
        let weights = |source| PackedError::Weights {
            name: self.name(),
            source,
        };
        match self.kind {
            Kind::Ternary { rows, columns } => {
                ternary::Panels::new(bytes, rows, columns).map_err(weights)?;
            }
            Kind::Int8 { rows, columns } => {
                int8::Panels::new(bytes, rows, columns).map_err(weights)?;
            }
            Kind::Gains { len } => {
                self.check_numbers(bytes, len, "it must be finite", |gain| gain.is_finite())?;
            }
            Kind::Scales { len } => {
                let positive = |scale: f32| scale.is_normal() && scale > 0.0;
                self.check_numbers(bytes, len, "it must be positive", positive)?;
            }
        }
        Ok(())
    }

    fn check_numbers(
        &self,
        bytes: &[u8],
        len: usize,
        expected: &'static str,
        holds: impl Fn(f32) -> bool,
    ) -> Result<(), PackedError> {
        for (index, value) in read_numbers(bytes).into_iter().enumerate() {
            let (holds, expected) = if index < len {
                (holds(value), expected)
            } else {
                (value.to_bits() == 0, "the padding must be zero")
            };
            if !holds {
                return Err(PackedError::Number {
                    name: self.name(),
                    index,
                    value,
                    expected,
                });
            }
        }
        Ok(())
    }
}

/// The tensors of a model of this configuration, in canonical order.
pub(crate) fn entries(config: &ModelConfig) -> Vec<Entry> {
    let mut parts = Vec::new();
    let tokens = Kind::Int8 {
        rows: config.vocab,
        columns: config.hidden,
    };
    let gains = |len| Kind::Gains { len };
    parts.push((Part::Embedding, tokens));
    parts.push((Part::EmbeddingScales, Kind::Scales { len: config.vocab }));
    if !config.tied_head {
        parts.push((Part::Head, tokens));
        parts.push((Part::HeadScales, Kind::Scales { len: config.vocab }));
    }
    parts.push((Part::FinalGain, gains(config.hidden)));
    if config.linears == LinearFormat::Ternary {
        let len = config.layers * Linear::ALL.len();
        parts.push((Part::LinearScales, Kind::Scales { len }));
    }
    for layer in 0..config.layers {
        parts.push((Part::AttentionGain(layer), gains(config.hidden)));
        if config.sub_norm {
            let width = config.heads * config.head_dim;
            parts.push((Part::AttentionSubGain(layer), gains(width)));
        }
        parts.push((Part::FeedForwardGain(layer), gains(config.hidden)));
        if config.sub_norm {
            parts.push((Part::FeedForwardSubGain(layer), gains(config.ffn)));
        }
        for linear in Linear::ALL {
            let (rows, columns) = config.dimensions(linear);
            let weights = Part::Weights(layer, linear);
            match config.linears {
                LinearFormat::Ternary => parts.push((weights, Kind::Ternary { rows, columns })),
                LinearFormat::Int8 => {
                    parts.push((weights, Kind::Int8 { rows, columns }));
                    parts.push((Part::RowScales(layer, linear), Kind::Scales { len: rows }));
                }
            }
        }
    }
    let mut next = 0;
    let place = |(part, kind): (Part, Kind)| {
        let start = next;
        next += kind.bytes();
        Entry {
            part,
            kind,
            range: start..next,
        }
    };
    parts.into_iter().map(place).collect()
}

impl Kind {
    fn bytes(self) -> usize {
        let padded = |n: usize| n.next_multiple_of(LANES);
        match self {
            Self::Ternary { rows, columns } => padded(rows) * padded(columns) / 4,
            Self::Int8 { rows, columns } => padded(rows) * padded(columns),
            Self::Gains { len } | Self::Scales { len } => padded(len) * size_of::<f32>(),
        }
    }
}

/// Bytes of all tensors together.
pub(crate) fn data_len(entries: &[Entry]) -> usize {
    entries.last().map_or(0, |entry| entry.range.end)
}

fn read_numbers(bytes: &[u8]) -> Vec<f32> {
    bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|word| f32::from_le_bytes(*word))
        .collect()
}

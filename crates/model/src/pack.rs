//! From a checkpoint to a packed file.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use r3mes_exact::panels::PanelError;
use r3mes_exact::{Bytes, int8, ternary, undisturbed};

use crate::chat::ChatError;
use crate::checkpoint::{Checkpoint, CheckpointError, QuantizedMatrix};
use crate::config::ModelConfig;
use crate::linear::{Linear, LinearFormat};
use crate::packed::{self, Entry, PackedError, PackedModel, Part};

/// Why a checkpoint could not be packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// A tensor of the checkpoint is refused.
    #[error("the checkpoint cannot be packed")]
    Checkpoint(#[from] CheckpointError),
    /// The checkpoint's chat template cannot be used.
    #[error(
        "the checkpoint's chat template cannot be used: mend it in tokenizer_config.json or \
        chat_template.jinja, or take it out, and conversations become plain text"
    )]
    Chat(#[from] ChatError),
    /// A matrix does not fit into panels.
    #[error("the {what} cannot be packed")]
    Panels {
        /// Which matrix.
        what: String,
        /// Why not.
        #[source]
        source: PanelError,
    },
    /// The file could not be written.
    #[error("cannot write the packed model {path}")]
    Write {
        /// The file.
        path: String,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// The file that was written does not read back.
    #[error("the packed model does not read back: the disk or the memory of this machine errs")]
    ReadBack(#[source] PackedError),
}

/// Packs `checkpoint` into the file at `path`, by way of a temporary file beside it, and opens
/// the result.
///
/// # Errors
/// When a tensor is refused or the file cannot be written; then nothing stands at `path`.
pub fn pack(checkpoint: &Checkpoint, path: &Path) -> Result<PackedModel, PackError> {
    let temporary = path.with_extension("r3mes.partial");
    let written = write_to(checkpoint, &temporary).and_then(|()| {
        let write = |source| PackError::Write {
            path: path.display().to_string(),
            source,
        };
        std::fs::rename(&temporary, path).map_err(write)
    });
    if let Err(error) = written {
        // The partial file is of no use, and the first error is the one to report.
        let _ = std::fs::remove_file(&temporary);
        return Err(error);
    }
    PackedModel::open(path).map_err(PackError::ReadBack)
}

/// Packs `checkpoint` in memory: for models that are made rather than read.
///
/// # Errors
/// When a tensor is refused.
pub fn pack_in_memory(checkpoint: &Checkpoint) -> Result<PackedModel, PackError> {
    let mut bytes = Vec::new();
    write(checkpoint, |part| {
        bytes.extend_from_slice(part);
        Ok(())
    })?;
    PackedModel::from_bytes(&Bytes::from_slice(&bytes)).map_err(PackError::ReadBack)
}

fn write_to(checkpoint: &Checkpoint, path: &Path) -> Result<(), PackError> {
    let failed = |source| PackError::Write {
        path: path.display().to_string(),
        source,
    };
    let mut file = BufWriter::new(File::create(path).map_err(failed)?);
    write(checkpoint, |part| file.write_all(part).map_err(failed))?;
    let file = file
        .into_inner()
        .map_err(|error| failed(error.into_error()))?;
    file.sync_all().map_err(failed)
}

/// Hands the file's bytes to `sink`, a tensor at a time.
fn write(
    checkpoint: &Checkpoint,
    mut sink: impl FnMut(&[u8]) -> Result<(), PackError>,
) -> Result<(), PackError> {
    let (config, chat) = (checkpoint.config(), checkpoint.chat());
    if let Some(chat) = chat {
        chat.compile()?;
    }
    let entries = packed::entries(config);
    sink(&packed::encode_header(config, chat, &entries))?;
    let mut held = None;
    for entry in &entries {
        let bytes = undisturbed(|| encode(checkpoint, entry, &mut held))?;
        debug_assert_eq!(bytes.len(), entry.len(), "{entry:?}");
        sink(&bytes)?;
    }
    Ok(())
}

/// The bytes of one tensor; `held` keeps the row scales of the matrix just before it.
fn encode(
    checkpoint: &Checkpoint,
    entry: &Entry,
    held: &mut Option<Vec<f32>>,
) -> Result<Vec<u8>, PackError> {
    let config = checkpoint.config();
    let panels = |source| PackError::Panels {
        what: format!("{:?}", entry.part),
        source,
    };
    let mut int8_panels = |matrix: QuantizedMatrix, rows, columns| {
        *held = Some(matrix.scales);
        int8::pack(&matrix.codes, rows, columns).map_err(panels)
    };
    Ok(match entry.part {
        Part::Embedding => int8_panels(checkpoint.embedding()?, config.vocab, config.hidden)?,
        Part::Head => int8_panels(checkpoint.head()?, config.vocab, config.hidden)?,
        Part::Weights(layer, linear) => {
            let (rows, columns) = config.dimensions(linear);
            let matrix = checkpoint.linear(layer, linear)?;
            match config.linears {
                LinearFormat::Ternary => {
                    ternary::pack(&matrix.codes, rows, columns).map_err(panels)?
                }
                LinearFormat::Int8 => int8_panels(matrix, rows, columns)?,
            }
        }
        Part::EmbeddingScales | Part::HeadScales | Part::RowScales(..) => padded(
            held.take()
                .expect("row scales follow their matrix in the canonical order"),
        ),
        Part::LinearScales => padded(linear_scales(checkpoint, config)?),
        Part::FinalGain => padded(checkpoint.final_gain()?),
        Part::AttentionGain(layer) => {
            padded(checkpoint.layer_gain(layer, "input_layernorm", config.hidden)?)
        }
        Part::FeedForwardGain(layer) => {
            padded(checkpoint.layer_gain(layer, "post_attention_layernorm", config.hidden)?)
        }
        Part::AttentionSubGain(layer) => {
            let width = config.heads * config.head_dim;
            padded(checkpoint.layer_gain(layer, "self_attn.attn_sub_norm", width)?)
        }
        Part::FeedForwardSubGain(layer) => {
            padded(checkpoint.layer_gain(layer, "mlp.ffn_sub_norm", config.ffn)?)
        }
    })
}

fn linear_scales(
    checkpoint: &Checkpoint,
    config: &ModelConfig,
) -> Result<Vec<f32>, CheckpointError> {
    let mut scales = Vec::with_capacity(config.layers * Linear::ALL.len());
    for layer in 0..config.layers {
        for linear in Linear::ALL {
            scales.push(checkpoint.linear_scale(layer, linear)?);
        }
    }
    Ok(scales)
}

/// Little-endian numbers, padded with zeros to 64 bytes.
fn padded(numbers: Vec<f32>) -> Vec<u8> {
    let mut bytes: Vec<u8> = numbers
        .iter()
        .flat_map(|number| number.to_le_bytes())
        .collect();
    bytes.resize(bytes.len().next_multiple_of(r3mes_exact::ALIGNMENT), 0);
    bytes
}

//! BitNet b1.58 transformers with LoRA adapters, computed exactly.
//!
//! A model is read from a Hugging Face checkpoint ([`Checkpoint`]), packed once into a file that
//! is mapped into memory ([`pack`], [`PackedModel`]) and loaded on a device ([`Model`]). There is
//! one forward and one backward pass, on top of the operations of `r3mes_exact::Device`; training
//! ([`Model::loss_and_gradients`]) and inference ([`Model::advance`]) run the same blocks, so a
//! token's bits are the same in training, in a batch, alone, and on another machine.
//!
//! ```no_run
//! use std::path::Path;
//! use r3mes_exact::{Cpu, CpuOptions};
//! use r3mes_model::{InferenceWorkspace, LogitRows, Model, PackedModel, Segment, Tokenizer};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let packed = PackedModel::open(Path::new("assets/stories15m-b158/model.r3mes"))?;
//! let tokenizer = Tokenizer::open(Path::new("assets/stories15m-b158/tokenizer.json"))?;
//! let model = Model::load(Cpu::new(CpuOptions::default())?, &packed);
//!
//! let prompt = tokenizer.encode("Once upon a time")?;
//! let mut cache = model.cache();
//! let mut workspace = InferenceWorkspace::new();
//! let segment = Segment { tokens: &prompt, cache: &mut cache, logits: LogitRows::Last };
//! model.advance(None, &mut [segment], &mut workspace)?;
//! println!("{} logits", workspace.logits(0).len());
//! # Ok(())
//! # }
//! ```

mod config;
mod linear;

mod checkpoint;
mod pack;
mod packed;

mod chat;
mod tokenizer;

mod adapter;
mod block;
mod cache;
mod gradient;
mod model;

pub use adapter::{
    Adapter, AdapterError, AdapterLayout, LoadedAdapter, LoraConfig, LoraPair, MAX_ADAPTER_NUMBERS,
    MAX_RANK,
};
pub use cache::{AdvanceError, Cache, InferenceWorkspace, LogitRows, MAX_ROWS, Segment};
pub use chat::{
    ChatError, ChatFormat, ChatTemplate, MAX_SEQUENCE_TOKEN_BYTES, MAX_TEMPLATE_BYTES, Message,
    PLAIN_TEMPLATE,
};
pub use checkpoint::{Checkpoint, CheckpointError, MAX_JSON_BYTES, MAX_SHARDS};
pub use config::{
    Activation, ConfigError, MAX_CONTEXT, MAX_EOS, MAX_FFN, MAX_HEAD_DIM, MAX_HEADS, MAX_HIDDEN,
    MAX_LAYERS, MAX_VOCAB, ModelConfig, ModelShape, RopeLayout,
};
pub use gradient::{
    Batch, BatchError, LOSS_UNIT, Loss, LossError, MAX_SEQUENCES, MemoryError, MemoryLimit,
    StepPlan, TrainingWorkspace,
};
pub use linear::{Linear, LinearFormat, LinearSet};
pub use model::Model;
pub use pack::{PackError, pack, pack_in_memory};
pub use packed::{FORMAT, MAX_HEADER_BYTES, PackedError, PackedModel};
pub use tokenizer::{Decoder, MAX_TEXT_BYTES, MAX_TOKENIZER_BYTES, Tokenizer, TokenizerError};

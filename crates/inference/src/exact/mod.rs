//! The exact engine: continuous batching on one model, every answer with a receipt.
//!
//! An actor on a thread of its own. [`ExactEngine`] is the handle that checks and queues
//! requests; [`Worker`] advances all running requests by one forward pass at a time. Which
//! requests share a pass never changes their tokens.

mod handle;
mod worker;

use r3mes_exact::Device;
use r3mes_model::{ChatTemplate, Model, Tokenizer};
use r3mes_types::SecretKey;
use std::sync::Arc;

pub use handle::{AdapterRefused, ExactEngine, MAX_ADAPTERS};
pub use worker::Worker;

/// Version of the exact arithmetic that receipts are bound to.
pub const EXACT_VERSION: u32 = 1;

/// Most requests generated at once that a configuration may ask for.
pub const MAX_SLOTS: usize = 1024;

/// Limits of an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Requests generated at once.
    pub slots: usize,
    /// Requests that may wait.
    pub queue: usize,
    /// Prompt tokens computed in one pass; bounds how long running answers pause for a prompt.
    pub prefill: usize,
    /// Bytes of keys and values of all running requests together.
    pub cache_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            slots: 16,
            queue: 64,
            prefill: 256,
            cache_bytes: 1 << 30,
        }
    }
}

/// What an engine is made of.
#[derive(Debug)]
pub struct Parts<D: Device> {
    /// The base model.
    pub model: Arc<Model<D>>,
    /// Its tokenizer.
    pub tokenizer: Arc<Tokenizer>,
    /// Its chat template.
    pub template: ChatTemplate,
    /// Name under which the base model is served.
    pub name: String,
    /// Key that signs receipts.
    pub key: SecretKey,
    /// Limits.
    pub limits: Limits,
}

/// Makes an engine: the handle to share, and the worker to run on a thread of its own.
///
/// ```no_run
/// # use std::sync::Arc;
/// # use r3mes_exact::Cpu;
/// # use r3mes_inference::exact::{self, Parts};
/// # fn start(parts: Parts<Cpu>) {
/// let (engine, worker) = exact::engine(parts);
/// std::thread::spawn(move || worker.run());
/// # }
/// ```
pub fn engine<D: Device>(parts: Parts<D>) -> (ExactEngine<D>, Worker<D>) {
    handle::new(parts)
}

//! Batches of windows of tokens, whole and in parts.

use r3mes_exact::Device;

use crate::block::Rows;
use crate::config::ModelConfig;

/// Most sequences in a batch.
pub const MAX_SEQUENCES: usize = 1 << 16;

/// A batch of windows of tokens, checked against a model. Each token of a window is the target
/// of those before it, so a window of S + 1 tokens makes S targets.
#[derive(Clone, Debug)]
pub struct Batch<'a> {
    pub(super) windows: Vec<&'a [u32]>,
    pub(super) targets: usize,
}

/// Why a batch is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// There are no windows, or too many.
    #[error("a batch has between 1 and {MAX_SEQUENCES} windows, but {windows} were given")]
    Windows {
        /// How many there are.
        windows: usize,
    },
    /// A window is too short or too long.
    #[error("window {window} has {len} tokens, but must have between 2 and {most}")]
    Length {
        /// Which window.
        window: usize,
        /// Its tokens.
        len: usize,
        /// The model's context and one more.
        most: usize,
    },
    /// A token is not in the vocabulary.
    #[error("token {token} of window {window} is not in the vocabulary of {vocab}")]
    Token {
        /// Which window.
        window: usize,
        /// The token.
        token: u32,
        /// Tokens that the model knows.
        vocab: usize,
    },
}

impl<'a> Batch<'a> {
    /// Checks `windows` against a model of shape `config`.
    ///
    /// # Errors
    /// When there is no window, or one does not fit the model.
    pub fn new(config: &ModelConfig, windows: Vec<&'a [u32]>) -> Result<Self, BatchError> {
        if !(1..=MAX_SEQUENCES).contains(&windows.len()) {
            return Err(BatchError::Windows {
                windows: windows.len(),
            });
        }
        for (window, tokens) in windows.iter().enumerate() {
            let (len, most) = (tokens.len(), config.context + 1);
            if !(2..=most).contains(&len) {
                return Err(BatchError::Length { window, len, most });
            }
            if let Some(&token) = tokens.iter().find(|&&token| token as usize >= config.vocab) {
                return Err(BatchError::Token {
                    window,
                    token,
                    vocab: config.vocab,
                });
            }
        }
        let targets: usize = windows.iter().map(|window| window.len() - 1).sum();
        Ok(Self { windows, targets })
    }

    /// Targets of the whole batch.
    pub fn targets(&self) -> usize {
        self.targets
    }

    /// Rows of the longest sequence.
    pub(super) fn longest(&self) -> usize {
        self.windows
            .iter()
            .map(|window| window.len() - 1)
            .max()
            .unwrap_or(0)
    }
}

/// Cuts `windows` into runs of at most `rows` rows, each of whole windows.
pub(super) fn micro_batches<'b, 'a>(
    windows: &'b [&'a [u32]],
    rows: usize,
) -> impl Iterator<Item = &'b [&'a [u32]]> {
    let mut rest = windows;
    std::iter::from_fn(move || {
        let mut taken = 0;
        let fits = |window: &&&[u32]| {
            taken += window.len() - 1;
            taken <= rows
        };
        let count = rest.iter().take_while(fits).count();
        let (now, later) = rest.split_at(count);
        rest = later;
        (!now.is_empty()).then_some(now)
    })
}

/// Windows laid end to end.
pub(super) struct MicroBatch {
    pub(super) tokens: Vec<u32>,
    pub(super) targets: Vec<u32>,
    pub(super) positions: Vec<u32>,
    pub(super) lengths: Vec<usize>,
}

impl MicroBatch {
    pub(super) fn new(windows: &[&[u32]]) -> Self {
        let rows: usize = windows.iter().map(|window| window.len() - 1).sum();
        let mut micro = Self {
            tokens: Vec::with_capacity(rows),
            targets: Vec::with_capacity(rows),
            positions: Vec::with_capacity(rows),
            lengths: Vec::with_capacity(windows.len()),
        };
        for window in windows {
            let len = window.len() - 1;
            micro.tokens.extend_from_slice(&window[..len]);
            micro.targets.extend_from_slice(&window[1..]);
            micro.positions.extend(0..len as u32);
            micro.lengths.push(len);
        }
        micro
    }

    pub(super) fn rows<D: Device>(&self) -> Rows<'_, D> {
        Rows {
            positions: &self.positions,
            sequences: &self.lengths,
            caches: None,
        }
    }
}

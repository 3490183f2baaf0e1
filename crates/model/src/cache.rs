//! Keys and values of a sequence, and the ragged forward pass that extends several at once.

use r3mes_exact::{Device, NotFinite};

use crate::adapter::LoadedAdapter;
use crate::block::{ForwardBuffers, ForwardScratch, Rows, Tape};
use crate::config::ModelConfig;
use crate::model::Model;

/// Most rows that one forward pass takes.
pub const MAX_ROWS: usize = 1 << 16;

/// The keys and values of one sequence, for every layer.
///
/// They depend on the model and the adapter that computed them: a cache must only be extended
/// with the same two.
pub struct Cache<D: Device> {
    pub(crate) layers: Vec<D::KvCache>,
    len: usize,
}

/// The next tokens of one sequence in a ragged batch.
pub struct Segment<'a, D: Device> {
    /// The tokens, at least one.
    pub tokens: &'a [u32],
    /// The sequence so far; extended by the tokens.
    pub cache: &'a mut Cache<D>,
    /// Which rows get logits.
    pub logits: LogitRows,
}

/// Which rows of a segment get logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogitRows {
    /// None: more of the prompt is to come.
    None,
    /// The last, to choose the next token from.
    Last,
    /// All, to check an answer.
    All,
}

/// Reused memory for [`Model::advance`], and the results of its last call.
pub struct InferenceWorkspace<D: Device> {
    rows: usize,
    rank: usize,
    buffers: Option<Buffers<D>>,
    logits: Vec<f32>,
    selected: usize,
    vocab: usize,
    final_codes: Vec<i8>,
    final_scales: Vec<f32>,
    hidden: usize,
}

struct Buffers<D: Device> {
    tape: Tape<D>,
    scratch: ForwardScratch<D>,
    streams: [D::Buffer<f32>; 2],
    final_codes: D::Codes,
    selected: D::Buffer<f32>,
    head_codes: D::Codes,
    logits: D::Buffer<f32>,
    logit_rows: usize,
}

/// Why a forward pass could not be done.
#[derive(Debug, thiserror::Error)]
pub enum AdvanceError {
    /// A segment has no tokens.
    #[error("segment {segment} has no tokens")]
    Empty {
        /// Which segment.
        segment: usize,
    },
    /// There are more rows than one pass takes.
    #[error("one pass takes {MAX_ROWS} tokens, but {rows} were given: use smaller chunks")]
    TooManyRows {
        /// Tokens given.
        rows: usize,
    },
    /// A sequence would become longer than the model's context.
    #[error("sequence {segment} would have {len} tokens, more than the context of {context}")]
    ContextFull {
        /// Which segment.
        segment: usize,
        /// Length it would have.
        len: usize,
        /// Most positions of the model.
        context: usize,
    },
    /// A token is not in the vocabulary.
    #[error("token {token} is not in the vocabulary of {vocab}")]
    Token {
        /// The token.
        token: u32,
        /// Tokens that the model knows.
        vocab: usize,
    },
    /// A value of the computation was infinite or not a number.
    #[error("the model's computation left the finite numbers")]
    NotFinite(#[from] NotFinite),
}

impl<D: Device> Cache<D> {
    /// Positions that it holds.
    #[expect(clippy::len_without_is_empty, reason = "a position, not a collection")]
    pub fn len(&self) -> usize {
        self.len
    }
}

impl<D: Device> std::fmt::Debug for Cache<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache")
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

impl<D: Device> Model<D> {
    /// An empty cache for one sequence.
    pub fn cache(&self) -> Cache<D> {
        let shape = self.attention_shape();
        let layers = self
            .blocks
            .iter()
            .map(|_| self.device.kv_cache(&shape))
            .collect();
        Cache { layers, len: 0 }
    }

    /// Forgets the positions of `cache` from `len` on.
    pub fn truncate(&self, cache: &mut Cache<D>, len: usize) {
        for layer in &mut cache.layers {
            self.device.truncate(layer, len);
        }
        cache.len = cache.len.min(len);
    }

    /// Bytes that a cache takes for each position.
    pub fn cache_bytes_per_position(&self) -> usize {
        2 * size_of::<f32>() * self.config.layers * self.config.kv_heads * self.config.head_dim
    }

    /// Extends several sequences at once, each by its own tokens: prefill, chunked prefill and
    /// decoding are all this one call. Results lie in `workspace` until the next call.
    ///
    /// A token's results are the same bits whatever else is in the batch and however its prompt
    /// was cut into calls.
    ///
    /// # Errors
    /// When a segment does not fit the model. After [`AdvanceError::NotFinite`] the caches hold
    /// an unfinished position and must be dropped; after any other error they are untouched.
    pub fn advance(
        &self,
        adapter: Option<&LoadedAdapter<D>>,
        segments: &mut [Segment<'_, D>],
        workspace: &mut InferenceWorkspace<D>,
    ) -> Result<(), AdvanceError> {
        let batch = RaggedBatch::new(&self.config, segments)?;
        let rows = batch.tokens.len();
        let rank = adapter.map_or(0, |adapter| adapter.layout().config().rank);
        workspace.reserve(self, rows, rank, batch.selected.len());
        let buffers = workspace.buffers.as_mut().expect("reserve leaves buffers");

        let mut caches: Vec<&mut Cache<D>> = segments
            .iter_mut()
            .map(|segment| &mut *segment.cache)
            .collect();
        let mut pass = Rows {
            positions: &batch.positions,
            sequences: &batch.lengths,
            caches: Some(&mut caches),
        };
        let [input, output] = &mut buffers.streams;
        self.device.embed(&self.embedding, &batch.tokens, input);
        for layer in 0..self.config.layers {
            let tape = &mut buffers.tape;
            let scratch = &mut buffers.scratch;
            let memory = ForwardBuffers {
                input,
                tape,
                scratch,
                output,
            };
            self.block_forward(layer, adapter, &mut pass, memory)?;
            std::mem::swap(input, output);
        }
        for (segment, length) in segments.iter_mut().zip(&batch.lengths) {
            segment.cache.len += length;
        }
        workspace.finish(self, &batch)?;
        Ok(())
    }
}

impl<D: Device> InferenceWorkspace<D> {
    /// A workspace that grows with what it is used for.
    pub fn new() -> Self {
        Self {
            rows: 0,
            rank: 0,
            buffers: None,
            logits: Vec::new(),
            selected: 0,
            vocab: 0,
            final_codes: Vec::new(),
            final_scales: Vec::new(),
            hidden: 0,
        }
    }

    /// Logits of the `index`-th row that was to have some, over the vocabulary.
    ///
    /// # Panics
    /// When fewer rows were to have logits.
    pub fn logits(&self, index: usize) -> &[f32] {
        &self.logits[index * self.vocab..][..self.vocab]
    }

    /// Rows with logits in the last pass.
    pub fn logit_rows(&self) -> usize {
        self.selected
    }

    /// The final hidden state of row `row` of the last pass as the head sees it: int8 codes, and
    /// the scale that they are multiplied by. Rows are those of all segments in order.
    ///
    /// # Panics
    /// When the pass had fewer rows.
    pub fn final_state(&self, row: usize) -> (&[i8], f32) {
        (
            &self.final_codes[row * self.hidden..][..self.hidden],
            self.final_scales[row],
        )
    }

    fn reserve(&mut self, model: &Model<D>, rows: usize, rank: usize, logit_rows: usize) {
        let enough = self
            .buffers
            .as_ref()
            .is_some_and(|buffers| buffers.logit_rows >= logit_rows);
        if rows <= self.rows && rank <= self.rank && enough {
            return;
        }
        let (device, config) = (&model.device, &model.config);
        let held = self.buffers.take().map_or(0, |buffers| buffers.logit_rows);
        (self.rows, self.rank) = (self.rows.max(rows), self.rank.max(rank));
        let (rows, logit_rows) = (self.rows, held.max(logit_rows));
        self.buffers = Some(Buffers {
            tape: Tape::new(device, config, self.rank, rows),
            scratch: ForwardScratch::new(device, config, rows),
            streams: [
                device.zeros(rows * config.hidden),
                device.zeros(rows * config.hidden),
            ],
            final_codes: device.codes(rows, config.hidden),
            selected: device.zeros(logit_rows * config.hidden),
            head_codes: device.codes(logit_rows, config.hidden),
            logits: device.zeros(logit_rows * config.vocab),
            logit_rows,
        });
    }

    /// Last norm, quantizer and head.
    fn finish(&mut self, model: &Model<D>, batch: &RaggedBatch) -> Result<(), NotFinite> {
        let (device, config) = (&model.device, &model.config);
        let (rows, selected) = (batch.tokens.len(), batch.selected.len());
        let buffers = self
            .buffers
            .as_mut()
            .expect("the pass has used these buffers");
        let normed = &mut buffers.scratch.normed;
        let stream = &buffers.streams[0];
        device.rms_norm(stream, &model.final_gain, config.norm_epsilon, rows, normed);
        device.quantize(normed, rows, &mut buffers.final_codes)?;

        self.hidden = config.hidden;
        self.final_codes.resize(rows * config.hidden, 0);
        self.final_scales.clear();
        for (row, codes) in self.final_codes.chunks_exact_mut(config.hidden).enumerate() {
            self.final_scales
                .push(device.read_codes(&buffers.final_codes, row, codes));
        }

        (self.vocab, self.selected) = (config.vocab, selected);
        self.logits.resize(selected * config.vocab, 0.0);
        if selected == 0 {
            return Ok(());
        }
        let logits = &mut buffers.logits;
        if selected == rows {
            device.int8_forward(model.head(), &buffers.final_codes, logits);
        } else {
            // A row's codes depend on that row alone, so quantizing it again gives the same.
            device.gather_rows(
                normed,
                &batch.selected,
                config.hidden,
                &mut buffers.selected,
            );
            device.quantize(&buffers.selected, selected, &mut buffers.head_codes)?;
            device.int8_forward(model.head(), &buffers.head_codes, logits);
        }
        device.check_finite(logits, selected * config.vocab, config.vocab)?;
        device.read(logits, 0, &mut self.logits);
        Ok(())
    }
}

impl<D: Device> Default for InferenceWorkspace<D> {
    fn default() -> Self {
        Self::new()
    }
}

impl<D: Device> std::fmt::Debug for InferenceWorkspace<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InferenceWorkspace")
            .field("rows", &self.rows)
            .finish_non_exhaustive()
    }
}

/// Segments laid end to end, checked against the model.
struct RaggedBatch {
    tokens: Vec<u32>,
    positions: Vec<u32>,
    lengths: Vec<usize>,
    /// Rows with logits.
    selected: Vec<u32>,
}

impl RaggedBatch {
    fn new<D: Device>(
        config: &ModelConfig,
        segments: &[Segment<'_, D>],
    ) -> Result<Self, AdvanceError> {
        let rows: usize = segments.iter().map(|segment| segment.tokens.len()).sum();
        if rows > MAX_ROWS {
            return Err(AdvanceError::TooManyRows { rows });
        }
        let mut batch = Self {
            tokens: Vec::with_capacity(rows),
            positions: Vec::with_capacity(rows),
            lengths: Vec::with_capacity(segments.len()),
            selected: Vec::new(),
        };
        for (index, segment) in segments.iter().enumerate() {
            if segment.tokens.is_empty() {
                return Err(AdvanceError::Empty { segment: index });
            }
            let (start, len) = (segment.cache.len, segment.cache.len + segment.tokens.len());
            if len > config.context {
                let context = config.context;
                return Err(AdvanceError::ContextFull {
                    segment: index,
                    len,
                    context,
                });
            }
            check_tokens(config, segment.tokens)?;
            batch.tokens.extend_from_slice(segment.tokens);
            batch.positions.extend(start as u32..len as u32);
            batch.lengths.push(segment.tokens.len());
            let end = batch.tokens.len() as u32;
            match segment.logits {
                LogitRows::None => {}
                LogitRows::Last => batch.selected.push(end - 1),
                LogitRows::All => batch
                    .selected
                    .extend(end - segment.tokens.len() as u32..end),
            }
        }
        Ok(batch)
    }
}

fn check_tokens(config: &ModelConfig, tokens: &[u32]) -> Result<(), AdvanceError> {
    match tokens.iter().find(|&&token| token as usize >= config.vocab) {
        Some(&token) => Err(AdvanceError::Token {
            token,
            vocab: config.vocab,
        }),
        None => Ok(()),
    }
}

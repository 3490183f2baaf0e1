//! From text to token ids and back, incrementally.

use std::path::Path;

use r3mes_types::Hash;

/// Largest `tokenizer.json` that is read, in bytes.
pub const MAX_TOKENIZER_BYTES: u64 = 64 << 20;
/// Longest text that is tokenized at once, in bytes.
pub const MAX_TEXT_BYTES: usize = 64 << 20;

/// Tokens at the end of what was decoded so far that an incremental decoder looks back at.
///
/// A character's bytes span at most four byte tokens; a decoder that treats the beginning of a
/// text specially needs one token before them.
const DECODE_WINDOW: usize = 8;

/// A tokenizer in Hugging Face's `tokenizer.json` form.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    hash: Hash,
}

/// Why a tokenizer could not be loaded or used.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The file could not be read.
    #[error("cannot read the tokenizer {path}")]
    Read {
        /// The file.
        path: String,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// The file is larger than any tokenizer.
    #[error("the tokenizer has {bytes} bytes, more than the {MAX_TOKENIZER_BYTES} accepted")]
    TooLarge {
        /// Its size.
        bytes: u64,
    },
    /// The file is not a tokenizer.
    #[error("not a tokenizer.json of Hugging Face's form")]
    Parse(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The text is too long.
    #[error("the text has {bytes} bytes, more than the {MAX_TEXT_BYTES} tokenized at once")]
    TextTooLong {
        /// Its size.
        bytes: usize,
    },
    /// The library refused the text.
    #[error("the text cannot be tokenized")]
    Encode(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The library refused the tokens.
    #[error("the tokens cannot be decoded")]
    Decode(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Tokenizer {
    /// Reads `tokenizer.json` from `path`.
    ///
    /// # Errors
    /// When the file cannot be read, is too large or is not a tokenizer.
    pub fn open(path: &Path) -> Result<Self, TokenizerError> {
        let read = |source| TokenizerError::Read {
            path: path.display().to_string(),
            source,
        };
        let bytes = std::fs::metadata(path).map_err(read)?.len();
        if bytes > MAX_TOKENIZER_BYTES {
            return Err(TokenizerError::TooLarge { bytes });
        }
        Self::from_bytes(&std::fs::read(path).map_err(read)?)
    }

    /// Reads the contents of a `tokenizer.json`.
    ///
    /// # Errors
    /// When they are too large or not a tokenizer.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TokenizerError> {
        if bytes.len() as u64 > MAX_TOKENIZER_BYTES {
            return Err(TokenizerError::TooLarge {
                bytes: bytes.len() as u64,
            });
        }
        let mut inner = tokenizers::Tokenizer::from_bytes(bytes).map_err(TokenizerError::Parse)?;
        inner.with_padding(None);
        inner.with_truncation(None).map_err(TokenizerError::Parse)?;
        Ok(Self {
            inner,
            hash: Hash::of(bytes),
        })
    }

    /// BLAKE3 of the file: the tokenizer's id.
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// Tokens known, added ones included.
    pub fn vocabulary(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The token ids of `text`, without any that the tokenizer would add around it.
    ///
    /// # Errors
    /// When the text is too long, or the library refuses it.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(TokenizerError::TextTooLong { bytes: text.len() });
        }
        let encoding = self
            .inner
            .encode_fast(text, false)
            .map_err(TokenizerError::Encode)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of `ids`, special tokens left out.
    ///
    /// # Errors
    /// When the library refuses them.
    pub fn decode(&self, ids: &[u32]) -> Result<String, TokenizerError> {
        self.inner.decode(ids, true).map_err(TokenizerError::Decode)
    }

    /// The token that stands for `id` in the vocabulary, as it is written there.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The id of a token, as it is written in the vocabulary.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Starts decoding tokens that follow `context`, one by one.
    pub fn decoder(&self, context: &[u32]) -> Decoder<'_> {
        let from = context.len().saturating_sub(DECODE_WINDOW);
        let ids = context[from..].to_vec();
        Decoder {
            tokenizer: self,
            shown: ids.len(),
            ids,
        }
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("hash", &self.hash)
            .finish_non_exhaustive()
    }
}

/// Decodes a growing sequence of tokens: the concatenated pieces are the text that the whole
/// sequence adds to its context. Bytes of an unfinished character are held back.
#[derive(Clone, Debug)]
pub struct Decoder<'a> {
    tokenizer: &'a Tokenizer,
    /// A window over the last tokens.
    ids: Vec<u32>,
    /// How many of `ids` have been turned into text.
    shown: usize,
}

impl Decoder<'_> {
    /// Takes the next token; returns the text that has become certain with it, often one piece,
    /// sometimes none.
    ///
    /// # Errors
    /// When the library refuses the token.
    pub fn push(&mut self, id: u32) -> Result<String, TokenizerError> {
        self.ids.push(id);
        let text = self.pending()?;
        if text.ends_with(char::REPLACEMENT_CHARACTER)
            && self.ids.len() - self.shown < DECODE_WINDOW
        {
            return Ok(String::new());
        }
        self.shown = self.ids.len();
        let excess = self.ids.len().saturating_sub(DECODE_WINDOW);
        self.ids.drain(..excess);
        self.shown -= excess;
        Ok(text)
    }

    /// What `id` would add to the text if it came next, bytes of unfinished characters replaced.
    ///
    /// # Errors
    /// When the library refuses the token.
    pub fn peek(&self, id: u32) -> Result<String, TokenizerError> {
        let mut ids = self.ids.clone();
        let before = self.tokenizer.decode(&ids)?;
        ids.push(id);
        let after = self.tokenizer.decode(&ids)?;
        Ok(after.get(before.len()..).unwrap_or_default().to_owned())
    }

    /// The text of an unfinished character at the end, its missing bytes replaced.
    ///
    /// # Errors
    /// When the library refuses the tokens.
    pub fn finish(self) -> Result<String, TokenizerError> {
        self.pending()
    }

    /// The text that the tokens not yet shown add to those shown.
    fn pending(&self) -> Result<String, TokenizerError> {
        let before = self.tokenizer.decode(&self.ids[..self.shown])?;
        let after = self.tokenizer.decode(&self.ids)?;
        Ok(after.get(before.len()..).unwrap_or_default().to_owned())
    }
}

//! Token-id shards: what tasks name, instead of text.
//!
//! The last tenth of every text is held out and never dealt; the rest of all
//! texts is dealt over all shards in pieces, like cards, so that every shard
//! holds some of every text and losing one miner loses no text.
//!
//! See `docs/spec/training.md`, "Data".

use r3mes_types::Hash;

/// The most tokens that one shard may hold.
pub const MAX_SHARD_TOKENS: usize = 1 << 28;
/// Tokens of one piece, the unit in which texts are dealt over shards.
pub const PIECE_TOKENS: usize = 1024;

const MAGIC: [u8; 4] = *b"R3TS";
const VERSION: u16 = 1;
const HEADER: usize = 4 + 2 + 2 + 4 + 32 + 8;

/// A sequence of token ids of one tokenizer, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    tokenizer: Hash,
    vocabulary: u32,
    tokens: Vec<u32>,
}

/// Why tokens or bytes are not a shard.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShardError {
    /// The bytes are not a shard, or one of another version.
    #[error("not a version {VERSION} token shard")]
    Header,
    /// The bytes are shorter or longer than the header says.
    #[error("the shard has {got} bytes, its header says {expected}")]
    Length {
        /// Bytes there are.
        got: usize,
        /// Bytes there should be.
        expected: u64,
    },
    /// More tokens than [`MAX_SHARD_TOKENS`].
    #[error("the shard claims {tokens} tokens, at most {MAX_SHARD_TOKENS} are allowed")]
    TooLong {
        /// Tokens claimed.
        tokens: u64,
    },
    /// A token that the vocabulary does not have.
    #[error("token {token} at position {position} is outside the vocabulary of {vocabulary}")]
    Token {
        /// The token id.
        token: u32,
        /// Where it stands.
        position: usize,
        /// Size of the vocabulary.
        vocabulary: u32,
    },
}

impl Shard {
    /// Checks that every token is of the vocabulary.
    ///
    /// # Errors
    /// [`ShardError`] names the first token outside it.
    pub fn new(tokenizer: Hash, vocabulary: u32, tokens: Vec<u32>) -> Result<Self, ShardError> {
        if tokens.len() > MAX_SHARD_TOKENS {
            return Err(ShardError::TooLong {
                tokens: tokens.len() as u64,
            });
        }
        if let Some(position) = tokens.iter().position(|&token| token >= vocabulary) {
            return Err(ShardError::Token {
                token: tokens[position],
                position,
                vocabulary,
            });
        }
        Ok(Self {
            tokenizer,
            vocabulary,
            tokens,
        })
    }

    /// BLAKE3 of the tokenizer that made the tokens.
    #[must_use]
    pub fn tokenizer(&self) -> Hash {
        self.tokenizer
    }

    /// Number of token ids that the tokenizer has.
    #[must_use]
    pub fn vocabulary(&self) -> u32 {
        self.vocabulary
    }

    /// The token ids.
    #[must_use]
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The canonical bytes: header, then 16 bits a token where the vocabulary
    /// fits them, else 32.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let width = token_width(self.vocabulary);
        let mut out = Vec::with_capacity(HEADER + width * self.tokens.len());
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&(width as u16).to_le_bytes());
        out.extend_from_slice(&self.vocabulary.to_le_bytes());
        out.extend_from_slice(self.tokenizer.as_bytes());
        out.extend_from_slice(&(self.tokens.len() as u64).to_le_bytes());
        for token in &self.tokens {
            out.extend_from_slice(&token.to_le_bytes()[..width]);
        }
        out
    }

    /// Parses canonical bytes; all others are refused.
    ///
    /// # Errors
    /// [`ShardError`] says what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, ShardError> {
        let (header, body) = bytes
            .split_first_chunk::<HEADER>()
            .ok_or(ShardError::Header)?;
        let [a, b, c, d, v0, v1, w0, w1, n0, n1, n2, n3, rest @ ..] = *header;
        let vocabulary = u32::from_le_bytes([n0, n1, n2, n3]);
        let width = token_width(vocabulary);
        let right_form = [a, b, c, d] == MAGIC && u16::from_le_bytes([v0, v1]) == VERSION;
        if !right_form || usize::from(u16::from_le_bytes([w0, w1])) != width {
            return Err(ShardError::Header);
        }
        let (tokenizer, count) = rest.split_first_chunk::<32>().ok_or(ShardError::Header)?;
        let count = u64::from_le_bytes(*count.first_chunk().ok_or(ShardError::Header)?);
        if count > MAX_SHARD_TOKENS as u64 {
            return Err(ShardError::TooLong { tokens: count });
        }
        let expected = HEADER as u64 + count * width as u64;
        if bytes.len() as u64 != expected {
            return Err(ShardError::Length {
                got: bytes.len(),
                expected,
            });
        }
        let tokens = body.chunks_exact(width).map(|token| {
            let mut wide = [0; 4];
            wide[..width].copy_from_slice(token);
            u32::from_le_bytes(wide)
        });
        Self::new(Hash::from(*tokenizer), vocabulary, tokens.collect())
    }

    /// The windows of `sequence + 1` tokens of a held-out shard, as
    /// [`split`] made them.
    pub fn windows(&self, sequence: usize) -> impl ExactSizeIterator<Item = &[u32]> {
        self.tokens.chunks_exact(sequence + 1)
    }
}

/// Bytes of one token id.
fn token_width(vocabulary: u32) -> usize {
    if vocabulary <= 1 << 16 { 2 } else { 4 }
}

/// Tokens for training and tokens to measure by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// The tokens of each shard.
    pub shards: Vec<Vec<u32>>,
    /// For each text, windows of `sequence + 1` tokens one after another;
    /// neighbours share one token.
    pub held_out: Vec<Vec<u32>>,
}

/// Holds out the last tenth of every text, in windows of `sequence + 1`
/// tokens with stride `sequence` whose tail is dropped, and deals the rest
/// over `shards` shards in pieces of [`PIECE_TOKENS`].
///
/// # Panics
/// If `shards` or `sequence` is zero.
#[must_use]
pub fn split(texts: &[Vec<u32>], shards: usize, sequence: usize) -> Split {
    assert!(
        shards > 0 && sequence > 0,
        "a split needs shards and windows"
    );
    let mut dealt = vec![Vec::new(); shards];
    let mut held_out = Vec::with_capacity(texts.len());
    let mut next = 0;
    for text in texts {
        // floor(0.9 n) without floating point.
        let boundary = text.len() - text.len().div_ceil(10);
        for piece in text[..boundary].chunks(PIECE_TOKENS) {
            dealt[next % shards].extend_from_slice(piece);
            next += 1;
        }
        let windows = text[boundary..].windows(sequence + 1).step_by(sequence);
        held_out.push(windows.flatten().copied().collect());
    }
    Split {
        shards: dealt,
        held_out,
    }
}

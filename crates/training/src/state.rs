//! What one optimizer step starts from and leaves behind.

use r3mes_types::Hash;

/// The whole state of training between two steps: all four parts, because an
/// adapter alone would leave the optimizer free, and forged moments can
/// explain any update.
#[derive(Clone, Debug, PartialEq)]
pub struct StepState {
    /// The flat adapter, in canonical order.
    pub adapter: Vec<f32>,
    /// AdamW's first moments, in the same order.
    pub first_moment: Vec<f32>,
    /// AdamW's second moments, in the same order.
    pub second_moment: Vec<f32>,
    /// Steps done in this round.
    pub step: u64,
}

/// Why bytes are not a step state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a step state of {parameters} parameters has {expected} bytes, this one has {got}")]
pub struct DecodeStateError {
    /// Parameters of the adapter.
    pub parameters: usize,
    /// Bytes there should be.
    pub expected: usize,
    /// Bytes there are.
    pub got: usize,
}

impl StepState {
    /// The state every round starts from: the given adapter, moments zero.
    #[must_use]
    pub fn start(adapter: Vec<f32>) -> Self {
        let zeros = vec![0.0; adapter.len()];
        Self {
            first_moment: zeros.clone(),
            second_moment: zeros,
            adapter,
            step: 0,
        }
    }

    /// Bytes of the encoding for an adapter of that many parameters.
    #[must_use]
    pub fn encoded_len(parameters: usize) -> usize {
        12 * parameters + 8
    }

    /// The canonical bytes: adapter, m, v as little-endian f32, then t as u64.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(Self::encoded_len(self.adapter.len()));
        for part in [&self.adapter, &self.first_moment, &self.second_moment] {
            extend_with_floats(&mut out, part);
        }
        out.extend_from_slice(&self.step.to_le_bytes());
        out
    }

    /// Parses the canonical bytes of a state of `parameters` parameters.
    ///
    /// Every string of the right length is the encoding of exactly one state.
    ///
    /// # Errors
    /// When the length is wrong.
    pub fn decode(bytes: &[u8], parameters: usize) -> Result<Self, DecodeStateError> {
        let expected = Self::encoded_len(parameters);
        let wrong = DecodeStateError {
            parameters,
            expected,
            got: bytes.len(),
        };
        if bytes.len() != expected {
            return Err(wrong);
        }
        let (floats, step) = bytes.split_last_chunk().ok_or(wrong)?;
        let mut parts = floats
            .chunks_exact(4 * parameters.max(1))
            .map(floats_from_bytes);
        let mut part = || parts.next().unwrap_or_default();
        Ok(Self {
            adapter: part(),
            first_moment: part(),
            second_moment: part(),
            step: u64::from_le_bytes(*step),
        })
    }

    /// BLAKE3 of the canonical bytes: what a commitment's leaf binds.
    #[must_use]
    pub fn hash(&self) -> Hash {
        let mut hasher = blake3::Hasher::new();
        let mut block = Vec::with_capacity(4 * HASH_BLOCK);
        for part in [&self.adapter, &self.first_moment, &self.second_moment] {
            for values in part.chunks(HASH_BLOCK) {
                block.clear();
                extend_with_floats(&mut block, values);
                hasher.update(&block);
            }
        }
        hasher.update(&self.step.to_le_bytes());
        Hash::from(*hasher.finalize().as_bytes())
    }
}

/// Values converted to bytes at a time, so that hashing needs no second copy.
const HASH_BLOCK: usize = 1 << 14;

/// The little-endian bytes of a flat vector: adapters and error feedback.
#[must_use]
pub fn encode_floats(values: &[f32]) -> Vec<u8> {
    let mut out = Vec::with_capacity(4 * values.len());
    extend_with_floats(&mut out, values);
    out
}

/// The inverse of [`encode_floats`]; a tail of fewer than four bytes is not
/// looked at, so check the length first.
#[must_use]
pub fn floats_from_bytes(bytes: &[u8]) -> Vec<f32> {
    bytes
        .as_chunks()
        .0
        .iter()
        .map(|&value| f32::from_le_bytes(value))
        .collect()
}

/// BLAKE3 of [`encode_floats`]: the hash of error feedback.
#[must_use]
pub fn hash_floats(values: &[f32]) -> Hash {
    let mut hasher = blake3::Hasher::new();
    for values in values.chunks(HASH_BLOCK) {
        hasher.update(&encode_floats(values));
    }
    Hash::from(*hasher.finalize().as_bytes())
}

fn extend_with_floats(out: &mut Vec<u8>, values: &[f32]) {
    out.extend(values.iter().flat_map(|value| value.to_le_bytes()));
}

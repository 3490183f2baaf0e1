//! Receipts: what a server claims to have computed, so that anyone can compute it again.

use r3mes_exact::Sampling;
use r3mes_types::wire::{Blob, DecodeError, List, Wire};
use r3mes_types::{Hash, PublicKey, SecretKey, Signature, schema, wire_enum};

use crate::request::{MAX_STOP_BYTES, MAX_STOP_STRINGS};

/// Most tokens in a receipt: prompt and answer together.
pub const MAX_TOKENS: usize = r3mes_model::MAX_CONTEXT;
/// Bytes of one mark.
pub const MARK_BYTES: usize = 8;
/// Most bytes of marks in a receipt.
const MAX_MARKS: usize = MAX_TOKENS * MARK_BYTES;
/// Domain of the signature.
const SIGNATURE_DOMAIN: &str = "r3mes inference receipt v1";

wire_enum! {
    /// Why an answer ended.
    pub enum FinishReason {
        /// The model ended the text, or a stop string appeared.
        Stop = 1 => "stop",
        /// The limit on tokens, or the end of the context, was reached.
        Length = 2 => "length",
    }
}

schema! {
    /// The adapter that an answer was computed with.
    pub struct AdapterTerms {
        /// BLAKE3 of the adapter's bytes.
        1 => hash: Hash,
        /// Rank.
        2 => rank: u32,
        /// Bits of the f32 alpha.
        3 => alpha: u32,
        /// Linears that carry a pair, as `LinearSet` bits.
        4 => targets: u32,
    }

    /// How tokens were chosen; f32 settings as their bits.
    pub struct SamplingTerms {
        /// 1 / temperature; absent for temperature 0.
        1 => inverse_temperature: Option<u32>,
        /// Share of the probability kept, in units of 2^-32.
        2 => top_p: u64,
        /// Tokens kept at most, 0 for all.
        3 => top_k: u32,
        /// Repetition penalty.
        4 => repetition_penalty: u32,
        /// Frequency penalty.
        5 => frequency_penalty: u32,
        /// Presence penalty.
        6 => presence_penalty: u32,
        /// Seed.
        7 => seed: u64,
    }

    /// Everything that a server binds itself to with one answer.
    pub struct Claim {
        /// Version of the exact arithmetic.
        1 => exact_version: u32,
        /// Id of the base model.
        2 => model: Hash,
        /// The adapter, if there was one.
        3 => adapter: Option<AdapterTerms>,
        /// Token ids of the prompt.
        4 => prompt: List<u32, MAX_TOKENS>,
        /// How tokens were chosen.
        5 => sampling: SamplingTerms,
        /// Most tokens that were to be generated.
        6 => max_tokens: u32,
        /// Texts that were to end the answer.
        7 => stop: List<Blob<MAX_STOP_BYTES>, MAX_STOP_STRINGS>,
        /// Whether the tokens that end a text were to be passed over.
        8 => ignore_eos: bool,
        /// The client's nonce.
        9 => nonce: Hash,
        /// Token ids generated, those cut by a stop string and a final end token included.
        10 => output: List<u32, MAX_TOKENS>,
        /// Why the answer ended.
        11 => finish: FinishReason,
        /// Chained hash over all positions of (final int8 vector, scale).
        12 => transcript: Hash,
        /// The first eight bytes of the chained hash after each position: they name the first
        /// position at which a recomputation differs.
        13 => marks: Blob<MAX_MARKS>,
    }

    /// A claim, signed by the server that made it.
    pub struct Receipt {
        /// What is claimed.
        1 => claim: Claim,
        /// The server's key.
        2 => key: PublicKey,
        /// Its signature of the claim.
        3 => signature: Signature,
    }
}

impl SamplingTerms {
    /// The sampler that these terms describe.
    pub fn sampler(&self) -> Sampling {
        Sampling {
            inverse_temperature: self.inverse_temperature.map(f32::from_bits),
            top_k: self.top_k,
            top_p: self.top_p,
            repetition_penalty: f32::from_bits(self.repetition_penalty),
            frequency_penalty: f32::from_bits(self.frequency_penalty),
            presence_penalty: f32::from_bits(self.presence_penalty),
        }
    }

    /// The terms of a sampler and its seed.
    pub fn new(sampler: &Sampling, seed: u64) -> Self {
        Self {
            inverse_temperature: sampler.inverse_temperature.map(f32::to_bits),
            top_p: sampler.top_p,
            top_k: sampler.top_k,
            repetition_penalty: sampler.repetition_penalty.to_bits(),
            frequency_penalty: sampler.frequency_penalty.to_bits(),
            presence_penalty: sampler.presence_penalty.to_bits(),
            seed,
        }
    }
}

impl Receipt {
    /// Signs `claim` with `key`.
    pub fn sign(claim: Claim, key: &SecretKey) -> Self {
        let signature = key.sign(&signed_bytes(&claim));
        Self {
            claim,
            key: key.public_key(),
            signature,
        }
    }

    /// Whether the signature is that of the key over the claim.
    pub fn is_signed(&self) -> bool {
        self.key.verify(&signed_bytes(&self.claim), &self.signature)
    }

    /// BLAKE3 of the encoding: the receipt's id.
    pub fn id(&self) -> Hash {
        Hash::of(&self.encode())
    }

    /// Reads the bytes of a receipt.
    ///
    /// # Errors
    /// When they are not the canonical encoding of one.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        Self::decode(bytes)
    }
}

fn signed_bytes(claim: &Claim) -> Vec<u8> {
    let mut bytes = SIGNATURE_DOMAIN.as_bytes().to_vec();
    bytes.extend_from_slice(&claim.encode());
    bytes
}

/// The chained hash over positions that a receipt ends in.
///
/// It starts from what the positions depend on besides themselves: version, model and adapter.
#[derive(Clone, Debug)]
pub struct Transcript {
    link: Hash,
    marks: Vec<u8>,
}

impl Transcript {
    /// The transcript of no positions.
    pub fn new(exact_version: u32, model: &Hash, adapter: Option<&Hash>) -> Self {
        let mut hasher = r3mes_types::Hasher::new("r3mes inference transcript v1")
            .number(u64::from(exact_version))
            .part(model.as_bytes());
        if let Some(adapter) = adapter {
            hasher = hasher.part(adapter.as_bytes());
        }
        Self {
            link: hasher.finish(),
            marks: Vec::new(),
        }
    }

    /// Adds the next position: the codes that the head saw, and their scale.
    pub fn push(&mut self, codes: &[i8], scale: f32) {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.link.as_bytes());
        let bytes: Vec<u8> = codes.iter().map(|code| code.cast_unsigned()).collect();
        hasher.update(&bytes);
        hasher.update(&scale.to_bits().to_le_bytes());
        self.link = Hash::from(*hasher.finalize().as_bytes());
        self.marks
            .extend_from_slice(&self.link.as_bytes()[..MARK_BYTES]);
    }

    /// The chained hash of all positions so far.
    pub fn link(&self) -> Hash {
        self.link
    }

    /// The marks of all positions so far.
    pub fn marks(&self) -> &[u8] {
        &self.marks
    }
}

//! Inference: from a request to a streamed answer, and from an answer to its proof.
//!
//! An [`Engine`] takes a [`Request`] and gives a [`Generation`], a stream of [`Event`]s that ends
//! with a [`Completion`]. Answers of the exact engine carry a [`Receipt`]: a signed account from
//! which anyone can recompute the whole answer, on any processor, and name the first position
//! that differs.

mod request;

mod engine;
mod receipt;

mod answer;
mod stop;

pub mod exact;
mod verify;

pub mod agent;

pub use engine::{
    Alternative, Answer, Completion, Engine, Event, Generation, GenerationError, Load, Piece,
    ServedModel, TokenInfo,
};
pub use r3mes_model::Message;
pub use receipt::{
    AdapterTerms, Claim, FinishReason, MARK_BYTES, MAX_TOKENS, Receipt, SamplingTerms, Transcript,
};
pub use request::{
    LEAST_REPETITION_PENALTY, LEAST_TEMPERATURE, MAX_MESSAGES, MAX_PENALTY, MAX_PROMPT_BYTES,
    MAX_REPETITION_PENALTY, MAX_STOP_BYTES, MAX_STOP_STRINGS, MAX_TEMPERATURE, MAX_TOP_LOGPROBS,
    Prompt, Request, RequestError, Sampling,
};
pub use verify::{Evidence, VerifyError, verify};

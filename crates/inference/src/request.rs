//! What is asked of an engine, checked once.

use r3mes_exact::undisturbed;
use r3mes_model::Message;

/// Most stop strings of a request.
pub const MAX_STOP_STRINGS: usize = 16;
/// Longest stop string, in bytes.
pub const MAX_STOP_BYTES: usize = 256;
/// Most alternatives reported for each token.
pub const MAX_TOP_LOGPROBS: usize = 20;
/// Most messages of a conversation.
pub const MAX_MESSAGES: usize = 1024;
/// Longest prompt, in bytes, before it is tokenized.
pub const MAX_PROMPT_BYTES: usize = 4 << 20;
/// Highest temperature.
pub const MAX_TEMPERATURE: f32 = 2.0;
/// Largest magnitude of the presence and frequency penalties.
pub const MAX_PENALTY: f32 = 2.0;

/// Lowest temperature above 0.
pub const LEAST_TEMPERATURE: f32 = 1e-3;
/// Lowest repetition penalty.
pub const LEAST_REPETITION_PENALTY: f32 = 0.1;
/// Highest repetition penalty.
pub const MAX_REPETITION_PENALTY: f32 = 10.0;

/// One request for a continuation.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Name of one of the engine's models.
    pub model: String,
    /// What to continue.
    pub prompt: Prompt,
    /// How to choose tokens.
    pub sampling: Sampling,
    /// Most tokens to generate; none means as many as the context has room for.
    pub max_tokens: Option<usize>,
    /// Texts at whose first occurrence generation ends; they are not part of the answer.
    pub stop: Vec<String>,
    /// Whether to go on past the tokens that end a text.
    pub ignore_eos: bool,
    /// Whether to report log-probabilities, and of how many alternatives beside the chosen token.
    pub logprobs: Option<usize>,
    /// Chosen by the client; bound into the receipt so that it cannot be passed off for another
    /// request's.
    pub nonce: [u8; 32],
}

/// What to continue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prompt {
    /// A text.
    Text(String),
    /// A conversation, to be put through the model's chat template.
    Chat(Vec<Message>),
    /// Token ids.
    Tokens(Vec<u32>),
}

/// How tokens are chosen. The same settings, seed, model, adapter and prompt give the same tokens
/// on every machine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// 0 takes the most likely token; 1 samples from the model's distribution.
    pub temperature: f32,
    /// Share of the probability that is kept, the likeliest tokens first; 1 keeps all.
    pub top_p: f32,
    /// Tokens kept at most; 0 keeps all.
    pub top_k: u32,
    /// Subtracted from the logit of every token that was generated already.
    pub presence_penalty: f32,
    /// Subtracted from a token's logit for every time it was generated already.
    pub frequency_penalty: f32,
    /// Positive logits of tokens that were generated already are divided by this, others
    /// multiplied; 1 changes nothing.
    pub repetition_penalty: f32,
    /// Seed of the random choices.
    pub seed: u64,
}

impl Sampling {
    /// The exact sampler's settings: the reciprocal of the temperature rounded once, `top_p` to
    /// the nearest multiple of 2^-32.
    pub(crate) fn to_exact(self) -> r3mes_exact::Sampling {
        let share = f64::from(self.top_p) * r3mes_exact::TOP_P_ALL as f64;
        r3mes_exact::Sampling {
            inverse_temperature: (self.temperature > 0.0)
                .then(|| undisturbed(|| 1.0 / self.temperature)),
            top_k: self.top_k,
            top_p: share as u64,
            repetition_penalty: self.repetition_penalty,
            frequency_penalty: self.frequency_penalty,
            presence_penalty: self.presence_penalty,
        }
    }

    /// Always the most likely token.
    pub const GREEDY: Self = Self {
        temperature: 0.0,
        top_p: 1.0,
        top_k: 0,
        presence_penalty: 0.0,
        frequency_penalty: 0.0,
        repetition_penalty: 1.0,
        seed: 0,
    };
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RequestError {
    /// No such model is served.
    #[error("the model `{model}` is not served here; served are: {}", served.join(", "))]
    UnknownModel {
        /// What was asked for.
        model: String,
        /// What there is.
        served: Vec<String>,
    },
    /// A setting is out of its range.
    #[error("`{field}` is {value}, but must be {expected}")]
    OutOfRange {
        /// Name of the setting.
        field: &'static str,
        /// What was given.
        value: String,
        /// What is accepted.
        expected: String,
    },
    /// The prompt has no tokens.
    #[error("the prompt is empty: give at least one token")]
    EmptyPrompt,
    /// The prompt leaves no room for an answer.
    #[error(
        "the prompt has {tokens} tokens, but the model's context of {context} must also hold the \
         answer: shorten the prompt"
    )]
    PromptTooLong {
        /// Tokens of the prompt.
        tokens: usize,
        /// Positions of the model.
        context: usize,
    },
    /// However the prompt is tokenized, it leaves no room for an answer.
    #[error(
        "the prompt has {bytes} bytes, and the model's context of {context} tokens holds no more than {most}: \
         shorten the prompt"
    )]
    TextTooLong {
        /// Bytes of the prompt.
        bytes: usize,
        /// Most bytes that the context can stand for.
        most: usize,
        /// Positions of the model.
        context: usize,
    },
    /// A token of the prompt is not in the vocabulary.
    #[error("token {token} is not in the vocabulary of {vocab}")]
    Token {
        /// The token.
        token: u32,
        /// Tokens that the model knows.
        vocab: usize,
    },
    /// The chat template or the tokenizer refused the prompt.
    #[error("the prompt cannot be turned into tokens: {reason}")]
    Prompt {
        /// What it said.
        reason: String,
    },
    /// Too many requests wait already.
    #[error("the engine is busy with {waiting} waiting requests: try again later")]
    Busy {
        /// Requests in the queue.
        waiting: usize,
    },
    /// The engine has stopped.
    #[error("the engine has stopped: the node is shutting down")]
    Stopped,
}

impl Request {
    /// Checks everything that can be checked without the model.
    ///
    /// # Errors
    /// [`RequestError::OutOfRange`] names the first setting that does not fit.
    pub fn check(&self) -> Result<(), RequestError> {
        let sampling = &self.sampling;
        within("temperature", sampling.temperature, 0.0, MAX_TEMPERATURE)?;
        within("top_p", sampling.top_p, 0.0, 1.0)?;
        within(
            "presence_penalty",
            sampling.presence_penalty,
            -MAX_PENALTY,
            MAX_PENALTY,
        )?;
        within(
            "frequency_penalty",
            sampling.frequency_penalty,
            -MAX_PENALTY,
            MAX_PENALTY,
        )?;
        let (least, most) = (LEAST_REPETITION_PENALTY, MAX_REPETITION_PENALTY);
        within(
            "repetition_penalty",
            sampling.repetition_penalty,
            least,
            most,
        )?;
        if sampling.temperature > 0.0 {
            within(
                "temperature",
                sampling.temperature,
                LEAST_TEMPERATURE,
                MAX_TEMPERATURE,
            )?;
        }
        if let Some(tokens) = self.max_tokens {
            ensure("max_tokens", tokens, tokens > 0, "at least 1")?;
        }
        if let Some(top) = self.logprobs {
            let expected = format!("at most {MAX_TOP_LOGPROBS}");
            ensure("logprobs", top, top <= MAX_TOP_LOGPROBS, &expected)?;
        }
        let expected = format!("at most {MAX_STOP_STRINGS} texts");
        ensure(
            "stop",
            self.stop.len(),
            self.stop.len() <= MAX_STOP_STRINGS,
            &expected,
        )?;
        for stop in &self.stop {
            let fits = (1..=MAX_STOP_BYTES).contains(&stop.len());
            let expected = format!("texts of 1 to {MAX_STOP_BYTES} bytes");
            ensure(
                "stop",
                format!("a text of {} bytes", stop.len()),
                fits,
                &expected,
            )?;
        }
        self.prompt.check()
    }
}

impl Prompt {
    fn check(&self) -> Result<(), RequestError> {
        let bytes = match self {
            Self::Text(text) => text.len(),
            Self::Chat(messages) => {
                let expected = format!("1 to {MAX_MESSAGES} messages");
                let fits = (1..=MAX_MESSAGES).contains(&messages.len());
                ensure("messages", messages.len(), fits, &expected)?;
                messages
                    .iter()
                    .map(|message| message.role.len() + message.content.len())
                    .sum()
            }
            Self::Tokens(tokens) => tokens.len() * size_of::<u32>(),
        };
        let expected = format!("at most {MAX_PROMPT_BYTES} bytes");
        ensure(
            "prompt",
            format!("{bytes} bytes"),
            bytes <= MAX_PROMPT_BYTES,
            &expected,
        )
    }
}

fn within(field: &'static str, value: f32, least: f32, most: f32) -> Result<(), RequestError> {
    let expected = format!("between {least} and {most}");
    ensure(field, value, (least..=most).contains(&value), &expected)
}

fn ensure(
    field: &'static str,
    value: impl ToString,
    holds: bool,
    expected: &str,
) -> Result<(), RequestError> {
    if holds {
        return Ok(());
    }
    let (value, expected) = (value.to_string(), expected.to_owned());
    Err(RequestError::OutOfRange {
        field,
        value,
        expected,
    })
}

#[cfg(test)]
mod tests {
    use r3mes_exact::disturbed;

    use super::*;

    #[test]
    fn a_temperature_means_the_same_whatever_other_libraries_left() {
        let sampling = Sampling {
            temperature: 0.7,
            ..Sampling::GREEDY
        };
        let inverse = || sampling.to_exact().inverse_temperature;
        assert_eq!(disturbed(inverse), Some(1.428_571_5));
        assert_eq!(inverse(), Some(1.428_571_5));
    }
}

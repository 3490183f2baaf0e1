//! The JSON of answers.

use std::time::{SystemTime, UNIX_EPOCH};

use r3mes_inference::{FinishReason, Piece, TokenInfo};
use serde_json::{Map, Value, json};

use super::{choice::Finished, request::Kind};

/// What all objects of one answer have in common.
#[derive(Clone, Debug)]
pub(super) struct Envelope {
    pub(super) kind: Kind,
    pub(super) id: String,
    pub(super) created: u64,
    pub(super) model: String,
    pub(super) fingerprint: String,
    pub(super) logprobs: bool,
    /// Whether chunks of a stream carry `usage`.
    pub(super) include_usage: bool,
}

/// Tokens counted for the client.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TokenUsage {
    pub(super) prompt: usize,
    pub(super) completion: usize,
}

impl TokenUsage {
    fn json(self) -> Value {
        json!({
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
        })
    }
}

/// An answer gathered whole.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    pub(super) text: String,
    pub(super) tokens: Vec<TokenInfo>,
    pub(super) finished: Option<Finished>,
}

impl Gathered {
    pub(super) fn push(&mut self, piece: Piece) {
        self.text.push_str(&piece.text);
        self.tokens.extend(piece.tokens);
    }
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

impl Envelope {
    /// The whole answer to a request that does not stream.
    pub(super) fn whole(&self, answers: &[Gathered], usage: TokenUsage) -> Value {
        let choice = |(index, answer): (usize, &Gathered)| {
            let mut choice = match self.kind {
                Kind::Text => json!({ "text": answer.text }),
                Kind::Chat => json!({
                    "message": { "role": "assistant", "content": answer.text, "refusal": null }
                }),
            };
            choice["index"] = index.into();
            choice["logprobs"] = self.logprobs_of(&answer.tokens, 0);
            finish(&mut choice, answer.finished.as_ref());
            choice
        };
        let choices = answers.iter().enumerate().map(choice).collect();
        let mut whole = self.object(choices, "");
        whole.insert("usage".to_owned(), usage.json());
        whole.into()
    }

    /// The first chunk of an answer in a chat, which says who speaks.
    pub(super) fn opening(&self, index: usize) -> Option<Value> {
        let delta = json!({ "role": "assistant", "content": "" });
        (self.kind == Kind::Chat).then(|| {
            self.chunk(json!({
                "index": index, "delta": delta, "logprobs": null, "finish_reason": null,
            }))
        })
    }

    /// A chunk with more of an answer, of which `offset` characters were sent before.
    pub(super) fn more(&self, index: usize, piece: &Piece, offset: usize) -> Value {
        let logprobs = self.logprobs_of(&piece.tokens, offset);
        let mut choice = match self.kind {
            Kind::Text => json!({ "text": piece.text }),
            Kind::Chat => json!({ "delta": { "content": piece.text } }),
        };
        choice["index"] = index.into();
        choice["logprobs"] = logprobs;
        choice["finish_reason"] = Value::Null;
        self.chunk(choice)
    }

    /// The last chunk of an answer.
    pub(super) fn end(&self, index: usize, finished: &Finished) -> Value {
        let mut choice = match self.kind {
            Kind::Text => json!({ "text": "" }),
            Kind::Chat => json!({ "delta": {} }),
        };
        choice["index"] = index.into();
        choice["logprobs"] = Value::Null;
        finish(&mut choice, Some(finished));
        self.chunk(choice)
    }

    /// The chunk after all answers that counts tokens, if it was asked for.
    pub(super) fn usage(&self, usage: TokenUsage) -> Option<Value> {
        self.include_usage.then(|| {
            let mut chunk = self.object(Vec::new(), ".chunk");
            chunk.insert("usage".to_owned(), usage.json());
            chunk.into()
        })
    }

    fn chunk(&self, choice: Value) -> Value {
        let mut chunk = self.object(vec![choice], ".chunk");
        if self.include_usage {
            chunk.insert("usage".to_owned(), Value::Null);
        }
        chunk.into()
    }

    fn object(&self, choices: Vec<Value>, ending: &str) -> Map<String, Value> {
        let object = match self.kind {
            // Chunks of completions are called like the whole.
            Kind::Text => "text_completion".to_owned(),
            Kind::Chat => format!("chat.completion{ending}"),
        };
        let object = json!({
            "id": self.id,
            "object": object,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
            "choices": choices,
        });
        match object {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }

    fn logprobs_of(&self, tokens: &[TokenInfo], offset: usize) -> Value {
        match self.kind {
            _ if !self.logprobs => Value::Null,
            Kind::Text => text_logprobs(tokens, offset),
            Kind::Chat => {
                let content: Vec<_> = tokens.iter().map(chat_logprob).collect();
                json!({ "content": content, "refusal": null })
            }
        }
    }
}

fn finish(choice: &mut Value, finished: Option<&Finished>) {
    let reason = finished.map(|finished| match finished.reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
    });
    choice["finish_reason"] = reason.into();
    // Not OpenAI's: clients of theirs pass over fields that they do not know.
    let receipt = finished.and_then(|finished| finished.receipt);
    choice["r3mes_receipt"] = receipt.map(|cid| cid.to_string()).into();
}

fn text_logprobs(tokens: &[TokenInfo], mut offset: usize) -> Value {
    let (mut texts, mut logprobs, mut tops, mut offsets) = (vec![], vec![], vec![], vec![]);
    for token in tokens {
        texts.push(json!(token.text));
        logprobs.push(json!(token.logprob));
        let top = token.top.iter();
        let top: Map<_, _> = top
            .map(|one| (one.text.clone(), json!(one.logprob)))
            .collect();
        tops.push(Value::Object(top));
        offsets.push(offset);
        offset += token.text.chars().count();
    }
    json!({
        "tokens": texts, "token_logprobs": logprobs, "top_logprobs": tops, "text_offset": offsets,
    })
}

fn chat_logprob(token: &TokenInfo) -> Value {
    let entry = |text: &str, logprob: Option<f32>| json!({ "token": text, "logprob": logprob, "bytes": text.as_bytes() });
    let top = token.top.iter();
    let top: Vec<_> = top.map(|one| entry(&one.text, Some(one.logprob))).collect();
    let mut chosen = entry(&token.text, token.logprob);
    chosen["top_logprobs"] = top.into();
    chosen
}

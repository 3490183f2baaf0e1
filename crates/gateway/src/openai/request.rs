use r3mes_inference::{MAX_TOP_LOGPROBS, Message, Prompt, Request, Sampling};
use serde_json::{Value, json};

use super::{
    error::ApiError,
    fields::{Fields, wrong},
};

/// Most answers that one request may ask for: prompts times `n`.
pub const MAX_CHOICES: usize = 16;

/// Most prompts of one completion request.
pub const MAX_PROMPTS: usize = 16;

/// Tokens that a completion has when nothing is said (OpenAI's default; a chat has no limit).
const DEFAULT_MAX_TOKENS: usize = 16;

/// Which of the two ways to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `/v1/completions`.
    Text,
    /// `/v1/chat/completions`.
    Chat,
}

/// A request, checked as far as it can be without the engine.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Asked {
    pub(super) kind: Kind,
    /// The model as the client named it.
    pub(super) model: String,
    pub(super) prompts: Vec<Prompt>,
    /// Answers per prompt.
    pub(super) n: usize,
    pub(super) max_tokens: Option<usize>,
    pub(super) sampling: Sampling,
    /// Whether the seed is the client's.
    pub(super) seeded: bool,
    pub(super) stop: Vec<String>,
    pub(super) ignore_eos: bool,
    pub(super) logprobs: Option<usize>,
    pub(super) stream: bool,
    pub(super) include_usage: bool,
}

impl Asked {
    pub(super) fn parse(kind: Kind, body: &[u8]) -> Result<Self, ApiError> {
        let fields = Fields::parse(body)?;
        refuse_unsupported(&fields, kind)?;
        let model = fields.text("model")?.to_owned();
        let prompts = match kind {
            Kind::Text => prompts(fields.required("prompt")?)?,
            Kind::Chat => vec![Prompt::Chat(messages(fields.required("messages")?)?)],
        };
        let n = fields.count("n")?.unwrap_or(1);
        if n == 0 || n.saturating_mul(prompts.len()) > MAX_CHOICES {
            let message = format!("`n` times the prompts must be 1 to {MAX_CHOICES} answers");
            return Err(ApiError::field("n", message));
        }
        let seed = fields.seed("seed")?;
        let stream = fields.boolean("stream")?.unwrap_or(false);
        let options = fields.object("stream_options")?;
        if options.is_some() && !stream {
            let message = "`stream_options` is only allowed together with `stream`: true";
            return Err(ApiError::field("stream_options", message));
        }
        let include_usage = match options {
            Some(options) => options.boolean("include_usage")?.unwrap_or(false),
            None => false,
        };
        Ok(Self {
            kind,
            model,
            prompts,
            n,
            max_tokens: max_tokens(&fields, kind)?,
            sampling: Sampling {
                temperature: fields.number("temperature")?.unwrap_or(1.0),
                top_p: fields.number("top_p")?.unwrap_or(1.0),
                top_k: top_k(&fields)?,
                presence_penalty: fields.number("presence_penalty")?.unwrap_or(0.0),
                frequency_penalty: fields.number("frequency_penalty")?.unwrap_or(0.0),
                repetition_penalty: fields.number("repetition_penalty")?.unwrap_or(1.0),
                seed: seed.unwrap_or(0),
            },
            seeded: seed.is_some(),
            stop: stop(&fields)?,
            ignore_eos: fields.boolean("ignore_eos")?.unwrap_or(false),
            logprobs: logprobs(&fields, kind)?,
            stream,
            include_usage,
        })
    }

    /// One engine request per answer: all answers to the first prompt, then to the second. The
    /// seed counts up from answer to answer, so that they differ.
    pub(super) fn requests(&self, model: &str, nonce: [u8; 32]) -> Vec<Request> {
        let answers = self.prompts.iter().flat_map(|prompt| vec![prompt; self.n]);
        answers
            .enumerate()
            .map(|(index, prompt)| Request {
                model: model.to_owned(),
                prompt: prompt.clone(),
                sampling: Sampling {
                    seed: self.sampling.seed.wrapping_add(index as u64),
                    ..self.sampling
                },
                max_tokens: self.max_tokens,
                stop: self.stop.clone(),
                ignore_eos: self.ignore_eos,
                logprobs: self.logprobs,
                nonce,
            })
            .collect()
    }
}

/// Only the model of a request, for a gateway that passes the rest on unread.
pub(super) fn model_of(body: &[u8]) -> Result<String, ApiError> {
    Ok(Fields::parse(body)?.text("model")?.to_owned())
}

fn refuse_unsupported(fields: &Fields, kind: Kind) -> Result<(), ApiError> {
    fields.unsupported("logit_bias", &[json!({})])?;
    match kind {
        Kind::Text => {
            fields.unsupported("echo", &[json!(false)])?;
            fields.unsupported("suffix", &[json!("")])?;
            fields.unsupported("best_of", &[json!(1)])
        }
        Kind::Chat => {
            for name in ["tools", "functions"] {
                fields.unsupported(name, &[json!([])])?;
            }
            fields.unsupported("audio", &[])?;
            fields.unsupported("modalities", &[json!(["text"])])?;
            fields.unsupported("response_format", &[json!({ "type": "text" })])
        }
    }
}

fn max_tokens(fields: &Fields, kind: Kind) -> Result<Option<usize>, ApiError> {
    match kind {
        Kind::Text => Ok(fields.count("max_tokens")?.or(Some(DEFAULT_MAX_TOKENS))),
        Kind::Chat => {
            let current = fields.count("max_completion_tokens")?;
            Ok(current.or(fields.count("max_tokens")?))
        }
    }
}

fn top_k(fields: &Fields) -> Result<u32, ApiError> {
    // Not OpenAI's, but what other servers call it; -1 is theirs for "all".
    if fields.get("top_k") == Some(&json!(-1)) {
        return Ok(0);
    }
    let k = fields.count("top_k")?.unwrap_or(0);
    u32::try_from(k).map_err(|_| ApiError::field("top_k", "`top_k` is too large"))
}

fn stop(fields: &Fields) -> Result<Vec<String>, ApiError> {
    let expected = "a string or an array of strings";
    match fields.get("stop") {
        None => Ok(Vec::new()),
        Some(Value::String(text)) => Ok(vec![text.clone()]),
        Some(Value::Array(texts)) => texts
            .iter()
            .map(|text| text.as_str().map(str::to_owned))
            .collect::<Option<_>>()
            .ok_or_else(|| ApiError::field("stop", format!("`stop` must be {expected}"))),
        Some(other) => Err(wrong("stop", expected, other)),
    }
}

/// Alternatives to report for each token, when any report is wanted.
fn logprobs(fields: &Fields, kind: Kind) -> Result<Option<usize>, ApiError> {
    let name = match kind {
        Kind::Text => "logprobs",
        Kind::Chat => "top_logprobs",
    };
    let top = fields.count(name)?;
    if top.is_some_and(|top| top > MAX_TOP_LOGPROBS) {
        let message = format!("`{name}` must be at most {MAX_TOP_LOGPROBS}");
        return Err(ApiError::field(name, message));
    }
    if kind == Kind::Text {
        return Ok(top);
    }
    match (fields.boolean("logprobs")?.unwrap_or(false), top) {
        (true, top) => Ok(Some(top.unwrap_or(0))),
        (false, None | Some(0)) => Ok(None),
        (false, Some(_)) => {
            let message = "`top_logprobs` is only allowed together with `logprobs`: true";
            Err(ApiError::field("top_logprobs", message))
        }
    }
}

/// A prompt is a text, a list of token ids, or a list of either.
fn prompts(value: &Value) -> Result<Vec<Prompt>, ApiError> {
    let expected = "a string, an array of strings, or an array of token ids";
    let refused = || wrong("prompt", expected, value);
    let several = match value {
        Value::String(text) => return Ok(vec![Prompt::Text(text.clone())]),
        Value::Array(several) => several,
        _ => return Err(refused()),
    };
    if let Some(tokens) = tokens(several) {
        return Ok(vec![Prompt::Tokens(tokens)]);
    }
    if several.is_empty() {
        return Err(ApiError::field(
            "prompt",
            "`prompt` is empty: give at least one",
        ));
    }
    if several.len() > MAX_PROMPTS {
        let message = format!("`prompt` may have at most {MAX_PROMPTS} prompts");
        return Err(ApiError::field("prompt", message));
    }
    let prompt = |one: &Value| match one {
        Value::String(text) => Some(Prompt::Text(text.clone())),
        Value::Array(ids) => tokens(ids).map(Prompt::Tokens),
        _ => None,
    };
    let prompts: Option<Vec<_>> = several.iter().map(prompt).collect();
    prompts.ok_or_else(refused)
}

fn tokens(ids: &[Value]) -> Option<Vec<u32>> {
    let id = |id: &Value| u32::try_from(id.as_u64()?).ok();
    let tokens: Vec<u32> = ids.iter().map(id).collect::<Option<_>>()?;
    (!tokens.is_empty()).then_some(tokens)
}

fn messages(value: &Value) -> Result<Vec<Message>, ApiError> {
    let messages = value.as_array();
    let messages = messages.ok_or_else(|| wrong("messages", "an array", value))?;
    messages.iter().enumerate().map(message).collect()
}

fn message((index, message): (usize, &Value)) -> Result<Message, ApiError> {
    let at = |name: &str| format!("messages[{index}].{name}");
    let role = match message["role"].as_str() {
        // The newer name of the same thing.
        Some("developer") => "system",
        Some(role @ ("system" | "user" | "assistant")) => role,
        _ => {
            let message = "a role must be one of system, developer, user and assistant";
            return Err(ApiError::field(at("role"), message));
        }
    };
    let content = match &message["content"] {
        Value::String(text) => text.clone(),
        Value::Null if role == "assistant" => String::new(),
        Value::Array(parts) => {
            let part = |part: &Value| match part["type"].as_str() {
                Some("text") => part["text"].as_str().map(str::to_owned),
                _ => None,
            };
            let texts: Option<Vec<_>> = parts.iter().map(part).collect();
            let refused =
                || ApiError::field(at("content"), "only parts of type text are supported");
            texts.ok_or_else(refused)?.concat()
        }
        other => {
            return Err(wrong(
                &at("content"),
                "a string or an array of parts",
                other,
            ));
        }
    };
    Ok(Message {
        role: role.to_owned(),
        content,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(body: Value) -> Result<Asked, ApiError> {
        Asked::parse(Kind::Text, body.to_string().as_bytes())
    }

    fn chat(body: Value) -> Result<Asked, ApiError> {
        Asked::parse(Kind::Chat, body.to_string().as_bytes())
    }

    #[test]
    fn defaults_are_those_of_openai() {
        let asked = text(json!({ "model": "m", "prompt": "a" })).unwrap();
        assert_eq!(asked.max_tokens, Some(16));
        assert_eq!(
            (asked.sampling.temperature, asked.sampling.top_p),
            (1.0, 1.0)
        );
        assert!(!asked.seeded && !asked.stream && asked.logprobs.is_none());
        let messages = json!([{ "role": "user", "content": "a" }]);
        let asked = chat(json!({ "model": "m", "messages": messages })).unwrap();
        assert_eq!(asked.max_tokens, None);
    }

    #[test]
    fn every_form_of_prompt_is_read() {
        let prompts =
            |prompt: Value| text(json!({ "model": "m", "prompt": prompt })).map(|a| a.prompts);
        let one = |text: &str| Prompt::Text(text.to_owned());
        assert_eq!(prompts(json!("a")), Ok(vec![one("a")]));
        assert_eq!(prompts(json!(["a", "b"])), Ok(vec![one("a"), one("b")]));
        assert_eq!(prompts(json!([1, 2])), Ok(vec![Prompt::Tokens(vec![1, 2])]));
        let tokens = vec![Prompt::Tokens(vec![1]), Prompt::Tokens(vec![2, 3])];
        assert_eq!(prompts(json!([[1], [2, 3]])), Ok(tokens));
        for wrong in [
            json!(5),
            json!({}),
            json!([1, "a"]),
            json!([[-1]]),
            json!([]),
        ] {
            let error = prompts(wrong).unwrap_err();
            assert_eq!(error.param.as_deref(), Some("prompt"));
        }
    }

    #[test]
    fn answers_to_one_request_have_their_own_seeds() {
        let asked = text(json!({ "model": "m", "prompt": ["a", "b"], "n": 2, "seed": 7 })).unwrap();
        let requests = asked.requests("real", [0; 32]);
        let seeds: Vec<_> = requests
            .iter()
            .map(|request| request.sampling.seed)
            .collect();
        assert_eq!(seeds, [7, 8, 9, 10]);
        assert_eq!(requests[1].prompt, Prompt::Text("a".to_owned()));
        assert_eq!(requests[2].prompt, Prompt::Text("b".to_owned()));
        assert!(requests.iter().all(|request| request.model == "real"));
    }

    #[test]
    fn a_wrong_field_is_named() {
        for (field, value) in [
            ("temperature", json!("hot")),
            ("max_tokens", json!(-1)),
            ("max_tokens", json!(1.5)),
            ("n", json!(0)),
            ("n", json!(17)),
            ("seed", json!(1.5)),
            ("stop", json!([1])),
            ("stream", json!("yes")),
            ("logprobs", json!(21)),
            ("logit_bias", json!({ "5": 1 })),
            ("echo", json!(true)),
            ("suffix", json!("end")),
            ("stream_options", json!({ "include_usage": true })),
            ("model", json!(null)),
        ] {
            let mut body = json!({ "model": "m", "prompt": "a" });
            body[field] = value;
            let error = text(body).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(field));
            assert_eq!(error.status, 400);
        }
    }

    #[test]
    fn chat_messages_are_read_with_their_parts() {
        let parts = json!([{ "type": "text", "text": "a" }, { "type": "text", "text": "b" }]);
        let messages = json!([
            { "role": "developer", "content": "be brief" },
            { "role": "user", "content": parts },
            { "role": "assistant", "content": null },
        ]);
        let asked = chat(json!({ "model": "m", "messages": messages })).unwrap();
        let expected = [("system", "be brief"), ("user", "ab"), ("assistant", "")];
        let expected = expected.map(|(role, content)| Message {
            role: role.to_owned(),
            content: content.to_owned(),
        });
        assert_eq!(asked.prompts, [Prompt::Chat(expected.to_vec())]);

        let image = json!([{ "type": "image_url", "image_url": {} }]);
        for (message, param) in [
            (
                json!({ "role": "user", "content": image }),
                "messages[0].content",
            ),
            (
                json!({ "role": "tool", "content": "a" }),
                "messages[0].role",
            ),
            (json!({ "role": "user" }), "messages[0].content"),
            (json!("hi"), "messages[0].role"),
        ] {
            let error = chat(json!({ "model": "m", "messages": [message] })).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(param));
        }
    }

    #[test]
    fn chat_reports_alternatives_only_when_asked() {
        let messages = json!([{ "role": "user", "content": "a" }]);
        let logprobs = |more: Value| {
            let mut body = json!({ "model": "m", "messages": messages });
            for (key, value) in more.as_object().unwrap() {
                body[key] = value.clone();
            }
            chat(body).map(|asked| asked.logprobs)
        };
        assert_eq!(logprobs(json!({})), Ok(None));
        assert_eq!(logprobs(json!({ "logprobs": true })), Ok(Some(0)));
        assert_eq!(
            logprobs(json!({ "logprobs": true, "top_logprobs": 5 })),
            Ok(Some(5))
        );
        assert!(logprobs(json!({ "top_logprobs": 5 })).is_err());
    }
}

//! The chat template of a checkpoint: `chat_template.jinja`, or what `tokenizer_config.json` says.

use std::path::Path;

use serde::Deserialize;

use super::{CheckpointError, read_json};
use crate::chat::ChatFormat;

/// Name of the template for conversations, where a checkpoint has several.
const DEFAULT: &str = "default";

/// What is read of `tokenizer_config.json`.
#[derive(Default, Deserialize)]
struct TokenizerConfig {
    chat_template: Option<Templates>,
    bos_token: Option<Token>,
    eos_token: Option<Token>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Templates {
    One(String),
    Named(Vec<Named>),
}

#[derive(Deserialize)]
struct Named {
    name: String,
    template: String,
}

/// A token as its text alone, or as an added token is described.
#[derive(Deserialize)]
#[serde(untagged)]
enum Token {
    Text(String),
    Added { content: String },
}

impl Token {
    fn text(self) -> String {
        match self {
            Self::Text(text) | Self::Added { content: text } => text,
        }
    }
}

/// The chat template in `directory`, if there is one. A file of its own goes before the tokenizer's
/// configuration, as it does with Hugging Face.
pub(super) fn open(directory: &Path) -> Result<Option<ChatFormat>, CheckpointError> {
    let config = directory.join("tokenizer_config.json");
    let config = match config.exists() {
        true => parse(&read_json(&config)?)?,
        false => TokenizerConfig::default(),
    };
    let file = directory.join("chat_template.jinja");
    let template = match file.exists() {
        true => Some(String::from_utf8(read_json(&file)?).map_err(|_| {
            CheckpointError::ChatTemplate {
                reason: "chat_template.jinja is not text in UTF-8".to_owned(),
            }
        })?),
        false => config.chat_template.map(conversations).transpose()?,
    };
    let text = |token: Option<Token>| token.map_or_else(String::new, Token::text);
    Ok(template.map(|template| ChatFormat {
        template,
        bos: text(config.bos_token),
        eos: text(config.eos_token),
    }))
}

fn parse(json: &[u8]) -> Result<TokenizerConfig, CheckpointError> {
    serde_json::from_slice(json).map_err(|error| CheckpointError::ChatTemplate {
        reason: format!("tokenizer_config.json does not say it in a known form: {error}"),
    })
}

fn conversations(templates: Templates) -> Result<String, CheckpointError> {
    match templates {
        Templates::One(template) => Ok(template),
        Templates::Named(all) => all
            .into_iter()
            .find(|named| named.name == DEFAULT)
            .map(|named| named.template)
            .ok_or_else(|| CheckpointError::ChatTemplate {
                reason: format!("tokenizer_config.json has templates, but none named `{DEFAULT}`"),
            }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(files: &[(&str, &str)]) -> Result<Option<ChatFormat>, String> {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(directory.path().join(name), text).unwrap();
        }
        open(directory.path()).map_err(|error| error.to_string())
    }

    fn config(json: &str) -> Result<Option<ChatFormat>, String> {
        format(&[("tokenizer_config.json", json)])
    }

    #[test]
    fn a_template_is_found_in_every_place_that_checkpoints_have_it() {
        let template = |found: &ChatFormat| found.template.clone();
        let one = config(
            r#"{"chat_template": "one", "bos_token": "<s>",
            "eos_token": {"content": "</s>", "lstrip": false}, "model_max_length": 1e30}"#,
        );
        let expected = ChatFormat {
            template: "one".into(),
            bos: "<s>".into(),
            eos: "</s>".into(),
        };
        assert_eq!(one, Ok(Some(expected)));
        let named = config(
            r#"{"chat_template": [{"name": "rag", "template": "r"},
            {"name": "default", "template": "d"}], "bos_token": null}"#,
        );
        assert_eq!(named.unwrap().as_ref().map(template), Some("d".to_owned()));
        let both = format(&[
            (
                "tokenizer_config.json",
                r#"{"chat_template": "old", "eos_token": "e"}"#,
            ),
            ("chat_template.jinja", "new"),
        ]);
        let both = both.unwrap().unwrap();
        assert_eq!((both.template.as_str(), both.eos.as_str()), ("new", "e"));
        assert_eq!(format(&[]), Ok(None));
        assert_eq!(config(r#"{"bos_token": "<s>"}"#), Ok(None));
    }

    #[test]
    fn what_is_no_template_is_refused_with_the_file() {
        for json in ["{", r#"{"chat_template": 3}"#, r#"{"chat_template": []}"#] {
            let refusal = config(json).unwrap_err();
            assert!(refusal.contains("tokenizer_config.json"), "{refusal}");
        }
    }
}

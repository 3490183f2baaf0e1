//! A small client of this API, for commands that ask a network they did not start.

use std::time::Duration;

use r3mes_types::Hash;
use serde::Deserialize;
use serde_json::{Value, json};

use super::receipts::RECEIPT_HEADER;

/// Longest time for one answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);
/// Longest answer or receipt that is read, in bytes.
const MAX_BODY_BYTES: usize = 16 << 20;

/// Asks an OpenAI-compatible API of this network.
#[derive(Clone, Debug)]
pub struct Client {
    base: String,
    http: reqwest::Client,
}

/// What to complete, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct CompletionAsk {
    /// Name of the model.
    pub model: String,
    /// What to continue.
    pub prompt: String,
    /// Most tokens to add.
    pub max_tokens: u32,
    /// 0 takes the likeliest token.
    pub temperature: f32,
    /// Equal seeds give equal answers.
    pub seed: u64,
}

/// A completed prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompletionText {
    /// What was added.
    pub text: String,
    /// Path of the answer's receipt on the same API.
    pub receipt: String,
}

/// A model as `/v1/models` lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedModel {
    /// Its name.
    pub id: String,
    /// Hash of the adapter on it, if there is one.
    pub adapter: Option<Hash>,
}

/// Why the API gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// It could not be reached, or broke off.
    #[error("{url} did not answer: check that a gateway or serving node runs there")]
    Http {
        /// What was asked.
        url: String,
        /// What went wrong.
        #[source]
        source: reqwest::Error,
    },
    /// It refused.
    #[error("{url} answered {status}: {message}")]
    Refused {
        /// What was asked.
        url: String,
        /// The HTTP status.
        status: u16,
        /// Its explanation.
        message: String,
    },
    /// Its answer is not of the expected form.
    #[error("{url} answered something unexpected: {what} is missing")]
    Unexpected {
        /// What was asked.
        url: String,
        /// What is missing.
        what: &'static str,
    },
}

#[derive(Deserialize)]
struct Refusal {
    error: RefusalBody,
}

#[derive(Deserialize)]
struct RefusalBody {
    message: String,
}

impl Client {
    /// A client of the API at a base URL.
    ///
    /// # Errors
    /// When the operating system does not let it make a client.
    pub fn new(base: &str) -> Result<Self, ClientError> {
        let base = base.trim_end_matches('/').to_owned();
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(ANSWER_TIMEOUT)
            .build();
        match http {
            Ok(http) => Ok(Self { base, http }),
            Err(source) => Err(ClientError::Http { url: base, source }),
        }
    }

    /// Completes a prompt.
    ///
    /// # Errors
    /// [`ClientError`] with the API's own explanation where it refused.
    pub async fn complete(&self, ask: &CompletionAsk) -> Result<CompletionText, ClientError> {
        let url = format!("{}/v1/completions", self.base);
        let body = json!({
            "model": ask.model,
            "prompt": ask.prompt,
            "max_tokens": ask.max_tokens,
            "temperature": ask.temperature,
            "seed": ask.seed,
        });
        let response = self.send(self.http.post(&url).json(&body), &url).await?;
        let receipt = response
            .headers()
            .get(RECEIPT_HEADER)
            .and_then(|value| value.to_str().ok());
        let receipt = receipt
            .ok_or(ClientError::Unexpected {
                url: url.clone(),
                what: "the receipt's header",
            })?
            .to_owned();
        let answer: Value =
            serde_json::from_slice(&read(response, &url).await?).unwrap_or_default();
        let text = answer["choices"][0]["text"].as_str();
        let text = text
            .ok_or(ClientError::Unexpected {
                url,
                what: "the text",
            })?
            .to_owned();
        Ok(CompletionText { text, receipt })
    }

    /// What is served.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn models(&self) -> Result<Vec<ListedModel>, ClientError> {
        let url = format!("{}/v1/models", self.base);
        let response = self.send(self.http.get(&url), &url).await?;
        let answer: Value =
            serde_json::from_slice(&read(response, &url).await?).unwrap_or_default();
        let listed = answer["data"].as_array();
        let listed = listed.ok_or(ClientError::Unexpected {
            url,
            what: "the list of models",
        })?;
        let model = |entry: &Value| {
            Some(ListedModel {
                id: entry["id"].as_str()?.to_owned(),
                adapter: entry["adapter"].as_str().and_then(|hash| hash.parse().ok()),
            })
        };
        Ok(listed.iter().filter_map(model).collect())
    }

    /// The canonical bytes of a receipt: by its path on this API, its whole URL, or its id.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn receipt(&self, named: &str) -> Result<Vec<u8>, ClientError> {
        let url = if named.starts_with("http://") {
            named.to_owned()
        } else if named.starts_with('/') {
            format!("{}{named}", self.base)
        } else {
            format!("{}/v1/receipts/{named}", self.base)
        };
        let response = self.send(self.http.get(&url), &url).await?;
        read(response, &url).await
    }

    async fn send(
        &self,
        request: reqwest::RequestBuilder,
        url: &str,
    ) -> Result<reqwest::Response, ClientError> {
        let failed = |source| ClientError::Http {
            url: url.to_owned(),
            source,
        };
        let response = request.send().await.map_err(failed)?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = read(response, url).await?;
        let message = serde_json::from_slice::<Refusal>(&body).map_or_else(
            |_| String::from_utf8_lossy(&body).chars().take(500).collect(),
            |refusal| refusal.error.message,
        );
        Err(ClientError::Refused {
            url: url.to_owned(),
            status: status.as_u16(),
            message,
        })
    }
}

/// The body, up to [`MAX_BODY_BYTES`].
async fn read(mut response: reqwest::Response, url: &str) -> Result<Vec<u8>, ClientError> {
    let mut body = Vec::new();
    loop {
        let piece = response.chunk().await.map_err(|source| ClientError::Http {
            url: url.to_owned(),
            source,
        })?;
        let Some(piece) = piece else { return Ok(body) };
        body.extend_from_slice(&piece);
        if body.len() > MAX_BODY_BYTES {
            return Err(ClientError::Unexpected {
                url: url.to_owned(),
                what: "an end within 16 MiB",
            });
        }
    }
}

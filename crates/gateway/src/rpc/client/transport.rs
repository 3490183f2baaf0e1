//! Calls over HTTP: JSON-RPC, tried again, and bounded.

use std::time::Duration;

use reqwest::{StatusCode, Url};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::answers::{Envelope, not_understood};
use super::{Client, ClientError};

/// The first and the longest pause between two tries.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// The longest answer that is read.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// Whether a call may be made again when its answer did not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    /// It changes nothing.
    Freely,
    /// Only if it cannot have arrived.
    Unsent,
}

impl Client {
    /// Calls a method, again and again while the node cannot be reached, as `repeat` allows.
    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        method: &'static str,
        params: Value,
        repeat: Repeat,
    ) -> Result<T, ClientError> {
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let until = Instant::now() + self.retry_for;
        let (mut pause, longest) = PAUSES;
        let body = loop {
            match self.post(&request).await {
                Ok(body) => break body,
                Err(Failed::TooLong) => return Err(not_understood(method, "it is too long")),
                Err(Failed::Http(source)) => {
                    let again = repeat == Repeat::Freely || source.is_connect();
                    if !again || source.is_timeout() || Instant::now() + pause > until {
                        let url = self.url.to_string();
                        return Err(ClientError::Unreachable { url, source });
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(longest);
                }
            }
        };
        let envelope: Envelope =
            serde_json::from_slice(&body).map_err(|error| not_understood(method, error))?;
        if let Some(error) = envelope.error {
            let message = match error.data {
                Some(data) if !data.is_empty() => data,
                _ => error.message,
            };
            return Err(ClientError::Call { method, message });
        }
        serde_json::from_value(envelope.result).map_err(|error| not_understood(method, error))
    }

    async fn post(&self, request: &Value) -> Result<Vec<u8>, Failed> {
        let request = self.http.post(self.url.clone()).json(request);
        let mut response = request.send().await.map_err(Failed::Http)?;
        if matches!(
            response.status(),
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
        ) {
            // The RPC answers, but what stands behind it is away for a moment.
            let away = response.error_for_status();
            response = away.map_err(Failed::Http)?;
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(Failed::Http)? {
            if body.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(Failed::TooLong);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

enum Failed {
    Http(reqwest::Error),
    TooLong,
}

/// Whether an address is the loopback, where no proxy is asked.
pub(super) fn is_this_machine(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let ip = host.parse::<std::net::IpAddr>();
    host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
}

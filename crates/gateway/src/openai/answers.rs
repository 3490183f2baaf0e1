//! Answers of serving nodes, passed on as they come.

use std::time::Duration;

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures::{StreamExt, stream};

use super::{error::ApiError, receipts::RECEIPT_HEADER};

/// Longest refusal of a node that is passed on, in bytes.
const MAX_REFUSAL_BYTES: usize = 1 << 20;

/// Headers of an answer that a client needs.
pub(super) const PASSED_OUT: [&str; 4] = ["content-type", "retry-after", "etag", RECEIPT_HEADER];

/// What ends an event of a stream.
const EVENT_END: &[u8] = b"\n\n";

/// An answer of a node of which the status, and of a success the first bytes, have come.
pub(super) struct Begun {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    first: Bytes,
    rest: Option<reqwest::Response>,
}

/// What is still to be passed on.
struct Rest<H> {
    answer: Option<reqwest::Response>,
    /// Whether the client has whole events, after which another one is understood.
    between_events: bool,
    /// Longest pause of the node.
    patience: Duration,
    #[expect(dead_code, reason = "held for its drop")]
    held: H,
}

impl Begun {
    /// Passes the answer on; `held` is kept until its last byte, or until the client has gone. A node that
    /// pauses for longer than `patience`, or breaks off, ends it: a stream of events with one that says so,
    /// anything else by a cut connection, since the status is sent already.
    pub(super) fn respond(self, patience: Duration, held: impl Send + 'static) -> Response {
        let kind = self.headers.get(header::CONTENT_TYPE);
        let events = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
        let rest = Rest {
            answer: self.rest,
            between_events: events && self.first.ends_with(EVENT_END),
            patience,
            held,
        };
        let rest = stream::unfold(rest, move |mut rest| async move {
            let next = match rest.answer.as_mut()?.chunk().await {
                Ok(None) => return None,
                Ok(Some(chunk)) => {
                    rest.between_events = events && chunk.ends_with(EVENT_END);
                    Ok(chunk)
                }
                Err(error) => {
                    rest.answer = None;
                    let incomplete = incomplete(&error, rest.patience);
                    match rest.between_events {
                        true => Ok(event(&incomplete)),
                        false => Err(error),
                    }
                }
            };
            Some((next, rest))
        });
        let body = stream::iter([Ok(self.first)]).chain(rest);
        let mut response = Body::from_stream(body).into_response();
        *response.status_mut() = self.status;
        let headers = passed(&self.headers, &PASSED_OUT);
        response.headers_mut().extend(headers);
        response
    }
}

/// Sends a request and waits for the first bytes of the answer's body.
pub(super) async fn first_byte(request: reqwest::RequestBuilder) -> Result<Begun, reqwest::Error> {
    let mut answer = request.send().await?;
    let (status, headers) = (answer.status(), answer.headers().clone());
    if !status.is_success() {
        let first = read_bounded(answer, MAX_REFUSAL_BYTES).await;
        return Ok(Begun {
            status,
            headers,
            first: first.unwrap_or_default(),
            rest: None,
        });
    }
    let first = answer.chunk().await?.unwrap_or_default();
    Ok(Begun {
        status,
        headers,
        first,
        rest: Some(answer),
    })
}

/// Whether a node that had taken a request sent nothing for too long.
pub(super) fn has_stalled(error: &reqwest::Error) -> bool {
    error.is_timeout() && !error.is_connect()
}

/// Why there is half an answer.
fn incomplete(error: &reqwest::Error, patience: Duration) -> ApiError {
    let seconds = patience.as_secs_f64();
    let rest = "the answer is not complete, ask again";
    match has_stalled(error) {
        true => ApiError::stalled(format!(
            "the serving node sent nothing for {seconds} s: {rest}"
        )),
        false => ApiError::new(
            StatusCode::BAD_GATEWAY,
            format!("the serving node broke off: {rest}"),
        ),
    }
}

/// An error as the last event of a stream, as serving nodes themselves send it.
fn event(error: &ApiError) -> Bytes {
    format!("data: {}\n\n", error.body()).into()
}

/// Those of a message's headers that are passed on.
pub(super) fn passed<'h>(
    headers: &'h HeaderMap,
    names: &'h [&'static str],
) -> impl Iterator<Item = (HeaderName, HeaderValue)> + 'h {
    let found = |name: &&'static str| Some((*name, headers.get(*name)?.clone()));
    let found = names.iter().filter_map(found);
    found.map(|(name, value)| (HeaderName::from_static(name), value))
}

/// The body of an answer, unless it is longer than `limit` bytes or breaks off.
pub(super) async fn read_bounded(mut answer: reqwest::Response, limit: usize) -> Option<Bytes> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.ok()? {
        if body.len() + chunk.len() > limit {
            return None;
        }
        body.extend_from_slice(&chunk);
    }
    Some(body.into())
}

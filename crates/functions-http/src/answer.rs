//! Answers: one JSON value, JSON lines, server-sent events, or MessagePack as it came.

use std::convert::Infallible;

use axum::{
    Json,
    body::Body,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{
        IntoResponse, Response,
        sse::{Event as Sse, KeepAlive, Sse as SseResponse},
    },
};
use bytes::Bytes;
use futures::{Stream, stream};
use r3mes_functions::{
    Failure, Reason,
    client::{Event, Reply},
};
use serde_json::{Value, json};

use super::{problem::Problem, values};

const JSON_LINES: &str = "application/jsonl";
const MSGPACK: &str = "application/msgpack";

/// In which form an answer is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// One value.
    Json,
    /// A line for each item: `{"item": ...}`, and `{"error": ...}` where it fails.
    Lines,
    /// An event for each item, for progress, for a failure and for the end.
    Events,
    /// One item as the function sent it.
    Msgpack,
}

impl Form {
    /// What `Accept` asks for. A function that streams answers lines where any form will do.
    ///
    /// # Errors
    /// When none of ours is accepted.
    pub(super) fn of(headers: &HeaderMap, streams: bool) -> Result<Self, Problem> {
        let usual = if streams { Self::Lines } else { Self::Json };
        let Some(accept) = headers.get(header::ACCEPT) else {
            return Ok(usual);
        };
        let accept = accept.to_str().unwrap_or_default();
        let kinds = accept.split(',').map(|kind| {
            let kind = kind.split(';').next().unwrap_or_default();
            kind.trim().to_ascii_lowercase()
        });
        let form = kinds.filter_map(|kind| match kind.as_str() {
            "text/event-stream" => Some(Self::Events),
            JSON_LINES | "application/x-ndjson" | "application/json-lines" => Some(Self::Lines),
            MSGPACK | "application/vnd.msgpack" => Some(Self::Msgpack),
            "*/*" | "application/*" | "" => Some(usual),
            "application/json" => Some(usual),
            _ => None,
        });
        form.into_iter().next().ok_or_else(|| {
            let words = format!(
                "none of {accept} can be answered: accept application/json, {JSON_LINES}, \
                 text/event-stream or {MSGPACK}"
            );
            Problem::new(StatusCode::NOT_ACCEPTABLE, words)
        })
    }
}

/// Answers with what comes, as it comes.
///
/// # Errors
/// Where one value was wanted: how the call failed, or what JSON cannot show of it.
pub(super) async fn stream(mut reply: Reply, form: Form) -> Result<Response, Problem> {
    match form {
        Form::Json | Form::Msgpack => {
            let Some(first) = reply.item().await? else {
                let words = "the function ended without a result";
                return Err(Failure::new(Reason::Internal, words).into());
            };
            if reply.item().await?.is_some() {
                let words = format!(
                    "the function yields more than one item: accept {JSON_LINES} or text/event-stream"
                );
                return Err(Problem::new(StatusCode::NOT_ACCEPTABLE, words));
            }
            let mut answer = one(first, form)?;
            if let Some(age) = reply.age() {
                let seconds = HeaderValue::from(age.as_secs());
                answer.headers_mut().insert(header::AGE, seconds);
            }
            Ok(answer)
        }
        Form::Lines => {
            let body = Body::from_stream(lines(reply));
            Ok(([(header::CONTENT_TYPE, JSON_LINES)], body).into_response())
        }
        Form::Events => Ok(SseResponse::new(events(reply))
            .keep_alive(KeepAlive::default())
            .into_response()),
    }
}

/// Answers with items that have all come.
///
/// # Errors
/// Where one value was wanted: what JSON cannot show of it.
pub(super) fn whole(items: &[Bytes], form: Form) -> Result<Response, Problem> {
    match (form, items) {
        (Form::Json | Form::Msgpack, [one_item]) => one(one_item.clone(), form),
        (Form::Json | Form::Msgpack, []) => {
            let words = "the function ended without a result";
            Err(Failure::new(Reason::Internal, words).into())
        }
        (Form::Json | Form::Lines, _) => {
            let lines: String = items.iter().map(|item| line(item_line(item))).collect();
            Ok(([(header::CONTENT_TYPE, JSON_LINES)], lines).into_response())
        }
        (Form::Msgpack | Form::Events, _) => Err(Problem::new(
            StatusCode::NOT_ACCEPTABLE,
            format!("the items of a call that is kept are answered as {JSON_LINES}"),
        )),
    }
}

fn one(item: Bytes, form: Form) -> Result<Response, Problem> {
    if form == Form::Msgpack {
        return Ok(([(header::CONTENT_TYPE, MSGPACK)], item).into_response());
    }
    match values::unpack(&item) {
        Ok(value) => Ok(Json(value).into_response()),
        Err(error) => Err(Problem::new(StatusCode::NOT_ACCEPTABLE, error.to_string())),
    }
}

/// An item as a line, or why it cannot be shown.
fn item_line(item: &[u8]) -> Value {
    match values::unpack(item) {
        Ok(value) => json!({ "item": value }),
        Err(error) => json!({ "error": Problem::invalid(error.to_string()).body() }),
    }
}

fn line(value: Value) -> String {
    format!("{value}\n")
}

fn lines(reply: Reply) -> impl Stream<Item = Result<String, Infallible>> + Send {
    stream::unfold(Some(reply), |reply| async {
        let mut reply = reply?;
        match reply.item().await {
            Ok(Some(item)) => Some((Ok(line(item_line(&item))), Some(reply))),
            Ok(None) => None,
            Err(failure) => {
                let error = json!({ "error": Problem::from(failure).body() });
                Some((Ok(line(error)), None))
            }
        }
    })
}

fn events(reply: Reply) -> impl Stream<Item = Result<Sse, Infallible>> + Send {
    stream::unfold(Some(reply), |reply| async {
        let mut reply = reply?;
        let (name, data, goes_on) = match reply.event().await {
            Ok(Some(Event::Item(item))) => match values::unpack(&item) {
                Ok(value) => ("item", value, true),
                Err(error) => ("error", Problem::invalid(error.to_string()).body(), true),
            },
            Ok(Some(Event::Progress(progress))) => {
                let data = json!({ "done": progress.done, "note": progress.note });
                ("progress", data, true)
            }
            Ok(Some(Event::Queued(before))) => ("queued", json!({ "before": before }), true),
            Ok(Some(Event::Started(node))) => ("started", json!({ "node": node }), true),
            Ok(None) => ("end", json!({}), false),
            Err(failure) => ("error", Problem::from(failure).body(), false),
        };
        let event = Sse::default().event(name).data(data.to_string());
        Some((Ok(event), goes_on.then_some(reply)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(accept: &'static str, streams: bool) -> Result<Form, Problem> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
        Form::of(&headers, streams)
    }

    #[test]
    fn the_first_accepted_form_is_taken() {
        assert_eq!(
            form("text/html, text/event-stream", false).unwrap(),
            Form::Events
        );
        assert_eq!(form("application/json", true).unwrap(), Form::Lines);
        assert_eq!(
            form("application/msgpack;q=1", false).unwrap(),
            Form::Msgpack
        );
        assert_eq!(form("*/*", false).unwrap(), Form::Json);
        let refusal = form("image/png", false).unwrap_err();
        assert!(refusal.body()["detail"].to_string().contains("image/png"));
    }
}

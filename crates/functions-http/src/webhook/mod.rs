//! Webhooks: a caller is told at a URL that its asynchronous call is over, as [Standard Webhooks] has it.
//!
//! [Standard Webhooks]: https://www.standardwebhooks.com

mod receiver;
mod send;
mod signature;

use axum::http::{HeaderMap, HeaderName, header};
use bytes::Bytes;
use r3mes_functions::webhook::{Delivery, Webhook};
use serde_json::{Value, json};

pub(super) use self::{send::Sender, signature::key_of};
use super::{jobs, problem::Problem};

/// Names the receiver.
pub(super) const CALLBACK_URL: HeaderName = HeaderName::from_static("callback-url");
/// Bytes of a result that a message holds. A longer one is asked for at the call's `location`.
pub(super) const INLINE_BYTES: usize = 256 << 10;
/// Most characters of a receiver's URL.
const MAX_URL: usize = 2048;

/// Which receivers may be told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum WebhookHosts {
    /// Any over `https://`, if all addresses of its host are public.
    #[default]
    Public,
    /// These alone, each `HOST` or `HOST:PORT`, at whatever address and over `http://` too; nobody if
    /// there are none.
    Only(Vec<String>),
}

/// The receiver that a request names, if it names one.
///
/// # Errors
/// When it may not be told, or the request came without a token, whose secret signs messages.
pub(super) fn of_request(
    headers: &HeaderMap,
    token: Option<&str>,
    sender: &Sender,
) -> Result<Option<Webhook>, Problem> {
    let Some(url) = headers.get(CALLBACK_URL) else {
        return Ok(None);
    };
    let url = url.to_str().ok().filter(|url| url.len() <= MAX_URL);
    let url = url.ok_or_else(|| {
        Problem::invalid(format!(
            "Callback-URL must be a URL of at most {MAX_URL} characters"
        ))
    })?;
    sender.check(url).map_err(Problem::invalid)?;
    let token = token.ok_or_else(|| {
        Problem::invalid("Callback-URL needs a token (Authorization: Bearer TOKEN), whose secret signs what is sent")
    })?;
    Ok(Some(Webhook::new(url, key_of(token))))
}

/// `GET /api/webhook-secret`: what the messages of a token's calls are signed with.
pub(super) fn secret_of(token: &str) -> impl axum::response::IntoResponse + use<> {
    let secret = signature::secret(&key_of(token));
    let not_kept = [(header::CACHE_CONTROL, "no-store")];
    (not_kept, axum::Json(json!({ "secret": secret })))
}

/// What has become of it, for the caller.
pub(super) fn view(webhook: &Webhook) -> Value {
    let (status, attempts, error) = match &webhook.delivery {
        Delivery::Pending { attempts, error } => ("pending", attempts, error.as_deref()),
        Delivery::Delivered { attempts } => ("delivered", attempts, None),
        Delivery::Abandoned { attempts, error } => ("abandoned", attempts, Some(error.as_str())),
    };
    json!({ "url": webhook.url, "status": status, "attempts": attempts, "error": error })
}

/// The body of a message: how the call stands, as `GET /api/calls/ID` shows it, with its result if that
/// is short.
pub(super) fn body(mut call: Value, items: Option<&[Bytes]>) -> Bytes {
    if let Some(items) = items.filter(|_| call["status"] == "succeeded") {
        jobs::add_results(&mut call, items);
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    call["location"] = format!("/api/calls/{}", text(&call["id"])).into();
    let kind = format!("call.{}", text(&call["status"]));
    json!({ "type": kind, "data": call }).to_string().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_the_result_if_it_is_given_and_always_where_to_ask_for_it() {
        let call = json!({ "id": "ab", "status": "succeeded" });
        let item = Bytes::from_static(&[7]);
        let read = |body: Bytes| serde_json::from_slice::<Value>(&body).unwrap();
        let message = read(body(call.clone(), Some(&[item])));
        assert_eq!(message["type"], "call.succeeded");
        assert_eq!(message["data"]["result"], 7);
        let message = read(body(call, None));
        assert_eq!(message["data"]["result"], Value::Null);
        assert_eq!(message["data"]["location"], "/api/calls/ab");
    }
}

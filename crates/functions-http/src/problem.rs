//! Failures as RFC 9457 has them: `application/problem+json`.

use axum::{
    Json,
    http::{HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use r3mes_functions::{Failure, Reason};
use serde_json::{Value, json};

/// What was wrong with a request or a call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{failure}")]
pub(super) struct Problem {
    status: StatusCode,
    failure: Failure,
}

impl Problem {
    /// A request that cannot become a call.
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            failure: Failure::new(Reason::Invalid, message),
        }
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// What was wrong, in words.
    pub(super) fn detail(&self) -> &str {
        &self.failure.message
    }

    /// The body, for where it stands inside of another.
    pub(super) fn body(&self) -> Value {
        let failure = &self.failure;
        let mut body = json!({
            "type": format!("urn:r3mes:functions:{}", name(failure.reason)),
            "title": self.status.canonical_reason(),
            "status": self.status.as_u16(),
            "detail": failure.message,
            "reason": failure.reason,
        });
        let further = [
            ("exception", failure.exception.clone().map(Value::from)),
            ("traceback", failure.traceback.clone().map(Value::from)),
            ("retry_after_ms", failure.retry_after_ms.map(Value::from)),
        ];
        for (key, value) in further {
            if let Some(value) = value {
                body[key] = value;
            }
        }
        body
    }
}

/// A reason as it is written in JSON.
pub(super) fn name(reason: Reason) -> String {
    match serde_json::to_value(reason) {
        Ok(Value::String(name)) => name,
        _ => "other".into(),
    }
}

fn status_of(reason: Reason) -> StatusCode {
    match reason {
        Reason::NotFound => StatusCode::NOT_FOUND,
        Reason::Unauthenticated => StatusCode::UNAUTHORIZED,
        Reason::Denied => StatusCode::FORBIDDEN,
        Reason::QuotaExceeded => StatusCode::TOO_MANY_REQUESTS,
        Reason::PaymentRequired => StatusCode::PAYMENT_REQUIRED,
        Reason::Invalid => StatusCode::BAD_REQUEST,
        Reason::NoHealthyNodes | Reason::Busy | Reason::Disconnected => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        Reason::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Reason::NodeLost => StatusCode::BAD_GATEWAY,
        Reason::Cancelled => StatusCode::CONFLICT,
        Reason::Raised | Reason::Internal | Reason::Other => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        Self {
            status: status_of(failure.reason),
            failure,
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        let headers = response.headers_mut();
        let kind = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, kind);
        if self.status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer");
            headers.insert(header::WWW_AUTHENTICATE, scheme);
        }
        if let Some(ms) = self.failure.retry_after_ms {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(ms.div_ceil(1000)));
        }
        response
    }
}

pub(super) async fn no_such_path(uri: Uri) -> Problem {
    let words = format!(
        "there is no {}; /openapi.json describes what there is",
        uri.path()
    );
    Problem::new(StatusCode::NOT_FOUND, words)
}

pub(super) async fn no_such_method(method: Method, uri: Uri) -> Problem {
    let words = format!("{} does not take {method}", uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, words)
}

/// The answer to HTTP without TLS on a port that speaks TLS.
pub(super) async fn only_tls() -> Problem {
    Problem::invalid("this port speaks TLS: write https:// instead of http://")
}

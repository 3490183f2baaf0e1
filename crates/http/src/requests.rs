//! Requests as the log knows them: each answer is made in a span `http.request.answer`, under an id that
//! the client gets as well.
//!
//! The span has the method, the template of the route (`/v1/receipts/{id}`, never what stands in its
//! place), the id and the status. Query strings, headers and bodies are not in it: they can hold secrets
//! and prompts. It ends with the answer's head; what makes a longer body has spans of its own.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use axum::{
    Router,
    extract::{MatchedPath, Request},
    http::{HeaderMap, HeaderName, HeaderValue},
    middleware::{self, Next},
    response::Response,
};
use tracing::{Instrument, Span, field::Empty};

/// Names a request: the client's name for it, or a number that this process gives.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Characters of an id that a client may give.
const MAX_ID_CHARS: usize = 64;
/// What stands for the route of what no route is for.
const NO_ROUTE: &str = "none";

/// Every answer of `router` is made in a span of its request. [`serve`](crate::server::serve) does this
/// itself.
pub fn named(router: Router) -> Router {
    router.layer(middleware::from_fn(answer))
}

async fn answer(request: Request, next: Next) -> Response {
    let id = id(request.headers());
    let route = request.extensions().get::<MatchedPath>();
    let span = tracing::info_span!(
        "http.request.answer",
        method = %request.method(),
        route = route.map_or(NO_ROUTE, MatchedPath::as_str),
        request = id.to_str().unwrap_or_default(),
        status = Empty,
    );
    let began = Instant::now();
    let answering = async move {
        let mut response = next.run(request).await;
        Span::current().record("status", response.status().as_u16());
        tracing::debug!(
            micros = began.elapsed().as_micros() as u64,
            "http.request.answered"
        );
        response.headers_mut().insert(REQUEST_ID, id);
        response
    };
    answering.instrument(span).await
}

/// The client's id of its request, if it is one that a log can hold; else the next number.
fn id(headers: &HeaderMap) -> HeaderValue {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let sound = |id: &&HeaderValue| {
        let bytes = id.as_bytes();
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._".contains(byte);
        (1..=MAX_ID_CHARS).contains(&bytes.len()) && bytes.iter().all(plain)
    };
    match headers.get(REQUEST_ID).filter(sound) {
        Some(id) => id.clone(),
        None => NEXT.fetch_add(1, Ordering::Relaxed).into(),
    }
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, routing::get};
    use tower::ServiceExt;

    use super::*;

    async fn answered(id: Option<&str>) -> String {
        let router = named(Router::new().route("/", get(async || "here")));
        let mut request = Request::new(Body::empty());
        if let Some(id) = id {
            let id = HeaderValue::from_bytes(id.as_bytes()).unwrap();
            request.headers_mut().insert(REQUEST_ID, id);
        }
        let response = router.oneshot(request).await.unwrap();
        response.headers()[REQUEST_ID].to_str().unwrap().to_owned()
    }

    #[tokio::test]
    async fn a_request_keeps_its_id_where_it_is_fit_for_a_log_and_gets_a_number_else() {
        assert_eq!(answered(Some("Order-7.b_2")).await, "Order-7.b_2");
        let long = "x".repeat(MAX_ID_CHARS + 1);
        let mut given = Vec::new();
        for unfit in [
            None,
            Some(""),
            Some("a b"),
            Some("{\"level\":1}"),
            Some(&*long),
        ] {
            given.push(answered(unfit).await.parse::<u64>().unwrap());
        }
        assert!(given.is_sorted_by(|a, b| a < b), "{given:?}");
    }
}

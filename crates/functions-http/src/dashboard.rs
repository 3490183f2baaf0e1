//! The page at `/`: what the gateway does now, for people. It asks the API like everybody else, so it
//! shows what its reader's token may see.

use axum::{
    Router,
    http::{HeaderName, header},
    response::IntoResponse,
    routing::get,
};

/// Nothing but the gateway's own files is run or asked.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The page and its parts.
pub(super) fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/", get(page))
        .route("/dashboard.css", get(style))
        .route("/dashboard.js", get(script))
}

async fn page() -> impl IntoResponse {
    file("text/html; charset=utf-8", include_str!("web/index.html"))
}

async fn style() -> impl IntoResponse {
    file("text/css; charset=utf-8", include_str!("web/dashboard.css"))
}

async fn script() -> impl IntoResponse {
    let text = include_str!("web/dashboard.js");
    file("text/javascript; charset=utf-8", text)
}

/// A part of the page; a newer program's is another.
fn file(kind: &'static str, text: &'static str) -> impl IntoResponse {
    let headers: [(HeaderName, &'static str); 5] = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (headers, text)
}

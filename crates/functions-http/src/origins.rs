//! Pages of which origins may call from a browser.

use std::{fmt, str::FromStr};

use axum::{
    Router,
    http::{HeaderValue, Method, StatusCode, header},
    response::IntoResponse,
};
use tower_http::{
    cors::{AllowOrigin, CorsLayer},
    csrf::{CsrfLayer, ProtectionError},
};

use super::{CALL_HEADER, call, mcp, problem::Problem, webhook};

/// Pages of which other origins may call from a browser. Those of the gateway's own may always.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origins {
    /// Of these alone.
    Only(Vec<Origin>),
    /// Of any.
    Any,
}

impl Default for Origins {
    fn default() -> Self {
        Self::Only(Vec::new())
    }
}

/// An origin as browsers write it: `https://HOST` or `http://HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(HeaderValue);

impl FromStr for Origin {
    type Err = String;

    /// # Errors
    /// What is wrong, for the owner of the gateway.
    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = |why: &dyn fmt::Display| {
            format!(
                "{text:?} is no origin of pages ({why}): write https://HOST or http://HOST:PORT, \
                 or * alone for all"
            )
        };
        CsrfLayer::new()
            .add_trusted_origin(text)
            .map(drop)
            .map_err(|error| refuse(&error))?;
        if text.chars().any(|letter| letter.is_ascii_uppercase()) {
            return Err(refuse(&"browsers write it in small letters"));
        }
        if (text.starts_with("https:") && text.ends_with(":443"))
            || (text.starts_with("http:") && text.ends_with(":80"))
        {
            return Err(refuse(&"browsers leave that port out"));
        }
        let value = HeaderValue::from_str(text).map_err(|error| refuse(&error))?;
        Ok(Self(value))
    }
}

impl Origins {
    /// The origins that somebody lists; `*` alone means all.
    ///
    /// # Errors
    /// Which one is none, and why.
    pub fn listed<S: AsRef<str>>(texts: &[S]) -> Result<Self, String> {
        if let [only] = texts
            && only.as_ref() == "*"
        {
            return Ok(Self::Any);
        }
        let origins = texts.iter().map(|text| text.as_ref().parse());
        origins.collect::<Result<_, _>>().map(Self::Only)
    }

    /// Lets pages of these origins read what the router answers, and refuses what pages of others would have it
    /// do: a browser sends some requests without asking first.
    pub(super) fn guard(&self, router: Router) -> Router {
        let allowed = match self {
            Self::Any => return router.layer(readable(AllowOrigin::any())),
            Self::Only(origins) => origins,
        };
        let mut csrf = CsrfLayer::new();
        for Origin(origin) in allowed {
            // They were accepted when they were read.
            let trusted = origin.to_str().ok();
            if let Some(Ok(more)) = trusted.map(|text| csrf.clone().add_trusted_origin(text)) {
                csrf = more;
            }
        }
        let router = router.layer(csrf.with_rejection_response(refused));
        match allowed.is_empty() {
            true => router,
            false => {
                let listed = allowed.iter().map(|Origin(origin)| origin.clone());
                router.layer(readable(AllowOrigin::list(listed)))
            }
        }
    }
}

fn readable(origins: AllowOrigin) -> CorsLayer {
    CorsLayer::new()
        .allow_origin(origins)
        .allow_methods([Method::GET, Method::POST, Method::DELETE])
        .allow_headers([
            header::ACCEPT,
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            call::PREFER,
            call::IDEMPOTENCY_KEY,
            webhook::CALLBACK_URL,
            mcp::PROTOCOL_VERSION,
            mcp::METHOD,
            mcp::NAME,
        ])
        .expose_headers([
            CALL_HEADER,
            header::AGE,
            header::LOCATION,
            header::RETRY_AFTER,
        ])
}

fn refused(_: ProtectionError) -> axum::response::Response {
    let words = "a page of another origin may not call here: the gateway's owner lists its origin in \
                 services.functions.cors_origins";
    Problem::new(StatusCode::FORBIDDEN, words).into_response()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use axum::{body::Body, http::Request, response::Response};
    use r3mes_functions::{
        broker::{Broker, Limits},
        serve::Hub,
        tokens::Tokens,
    };
    use tokio::sync::mpsc;
    use tower::ServiceExt;

    use super::*;
    use crate::{Functions, HttpLimits};

    const OURS: &str = "https://app.example.com";
    const THEIRS: &str = "https://elsewhere.example";

    /// The whole API with these origins.
    fn api(origins: &[&str]) -> Router {
        let broker = Broker::new(Limits::default(), Tokens::default(), BTreeMap::new(), 1);
        let hub = Arc::new(Hub::new(broker, mpsc::unbounded_channel().0));
        let limits = HttpLimits {
            origins: Origins::listed(origins).unwrap(),
            ..HttpLimits::default()
        };
        Functions::new(hub, limits, None).router()
    }

    async fn answer(api: &Router, method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.header("host", "gateway.example.com");
        let request = request.body(Body::from("{}")).unwrap();
        api.clone().oneshot(request).await.unwrap()
    }

    /// What a browser asks before a page's call with JSON and a token.
    async fn preflight(api: &Router, origin: &str) -> Response {
        let headers = [
            ("origin", origin),
            ("access-control-request-method", "POST"),
            (
                "access-control-request-headers",
                "authorization,content-type,prefer",
            ),
        ];
        answer(api, "OPTIONS", "/api/fn/add", &headers).await
    }

    fn allowed(response: &Response) -> Option<&str> {
        let value = response.headers().get("access-control-allow-origin")?;
        value.to_str().ok()
    }

    #[tokio::test]
    async fn pages_of_listed_origins_may_call_and_read() {
        let api = api(&[OURS, "http://localhost:5173"]);
        let asked = preflight(&api, OURS).await;
        assert_eq!(asked.status(), StatusCode::OK);
        assert_eq!(allowed(&asked), Some(OURS));
        let named = |name: &str| asked.headers()[name].to_str().unwrap().to_lowercase();
        assert!(named("access-control-allow-methods").contains("post"));
        assert!(named("access-control-allow-headers").contains("authorization"));
        let page = [("origin", OURS), ("sec-fetch-site", "cross-site")];
        let read = answer(&api, "GET", "/api/functions", &page).await;
        assert_eq!(
            (read.status(), allowed(&read)),
            (StatusCode::OK, Some(OURS))
        );
        let exposed = &read.headers()["access-control-expose-headers"];
        assert!(exposed.to_str().unwrap().contains("x-r3mes-call"));
        let called = answer(&api, "POST", "/mcp", &page).await;
        assert_ne!(called.status(), StatusCode::FORBIDDEN);
    }

    #[tokio::test]
    async fn pages_of_other_origins_read_nothing_and_call_nothing() {
        for api in [api(&[]), api(&[OURS])] {
            assert_eq!(allowed(&preflight(&api, THEIRS).await), None);
            let page = [("origin", THEIRS), ("sec-fetch-site", "cross-site")];
            let read = answer(&api, "GET", "/api/functions", &page).await;
            assert_eq!(allowed(&read), None);
            // A form, which a browser sends without asking.
            let form = [&page[..], &[("content-type", "multipart/form-data")]].concat();
            for path in ["/api/fn/add", "/api/lab.add", "/mcp"] {
                let called = answer(&api, "POST", path, &form).await;
                assert_eq!(called.status(), StatusCode::FORBIDDEN, "{path}");
            }
        }
    }

    #[tokio::test]
    async fn who_is_no_page_or_a_page_of_the_gateway_needs_no_list() {
        let api = api(&[]);
        let own = [
            ("origin", "https://gateway.example.com"),
            ("sec-fetch-site", "same-origin"),
        ];
        for headers in [&[][..], &own] {
            let called = answer(&api, "POST", "/mcp", headers).await;
            assert_ne!(called.status(), StatusCode::FORBIDDEN);
        }
    }

    #[tokio::test]
    async fn a_star_lets_all_in() {
        let api = api(&["*"]);
        assert_eq!(allowed(&preflight(&api, THEIRS).await), Some("*"));
        let page = [("origin", THEIRS), ("sec-fetch-site", "cross-site")];
        let called = answer(&api, "POST", "/mcp", &page).await;
        assert_ne!(called.status(), StatusCode::FORBIDDEN);
    }

    #[test]
    fn what_no_browser_would_send_is_refused() {
        for text in [
            "example.com",
            "https://example.com/",
            "https://example.com/app",
            "https://Example.com",
            "https://example.com:443",
            "http://example.com:80",
            "file:///tmp",
            "https://münchen.example",
            "null",
            "",
        ] {
            let refusal = Origins::listed(&[text]).unwrap_err();
            assert!(refusal.contains("write https://HOST"), "{refusal}");
        }
        assert!(Origins::listed(&["*", OURS]).is_err());
    }
}

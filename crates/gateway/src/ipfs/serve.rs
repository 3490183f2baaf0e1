use std::{io, sync::Arc};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Query, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::get,
};
use futures::stream;
use r3mes_blobs::{BlobStore, Block, Cid, StoreError};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task,
};

use super::{
    archive,
    negotiation::Form,
    request::{Asked, Name, PROBE, Parameters, Range, Refusal, has_already},
};

/// Blocks never change, so caches may keep them as long as they like (a year, say browsers).
const CACHE_FOR_EVER: &str = "public, max-age=29030400, immutable";

/// Seconds after which a client that was turned away should come back.
const RETRY_SECONDS: &str = "1";

/// Limits of a [`router`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GatewayLimits {
    /// Answers being sent at once, each of which holds one block in memory.
    pub concurrent_requests: usize,
}

impl Default for GatewayLimits {
    /// 64 answers at once.
    fn default() -> Self {
        Self {
            concurrent_requests: 64,
        }
    }
}

/// What a browser's page may do and see.
const CORS: [(HeaderName, &str); 4] = [
    (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
    (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD, OPTIONS"),
    (
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        "Accept, Cache-Control, Content-Type, If-None-Match, Range",
    ),
    (
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
        "Content-Length, Content-Location, Content-Range, ETag, Retry-After",
    ),
];

/// `GET` and `HEAD /ipfs/{cid}` over the blocks of `store`.
pub fn router(store: Arc<dyn BlobStore>, limits: GatewayLimits) -> Router {
    let gateway = Gateway {
        store,
        places: Arc::new(Semaphore::new(limits.concurrent_requests)),
    };
    Router::new()
        .route("/ipfs/{*path}", get(answer).options(preflight))
        .route("/ipns/{*path}", get(refuse_names))
        .with_state(gateway)
}

#[derive(Clone)]
struct Gateway {
    store: Arc<dyn BlobStore>,
    places: Arc<Semaphore>,
}

async fn preflight() -> impl IntoResponse {
    (StatusCode::NO_CONTENT, CORS)
}

async fn refuse_names() -> Refusal {
    let text = "IPNS names are not resolved here: ask for a CID below /ipfs";
    (StatusCode::NOT_IMPLEMENTED, text.to_owned())
}

async fn answer(
    State(gateway): State<Gateway>,
    uri: Uri,
    Query(parameters): Query<Parameters>,
    headers: HeaderMap,
) -> Response {
    let path = uri.path().strip_prefix("/ipfs/").unwrap_or_default();
    let query = uri.query().unwrap_or_default();
    let answered = match Asked::parse(path, query, parameters, &headers) {
        Ok(asked) => gateway.answer(&asked, &headers).await,
        Err(refusal) => Err(refusal),
    };
    let mut response = answered.unwrap_or_else(IntoResponse::into_response);
    let headers = response.headers_mut();
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    for (name, value) in CORS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

impl Gateway {
    async fn answer(&self, asked: &Asked, headers: &HeaderMap) -> Result<Response, Refusal> {
        let tag = asked.tag();
        if has_already(headers, &tag) {
            self.require_root(asked).await?;
            let headers = [
                (header::ETAG, tag),
                (header::CACHE_CONTROL, CACHE_FOR_EVER.into()),
                (header::VARY, header::ACCEPT.to_string()),
            ];
            return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
        }
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            let retry = [(header::RETRY_AFTER, RETRY_SECONDS)];
            let text = "too many requests at once: try again in a second";
            return Ok((StatusCode::TOO_MANY_REQUESTS, retry, text).into_response());
        };
        let mut response = match (asked.path.root, asked.form) {
            (Name::Probe, _) if !asked.path.names.is_empty() => {
                let text = format!("/ipfs/{} does not exist: {PROBE} is empty", asked.path);
                return Err((StatusCode::NOT_FOUND, text));
            }
            (Name::Probe, Form::Raw) => raw_response(Bytes::new(), headers, &tag, place),
            (Name::Probe, Form::Car { .. }) => archive::probe(place),
            (Name::Cid(cid), Form::Raw) => {
                let block = self.read_root(asked, cid).await?;
                raw_response(block.bytes().clone(), headers, &tag, place)
            }
            (Name::Cid(cid), Form::Car { .. }) => {
                archive::respond(Arc::clone(&self.store), asked, cid, place).await?
            }
        };
        if response.status().is_success() {
            describe(&mut response, asked, &tag);
        }
        Ok(response)
    }

    /// A client that has an answer is told so only where the answer can be had.
    async fn require_root(&self, asked: &Asked) -> Result<(), Refusal> {
        let Name::Cid(cid) = asked.path.root else {
            return Ok(());
        };
        let store = Arc::clone(&self.store);
        let here = blocking(move || store.contains(&cid)).await?;
        match here.map_err(|error| store_refusal(asked, &cid, &error))? {
            true => Ok(()),
            false => Err(asked.not_here(&cid)),
        }
    }

    async fn read_root(&self, asked: &Asked, cid: Cid) -> Result<Block, Refusal> {
        let store = Arc::clone(&self.store);
        let read = blocking(move || store.block(&cid)).await?;
        read.map_err(|error| store_refusal(asked, &cid, &error))?
            .ok_or_else(|| asked.not_here(&cid))
    }
}

fn raw_response(
    bytes: Bytes,
    headers: &HeaderMap,
    tag: &str,
    place: OwnedSemaphorePermit,
) -> Response {
    let length = bytes.len();
    let (status, part, range) = match Range::parse(headers, length, tag) {
        Range::Whole => (StatusCode::OK, bytes, None),
        Range::Part(from, to) => {
            let range = format!("bytes {from}-{}/{length}", to - 1);
            (
                StatusCode::PARTIAL_CONTENT,
                bytes.slice(from..to),
                Some(range),
            )
        }
        Range::Outside => {
            let headers = [(header::CONTENT_RANGE, format!("bytes */{length}"))];
            return (StatusCode::RANGE_NOT_SATISFIABLE, headers).into_response();
        }
    };
    let sent = part.len();
    let body = stream::once(async move {
        let _place = place;
        Ok::<_, io::Error>(part)
    });
    let headers = [(header::CONTENT_LENGTH, sent.to_string())];
    let mut response = (status, headers, Body::from_stream(body)).into_response();
    if let Some(range) = range.and_then(|range| HeaderValue::try_from(range).ok()) {
        response.headers_mut().insert(header::CONTENT_RANGE, range);
    }
    response
}

/// Adds the headers that say what the body is.
fn describe(response: &mut Response, asked: &Asked, tag: &str) {
    let described = [
        (header::CONTENT_TYPE, asked.form.content_type().to_owned()),
        (header::CONTENT_DISPOSITION, asked.disposition()),
        (header::ETAG, tag.to_owned()),
        (header::CACHE_CONTROL, CACHE_FOR_EVER.to_owned()),
        (header::VARY, header::ACCEPT.to_string()),
    ];
    let ranges = match asked.form {
        Form::Raw => "bytes",
        // An offset into a CAR means nothing to who has not read what comes before.
        Form::Car { .. } => "none",
    };
    let described = described
        .into_iter()
        .chain([(header::ACCEPT_RANGES, ranges.to_owned())])
        .chain(
            asked
                .location
                .clone()
                .map(|place| (header::CONTENT_LOCATION, place)),
        );
    for (key, value) in described {
        if let Ok(value) = HeaderValue::try_from(value) {
            response.headers_mut().insert(key, value);
        }
    }
}

/// Does work that may touch a disk.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Refusal> {
    let failed = |_| {
        let text = "the blob store failed: see this node's log".to_owned();
        (StatusCode::INTERNAL_SERVER_ERROR, text)
    };
    task::spawn_blocking(work).await.map_err(failed)
}

/// The refusal of a block that is here and cannot be read.
pub(super) fn store_refusal(asked: &Asked, cid: &Cid, error: &StoreError) -> Refusal {
    // Details such as paths are for this node's operator alone.
    tracing::error!(%cid, error = error as &dyn std::error::Error, "a block could not be read");
    match error {
        StoreError::Corrupt { .. } => asked.not_here(cid),
        _ => {
            let text = format!("{cid} could not be read here: ask another node");
            (StatusCode::INTERNAL_SERVER_ERROR, text)
        }
    }
}

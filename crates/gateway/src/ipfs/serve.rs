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
use r3mes_blobs::{AnyCid, BlobStore, Block, StoreError, find};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task,
};

use super::{
    archive, ipns,
    negotiation::Form,
    ranges::Range,
    request::{Asked, Parameters, Refusal, has_already},
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
        "Content-Length, Content-Location, Content-Range, ETag, Retry-After, X-Ipfs-Path, \
         X-Ipfs-Roots",
    ),
];

/// The content path that was asked for.
const X_IPFS_PATH: HeaderName = HeaderName::from_static("x-ipfs-path");

/// The CIDs of the root and of what each name of the path led to.
const X_IPFS_ROOTS: HeaderName = HeaderName::from_static("x-ipfs-roots");

/// `GET` and `HEAD /ipfs/{cid}` over the blocks of `store`; `/ipns` has no records.
pub fn router(store: Arc<dyn BlobStore>, limits: GatewayLimits) -> Router {
    let gateway = Gateway {
        store,
        places: Arc::new(Semaphore::new(limits.concurrent_requests)),
    };
    Router::new()
        .route("/ipfs/{*path}", get(answer).options(preflight))
        .route("/ipns/{*path}", get(answer_name).options(preflight))
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

async fn answer_name(
    uri: Uri,
    Query(parameters): Query<Parameters>,
    headers: HeaderMap,
) -> Response {
    let path = uri.path().strip_prefix("/ipns/").unwrap_or_default();
    open_to_pages(ipns::refuse(path, &parameters, &headers).into_response())
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
        Ok(asked) => gateway.answer(&asked, uri.path(), &headers).await,
        Err(refusal) => Err(refusal),
    };
    open_to_pages(answered.unwrap_or_else(IntoResponse::into_response))
}

/// Lets pages of any origin read an answer, and browsers take it for nothing that it is not.
fn open_to_pages(mut response: Response) -> Response {
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
    async fn answer(
        &self,
        asked: &Asked,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<Response, Refusal> {
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
        let (mut response, roots) = match asked.form {
            Form::Raw => {
                let block = self.read_root(asked).await?;
                let response = raw_response(block.bytes().clone(), headers, &tag, place);
                (response, vec![asked.path.root.clone()])
            }
            Form::Car { .. } => archive::respond(Arc::clone(&self.store), asked, place).await?,
        };
        if response.status().is_success() {
            describe(&mut response, asked, &tag);
            let roots: Vec<String> = roots.iter().map(AnyCid::to_string).collect();
            let whence = [
                (X_IPFS_PATH, path.to_owned()),
                (X_IPFS_ROOTS, roots.join(",")),
            ];
            add(&mut response, whence);
        }
        Ok(response)
    }

    /// A client that has an answer is told so only where the answer can be had.
    async fn require_root(&self, asked: &Asked) -> Result<(), Refusal> {
        let (store, cid) = (Arc::clone(&self.store), asked.path.root.clone());
        if cid.inline().is_some() {
            return Ok(());
        }
        let here = blocking(move || store.contains_any(&cid)).await?;
        let root = &asked.path.root;
        match here.map_err(|error| store_refusal(asked, root, &error))? {
            true => Ok(()),
            false => Err(asked.not_here(root)),
        }
    }

    async fn read_root(&self, asked: &Asked) -> Result<Block, Refusal> {
        let (store, cid) = (Arc::clone(&self.store), asked.path.root.clone());
        let read = blocking(move || find(&*store, &cid)).await?;
        let root = &asked.path.root;
        read.map_err(|error| store_refusal(asked, root, &error))?
            .ok_or_else(|| asked.not_here(root))
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
    add(response, described);
    add(response, [(header::ACCEPT_RANGES, ranges.to_owned())]);
    let location = asked.location.clone();
    add(
        response,
        location.map(|place| (header::CONTENT_LOCATION, place)),
    );
}

fn add(response: &mut Response, headers: impl IntoIterator<Item = (HeaderName, String)>) {
    for (name, value) in headers {
        if let Ok(value) = HeaderValue::try_from(value) {
            response.headers_mut().insert(name, value);
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
pub(super) fn store_refusal(asked: &Asked, cid: &AnyCid, error: &StoreError) -> Refusal {
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

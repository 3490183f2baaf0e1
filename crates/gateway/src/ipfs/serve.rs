use std::{io, sync::Arc};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Path, Query, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use futures::{StreamExt, TryStreamExt, stream};
use r3mes_blobs::{
    BlobStore, Block, Cid, FileReader, Scope, StoreError, Traversal, TraverseError, car,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task,
};

use super::request::{
    CAR_TYPE, Extent, Format, Name, Parameters, RAW_TYPE, Range, Refusal, has_already,
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

/// `GET` and `HEAD /ipfs/{cid}` over the blocks of `store`.
pub fn router(store: Arc<dyn BlobStore>, limits: GatewayLimits) -> Router {
    let gateway = Gateway {
        store,
        places: Arc::new(Semaphore::new(limits.concurrent_requests)),
    };
    Router::new()
        .route("/ipfs/{cid}", get(answer))
        .route("/ipfs/{cid}/", get(answer))
        .route("/ipfs/{cid}/{*path}", get(refuse_path))
        .with_state(gateway)
}

#[derive(Clone)]
struct Gateway {
    store: Arc<dyn BlobStore>,
    places: Arc<Semaphore>,
}

async fn refuse_path() -> Refusal {
    let text = "paths below a CID are not resolved here: ask for the CID of the file itself";
    (StatusCode::NOT_IMPLEMENTED, text.to_owned())
}

async fn answer(
    State(gateway): State<Gateway>,
    Path(name): Path<String>,
    Query(parameters): Query<Parameters>,
    headers: HeaderMap,
) -> Response {
    let answered = gateway.answer(&name, &parameters, &headers).await;
    let mut response = answered.unwrap_or_else(IntoResponse::into_response);
    let headers = response.headers_mut();
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_ORIGIN,
        HeaderValue::from_static("*"),
    );
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}

impl Gateway {
    async fn answer(
        &self,
        name: &str,
        parameters: &Parameters,
        headers: &HeaderMap,
    ) -> Result<Response, Refusal> {
        let name = Name::parse(name)?;
        let format = Format::parse(parameters, headers)?;
        let tag = format.tag(name);
        if has_already(headers, &tag) {
            let headers = [
                (header::ETAG, tag),
                (header::CACHE_CONTROL, CACHE_FOR_EVER.into()),
            ];
            return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
        }
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            let retry = [(header::RETRY_AFTER, RETRY_SECONDS)];
            let text = "too many requests at once: try again in a second";
            return Ok((StatusCode::TOO_MANY_REQUESTS, retry, text).into_response());
        };
        let mut response = match (name, format) {
            (Name::Probe, Format::Raw) => raw_response(Bytes::new(), headers, &tag, place),
            (Name::Probe, Format::Car(_)) => {
                let text = "identity CIDs hold their content themselves: there is no CAR of them";
                return Err((StatusCode::BAD_REQUEST, text.to_owned()));
            }
            (Name::Cid(cid), Format::Raw) => {
                let block = self.read_root(&cid).await?;
                raw_response(block.bytes().clone(), headers, &tag, place)
            }
            (Name::Cid(cid), Format::Car(extent)) => self.car_response(cid, extent, place).await?,
        };
        describe(&mut response, name, format, &tag);
        Ok(response)
    }

    async fn read_root(&self, cid: &Cid) -> Result<Block, Refusal> {
        let (store, cid) = (Arc::clone(&self.store), *cid);
        let read = blocking(move || store.block(&cid)).await?;
        read.map_err(|error| store_refusal(&cid, &error))?
            .ok_or_else(|| not_here(&cid))
    }

    async fn car_response(
        &self,
        cid: Cid,
        extent: Extent,
        place: OwnedSemaphorePermit,
    ) -> Result<Response, Refusal> {
        let scope = self.scope(&cid, extent).await?;
        let traversal = Traversal::new(&cid, scope);
        let (car, first) = Car::step(Arc::clone(&self.store), traversal, place).await;
        let first = first.map_err(|error| traverse_refusal(&cid, &error))?;
        let first = first.ok_or_else(|| not_here(&cid))?;
        let head: [io::Result<Bytes>; 3] = [
            Ok(car::header(&[cid]).into()),
            Ok(car::section_head(&first).into()),
            Ok(first.bytes().clone()),
        ];
        let rest = stream::try_unfold(car, |car| async move {
            let (car, block) = Car::step(car.store, car.traversal, car.place).await;
            match block {
                Ok(block) => Ok(block.map(|block| (block, car))),
                Err(error) => {
                    // The status is sent already; a cut connection tells the client.
                    tracing::warn!(%error, "a CAR could not be sent whole");
                    Err(io::Error::other(error))
                }
            }
        });
        let rest = rest
            .map_ok(|block| {
                let head = car::section_head(&block).into();
                stream::iter([Ok(head), Ok(block.bytes().clone())])
            })
            .try_flatten();
        Ok(Body::from_stream(stream::iter(head).chain(rest)).into_response())
    }

    async fn scope(&self, cid: &Cid, extent: Extent) -> Result<Scope, Refusal> {
        let bytes = match extent {
            Extent::Block => return Ok(Scope::Block),
            Extent::All => return Ok(Scope::All),
            Extent::Entity(bytes) => bytes,
        };
        let (store, cid) = (Arc::clone(&self.store), *cid);
        let size =
            blocking(move || FileReader::open(&*store, &cid).map(|file| file.size())).await?;
        // What is no file is wanted alone, and a missing root is found by the traversal.
        let (from, to) = bytes.within(size.unwrap_or_default());
        Ok(Scope::Bytes { from, to })
    }
}

/// A CAR being sent; it holds its place among the requests until it is dropped.
struct Car {
    store: Arc<dyn BlobStore>,
    traversal: Traversal,
    place: OwnedSemaphorePermit,
}

impl Car {
    async fn step(
        store: Arc<dyn BlobStore>,
        mut traversal: Traversal,
        place: OwnedSemaphorePermit,
    ) -> (Self, Result<Option<Block>, TraverseError>) {
        let stepped = task::spawn_blocking(move || {
            let block = traversal.next(&*store);
            let car = Self {
                store,
                traversal,
                place,
            };
            (car, block)
        });
        stepped.await.expect("reading a block does not panic")
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
    let headers = [
        (header::CONTENT_LENGTH, sent.to_string()),
        (header::ACCEPT_RANGES, "bytes".to_owned()),
    ];
    let mut response = (status, headers, Body::from_stream(body)).into_response();
    if let Some(range) = range.and_then(|range| HeaderValue::try_from(range).ok()) {
        response.headers_mut().insert(header::CONTENT_RANGE, range);
    }
    response
}

/// Adds the headers that say what the body is.
fn describe(response: &mut Response, name: Name, format: Format, tag: &str) {
    let (kind, ending) = match format {
        Format::Raw => (RAW_TYPE.to_owned(), "bin"),
        Format::Car(_) => (format!("{CAR_TYPE}; version=1; order=dfs; dups=n"), "car"),
    };
    let name = match name {
        Name::Probe => "empty".to_owned(),
        Name::Cid(cid) => cid.to_string(),
    };
    let described = [
        (header::CONTENT_TYPE, kind),
        (
            header::CONTENT_DISPOSITION,
            format!("attachment; filename=\"{name}.{ending}\""),
        ),
        (header::ETAG, tag.to_owned()),
        (header::CACHE_CONTROL, CACHE_FOR_EVER.to_owned()),
        (header::VARY, header::ACCEPT.to_string()),
    ];
    for (key, value) in described {
        if let Ok(value) = HeaderValue::try_from(value) {
            response.headers_mut().insert(key, value);
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Refusal> {
    let failed = |_| {
        let text = "the blob store failed: see this node's log".to_owned();
        (StatusCode::INTERNAL_SERVER_ERROR, text)
    };
    task::spawn_blocking(work).await.map_err(failed)
}

fn not_here(cid: &Cid) -> Refusal {
    let text = format!("{cid} is not stored here: ask another node");
    (StatusCode::NOT_FOUND, text)
}

fn traverse_refusal(cid: &Cid, error: &TraverseError) -> Refusal {
    match error {
        TraverseError::Missing { .. } => not_here(cid),
        TraverseError::Store { source, .. } => store_refusal(cid, source),
        other => (StatusCode::INTERNAL_SERVER_ERROR, format!("{other}")),
    }
}

fn store_refusal(cid: &Cid, error: &StoreError) -> Refusal {
    // Details such as paths are for this node's operator alone.
    tracing::error!(%cid, error = error as &dyn std::error::Error, "a block could not be read");
    match error {
        StoreError::Corrupt { .. } => not_here(cid),
        _ => {
            let text = format!("{cid} could not be read here: ask another node");
            (StatusCode::INTERNAL_SERVER_ERROR, text)
        }
    }
}

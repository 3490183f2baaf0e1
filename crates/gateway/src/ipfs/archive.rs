//! Sending a blob, or what proves a path below one, as a CAR.

use std::{io, sync::Arc};

use axum::{
    body::{Body, Bytes},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use futures::{StreamExt, TryStreamExt, stream};
use r3mes_blobs::{
    AnyCid, BlobStore, Block, FileReader, FollowError, ResolveError, Resolved, Scope, Traversal,
    car, resolve,
};
use tokio::{sync::OwnedSemaphorePermit, task};

use super::{
    negotiation::Form,
    request::{Asked, Extent, Refusal},
    serve::{blocking, store_refusal},
};

/// The blocks on the path, then what is asked for of what the path names; and the CIDs of what
/// each part of the path led to.
///
/// # Errors
/// 404 (412 for `only-if-cached`) when the path's blocks are not here, 400 for bytes that the file
/// does not have, 501 for a path that ends within a document. A block that is missing further on
/// breaks the connection off.
pub(super) async fn respond(
    store: Arc<dyn BlobStore>,
    asked: &Asked,
    place: OwnedSemaphorePermit,
) -> Result<(Response, Vec<AnyCid>), Refusal> {
    let (root, names) = (asked.path.root.clone(), asked.path.names.clone());
    let resolving = Arc::clone(&store);
    let resolved = blocking(move || resolve(&*resolving, root, &names)).await?;
    let Resolved { cid, way, roots } = resolved.map_err(|error| unresolved(asked, &error))?;
    let scope = scope(&store, asked.extent, &cid).await?;
    let traversal = match asked.form {
        Form::Car { duplicates: true } => Traversal::new(&cid, scope).with_duplicates(),
        _ => Traversal::new(&cid, scope),
    };
    let (car, first) = Car::step(store, traversal, place).await;
    let first = first.map_err(|error| unfollowed(asked, &error))?;
    let header = car::header(std::slice::from_ref(&cid)).into();
    let header = stream::iter([Ok(header)]);
    let known = way.into_iter().chain(first);
    let head = stream::iter(known.flat_map(section));
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
        .map_ok(|block| stream::iter(section(block)))
        .try_flatten();
    let body = Body::from_stream(header.chain(head).chain(rest));
    Ok((body.into_response(), roots))
}

/// A block as it stands in a CAR.
fn section(block: Block) -> [io::Result<Bytes>; 2] {
    [
        Ok(car::section_head(&block).into()),
        Ok(block.bytes().clone()),
    ]
}

async fn scope(store: &Arc<dyn BlobStore>, extent: Extent, cid: &AnyCid) -> Result<Scope, Refusal> {
    let bytes = match extent {
        Extent::Block => return Ok(Scope::Block),
        Extent::All => return Ok(Scope::All),
        Extent::Entity(bytes) => bytes,
    };
    let (store, root) = (Arc::clone(store), cid.clone());
    let size = blocking(move || FileReader::open(&*store, root).map(|file| file.size())).await?;
    let Ok(size) = size else {
        // Bytes are asked of files only; a missing block is found by the traversal.
        let (from, to) = (0, u64::MAX);
        return Ok(Scope::Bytes { from, to });
    };
    if bytes.is_outside(size) {
        let text = format!("entity-bytes lie outside {cid}, which has {size} bytes");
        return Err((StatusCode::BAD_REQUEST, text));
    }
    let (from, to) = bytes.within(size);
    Ok(Scope::Bytes { from, to })
}

fn unresolved(asked: &Asked, error: &ResolveError) -> Refusal {
    match error {
        ResolveError::Follow(error) => unfollowed(asked, error),
        ResolveError::NoLink { .. } => (StatusCode::NOT_IMPLEMENTED, format!("{error}")),
        other => {
            let text = format!("/ipfs/{} does not exist: {other}", asked.path);
            (StatusCode::NOT_FOUND, text)
        }
    }
}

fn unfollowed(asked: &Asked, error: &FollowError) -> Refusal {
    match error {
        FollowError::Missing { cid } => asked.not_here(cid),
        FollowError::Store { cid, source } => store_refusal(asked, cid, source),
        // Whoever wrote the block is at fault, and nobody else has another one of that name.
        FollowError::Node { cid, source } => {
            let text = format!("{cid} is here and cannot be followed: {source}");
            (StatusCode::NOT_FOUND, text)
        }
        other => (StatusCode::INTERNAL_SERVER_ERROR, format!("{other}")),
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
    ) -> (Self, Result<Option<Block>, FollowError>) {
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

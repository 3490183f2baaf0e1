//! Runs a router on a socket: limits on connections, headers and bodies, no delay, a clean end.

use std::{
    convert::Infallible, future, net::SocketAddr, num::NonZeroU32, sync::Arc, time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::ConnectInfo,
    http::{HeaderValue, Request, StatusCode, Version, header},
    response::{IntoResponse, Response},
};
use hyper::{
    body::{Body as _, Incoming},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time,
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::{
    body::{Late, Timely},
    requests,
};

/// Requests at once on one HTTP/2 connection.
pub const MAX_STREAMS: u32 = 64;

/// Time that open requests have to end after a shutdown has begun.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Pause after a connection could not be accepted, for instance for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What clients are held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections open at once; more wait in the operating system's queue.
    pub connections: usize,
    /// Time that a client has for a request's headers, and for a pause between requests.
    pub header_timeout: Duration,
    /// Longest pause within a request's body. Whoever pauses longer is answered 408, and the connection
    /// ends. Bodies of gRPC may pause: they are one side of a conversation.
    pub body_pause: Duration,
    /// Bytes of a body that have to come in a second: all that is waited for them may be `body_pause`, and
    /// a second for each so many that have come.
    pub body_bytes_per_s: NonZeroU32,
}

impl Default for Limits {
    /// 1024 connections, 30 seconds for headers and pauses, 512 bytes a second.
    fn default() -> Self {
        Self {
            connections: 1024,
            header_timeout: Duration::from_secs(30),
            body_pause: Duration::from_secs(30),
            body_bytes_per_s: NonZeroU32::new(512).expect("it is not zero"),
        }
    }
}

/// Serves `router` on `listener` until `shutdown`, then lets open requests end.
///
/// Handlers find the client's address as [`ConnectInfo<SocketAddr>`], and run in a span of their
/// request: see [`requests`].
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    shutdown: CancellationToken,
) {
    let router = requests::named(router);
    let places = Arc::new(Semaphore::new(limits.connections));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = accept(&listener, &places) => accepted,
        };
        while connections.try_join_next().is_some() {}
        if let Some((stream, client, place)) = accepted {
            // Streamed answers are many small writes that must not wait for each other.
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, %client, "cannot set TCP_NODELAY");
            }
            let (router, shutdown) = (router.clone(), shutdown.clone());
            connections.spawn(async move {
                serve_connection(stream, client, router, limits, shutdown).await;
                drop(place);
            });
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, client)) => Some((stream, client, place)),
        Err(error) => {
            tracing::warn!(%error, "a connection could not be accepted");
            time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

/// Serves HTTP on one connection until it ends; after `shutdown`, open requests end.
///
/// Handlers find the client's address as [`ConnectInfo<SocketAddr>`]. Of the limits, those on headers and
/// bodies hold here. Requests have a span in the log where the router is [`named`](requests::named).
pub async fn serve_connection<S>(
    stream: S,
    client: SocketAddr,
    router: Router,
    limits: Limits,
    shutdown: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let asked = CancellationToken::new();
    let first = asked.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        first.cancel();
        request.extensions_mut().insert(ConnectInfo(client));
        let answer = answer(router.clone(), request, limits);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    let mut http1 = builder.http1();
    http1.timer(TokioTimer::new());
    http1.header_read_timeout(limits.header_timeout);
    let mut http2 = builder.http2();
    http2.timer(TokioTimer::new());
    http2.max_concurrent_streams(MAX_STREAMS);
    http2.keep_alive_interval(limits.header_timeout);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = shutdown.cancelled() => None,
        () = stays_silent(&asked, limits.header_timeout) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            match time::timeout(DRAIN_TIMEOUT, connection).await {
                Ok(ended) => ended,
                Err(_) => return tracing::debug!(%client, "cut off"),
            }
        }
    };
    if let Err(error) = ended {
        // Clients that go away are nobody's fault.
        tracing::debug!(%client, error = &*error, "connection ended early");
    }
}

/// Ends when nothing was asked in time. The limit on headers begins only once it is known which HTTP is
/// spoken, for which a client could let wait for ever.
async fn stays_silent(asked: &CancellationToken, patience: Duration) {
    if time::timeout(patience, asked.cancelled()).await.is_ok() {
        future::pending().await
    }
}

/// Answers one request, whose body has to come in time.
async fn answer(router: Router, request: Request<Incoming>, limits: Limits) -> Response {
    let late = Late::default();
    let may_pause = request.body().is_end_stream() || is_grpc(&request);
    let request = request.map(|body| match may_pause {
        true => Body::new(body),
        false => Body::new(Timely::new(body, limits, late.clone())),
    });
    let version = request.version();
    let answer = router.oneshot(request).await;
    if late.is_so() {
        return too_slow(limits, version);
    }
    answer.unwrap_or_else(|never| match never {})
}

/// Whether a request's body is one side of a conversation.
fn is_grpc(request: &Request<Incoming>) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// What is answered in place of whatever became of a request of which half has come.
fn too_slow(limits: Limits, version: Version) -> Response {
    let message = format!(
        "the request's body came too slowly: it may pause for {} s, and {} bytes a second are expected\n",
        limits.body_pause.as_secs_f64(),
        limits.body_bytes_per_s
    );
    let mut answer = (StatusCode::REQUEST_TIMEOUT, message).into_response();
    // HTTP/2 ends the stream instead, and has no such header.
    if version < Version::HTTP_2 {
        let close = HeaderValue::from_static("close");
        answer.headers_mut().insert(header::CONNECTION, close);
    }
    answer
}

//! Runs a router on a socket: limits on connections and headers, no delay, a clean end.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, body::Body, extract::ConnectInfo, http::Request};
use hyper::{body::Incoming, service::service_fn};
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

/// Connections open at once; more wait in the operating system's queue.
pub const MAX_CONNECTIONS: usize = 1024;

/// Time that a client has for a request's headers, and for a pause between requests.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// Requests at once on one HTTP/2 connection.
pub const MAX_STREAMS: u32 = 64;

/// Time that open requests have to end after a shutdown has begun.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Pause after a connection could not be accepted, for instance for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `router` on `listener` until `shutdown`, then lets open requests end.
///
/// Handlers find the client's address as [`ConnectInfo<SocketAddr>`].
pub async fn serve(listener: TcpListener, router: Router, shutdown: CancellationToken) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
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
            let handling = serve_connection(stream, client, router.clone(), shutdown.clone());
            connections.spawn(async move {
                handling.await;
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
/// Handlers find the client's address as [`ConnectInfo<SocketAddr>`].
pub async fn serve_connection<S>(
    stream: S,
    client: SocketAddr,
    router: Router,
    shutdown: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(client));
        let answer = router.clone().oneshot(request);
        async move { Ok::<_, Infallible>(answer.await.unwrap_or_else(|never| match never {})) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    let mut http1 = builder.http1();
    http1.timer(TokioTimer::new());
    http1.header_read_timeout(HEADER_TIMEOUT);
    let mut http2 = builder.http2();
    http2.timer(TokioTimer::new());
    http2.max_concurrent_streams(MAX_STREAMS);
    http2.keep_alive_interval(HEADER_TIMEOUT);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            match time::timeout(DRAIN_TIMEOUT, connection).await {
                Ok(ended) => ended,
                Err(_) => return tracing::debug!(%client, "cut off at shutdown"),
            }
        }
    };
    if let Err(error) = ended {
        // Clients that go away are nobody's fault.
        tracing::debug!(%client, error = &*error, "connection ended early");
    }
}

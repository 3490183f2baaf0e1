//! One port for HTTP and for frames: whoever speaks frames says so first.

use std::{io::Cursor, net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use r3mes_functions::{serve::Hub, wire::PREFACE};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    net::TcpListener,
    time,
};
use tokio_util::sync::CancellationToken;

use crate::server;

/// How long a connection may take to say its first bytes.
const GREETING: Duration = Duration::from_secs(30);
/// Connections at once, of nodes and callers.
const MAX_CONNECTIONS: usize = 16_384;

/// Serves both until `shutdown`.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    hub: Arc<Hub>,
    shutdown: CancellationToken,
) {
    let time = hub.keep_time(shutdown.clone());
    let serving = server::serve_each(
        listener,
        MAX_CONNECTIONS,
        shutdown.clone(),
        |stream, client| {
            let (router, hub, shutdown) = (router.clone(), Arc::clone(&hub), shutdown.clone());
            async move {
                let (read, write) = stream.into_split();
                connection(read, write, client, router, &hub, shutdown).await;
            }
        },
    );
    tokio::join!(time, serving);
}

async fn connection<R, W>(
    mut read: R,
    write: W,
    client: SocketAddr,
    router: Router,
    hub: &Hub,
    shutdown: CancellationToken,
) where
    R: AsyncRead + Unpin + Send + 'static,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let first = tokio::select! {
        first = time::timeout(GREETING, first_bytes(&mut read)) => first,
        () = shutdown.cancelled() => return,
    };
    match first {
        Ok(Ok(first)) if first == PREFACE => hub.attend(read, write).await,
        Ok(Ok(first)) => {
            let stream = tokio::io::join(Cursor::new(first).chain(read), write);
            server::serve_connection(stream, client, router, shutdown).await;
        }
        // It went, or never said anything.
        Ok(Err(_)) | Err(_) => {}
    }
}

/// As many bytes as the preface has, or fewer once they are not its own.
async fn first_bytes(read: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Vec<u8>> {
    let mut first = Vec::with_capacity(PREFACE.len());
    while first.len() < PREFACE.len() && PREFACE.starts_with(&first) {
        let missing = (PREFACE.len() - first.len()) as u64;
        if read.take(missing).read_buf(&mut first).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(first)
}

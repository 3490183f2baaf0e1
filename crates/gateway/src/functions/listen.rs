//! One port for HTTP and for frames, with TLS around both or without: whoever speaks frames says so first.

use std::{io::Cursor, net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use r3mes_functions::{
    serve::Hub,
    tls::{self, Accepted, ServerTls},
    wire::PREFACE,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    net::{TcpListener, TcpStream},
    time,
};
use tokio_util::sync::CancellationToken;

use super::problem;
use crate::server;

/// How long a connection may take to say its first bytes.
const GREETING: Duration = Duration::from_secs(30);
/// Connections at once, of nodes and callers.
const MAX_CONNECTIONS: usize = 16_384;

/// Serves both until `shutdown`, over TLS if it is given.
pub(super) async fn serve(
    listener: TcpListener,
    tls: Option<ServerTls>,
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
            let connection = Connection {
                client,
                router: router.clone(),
                hub: Arc::clone(&hub),
                shutdown: shutdown.clone(),
            };
            let tls = tls.clone();
            async move {
                match tls {
                    None => {
                        let (read, write) = stream.into_split();
                        connection.serve(read, write).await;
                    }
                    Some(tls) => connection.serve_tls(stream, &tls).await,
                }
            }
        },
    );
    tokio::join!(time, serving);
}

/// What serves one connection.
struct Connection {
    client: SocketAddr,
    router: Router,
    hub: Arc<Hub>,
    shutdown: CancellationToken,
}

impl Connection {
    async fn serve_tls(self, stream: TcpStream, tls: &ServerTls) {
        let accepted = tokio::select! {
            accepted = time::timeout(GREETING, tls.accept(stream)) => accepted,
            () = self.shutdown.cancelled() => return,
        };
        match accepted {
            Ok(Ok(Accepted::Tls(stream))) => {
                let (read, write) = tokio::io::split(stream);
                self.serve(read, write).await;
            }
            Ok(Ok(Accepted::Plain(stream))) => {
                let (read, write) = stream.into_split();
                self.refuse(read, write).await;
            }
            Ok(Err(error)) => tracing::debug!(%error, client = %self.client, "functions.tls"),
            // It never said anything.
            Err(_) => {}
        }
    }

    async fn serve<R, W>(self, mut read: R, write: W)
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let Some(first) = self.first_bytes(&mut read).await else {
            return;
        };
        if first == PREFACE {
            self.hub.attend(read, write).await;
        } else {
            self.serve_http(first, read, write).await;
        }
    }

    /// Tells a client that speaks no TLS what it should do.
    async fn refuse<R, W>(mut self, mut read: R, write: W)
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let Some(first) = self.first_bytes(&mut read).await else {
            return;
        };
        if first == PREFACE {
            // It may be gone already.
            let _ = tls::refuse(write).await;
        } else {
            self.router = Router::new().fallback(problem::only_tls);
            self.serve_http(first, read, write).await;
        }
    }

    async fn serve_http<R, W>(self, first: Vec<u8>, read: R, write: W)
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let stream = tokio::io::join(Cursor::new(first).chain(read), write);
        server::serve_connection(stream, self.client, self.router, self.shutdown).await;
    }

    /// What tells frames from HTTP; `None` when the client went, or never said anything.
    async fn first_bytes(&self, read: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
        tokio::select! {
            first = time::timeout(GREETING, first_bytes(read)) => first.ok()?.ok(),
            () = self.shutdown.cancelled() => None,
        }
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

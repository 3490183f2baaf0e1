//! A broker's port: frames, and whatever else is spoken there, with TLS around both or without. Whoever
//! speaks frames says so first.

use std::{
    fmt,
    io::{self, Cursor},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time,
};
use tokio_util::sync::CancellationToken;

use crate::{
    serve::Hub,
    tls::{self, Accepted, ServerTls},
    wire::PREFACE,
};

/// How long a connection may take to say its first bytes.
const GREETING: Duration = Duration::from_secs(30);
/// Connections at once, of nodes and callers; more wait in the operating system's queue.
const MAX_CONNECTIONS: usize = 16_384;
/// Pause after a connection could not be accepted, for instance for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Bytes both ways.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// A connection that speaks something else than frames.
pub struct Other {
    /// What it says, from its first byte on, and what it is answered.
    pub stream: Box<dyn Stream>,
    /// Where it comes from.
    pub client: SocketAddr,
    /// Whether it speaks no TLS to a port of TLS: it should be told so, and no more.
    pub lacks_tls: bool,
}

impl fmt::Debug for Other {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Other")
            .field("client", &self.client)
            .field("lacks_tls", &self.lacks_tls)
            .finish_non_exhaustive()
    }
}

impl Hub {
    /// Serves frames on `listener` until `shutdown`, over TLS if it is given. What speaks something else
    /// is hung up on.
    pub async fn serve(
        self: &Arc<Self>,
        listener: TcpListener,
        tls: Option<ServerTls>,
        shutdown: CancellationToken,
    ) {
        let hang_up = |other: Other| async move {
            tracing::debug!(client = %other.client, "functions.broker.other_protocol");
        };
        self.serve_beside(listener, tls, hang_up, shutdown).await;
    }

    /// Serves frames on `listener` until `shutdown`, over TLS if it is given, and gives `others` each
    /// connection that speaks something else. Whatever those do has to end at `shutdown` too.
    pub async fn serve_beside<F>(
        self: &Arc<Self>,
        listener: TcpListener,
        tls: Option<ServerTls>,
        others: impl Fn(Other) -> F + Clone + Send + Sync + 'static,
        shutdown: CancellationToken,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let accepting = async {
            let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
            let mut connections = JoinSet::new();
            while let Some(accepted) = shutdown
                .run_until_cancelled(accept(&listener, &places))
                .await
            {
                while connections.try_join_next().is_some() {}
                let Some((stream, client, place)) = accepted else {
                    continue;
                };
                let visit = Visit {
                    client,
                    hub: Arc::clone(self),
                    others: others.clone(),
                    shutdown: shutdown.clone(),
                };
                let tls = tls.clone();
                connections.spawn(async move {
                    match tls {
                        None => {
                            let (read, write) = stream.into_split();
                            visit.serve(read, write).await;
                        }
                        Some(tls) => visit.serve_tls(stream, &tls).await,
                    }
                    drop(place);
                });
            }
            connections
        };
        let (mut connections, ()) = tokio::join!(accepting, self.keep_time(shutdown.clone()));
        drop(listener);
        while connections.join_next().await.is_some() {}
    }
}

/// The next connection, of those that there may be at once.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, client)) => {
            // Answers are many small writes that must not wait for each other.
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, %client, "cannot set TCP_NODELAY");
            }
            Some((stream, client, place))
        }
        Err(error) => {
            tracing::warn!(%error, "functions.broker.accept");
            time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

/// A connection that has still to say what it speaks.
struct Visit<O> {
    client: SocketAddr,
    hub: Arc<Hub>,
    others: O,
    shutdown: CancellationToken,
}

impl<O, F> Visit<O>
where
    O: Fn(Other) -> F,
    F: Future<Output = ()>,
{
    async fn serve_tls(self, stream: TcpStream, tls: &ServerTls) {
        let accepting = time::timeout(GREETING, tls.accept(stream));
        match self.shutdown.run_until_cancelled(accepting).await {
            Some(Ok(Ok(Accepted::Tls(stream)))) => {
                let (read, write) = tokio::io::split(stream);
                self.serve(read, write).await;
            }
            Some(Ok(Ok(Accepted::Plain(stream)))) => {
                let (read, write) = stream.into_split();
                self.refuse(read, write).await;
            }
            Some(Ok(Err(error))) => {
                tracing::debug!(%error, client = %self.client, "functions.broker.tls");
            }
            // It never said anything, or nobody listens any more.
            Some(Err(_)) | None => {}
        }
    }

    async fn serve<R, W>(self, mut read: R, write: W)
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        match self.first_bytes(&mut read).await {
            Some(first) if first == PREFACE => self.hub.attend(read, write).await,
            Some(first) => self.pass_on(first, read, write, false).await,
            None => {}
        }
    }

    /// Tells who speaks no TLS what to do.
    async fn refuse<R, W>(self, mut read: R, write: W)
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        match self.first_bytes(&mut read).await {
            Some(first) if first == PREFACE => {
                // It may be gone already.
                let _ = tls::refuse(write).await;
            }
            Some(first) => self.pass_on(first, read, write, true).await,
            None => {}
        }
    }

    async fn pass_on<R, W>(self, first: Vec<u8>, read: R, write: W, lacks_tls: bool)
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let stream = tokio::io::join(Cursor::new(first).chain(read), write);
        let other = Other {
            stream: Box::new(stream),
            client: self.client,
            lacks_tls,
        };
        (self.others)(other).await;
    }

    /// What tells frames from anything else; `None` when the client went, or never said anything.
    async fn first_bytes(&self, read: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
        let first = time::timeout(GREETING, first_bytes(read));
        let first = self.shutdown.run_until_cancelled(first).await?;
        first.ok()?.ok()
    }
}

/// As many bytes as the preface has, or fewer once they are not its own.
async fn first_bytes(read: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut first = Vec::with_capacity(PREFACE.len());
    while first.len() < PREFACE.len() && PREFACE.starts_with(&first) {
        let missing = (PREFACE.len() - first.len()) as u64;
        if read.take(missing).read_buf(&mut first).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(first)
}

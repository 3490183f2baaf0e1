//! Listens for CometBFT and answers on each of its connections.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use tendermint_proto::v0_38::abci::{Request, ResponseException, request, response};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cometbft::EngineError;
use crate::cometbft::convert::Malformed;
use crate::cometbft::state::Driver;
use crate::cometbft::wire::{Connection, Stream};

/// CometBFT opens four connections; a new one may come before the old ones are seen to be gone.
const MAX_CONNECTIONS: usize = 16;
/// The longest path of a Unix socket, with room for the terminating zero of the shortest system.
const MAX_SOCKET_PATH: usize = 103;

/// Where CometBFT connects to.
#[derive(Debug)]
pub enum Listener {
    /// A socket in the file system, for a CometBFT on this machine.
    Unix(UnixListener),
    /// An address, for a CometBFT elsewhere. Whoever reaches it drives the ledger: keep it private.
    Tcp(TcpListener),
}

impl Listener {
    /// A socket at `path` that only its owner can use. One that an earlier process left is replaced.
    ///
    /// # Errors
    /// When the path is too long for a socket, or taken by something else.
    pub fn unix(path: &Path) -> io::Result<Self> {
        remove_socket(path)?;
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Self::Unix(listener))
    }

    async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Unix(listener) => Box::new(listener.accept().await?.0),
            Self::Tcp(listener) => {
                let stream = listener.accept().await?.0;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
        })
    }
}

/// Removes the socket that a process left at `path` when it was killed.
///
/// # Errors
/// When `path` is too long for a socket, or something else stands there.
pub fn remove_socket(path: &Path) -> io::Result<()> {
    if path.as_os_str().len() > MAX_SOCKET_PATH {
        let what = format!(
            "{} is longer than the {MAX_SOCKET_PATH} bytes a socket's path may have: use a home directory with a shorter path",
            path.display()
        );
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path),
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            format!("{} is no socket: move it away", path.display()),
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Answers CometBFT until it is told to stop.
pub struct Engine {
    driver: Arc<Driver>,
}

impl Engine {
    pub(super) fn new(driver: Driver) -> Self {
        Self {
            driver: Arc::new(driver),
        }
    }

    /// Answers whoever connects until `shutdown`. CometBFT may come and go.
    ///
    /// # Errors
    /// [`EngineError`] if the application fails, or CometBFT runs another chain; the engine can be
    /// opened again on the same files then.
    pub async fn run(
        self,
        listener: Listener,
        shutdown: CancellationToken,
    ) -> Result<(), EngineError> {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => {
                    let stream = accepted.map_err(EngineError::Listen)?;
                    connections.spawn(serve(self.driver.clone(), stream));
                }
                Some(ended) = connections.join_next() => ended.map_err(|_| EngineError::Worker)??,
            }
        }
    }
}

/// Answers on one connection until it closes.
async fn serve(driver: Arc<Driver>, stream: Box<dyn Stream>) -> Result<(), EngineError> {
    let mut connection = Connection::new(stream);
    loop {
        let requests = match connection.read_some().await {
            Ok(requests) if requests.is_empty() => return Ok(()),
            Ok(requests) => requests,
            Err(error) => {
                tracing::warn!(%error, "a connection of CometBFT broke");
                return Ok(());
            }
        };
        let driver = driver.clone();
        let answered = tokio::task::spawn_blocking(move || answer(&driver, requests));
        let (answers, failed) = answered.await.map_err(|_| EngineError::Worker)?;
        let written = connection.write(answers).await;
        if let Some(error) = failed {
            return Err(error);
        }
        if let Err(error) = written {
            tracing::warn!(%error, "a connection of CometBFT broke");
            return Ok(());
        }
    }
}

/// Answers to requests in order, up to the first that fails, and why that one did.
fn answer(driver: &Driver, requests: Vec<Request>) -> (Vec<response::Value>, Option<EngineError>) {
    let mut answers = Vec::with_capacity(requests.len());
    for request in requests {
        let request = request.value.ok_or(Malformed("an empty request"));
        let answered = request.map_err(EngineError::from).and_then(|request| {
            let _answering =
                tracing::debug_span!("consensus.abci.answer", request = name(&request)).entered();
            driver.answer(request)
        });
        match answered {
            Ok(answer) => answers.push(answer),
            Err(error) => {
                answers.push(response::Value::Exception(ResponseException {
                    error: error.to_string(),
                }));
                return (answers, Some(error));
            }
        }
    }
    (answers, None)
}

/// A request's name in ABCI.
fn name(request: &request::Value) -> &'static str {
    use request::Value as Ask;
    match request {
        Ask::Echo(_) => "Echo",
        Ask::Flush(_) => "Flush",
        Ask::Info(_) => "Info",
        Ask::InitChain(_) => "InitChain",
        Ask::Query(_) => "Query",
        Ask::CheckTx(_) => "CheckTx",
        Ask::Commit(_) => "Commit",
        Ask::ListSnapshots(_) => "ListSnapshots",
        Ask::OfferSnapshot(_) => "OfferSnapshot",
        Ask::LoadSnapshotChunk(_) => "LoadSnapshotChunk",
        Ask::ApplySnapshotChunk(_) => "ApplySnapshotChunk",
        Ask::PrepareProposal(_) => "PrepareProposal",
        Ask::ProcessProposal(_) => "ProcessProposal",
        Ask::ExtendVote(_) => "ExtendVote",
        Ask::VerifyVoteExtension(_) => "VerifyVoteExtension",
        Ask::FinalizeBlock(_) => "FinalizeBlock",
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

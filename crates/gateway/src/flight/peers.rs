//! The client between nodes: blocks from the Flight services of peers that share the token.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arrow_flight::{
    Ticket, decode::FlightRecordBatchStream, error::FlightError,
    flight_service_client::FlightServiceClient,
};
use bytes::Bytes;
use flight_tonic::{
    Code, Request, Status,
    transport::{Channel, Endpoint},
};
use futures::{FutureExt, StreamExt, TryStreamExt};
use r3mes_blobs::{Cid, MAX_BLOCK_BYTES};
use tokio::time;

use super::{Name, Token, table, token::AUTHORIZATION};
use crate::ipfs::Source;

/// Longest message: a block with what Arrow adds.
const MAX_MESSAGE_BYTES: usize = MAX_BLOCK_BYTES + (64 << 10);
/// Most characters of what a peer says that are passed on.
const MAX_WORDS: usize = 200;

/// The nodes that share a token. Nobody else is shown it: a ledger lists the addresses of strangers.
#[derive(Clone)]
pub struct Peers {
    token: Token,
    sources: Arc<BTreeSet<Source>>,
    clients: Arc<Mutex<HashMap<Source, FlightServiceClient<Channel>>>>,
}

/// Why a peer did not give a block.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// A stranger, who is not shown the token.
    #[error("is not among the Flight peers of the configuration, and is not shown the token")]
    Stranger,
    /// It does not have the block.
    #[error("does not have it")]
    Absent,
    /// It sent something else than a block.
    #[error("sent other bytes than those asked for")]
    Wrong,
    /// It refused, or cannot be reached.
    #[error("answered {code:?}: {words}")]
    Refused {
        /// Flight's code.
        code: Code,
        /// The beginning of what it said.
        words: String,
    },
    /// It took too long.
    #[error("did not answer in time")]
    Late,
}

impl Peers {
    /// Peers at these sources, all of which begin with `flight://`; others are passed over.
    pub fn new(token: Token, sources: impl IntoIterator<Item = Source>) -> Self {
        let flight = sources.into_iter().filter(Source::is_flight);
        Self {
            token,
            sources: Arc::new(flight.collect()),
            clients: Arc::default(),
        }
    }

    /// Asks a peer for a block. Whether the bytes match the CID is for the caller to check.
    pub(crate) async fn block(
        &self,
        source: &Source,
        cid: &Cid,
        connect: Duration,
        patience: Duration,
    ) -> Result<Bytes, PeerError> {
        let mut client = self.client(source, connect)?;
        let ticket = Ticket::new(Name::Block(*cid).to_string());
        let mut request = Request::new(ticket);
        let metadata = request.metadata_mut();
        metadata.insert(AUTHORIZATION, self.token.bearer());
        let asked = async {
            let answer = client.do_get(request).await.map_err(refused)?;
            let messages = answer.into_inner().map_err(FlightError::from);
            let mut batches = FlightRecordBatchStream::new_from_flight_data(messages);
            // The decoder panics at some damaged headers.
            let batch = AssertUnwindSafe(batches.next()).catch_unwind().await;
            let batch = batch.ok().flatten().ok_or(PeerError::Wrong)?;
            let batch = batch.map_err(|error| match error {
                FlightError::Tonic(status) => refused(*status),
                _ => PeerError::Wrong,
            })?;
            table::bytes::single(&batch).ok_or(PeerError::Wrong)
        };
        time::timeout(patience, asked)
            .await
            .map_err(|_| PeerError::Late)?
    }

    /// One connection for each peer, which is made when it is needed, and again when it broke.
    fn client(
        &self,
        source: &Source,
        connect: Duration,
    ) -> Result<FlightServiceClient<Channel>, PeerError> {
        if !self.sources.contains(source) {
            return Err(PeerError::Stranger);
        }
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(source) {
            return Ok(client.clone());
        }
        let endpoint = Endpoint::from_shared(source.flight_endpoint());
        let endpoint = endpoint.map_err(|error| PeerError::Refused {
            code: Code::InvalidArgument,
            words: error.to_string(),
        })?;
        let channel = endpoint
            .connect_timeout(connect)
            .http2_keep_alive_interval(Duration::from_secs(30))
            .connect_lazy();
        let client = FlightServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE_BYTES);
        clients.insert(source.clone(), client.clone());
        Ok(client)
    }
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peers")
            .field("sources", &self.sources)
            .finish_non_exhaustive()
    }
}

fn refused(status: Status) -> PeerError {
    if status.code() == Code::NotFound {
        return PeerError::Absent;
    }
    PeerError::Refused {
        code: status.code(),
        words: status.message().chars().take(MAX_WORDS).collect(),
    }
}

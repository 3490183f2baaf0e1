//! Why a blob could not be fetched, and what each source said.

use std::fmt;

use r3mes_blobs::{AnyCid, FollowError, GetError, NodeError, StoreError};
use reqwest::StatusCode;
use tokio::task;

use crate::flight::PeerError;
use crate::ipfs::Source;

/// Why one source did not give a block.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error("does not have it")]
    Absent,
    #[error("sent other bytes than those asked for")]
    Wrong,
    #[error("answered {0}")]
    Status(StatusCode),
    #[error("{}", describe(.0))]
    Network(reqwest::Error),
    #[error("{0}")]
    Peer(PeerError),
}

impl From<PeerError> for Refused {
    fn from(error: PeerError) -> Self {
        match error {
            PeerError::Absent => Self::Absent,
            PeerError::Wrong => Self::Wrong,
            other => Self::Peer(other),
        }
    }
}

/// The innermost cause, which says more than "error sending request".
fn describe(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "did not answer in time".to_owned();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// What a source said when it was last asked for a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Who was asked.
    pub source: Source,
    /// Why that gave nothing.
    pub reason: String,
}

/// What every source said; prints as a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attempts(pub Vec<Attempt>);

impl fmt::Display for Attempts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("there is no source to ask");
        }
        for (index, Attempt { source, reason }) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "; " };
            write!(f, "{comma}{source} {reason}")?;
        }
        Ok(())
    }
}

/// Why a blob could not be fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// No source had a block, each having been asked several times.
    #[error("block {cid} could not be had: {attempts}")]
    Missing {
        /// The block.
        cid: AnyCid,
        /// What each source said.
        attempts: Attempts,
    },
    /// A file longer than the caller accepts.
    #[error("{cid} is a file of {size} bytes or more, only {limit} are accepted here")]
    TooLarge {
        /// The file.
        cid: AnyCid,
        /// Its length as far as known.
        size: u64,
        /// Length accepted.
        limit: u64,
    },
    /// A block that says it is a node and is none.
    #[error("{cid} cannot be followed")]
    Node {
        /// The block.
        cid: AnyCid,
        /// What is wrong with it.
        #[source]
        source: NodeError,
    },
    /// The store could not be looked through.
    #[error("cannot find out what is missing")]
    Walk {
        /// What the store said.
        #[source]
        source: FollowError,
    },
    /// The store refused a block.
    #[error("cannot store a fetched block")]
    Store {
        /// What the store said.
        #[source]
        source: StoreError,
    },
    /// The file cannot be read although its blocks are here.
    #[error("the fetched blob cannot be read")]
    Read {
        /// What is wrong with it.
        #[source]
        source: GetError,
    },
    /// No client could be made.
    #[error("cannot make an HTTP client")]
    Client {
        /// What is wrong.
        #[source]
        source: reqwest::Error,
    },
    /// The runtime is shutting down.
    #[error("stopped before the fetch was complete")]
    Stopped {
        /// What the runtime said.
        #[source]
        source: task::JoinError,
    },
}

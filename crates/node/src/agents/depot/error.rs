//! Why a depot has not done what it was asked.

use std::io;

use r3mes_blobs::{AddError, Cid, FollowError, GetError, PinNameError, StoreError};
use r3mes_gateway::{ipfs::FetchError, rpc};
use tokio::task::JoinError;

/// Why a blob is not here, or is not kept.
#[derive(Debug, thiserror::Error)]
pub enum DepotError {
    /// It was asked for, and did not come.
    #[error("{cid} is not to be had")]
    Fetch {
        /// The blob.
        cid: Cid,
        /// What went wrong.
        #[source]
        source: Box<FetchError>,
    },
    /// The ledger was to say who could have it.
    #[error("the ledger does not say who could have {cid}")]
    Ledger {
        /// The blob.
        cid: Cid,
        /// Why not.
        #[source]
        source: Box<rpc::ClientError>,
    },
    /// It is here and cannot be read.
    #[error("{cid} cannot be read")]
    Read {
        /// The blob.
        cid: Cid,
        /// Why not.
        #[source]
        source: Box<GetError>,
    },
    /// What is here of it cannot be looked through.
    #[error("cannot find out what is missing of {cid}")]
    Walk {
        /// The blob.
        cid: Cid,
        /// Why not.
        #[source]
        source: Box<FollowError>,
    },
    /// It has more bytes than the ledger says.
    #[error("{cid} has {bytes} bytes, the ledger says {recorded}")]
    Longer {
        /// The blob.
        cid: Cid,
        /// Its length.
        bytes: u64,
        /// What the ledger says.
        recorded: u64,
    },
    /// It cannot be put into the store.
    #[error("a blob cannot be stored")]
    Put {
        /// Why not.
        #[source]
        source: AddError,
    },
    /// The store does not do what it must.
    #[error("the store of blobs does not work")]
    Store {
        /// What it says.
        #[source]
        source: StoreError,
    },
    /// It cannot be copied into a file.
    #[error("{cid} cannot be written into a file")]
    Copy {
        /// The blob.
        cid: Cid,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// Nothing can be pinned under that name.
    #[error("nothing can be kept")]
    Pin {
        /// Why not.
        #[from]
        source: PinNameError,
    },
    /// The process is shutting down.
    #[error("stopped before the store was done")]
    Stopped {
        /// What the runtime said.
        #[source]
        source: JoinError,
    },
}

impl DepotError {
    /// Whether it lies with those who should have the blob: nobody gives it, or what they give is no
    /// blob of that length. Else something of this node failed, and nothing is known of them.
    pub fn is_of_others(&self) -> bool {
        match self {
            Self::Fetch { source, .. } => match &**source {
                FetchError::Missing { .. }
                | FetchError::TooLarge { .. }
                | FetchError::Node { .. } => true,
                FetchError::Walk { source } => cannot_be_followed(source),
                FetchError::Read { source } => is_no_such_file(source),
                _ => false,
            },
            Self::Walk { source, .. } => cannot_be_followed(source),
            Self::Read { source, .. } => is_no_such_file(source),
            Self::Longer { .. } => true,
            Self::Ledger { .. }
            | Self::Put { .. }
            | Self::Store { .. }
            | Self::Copy { .. }
            | Self::Pin { .. }
            | Self::Stopped { .. } => false,
        }
    }
}

/// Whether the blocks are at fault, and not the store.
fn cannot_be_followed(error: &FollowError) -> bool {
    matches!(error, FollowError::Node { .. })
}

/// Whether the blocks are no file of that length; else it is the store that failed.
fn is_no_such_file(error: &GetError) -> bool {
    matches!(error, GetError::Node { .. } | GetError::TooLarge { .. })
}

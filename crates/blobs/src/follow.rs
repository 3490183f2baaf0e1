//! Why links cannot be followed from block to block.

use r3mes_types::Cid;

use crate::{NodeError, StoreError};

/// Why the blocks below a root could not be gone through.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FollowError {
    /// A block is not in the store.
    #[error("block {cid} is not stored here")]
    Missing {
        /// The block.
        cid: Cid,
    },
    /// The store failed or the block is damaged.
    #[error("cannot read block {cid}")]
    Store {
        /// The block.
        cid: Cid,
        /// What the store said.
        #[source]
        source: StoreError,
    },
    /// A block that says it is a node or a directory and cannot be followed.
    #[error("{cid} cannot be followed")]
    Node {
        /// The block.
        cid: Cid,
        /// What is wrong with it.
        #[source]
        source: NodeError,
    },
}

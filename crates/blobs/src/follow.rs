//! From a link to its block, and why that may fail.

use crate::{AnyCid, BlobStore, Block, NodeError, StoreError};

/// The block named `cid`: from the CID itself if its content stands there, otherwise from the
/// store. Of a hash that [nothing can be held against](AnyCid::is_checkable) there is none.
///
/// # Errors
/// As [`BlobStore::any_block`].
pub fn find<S: BlobStore + ?Sized>(store: &S, cid: &AnyCid) -> Result<Option<Block>, StoreError> {
    match Block::inline(cid) {
        Some(block) => Ok(Some(block)),
        None if !cid.is_checkable() => Ok(None),
        None => store.any_block(cid),
    }
}

/// As [`find`], of a block that is needed to go on.
pub(crate) fn need<S: BlobStore + ?Sized>(store: &S, cid: &AnyCid) -> Result<Block, FollowError> {
    let found = find(store, cid).map_err(|source| FollowError::Store {
        cid: cid.clone(),
        source,
    })?;
    found.ok_or_else(|| FollowError::Missing { cid: cid.clone() })
}

/// Says which node cannot be followed.
pub(crate) fn unreadable(cid: &AnyCid) -> impl Fn(NodeError) -> FollowError {
    move |source| FollowError::Node {
        cid: cid.clone(),
        source,
    }
}

/// Why the blocks below a root could not be gone through.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FollowError {
    /// A block is not in the store.
    #[error("block {cid} is not stored here")]
    Missing {
        /// The block.
        cid: AnyCid,
    },
    /// The store failed or the block is damaged.
    #[error("cannot read block {cid}")]
    Store {
        /// The block.
        cid: AnyCid,
        /// What the store said.
        #[source]
        source: StoreError,
    },
    /// A block that says it is a node or a directory and cannot be followed.
    #[error("{cid} cannot be followed")]
    Node {
        /// The block.
        cid: AnyCid,
        /// What is wrong with it.
        #[source]
        source: NodeError,
    },
}

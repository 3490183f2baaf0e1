//! Following links from a root.

use std::collections::HashSet;

use r3mes_types::{Cid, Codec};

use crate::{BlobStore, NodeError, StoreError};

/// Why a blob's tree could not be followed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WalkError {
    /// The store failed.
    #[error("cannot read {cid}")]
    Store {
        /// Block that was read.
        cid: Cid,
        /// What the store said.
        #[source]
        source: StoreError,
    },
    /// A block that says it is a node and is none.
    #[error("{cid} cannot be followed")]
    Node {
        /// The block.
        cid: Cid,
        /// What is wrong with it.
        #[source]
        source: NodeError,
    },
}

/// What a walk found, each block once.
#[derive(Debug, Default)]
pub(crate) struct Reached {
    /// Blocks reached, here or not.
    pub(crate) all: HashSet<Cid>,
    /// Those that are not here, in the order found.
    pub(crate) missing: Vec<Cid>,
}

/// Adds what `root` reaches to `reached`. Nodes are read, leaves only looked for.
pub(crate) fn reach<S: BlobStore + ?Sized>(
    store: &S,
    root: &Cid,
    reached: &mut Reached,
) -> Result<(), WalkError> {
    let mut pending = vec![*root];
    while let Some(cid) = pending.pop() {
        if !reached.all.insert(cid) {
            continue;
        }
        let failed = |source| WalkError::Store { cid, source };
        match cid.codec() {
            Codec::Raw => {
                if !store.contains(&cid).map_err(failed)? {
                    reached.missing.push(cid);
                }
            }
            Codec::DagPb => match store.block(&cid).map_err(failed)? {
                None => reached.missing.push(cid),
                Some(block) => {
                    let links = block.links();
                    let links = links.map_err(|source| WalkError::Node { cid, source })?;
                    pending.extend(links.into_iter().rev());
                }
            },
        }
    }
    Ok(())
}

/// See [`BlobStore::missing`].
pub(crate) fn missing<S: BlobStore + ?Sized>(store: &S, root: &Cid) -> Result<Vec<Cid>, WalkError> {
    let mut reached = Reached::default();
    reach(store, root, &mut reached)?;
    Ok(reached.missing)
}

//! Following links from a root.

use std::collections::HashSet;

use r3mes_types::{Cid, Codec};

use crate::{BlobStore, FollowError};

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
) -> Result<(), FollowError> {
    let mut pending = vec![*root];
    while let Some(cid) = pending.pop() {
        if !reached.all.insert(cid) {
            continue;
        }
        let failed = |source| FollowError::Store { cid, source };
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
                    let links = links.map_err(|source| FollowError::Node { cid, source })?;
                    pending.extend(links.into_iter().rev());
                }
            },
        }
    }
    Ok(())
}

/// See [`BlobStore::missing`].
pub(crate) fn missing<S: BlobStore + ?Sized>(
    store: &S,
    root: &Cid,
) -> Result<Vec<Cid>, FollowError> {
    let mut reached = Reached::default();
    reach(store, root, &mut reached)?;
    Ok(reached.missing)
}

//! Following links from a root.

use std::collections::HashSet;

use crate::{
    AnyCid, BlobStore, FollowError,
    any_cid::{DAG_CBOR, DAG_JSON, DAG_PB},
    follow,
};

/// What a walk found, each block once.
#[derive(Debug, Default)]
pub(crate) struct Reached {
    /// [Keys](AnyCid::key) of blocks reached, here or not.
    pub(crate) all: HashSet<AnyCid>,
    /// Those that are not here, in the order found.
    pub(crate) missing: Vec<AnyCid>,
}

/// Adds what `root` reaches to `reached`. Nodes are read, leaves only looked for.
pub(crate) fn reach<S: BlobStore + ?Sized>(
    store: &S,
    root: &AnyCid,
    reached: &mut Reached,
) -> Result<(), FollowError> {
    let mut pending = vec![root.clone()];
    while let Some(cid) = pending.pop() {
        if !reached.all.insert(cid.key()) {
            continue;
        }
        let failed = |source| FollowError::Store {
            cid: cid.clone(),
            source,
        };
        match cid.codec() {
            DAG_PB | DAG_CBOR | DAG_JSON => match follow::find(store, &cid).map_err(failed)? {
                None => reached.missing.push(cid),
                Some(block) => {
                    let links = block.links().map_err(follow::unreadable(&cid))?;
                    pending.extend(links.into_iter().rev());
                }
            },
            // Content.
            _ => {
                if cid.inline().is_none() && !store.contains_any(&cid).map_err(failed)? {
                    reached.missing.push(cid);
                }
            }
        }
    }
    Ok(())
}

/// The blocks at and below `root` that are not in `store`, as [`BlobStore::missing`] says of a
/// blob of the network.
///
/// # Errors
/// I/O errors, and nodes that cannot be read.
pub fn missing<S: BlobStore + ?Sized>(
    store: &S,
    root: impl Into<AnyCid>,
) -> Result<Vec<AnyCid>, FollowError> {
    let mut reached = Reached::default();
    reach(store, &root.into(), &mut reached)?;
    Ok(reached.missing)
}

//! Following a path of names below a root.

use r3mes_types::Cid;

use crate::{
    BlobStore, Block, FollowError,
    directory::{Directory, Entry},
};

/// What a path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// What the path names.
    pub cid: Cid,
    /// The directory blocks on the way, from the root on; they prove where the path leads.
    pub way: Vec<Block>,
}

/// Follows `names` from `root` through UnixFS directories, plain or sharded. Without names that is
/// the root, which is not read.
///
/// # Errors
/// [`ResolveError::NoEntry`] names the part of the path that does not exist;
/// [`FollowError::Missing`] when a block on the way is not in `store`.
pub fn resolve<S: BlobStore + ?Sized>(
    store: &S,
    root: &Cid,
    names: &[String],
) -> Result<Resolved, ResolveError> {
    let mut resolved = Resolved {
        cid: *root,
        way: Vec::new(),
    };
    for name in names {
        let mut level = 0;
        loop {
            let cid = resolved.cid;
            let failed = |source| FollowError::Store { cid, source };
            let invalid = |source| FollowError::Node { cid, source };
            let block = store.block(&cid).map_err(failed)?;
            let block = block.ok_or(FollowError::Missing { cid })?;
            let directory = Directory::decode(&block).map_err(invalid)?;
            let found = match directory {
                Some(directory) => directory.find(name, level).map_err(invalid)?,
                None => None,
            };
            let (next, done) = match found {
                Some(Entry::Found(next)) => (next, true),
                Some(Entry::Below(next)) => (next, false),
                None => {
                    let name = name.clone();
                    return Err(ResolveError::NoEntry { name, cid });
                }
            };
            resolved.way.push(block);
            resolved.cid = next;
            level += 1;
            if done {
                break;
            }
        }
    }
    Ok(resolved)
}

/// Why a path leads nowhere.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// No directory, or none with such an entry.
    #[error("there is no {name:?} in {cid}")]
    NoEntry {
        /// The name that is not there.
        name: String,
        /// Where it was looked for.
        cid: Cid,
    },
    /// The blocks on the way cannot be followed.
    #[error(transparent)]
    Follow(#[from] FollowError),
}

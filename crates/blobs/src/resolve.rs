//! Following a path of names below a root.

use crate::{
    AnyCid, BlobStore, Block, FollowError,
    any_cid::{DAG_CBOR, DAG_JSON},
    directory::{Directory, Entry},
    follow,
    ipld::{self, Target},
};

/// What a path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// What the path names.
    pub cid: AnyCid,
    /// The blocks on the way, from the root on; they prove where the path leads. Blocks whose
    /// content stands in their CID are left out.
    pub way: Vec<Block>,
    /// The root, then what each part of the path led to: a directory's entry, or a link of a
    /// DAG-CBOR or DAG-JSON document.
    pub roots: Vec<AnyCid>,
}

/// Follows `names` from `root`: through `UnixFS` directories, plain or sharded, and through maps
/// and lists of DAG-CBOR and DAG-JSON up to links. Without names that is the root, which is not
/// read.
///
/// # Errors
/// [`ResolveError::NoEntry`] names the part of the path that does not exist;
/// [`ResolveError::NoLink`] when it ends within a document; [`FollowError::Missing`] when a block on
/// the way is not in `store`.
pub fn resolve<S: BlobStore + ?Sized>(
    store: &S,
    root: impl Into<AnyCid>,
    names: &[String],
) -> Result<Resolved, ResolveError> {
    let root = root.into();
    let mut resolved = Resolved {
        cid: root.clone(),
        way: Vec::new(),
        roots: vec![root],
    };
    let mut names = names;
    while !names.is_empty() {
        names = match resolved.cid.codec() {
            DAG_CBOR | DAG_JSON => resolved.follow_document(store, names)?,
            _ => resolved.follow_directory(store, names)?,
        };
        resolved.roots.push(resolved.cid.clone());
    }
    Ok(resolved)
}

impl Resolved {
    /// Goes from a directory to its entry of the first name, and returns the other names.
    fn follow_directory<'n, S: BlobStore + ?Sized>(
        &mut self,
        store: &S,
        names: &'n [String],
    ) -> Result<&'n [String], ResolveError> {
        let (name, rest) = names.split_first().expect("the caller has a name left");
        for level in 0.. {
            let block = follow::need(store, &self.cid)?;
            let invalid = follow::unreadable(&self.cid);
            let found = match Directory::decode(&block).map_err(&invalid)? {
                Some(directory) => directory.find(name, level).map_err(&invalid)?,
                None => None,
            };
            drop(invalid);
            let (next, done) = match found {
                Some(Entry::Found(next)) => (next, true),
                Some(Entry::Below(next)) => (next, false),
                None => return Err(self.no_entry(name)),
            };
            self.step(block, next);
            if done {
                break;
            }
        }
        Ok(rest)
    }

    /// Goes from a document to the first link that the names lead to, and returns those behind it.
    fn follow_document<'n, S: BlobStore + ?Sized>(
        &mut self,
        store: &S,
        names: &'n [String],
    ) -> Result<&'n [String], ResolveError> {
        let block = follow::need(store, &self.cid)?;
        let target = ipld::follow(&block, names).map_err(follow::unreadable(&self.cid))?;
        match target {
            Target::Link(next, left) => {
                self.step(block, next);
                Ok(&names[names.len() - left..])
            }
            Target::Value => Err(ResolveError::NoLink {
                path: names.join("/"),
                cid: self.cid.clone(),
            }),
            Target::Absent(left) => Err(self.no_entry(&names[names.len() - left])),
        }
    }

    fn step(&mut self, block: Block, next: AnyCid) {
        if block.cid().inline().is_none() {
            self.way.push(block);
        }
        self.cid = next;
    }

    fn no_entry(&self, name: &str) -> ResolveError {
        ResolveError::NoEntry {
            name: name.to_owned(),
            cid: self.cid.clone(),
        }
    }
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
        cid: AnyCid,
    },
    /// A value of a document that is no link, so that no block is named.
    #[error("{path:?} in {cid} is a value and no link: ask for the block that it stands in")]
    NoLink {
        /// The path within the document.
        path: String,
        /// The document.
        cid: AnyCid,
    },
    /// The blocks on the way cannot be followed.
    #[error(transparent)]
    Follow(#[from] FollowError),
}

use std::collections::HashSet;

use crate::{
    AnyCid, BlobStore, Block, FollowError, NodeError,
    any_cid::DAG_PB,
    dag_pb::{FilePart, Node},
    directory::Directory,
    follow,
};

/// Which blocks below a root are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The root alone.
    Block,
    /// Those that hold these bytes of the root's file, from `from` up to but not with `to`, and
    /// the nodes above them. Of a sharded directory these are all shards; a root of another kind,
    /// or one that is no `UnixFS`, is wanted alone.
    Bytes {
        /// First byte.
        from: u64,
        /// First byte that is not wanted any more.
        to: u64,
    },
    /// Everything, through the links of every codec that is known here.
    All,
}

/// Goes through the blocks of a blob: the root first, then depth first, each block once or
/// [as often as it occurs](Self::with_duplicates). Blocks whose content stands in their CID are
/// gone through and not given: whoever has the link has them.
///
/// It holds no store, so that an asynchronous caller can take it from one blocking call to the
/// next.
#[derive(Debug)]
pub struct Traversal {
    scope: Scope,
    /// Blocks still to come, the next one last, with the place of their content in the file.
    pending: Vec<(AnyCid, u64)>,
    seen: HashSet<AnyCid>,
    duplicates: bool,
    /// Nothing but the root has been looked at.
    at_root: bool,
}

impl Traversal {
    /// Starts at `root`.
    #[must_use]
    pub fn new(root: impl Into<AnyCid>, scope: Scope) -> Self {
        Self {
            scope,
            pending: vec![(root.into(), 0)],
            seen: HashSet::new(),
            duplicates: false,
            at_root: true,
        }
    }

    /// Gives each block as often as it occurs, so that a reader needs to keep none. Nothing is
    /// remembered then, and the number of blocks is bounded by the reader's patience alone.
    #[must_use]
    pub fn with_duplicates(self) -> Self {
        Self {
            duplicates: true,
            ..self
        }
    }

    /// The next block, or `None` after the last.
    ///
    /// # Errors
    /// When a block is missing, damaged or cannot be followed.
    pub fn next<S: BlobStore + ?Sized>(&mut self, store: &S) -> Result<Option<Block>, FollowError> {
        while let Some((cid, start)) = self.pending.pop() {
            // A block at two places of a file is sent once, but its parts may lie within the
            // wanted bytes at one place and outside at the other: nodes are followed each time.
            let first = self.duplicates || self.seen.insert(cid.key());
            if !first && (cid.codec() != DAG_PB || self.scope == Scope::All) {
                continue;
            }
            let block = follow::need(store, &cid)?;
            let parts = self.parts(&block, start);
            let parts = parts.map_err(follow::unreadable(&cid))?;
            self.at_root = false;
            self.pending.extend(parts.into_iter().rev());
            if first && cid.inline().is_none() {
                return Ok(Some(block));
            }
        }
        Ok(None)
    }

    /// The wanted children of a block whose content starts at byte `start` of the file.
    fn parts(&self, block: &Block, start: u64) -> Result<Vec<(AnyCid, u64)>, NodeError> {
        match self.scope {
            Scope::Block => Ok(Vec::new()),
            Scope::All => Ok(block.links()?.into_iter().map(|cid| (cid, 0)).collect()),
            Scope::Bytes { from, to } if from >= to || block.cid().codec() != DAG_PB => {
                Ok(Vec::new())
            }
            Scope::Bytes { from, to } => match parts_of_entity(block, start, from, to) {
                // What is no UnixFS is an entity of one block. A part of a file has to be one.
                Err(_) if self.at_root => Ok(Vec::new()),
                parts => parts,
            },
        }
    }
}

/// The children of a `UnixFS` node that hold bytes `from..to` of its file, or list its directory.
fn parts_of_entity(
    block: &Block,
    start: u64,
    from: u64,
    to: u64,
) -> Result<Vec<(AnyCid, u64)>, NodeError> {
    let node = Node::decode(block.bytes())?;
    let file = match FilePart::decode(&node.data, node.links.len()) {
        Err(NodeError::NotAFile { .. }) => return shards(block),
        other => other?,
    };
    let mut place = start.saturating_add(file.inline.len() as u64);
    let mut parts = Vec::new();
    for (link, size) in node.links.into_iter().zip(file.part_sizes) {
        let end = place.saturating_add(size);
        if place < to && end > from {
            parts.push((link.cid, place));
        }
        place = end;
    }
    Ok(parts)
}

/// What is needed to list a directory, below one of its blocks.
fn shards(block: &Block) -> Result<Vec<(AnyCid, u64)>, NodeError> {
    let Some(directory) = Directory::decode(block)? else {
        return Ok(Vec::new());
    };
    let shards = directory.shards()?;
    Ok(shards.into_iter().map(|cid| (cid, 0)).collect())
}

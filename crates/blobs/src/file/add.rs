use std::io::{self, Read};

use bytes::{Bytes, BytesMut};
use r3mes_types::Cid;

use crate::{
    BlobStore, Block, BlockError, MAX_BLOCK_BYTES, StoreError,
    dag_pb::{FilePart, Link, Node},
};

/// Length of a chunk in bytes (Kubo: `--chunker size-1048576`).
pub const CHUNK_BYTES: usize = 1 << 20;

/// Links in a full node (Kubo's default).
pub const LINKS_PER_NODE: usize = 174;

/// Bytes of blocks that are handed to the store at once, which bounds memory.
const BATCH_BYTES: usize = 32 << 20;

/// Cuts a file into blocks of [`CHUNK_BYTES`], stores them and returns the root's CID.
///
/// # Errors
/// When the reader or the store fails. Blocks stored by then are left to garbage collection.
pub fn add<S: BlobStore + ?Sized>(store: &S, reader: &mut dyn Read) -> Result<Cid, AddError> {
    add_in_chunks_of(store, reader, CHUNK_BYTES)
}

/// As [`add`], with chunks of another length. Each length gives another CID for the same file.
///
/// # Errors
/// As [`add`]; a `chunk_bytes` of zero or above [`MAX_BLOCK_BYTES`].
pub fn add_in_chunks_of<S: BlobStore + ?Sized>(
    store: &S,
    reader: &mut dyn Read,
    chunk_bytes: usize,
) -> Result<Cid, AddError> {
    if chunk_bytes == 0 || chunk_bytes > MAX_BLOCK_BYTES {
        return Err(AddError::ChunkLength { chunk_bytes });
    }
    let mut tree = Tree::new(store);
    loop {
        let chunk = read_chunk(reader, chunk_bytes)?;
        let last = chunk.len() < chunk_bytes;
        // An empty file is one empty block; no other file has an empty chunk.
        if !chunk.is_empty() || tree.is_empty() {
            tree.push_leaf(Block::raw(chunk)?)?;
        }
        if last {
            return tree.finish();
        }
    }
}

fn read_chunk(reader: &mut dyn Read, chunk_bytes: usize) -> Result<Bytes, AddError> {
    let mut chunk = BytesMut::zeroed(chunk_bytes);
    let mut filled = 0;
    while filled < chunk_bytes {
        match reader.read(&mut chunk[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(AddError::Read { source }),
        }
    }
    chunk.truncate(filled);
    Ok(chunk.freeze())
}

/// A subtree whose root is stored: the link to it and the content below it.
#[derive(Clone, Copy)]
struct Subtree {
    link: Link,
    size: u64,
}

/// A balanced tree that grows from the left. `levels[0]` holds leaves that have no parent yet,
/// `levels[1]` nodes over full groups of leaves that have none, and so on.
struct Tree<'s, S: ?Sized> {
    store: &'s S,
    levels: Vec<Vec<Subtree>>,
    batch: Vec<Block>,
    batch_bytes: usize,
}

impl<'s, S: BlobStore + ?Sized> Tree<'s, S> {
    fn new(store: &'s S) -> Self {
        Self {
            store,
            levels: Vec::new(),
            batch: Vec::new(),
            batch_bytes: 0,
        }
    }

    fn is_empty(&self) -> bool {
        self.levels.is_empty()
    }

    fn push_leaf(&mut self, leaf: Block) -> Result<(), AddError> {
        let size = leaf.bytes().len() as u64;
        let link = Link {
            cid: *leaf.cid(),
            total_bytes: size,
        };
        self.keep(leaf)?;
        self.push(0, Subtree { link, size })
    }

    /// Adds a subtree; a full level first becomes one node of the level above it.
    fn push(&mut self, level: usize, subtree: Subtree) -> Result<(), AddError> {
        if level == self.levels.len() {
            self.levels.push(Vec::new());
        }
        if self.levels[level].len() == LINKS_PER_NODE {
            let parent = self.join(level)?;
            self.push(level + 1, parent)?;
        }
        self.levels[level].push(subtree);
        Ok(())
    }

    /// Puts one node over all subtrees of a level.
    fn join(&mut self, level: usize) -> Result<Subtree, AddError> {
        let children = std::mem::take(&mut self.levels[level]);
        let part_sizes: Vec<u64> = children.iter().map(|child| child.size).collect();
        let size = part_sizes.iter().sum();
        let node = Node {
            links: children.iter().map(|child| child.link).collect(),
            data: FilePart {
                inline: Bytes::new(),
                size,
                part_sizes,
            }
            .encode(),
        };
        let block = Block::dag_pb(node.encode());
        let below: u64 = children.iter().map(|child| child.link.total_bytes).sum();
        let link = Link {
            cid: *block.cid(),
            total_bytes: below + block.bytes().len() as u64,
        };
        self.keep(block)?;
        Ok(Subtree { link, size })
    }

    fn finish(mut self) -> Result<Cid, AddError> {
        let mut level = 0;
        loop {
            let top = level + 1 == self.levels.len();
            if let ([root], true) = (self.levels[level].as_slice(), top) {
                let cid = root.link.cid;
                self.flush()?;
                return Ok(cid);
            }
            let parent = self.join(level)?;
            self.push(level + 1, parent)?;
            level += 1;
        }
    }

    fn keep(&mut self, block: Block) -> Result<(), AddError> {
        self.batch_bytes += block.bytes().len();
        self.batch.push(block);
        if self.batch_bytes >= BATCH_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), AddError> {
        self.store.insert(&self.batch)?;
        self.batch.clear();
        self.batch_bytes = 0;
        Ok(())
    }
}

/// Why a file could not be stored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AddError {
    /// The file could not be read.
    #[error("cannot read the file that is to be stored")]
    Read {
        /// What the reader said.
        #[source]
        source: io::Error,
    },
    /// The store refused.
    #[error("cannot store the file")]
    Store {
        /// What the store said.
        #[from]
        source: StoreError,
    },
    /// A chunk length that gives no valid blocks.
    #[error("chunks of {chunk_bytes} bytes are not possible: use 1 to {MAX_BLOCK_BYTES}")]
    ChunkLength {
        /// The length asked for.
        chunk_bytes: usize,
    },
    /// A chunk that is no valid block.
    #[error("cannot make a block of a chunk")]
    Block {
        /// What is wrong with it.
        #[from]
        source: BlockError,
    },
}

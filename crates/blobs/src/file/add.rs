use std::{
    io::{self, Read},
    sync::mpsc::{SyncSender, sync_channel},
    thread::{self, Scope, ScopedJoinHandle},
};

use bytes::Bytes;
use r3mes_types::Cid;

use crate::{
    BlobStore, Block, BlockError, MAX_BLOCK_BYTES, StoreError,
    buffers::{self, Buffers},
    dag_pb::{FilePart, Link, Node},
    parallel,
};

/// Length of a chunk in bytes (Kubo: `--chunker size-1048576`).
pub const CHUNK_BYTES: usize = 1 << 20;

/// Links in a full node (Kubo's default).
pub const LINKS_PER_NODE: usize = 174;

/// Bytes of chunks that are read, and then hashed by all processors, at once.
const READ_BYTES: usize = 8 << 20;

/// Bytes of blocks that are handed to the store at once. Three times as many are in memory: what the store
/// is writing, what waits for it, and what is being read and hashed meanwhile.
const BATCH_BYTES: usize = 16 << 20;

/// Bytes of chunks that are in memory at once.
const MEMORY_BYTES: usize = 3 * BATCH_BYTES + READ_BYTES;

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
    thread::scope(|scope| {
        let mut tree = Tree::new(store, scope);
        let buffers = Buffers::new(MEMORY_BYTES.div_ceil(chunk_bytes));
        loop {
            let (chunks, last) = read_chunks(reader, chunk_bytes, &buffers)?;
            let pairs: Vec<&[Bytes]> = chunks.chunks(2).collect();
            for leaves in parallel::map(&pairs, |pair| Block::raw_all(pair)) {
                for leaf in leaves? {
                    tree.push_leaf(leaf)?;
                }
            }
            if last {
                // An empty file is one empty block; no other file has an empty chunk.
                if tree.is_empty() {
                    tree.push_leaf(Block::raw(Bytes::new())?)?;
                }
                return tree.finish();
            }
        }
    })
}

/// Some more chunks, and whether they are the last.
fn read_chunks(
    reader: &mut dyn Read,
    chunk_bytes: usize,
    buffers: &Buffers,
) -> Result<(Vec<Bytes>, bool), AddError> {
    let mut chunks = Vec::new();
    while chunks.len() * chunk_bytes < READ_BYTES {
        let mut buffer = buffers.take(chunk_bytes);
        let read = buffers::fill(reader, buffer.as_mut());
        let read = read.map_err(|source| AddError::Read { source })?;
        let last = read < chunk_bytes;
        if last && read > 0 {
            // It may stay in a store that is memory.
            chunks.push(Bytes::copy_from_slice(&buffer.as_mut()[..read]));
        } else if read > 0 {
            chunks.push(buffer.into_bytes(read));
        }
        if last {
            return Ok((chunks, true));
        }
    }
    Ok((chunks, false))
}

/// A subtree whose root is stored: the link to it and the content below it.
#[derive(Clone)]
struct Subtree {
    link: Link,
    size: u64,
}

/// A balanced tree that grows from the left. `levels[0]` holds leaves that have no parent yet,
/// `levels[1]` nodes over full groups of leaves that have none, and so on.
struct Tree<'s, 'e, S: ?Sized> {
    store: &'s S,
    scope: &'s Scope<'s, 'e>,
    levels: Vec<Vec<Subtree>>,
    batch: Vec<Block>,
    batch_bytes: usize,
    /// Hands batches to the store, for a file of several.
    writer: Option<Writer<'s>>,
}

/// A thread that stores batches in order.
struct Writer<'s> {
    batches: SyncSender<Vec<Block>>,
    thread: ScopedJoinHandle<'s, Result<(), StoreError>>,
}

impl<'s, 'e, S: BlobStore + ?Sized> Tree<'s, 'e, S> {
    fn new(store: &'s S, scope: &'s Scope<'s, 'e>) -> Self {
        Self {
            store,
            scope,
            levels: Vec::new(),
            batch: Vec::new(),
            batch_bytes: 0,
            writer: None,
        }
    }

    fn is_empty(&self) -> bool {
        self.levels.is_empty()
    }

    fn push_leaf(&mut self, leaf: Block) -> Result<(), AddError> {
        let size = leaf.bytes().len() as u64;
        let link = Link {
            cid: leaf.cid().clone(),
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
            links: children.iter().map(|child| child.link.clone()).collect(),
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
            cid: block.cid().clone(),
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
                let cid = Cid::try_from(&root.link.cid);
                let cid = cid.expect("files are cut into blocks of the network's own kinds");
                self.end()?;
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
            self.hand_over()?;
        }
        Ok(())
    }

    /// Lets the batch be stored while reading goes on.
    fn hand_over(&mut self) -> Result<(), AddError> {
        self.batch_bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        let (store, scope) = (self.store, self.scope);
        let writer = self.writer.get_or_insert_with(|| {
            let (batches, received) = sync_channel::<Vec<Block>>(1);
            let store_all = move || received.iter().try_for_each(|batch| store.insert(&batch));
            let thread = scope.spawn(store_all);
            Writer { batches, thread }
        });
        match writer.batches.send(batch) {
            Ok(()) => Ok(()),
            // It has ended, so it has failed.
            Err(_) => self.wait(),
        }
    }

    /// Waits until all batches that were handed over are stored.
    fn wait(&mut self) -> Result<(), AddError> {
        let Some(Writer { batches, thread }) = self.writer.take() else {
            return Ok(());
        };
        drop(batches);
        match thread.join() {
            Ok(stored) => Ok(stored?),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    fn end(&mut self) -> Result<(), AddError> {
        self.wait()?;
        Ok(self.store.insert(&self.batch)?)
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

use std::io::{self, Read};

use bytes::{Buf, Bytes};

use crate::{
    AnyCid, BlobStore, Block, NodeError, StoreError,
    any_cid::{DAG_PB, RAW},
    dag_pb::{FilePart, Node},
    follow,
};

/// Most blocks that are read and checked at once, ahead of the one that is asked for.
const MAX_AHEAD: usize = 8;

/// Deepest tree that is read. A tree of 1 MiB chunks holds 5 TB at depth 3.
pub const MAX_DEPTH: usize = 16;

/// Reads a file block by block, in order, each checked against its CID. Who reads on and on has the next
/// few blocks read and checked by all processors meanwhile.
///
/// Sizes declared by nodes are checked against what is found, so a reader never yields more or
/// fewer bytes than [`size`](Self::size) says.
pub struct FileReader<'s, S: ?Sized> {
    store: &'s S,
    size: u64,
    position: u64,
    /// Parts still to come, the next one last.
    pending: Vec<Part>,
    /// Content of the current block not yet handed out through [`Read`].
    current: Bytes,
    /// How many blocks are read at once the next time.
    ahead: usize,
}

/// What is known of a part from the node above it.
struct Part {
    cid: AnyCid,
    size: u64,
    depth: usize,
    /// The part itself once it was read ahead, or why it could not be.
    opened: Option<Result<Opened, GetError>>,
}

/// A block of a file, opened.
struct Opened {
    content: Bytes,
    size: u64,
    parts: Vec<Part>,
}

impl<'s, S: BlobStore + ?Sized> FileReader<'s, S> {
    /// Reads the root, and with it the file's size.
    ///
    /// # Errors
    /// When the root is missing, damaged or not a file.
    pub fn open(store: &'s S, cid: impl Into<AnyCid>) -> Result<Self, GetError> {
        let Opened {
            content,
            size,
            mut parts,
        } = open_block(store, &cid.into(), 0)?;
        parts.reverse();
        Ok(Self {
            store,
            size,
            position: 0,
            pending: parts,
            current: content,
            ahead: 1,
        })
    }

    /// Length of the file in bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Where the next byte to be read stands in the file.
    #[must_use]
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// Moves forward to `offset` (at most the file's size) without reading what lies wholly
    /// before it.
    ///
    /// # Errors
    /// As [`next_chunk`](Self::next_chunk); [`GetError::Seek`] when `offset` lies behind the
    /// position or beyond the end.
    pub fn skip_to(&mut self, offset: u64) -> Result<(), GetError> {
        if offset < self.position || offset > self.size {
            return Err(GetError::Seek {
                offset,
                position: self.position,
                size: self.size,
            });
        }
        loop {
            let ahead = offset - self.position;
            let here = ahead.min(self.current.len() as u64);
            self.current.advance(here as usize);
            self.position += here;
            if self.position == offset {
                return Ok(());
            }
            let whole = |part: &Part| part.size <= offset - self.position;
            if let Some(part) = self.pending.pop_if(|part| whole(part)) {
                self.position += part.size;
            } else {
                self.load()?;
            }
        }
    }

    /// The next stretch of content (at most a block long), or `None` at the end.
    ///
    /// # Errors
    /// [`GetError::Missing`] when a block is not here, [`GetError::Store`] when it is damaged,
    /// [`GetError::Node`] when the tree is not what its nodes say.
    pub fn next_chunk(&mut self) -> Result<Option<Bytes>, GetError> {
        while self.current.is_empty() {
            if self.pending.is_empty() {
                return Ok(None);
            }
            self.load()?;
        }
        let chunk = std::mem::take(&mut self.current);
        self.position += chunk.len() as u64;
        Ok(Some(chunk))
    }

    /// All that is left.
    ///
    /// # Errors
    /// As [`next_chunk`](Self::next_chunk).
    pub fn read_rest(&mut self) -> Result<Vec<u8>, GetError> {
        let mut content = Vec::new();
        while let Some(chunk) = self.next_chunk()? {
            // Grown block by block: the size is a claim until the blocks have been seen.
            content.extend_from_slice(&chunk);
        }
        Ok(content)
    }

    /// Opens the next part: its content becomes current, its own parts come next.
    fn load(&mut self) -> Result<(), GetError> {
        if self
            .pending
            .last()
            .is_some_and(|part| part.opened.is_none())
        {
            self.read_ahead();
        }
        let Some(mut part) = self.pending.pop() else {
            return Ok(());
        };
        let opened = match part.opened.take() {
            Some(opened) => opened?,
            None => open_block(self.store, &part.cid, part.depth)?,
        };
        if opened.size != part.size {
            return Err(GetError::Node {
                cid: part.cid,
                source: NodeError::Sizes,
            });
        }
        self.current = opened.content;
        self.pending.extend(opened.parts.into_iter().rev());
        Ok(())
    }

    /// Opens some of the next parts at once: more each time, as long as they are leaves.
    fn read_ahead(&mut self) {
        let leaves = self.pending.iter().rev();
        let kept = |part: &&Part| part.cid.codec() == RAW && part.cid.inline().is_none();
        let leaves = leaves.take_while(kept);
        let count = leaves.take(self.ahead).count();
        if count > 1 {
            let next = self.pending.len() - count..;
            let parts = &mut self.pending[next];
            let cids: Vec<AnyCid> = parts.iter().map(|part| part.cid.clone()).collect();
            for (part, read) in parts.iter_mut().zip(self.store.blocks(&cids)) {
                part.opened = Some(open(&part.cid, part.depth, read));
            }
        }
        self.ahead = (2 * self.ahead).min(MAX_AHEAD);
    }
}

fn open_block<S: BlobStore + ?Sized>(
    store: &S,
    cid: &AnyCid,
    depth: usize,
) -> Result<Opened, GetError> {
    open(cid, depth, follow::find(store, cid))
}

/// What a block that was read, or not, is of a file.
fn open(
    cid: &AnyCid,
    depth: usize,
    read: Result<Option<Block>, StoreError>,
) -> Result<Opened, GetError> {
    let named = || cid.clone();
    let failed = |source| GetError::Store {
        cid: named(),
        source,
    };
    let block = read.map_err(failed)?;
    let block = block.ok_or_else(|| GetError::Missing { cid: named() })?;
    let invalid = |source| GetError::Node {
        cid: named(),
        source,
    };
    match cid.codec() {
        RAW => {
            return Ok(Opened {
                size: block.bytes().len() as u64,
                content: block.bytes().clone(),
                parts: Vec::new(),
            });
        }
        DAG_PB => {}
        code => return Err(invalid(NodeError::Codec { code })),
    }
    let node = Node::decode(block.bytes()).map_err(invalid)?;
    let part = FilePart::decode(&node.data, node.links.len()).map_err(invalid)?;
    if depth >= MAX_DEPTH {
        return Err(invalid(NodeError::TooDeep { limit: MAX_DEPTH }));
    }
    let parts = node.links.into_iter().zip(part.part_sizes);
    Ok(Opened {
        content: part.inline,
        size: part.size,
        parts: parts
            .map(|(link, size)| Part {
                cid: link.cid,
                size,
                depth: depth + 1,
                opened: None,
            })
            .collect(),
    })
}

impl<S: BlobStore + ?Sized> Read for FileReader<'_, S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() && !self.pending.is_empty() {
            self.load().map_err(io::Error::other)?;
        }
        let n = buffer.len().min(self.current.len());
        self.current.copy_to_slice(&mut buffer[..n]);
        self.position += n as u64;
        Ok(n)
    }
}

/// Why a file could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GetError {
    /// A block of the file is not in the store.
    #[error("block {cid} is not stored here: fetch the file again")]
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
    /// A block that is not part of a file, or not of this one.
    #[error("block {cid} is not a valid part of a file")]
    Node {
        /// The block.
        cid: AnyCid,
        /// What is wrong with it.
        #[source]
        source: NodeError,
    },
    /// A file longer than the caller accepts.
    #[error("{cid} is a file of {size} bytes, only {limit} are accepted here")]
    TooLarge {
        /// The file.
        cid: AnyCid,
        /// Its length.
        size: u64,
        /// Length accepted.
        limit: u64,
    },
    /// An offset that cannot be reached.
    #[error("cannot move to byte {offset} from byte {position} of a file of {size}")]
    Seek {
        /// Where to.
        offset: u64,
        /// Where from.
        position: u64,
        /// The file's length.
        size: u64,
    },
}

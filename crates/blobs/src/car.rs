//! CAR version 1: blocks in a row, to carry a blob in one stream.
//!
//! Specification: <https://ipld.io/specs/transport/car/carv1/>. The header is DAG-CBOR
//! `{roots: [CID], version: 1}`, of which we read and write the canonical form only; then come
//! sections of a length (varint), a CID and the block's bytes.
//!
//! ```
//! use r3mes_blobs::{BlobStore, MemoryStore, car};
//!
//! let (here, there) = (MemoryStore::new(), MemoryStore::new());
//! let cid = here.put(&[7; 3_000_000])?;
//! let mut stream = Vec::new();
//! car::write(&here, &cid, &mut stream)?;
//! assert_eq!(car::import(&there, &mut &stream[..], 1 << 30)?, [cid]);
//! assert_eq!(there.get(&cid, 1 << 30)?, [7; 3_000_000]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::io::{self, Read, Write};

use bytes::Bytes;

use crate::{
    AnyCid, AnyCidError, BlobStore, Block, BlockError, FollowError, MAX_BLOCK_BYTES, Scope,
    StoreError, Traversal,
};

/// Most roots that a header may name.
pub const MAX_ROOTS: usize = 16;

/// Longest header: a map of two keys and [`MAX_ROOTS`] CIDs with 5 bytes before each.
const MAX_HEADER_BYTES: u64 = 24 + (5 + AnyCid::MAX_BYTES as u64) * MAX_ROOTS as u64;

/// Longest section.
const MAX_SECTION_BYTES: u64 = (AnyCid::MAX_BYTES + MAX_BLOCK_BYTES) as u64;

/// Blocks stored together when a stream is imported.
const BATCH_BLOCKS: usize = 16;

/// The header for these roots (at most [`MAX_ROOTS`]), with its length before it.
#[must_use]
pub fn header(roots: &[AnyCid]) -> Vec<u8> {
    assert!(roots.len() <= MAX_ROOTS, "our own code names one root");
    // {"roots": [...
    let mut body = vec![0xa2, 0x65];
    body.extend(b"roots");
    // An array of up to 23 items has its length in the first byte.
    body.push(0x80 | roots.len() as u8);
    for root in roots {
        // Tag 42, then the CID as bytes after a zero (the multibase of binary). Up to 23 bytes have
        // their length in the first byte.
        let cid = root.to_bytes();
        body.extend([0xd8, 0x2a]);
        match cid.len() as u8 + 1 {
            few @ ..24 => body.push(0x40 | few),
            length => body.extend([0x58, length]),
        }
        body.push(0);
        body.extend(cid);
    }
    body.push(0x67);
    body.extend(b"version");
    body.push(1);
    let mut header = varint(body.len() as u64);
    header.extend(body);
    header
}

/// The start of a block's section: its length and CID. The block's bytes follow.
#[must_use]
pub fn section_head(block: &Block) -> Vec<u8> {
    let cid = block.cid().to_bytes();
    let mut head = varint((cid.len() + block.bytes().len()) as u64);
    head.extend(cid);
    head
}

/// Writes a blob: the root first, then depth first, each block once.
///
/// # Errors
/// [`CarError::Traverse`] when a block is not in `store` or cannot be read, [`CarError::Write`].
pub fn write<S: BlobStore + ?Sized>(
    store: &S,
    root: impl Into<AnyCid>,
    out: &mut dyn Write,
) -> Result<(), CarError> {
    let failed = |source| CarError::Write { source };
    let root = root.into();
    out.write_all(&header(std::slice::from_ref(&root)))
        .map_err(failed)?;
    let mut blocks = Traversal::new(root, Scope::All);
    while let Some(block) = blocks.next(store)? {
        out.write_all(&section_head(&block)).map_err(failed)?;
        out.write_all(block.bytes()).map_err(failed)?;
    }
    Ok(())
}

/// Reads a CAR of at most `max_bytes` into `store` and returns its roots. Every block is checked
/// against its CID; whether the roots are complete, [`missing`](crate::missing) tells. Blocks whose
/// content stands in their CID are read and not stored.
///
/// # Errors
/// When the stream is not a CAR, is cut short, is too long, or the store fails. Blocks before the
/// fault stay stored and are left to garbage collection.
pub fn import<S: BlobStore + ?Sized>(
    store: &S,
    reader: &mut dyn Read,
    max_bytes: u64,
) -> Result<Vec<AnyCid>, CarError> {
    let mut car = Reader::new(reader, max_bytes)?;
    let mut batch = Vec::new();
    while let Some(block) = car.next_block()? {
        if block.cid().inline().is_some() {
            continue;
        }
        batch.push(block);
        if batch.len() == BATCH_BLOCKS {
            store.insert(&batch)?;
            batch.clear();
        }
    }
    store.insert(&batch)?;
    Ok(car.roots)
}

/// Reads a CAR block by block.
pub struct Reader<'r> {
    reader: &'r mut dyn Read,
    roots: Vec<AnyCid>,
    left: u64,
    limit: u64,
}

impl<'r> Reader<'r> {
    /// Reads the header. The whole stream may have at most `max_bytes`.
    ///
    /// # Errors
    /// As [`import`], without those of a store.
    pub fn new(reader: &'r mut dyn Read, max_bytes: u64) -> Result<Self, CarError> {
        let mut car = Self {
            reader,
            roots: Vec::new(),
            left: max_bytes,
            limit: max_bytes,
        };
        let length = car.read_length(MAX_HEADER_BYTES)?.ok_or(CarError::Header)?;
        let header = car.read_exactly(length)?;
        car.roots = parse_header(&header)?;
        Ok(car)
    }

    /// The roots that the header names.
    #[must_use]
    pub fn roots(&self) -> &[AnyCid] {
        &self.roots
    }

    /// The next block, checked, or `None` at the end.
    ///
    /// # Errors
    /// As [`import`], without those of a store.
    pub fn next_block(&mut self) -> Result<Option<Block>, CarError> {
        let Some(length) = self.read_length(MAX_SECTION_BYTES)? else {
            return Ok(None);
        };
        let section = Bytes::from(self.read_exactly(length)?);
        let named = AnyCid::read(&section);
        let (cid, content) = named.map_err(|source| CarError::Cid { source })?;
        let bytes = section.slice_ref(content);
        let block = Block::verify(cid, bytes).map_err(|source| CarError::Block { source })?;
        Ok(Some(block))
    }

    /// A varint of at most `limit`; `None` at the end of the stream.
    fn read_length(&mut self, limit: u64) -> Result<Option<u64>, CarError> {
        let mut value = 0;
        // Both limits fit into 28 bits.
        for index in 0..4 {
            let mut byte = [0];
            let read = read_fully(self.reader, &mut byte)?;
            match (read, index) {
                (0, 0) => return Ok(None),
                (0, _) => return Err(CarError::Cut),
                _ => self.spend(1)?,
            }
            value |= u64::from(byte[0] & 0x7f) << (7 * index);
            if byte[0] & 0x80 == 0 {
                let canonical = index == 0 || byte[0] != 0;
                let valid = canonical && value > 0 && value <= limit;
                return valid
                    .then_some(Some(value))
                    .ok_or(CarError::Section { bytes: value });
            }
        }
        Err(CarError::Section { bytes: value })
    }

    fn read_exactly(&mut self, length: u64) -> Result<Vec<u8>, CarError> {
        self.spend(length)?;
        let mut bytes = vec![0; length as usize];
        if read_fully(self.reader, &mut bytes)? < bytes.len() {
            return Err(CarError::Cut);
        }
        Ok(bytes)
    }

    fn spend(&mut self, bytes: u64) -> Result<(), CarError> {
        let limit = self.limit;
        let left = self.left.checked_sub(bytes);
        self.left = left.ok_or(CarError::TooLong { limit })?;
        Ok(())
    }
}

fn parse_header(bytes: &[u8]) -> Result<Vec<AnyCid>, CarError> {
    let rest = bytes
        .strip_prefix(&[0xa2, 0x65])
        .and_then(|rest| rest.strip_prefix(b"roots"))
        .ok_or(CarError::Header)?;
    let (count, mut rest) = match rest {
        [few @ 0x80..=0x97, rest @ ..] => (usize::from(few & 0x1f), rest),
        _ => return Err(CarError::Header),
    };
    let mut roots = Vec::new();
    for _ in 0..count {
        let (length, after) = match rest {
            [0xd8, 0x2a, few @ 0x42..=0x57, 0, after @ ..] => (few & 0x1f, after),
            [0xd8, 0x2a, 0x58, length @ 24..=255, 0, after @ ..] => (*length, after),
            _ => return Err(CarError::Header),
        };
        let (cid, after) = after
            .split_at_checked(usize::from(length) - 1)
            .ok_or(CarError::Header)?;
        roots.push(AnyCid::from_bytes(cid).map_err(|source| CarError::Cid { source })?);
        rest = after;
    }
    let end = rest
        .strip_prefix(&[0x67])
        .and_then(|rest| rest.strip_prefix(b"version"));
    if end != Some(&[1]) || roots.len() > MAX_ROOTS {
        return Err(CarError::Header);
    }
    Ok(roots)
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

fn read_fully(reader: &mut dyn Read, buffer: &mut [u8]) -> Result<usize, CarError> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(CarError::Read { source }),
        }
    }
    Ok(filled)
}

/// Why a CAR could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CarError {
    /// The header is not that of a CAR version 1.
    #[error("not a CAR of version 1 with up to {MAX_ROOTS} roots")]
    Header,
    /// The stream ends within a header or section.
    #[error("the CAR is cut short: fetch it again")]
    Cut,
    /// A section of an impossible length.
    #[error("the CAR has a section of {bytes} bytes, which no block can have")]
    Section {
        /// Length given.
        bytes: u64,
    },
    /// More bytes than the caller accepts.
    #[error("the CAR is longer than the {limit} bytes accepted here")]
    TooLong {
        /// Bytes accepted.
        limit: u64,
    },
    /// A CID that cannot be read.
    #[error("the CAR has something else where a CID should be")]
    Cid {
        /// What is wrong with the CID.
        #[source]
        source: AnyCidError,
    },
    /// A block that does not match its CID.
    #[error("the CAR has a wrong block")]
    Block {
        /// What is wrong with it.
        #[source]
        source: BlockError,
    },
    /// A block of the blob that is to be written is missing or cannot be read.
    #[error("the blob cannot be written whole")]
    Traverse {
        /// What is wrong.
        #[from]
        source: FollowError,
    },
    /// The store failed.
    #[error("the blob store failed")]
    Store {
        /// What it said.
        #[from]
        source: StoreError,
    },
    /// The stream could not be read.
    #[error("cannot read the CAR")]
    Read {
        /// What the reader said.
        #[source]
        source: io::Error,
    },
    /// The stream could not be written.
    #[error("cannot write the CAR")]
    Write {
        /// What the writer said.
        #[source]
        source: io::Error,
    },
}

//! Content-addressed storage: files go in, a [`Cid`] comes out, and whoever holds the CID can
//! check every byte that somebody else hands over.
//!
//! Everything that nodes make and others must be able to check (packages, adapters, token
//! shards, states of training steps) is stored here, and the ledger keeps only the CID. A file
//! has the same CID as in Kubo with `ipfs add --cid-version 1 --chunker size-1048576
//! --raw-leaves`, so it can be fetched from, and served to, any IPFS node.
//!
//! ```
//! use r3mes_blobs::{BlobStore, MemoryStore};
//!
//! let store = MemoryStore::new();
//! let cid = store.put(b"hello world")?;
//! assert_eq!(
//!     cid.to_string(),
//!     "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"
//! );
//! assert_eq!(store.get(&cid, 1 << 20)?, b"hello world");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Blocks of other writers, with CIDs of other kinds ([`AnyCid`]), are kept, followed and sent as well.
//!
//! In reading order: a [`Block`] is bytes that match their CID; a [`BlobStore`] keeps blocks and
//! pins ([`MemoryStore`], [`DiskStore`]); [`file`](mod@file) cuts files into blocks and reads them back;
//! [`car`] carries blocks between machines. All calls are synchronous and may touch a disk:
//! asynchronous callers run them on a blocking thread.

mod any_cid;
mod block;
mod buffers;
mod dag_pb;
mod directory;
mod disk;
mod follow;
mod hash;
mod ipld;
mod memory;
mod parallel;
mod pin;
mod resolve;
mod store;
mod traverse;
mod walk;

pub mod car;
pub mod file;

pub use any_cid::{AnyCid, AnyCidError};
pub use block::{Block, BlockError, MAX_BLOCK_BYTES};
pub use dag_pb::NodeError;
pub use disk::{DiskOptions, DiskStore};
pub use file::{AddError, CHUNK_BYTES, FileReader, GetError};
pub use follow::{FollowError, find};
pub use memory::MemoryStore;
pub use pin::{Pin, PinName, PinNameError};
pub use r3mes_types::{Cid, CidError, Codec};
pub use resolve::{ResolveError, Resolved, resolve};
pub use store::{BlobStore, Collected, StoreError, Usage};
pub use traverse::{Scope, Traversal};
pub use walk::missing;

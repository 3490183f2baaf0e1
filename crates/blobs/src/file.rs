//! Files as trees of blocks (UnixFS), cut and joined as Kubo does.
//!
//! A file of up to one chunk is a single `raw` block. A longer one is cut into chunks of
//! [`CHUNK_BYTES`], and nodes of up to [`LINKS_PER_NODE`] links are laid over them, level by
//! level, until one is left: its root. No node holds content.

mod add;
mod read;

pub use add::{AddError, CHUNK_BYTES, LINKS_PER_NODE, add, add_in_chunks_of};
pub use read::{FileReader, GetError, MAX_DEPTH};

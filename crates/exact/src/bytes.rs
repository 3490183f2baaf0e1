//! Shared read-only bytes, aligned for the kernels, owned or mapped from a file.

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::sync::Arc;

/// Alignment, in bytes, of every [`Bytes`] at its start: one 512-bit register.
pub const ALIGNMENT: usize = 64;

/// Read-only bytes that are cheap to clone and to cut, and whose storage starts at a multiple of
/// [`ALIGNMENT`].
///
/// Packed weights live in a `Bytes`: a file that is mapped into memory is used where it lies,
/// shared by every process on the machine that maps it.
///
/// ```
/// use r3mes_exact::Bytes;
///
/// let bytes = Bytes::from_slice(&[1, 2, 3, 4]);
/// assert_eq!(&bytes.slice(1..3)[..], &[2, 3]);
/// ```
#[derive(Clone)]
pub struct Bytes {
    owner: Arc<Owner>,
    range: Range<usize>,
}

enum Owner {
    Owned { blocks: Vec<Block>, len: usize },
    Mapped(memmap2::Mmap),
}

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Block([u8; ALIGNMENT]);

impl Bytes {
    /// Copies `bytes` into aligned memory.
    pub fn from_slice(bytes: &[u8]) -> Self {
        let mut blocks = Vec::with_capacity(bytes.len().div_ceil(ALIGNMENT));
        for chunk in bytes.chunks(ALIGNMENT) {
            let mut block = Block([0; ALIGNMENT]);
            block.0[..chunk.len()].copy_from_slice(chunk);
            blocks.push(block);
        }
        let owner = Owner::Owned {
            blocks,
            len: bytes.len(),
        };
        Self {
            range: 0..bytes.len(),
            owner: Arc::new(owner),
        }
    }

    /// Maps the whole of `file` into memory, read-only.
    ///
    /// The file must not be changed or truncated while it is mapped: its contents would change
    /// under the reader, and reading past its new end ends the process. Packed models are written
    /// to a temporary name and renamed into place, so that none ever changes.
    ///
    /// # Errors
    /// The operating system's error when the file cannot be mapped.
    pub fn map(file: &File) -> io::Result<Self> {
        if file.metadata()?.len() == 0 {
            return Ok(Self::from_slice(&[]));
        }
        // SAFETY: the mapping is private to readers and never written through; that nobody else
        // changes the file meanwhile is the documented condition of this function.
        let map = unsafe { memmap2::Mmap::map(file)? };
        Ok(Self {
            range: 0..map.len(),
            owner: Arc::new(Owner::Mapped(map)),
        })
    }

    /// The bytes in `range`, sharing the storage.
    ///
    /// # Panics
    /// When `range` does not lie within these bytes.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Self {
        assert!(
            range.start <= range.end && range.end <= self.len(),
            "slice lies within the bytes"
        );
        let start = self.range.start + range.start;
        let end = self.range.start + range.end;
        Self {
            owner: Arc::clone(&self.owner),
            range: start..end,
        }
    }

    /// Whether the first byte lies at a multiple of [`ALIGNMENT`].
    pub fn is_aligned(&self) -> bool {
        self.as_ptr().addr().is_multiple_of(ALIGNMENT)
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let whole = match &*self.owner {
            Owner::Owned { blocks, len } => {
                // SAFETY: `Block` is 64 initialised bytes without padding, so `blocks` is
                // `64 * blocks.len()` readable bytes, of which `len` are no more than all.
                unsafe { std::slice::from_raw_parts(blocks.as_ptr().cast::<u8>(), *len) }
            }
            Owner::Mapped(map) => map,
        };
        &whole[self.range.clone()]
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bytes")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn owned_bytes_are_aligned_and_equal_to_their_source() {
        let source: Vec<u8> = (0..200).map(|i| i as u8).collect();
        let bytes = Bytes::from_slice(&source);
        assert!(bytes.is_aligned());
        assert_eq!(&bytes[..], &source[..]);
        assert_eq!(&bytes.slice(64..70).slice(1..3)[..], &[65, 66]);
        assert!(Bytes::from_slice(&[]).is_empty());
    }

    #[test]
    fn a_mapped_file_reads_as_its_contents() {
        let path = std::env::temp_dir().join(format!("r3mes-bytes-{}", std::process::id()));
        File::create(&path).unwrap().write_all(b"ternary").unwrap();
        let bytes = Bytes::map(&File::open(&path).unwrap()).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(bytes.is_aligned());
        assert_eq!(&bytes.slice(0..3)[..], b"ter");
    }
}

//! Memory that blocks are read into, used again and again: the system takes about as long to hand out
//! fresh memory as to copy a block into it.

use std::{
    io::{self, ErrorKind, Read},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;

/// Buffers of blocks that have gone, for those that come. Cloning shares them.
#[derive(Clone, Debug)]
pub(crate) struct Buffers {
    free: Arc<Free>,
}

#[derive(Debug)]
struct Free {
    buffers: Mutex<Vec<Vec<u8>>>,
    most: usize,
}

impl Buffers {
    /// None yet. At most `most` are kept for later.
    pub(crate) fn new(most: usize) -> Self {
        let buffers = Mutex::default();
        Self {
            free: Arc::new(Free { buffers, most }),
        }
    }

    /// A buffer of so many bytes, of any content.
    pub(crate) fn take(&self, length: usize) -> Buffer {
        let free = self.free.buffers.lock();
        let free = free.unwrap_or_else(PoisonError::into_inner).pop();
        let bytes = match free {
            Some(mut bytes) => {
                if bytes.len() < length {
                    bytes.resize(length, 0);
                }
                bytes
            }
            None => vec![0; length],
        };
        Buffer {
            bytes,
            length,
            home: self.free.clone(),
        }
    }
}

/// A buffer in use. It goes back when it is dropped, and with it the [`Bytes`] made of it.
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    length: usize,
    home: Arc<Free>,
}

impl Buffer {
    /// All of it, to be written.
    pub(crate) fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.length]
    }

    /// The first `length` bytes, which have been written.
    pub(crate) fn into_bytes(mut self, length: usize) -> Bytes {
        self.length = length.min(self.length);
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        let free = self.home.buffers.lock();
        let mut free = free.unwrap_or_else(PoisonError::into_inner);
        if free.len() < self.home.most {
            free.push(bytes);
        }
    }
}

/// Reads until `buffer` is full or there is no more, and gives the number of bytes read.
pub(crate) fn fill<R: Read + ?Sized>(reader: &mut R, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

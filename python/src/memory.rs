//! Memory of Python objects lent to Rust, and of Rust lent to Python, without copies.

#![expect(
    unsafe_code,
    reason = "a loan of memory is a pointer, and what it promises is written at each"
)]

use std::{
    ffi::{c_int, c_void},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use bytes::{Bytes, BytesMut};
use pyo3::{buffer::PyUntypedBuffer, exceptions::PyBufferError, ffi, prelude::*};

/// How often, and how many bytes of buffers were copied.
static COPIES: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];

/// Counts a copy of the memory of a buffer.
pub(crate) fn count_copy(bytes: usize) {
    COPIES[0].fetch_add(1, Ordering::Relaxed);
    COPIES[1].fetch_add(bytes as u64, Ordering::Relaxed);
}

/// Copies of buffers so far in this process: how many, and their bytes.
pub(crate) fn copied() -> (u64, u64) {
    (
        COPIES[0].load(Ordering::Relaxed),
        COPIES[1].load(Ordering::Relaxed),
    )
}

/// The memory of a Python object, which it keeps until this is dropped.
struct Lent(PyUntypedBuffer);

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        let bytes = self.0.len_bytes();
        if bytes == 0 {
            return &[];
        }
        // SAFETY: the buffer is contiguous (`lend` checked it), so `len_bytes` bytes lie at `buf_ptr`, and
        // Python keeps them there until the buffer is released, which dropping it does. Whoever writes to
        // them meanwhile changes what is sent, which the package's documentation says.
        unsafe { std::slice::from_raw_parts(self.0.buf_ptr().cast::<u8>(), bytes) }
    }
}

/// The memory of an object that offers a contiguous buffer.
pub(crate) fn lend(object: &Bound<'_, PyAny>) -> PyResult<Bytes> {
    let buffer = PyUntypedBuffer::get(object)?;
    if !buffer.is_c_contiguous() {
        let words = "only contiguous memory can be sent: make a copy of it first";
        return Err(PyBufferError::new_err(words));
    }
    Ok(Bytes::from_owner(Lent(buffer)))
}

/// An item as it came, whose memory Python reads and writes in place.
#[pyclass(frozen)]
pub(crate) struct Memory {
    start: *mut u8,
    bytes: BytesMut,
    /// Whether it had to be copied, and that was not counted yet.
    copied: AtomicBool,
}

// SAFETY: `start` points into `bytes`, which moves between threads as any vector does. Python code that
// shares it among threads must agree on who writes, as with any array.
unsafe impl Send for Memory {}
// SAFETY: as above; Rust itself reads it only while a value is made of it, and writes never.
unsafe impl Sync for Memory {}

impl Memory {
    /// Takes an item over; copies it when somebody else holds it too.
    pub(crate) fn new(bytes: Bytes) -> Self {
        let (mut bytes, copied) = match bytes.try_into_mut() {
            Ok(own) => (own, false),
            Err(shared) => (BytesMut::from(&shared[..]), true),
        };
        Self {
            start: bytes.as_mut_ptr(),
            bytes,
            copied: AtomicBool::new(copied),
        }
    }

    /// The item, for reading it before anybody else can write to it.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Counts that it was copied, now that a buffer in it is used.
    pub(crate) fn count_copy_once(&self) {
        if self.copied.swap(false, Ordering::Relaxed) {
            count_copy(self.bytes.len());
        }
    }
}

#[pymethods]
impl Memory {
    /// Lends all of it.
    ///
    /// # Safety
    /// `view` is what Python's buffer protocol says.
    unsafe fn __getbuffer__(
        slf: Bound<'_, Self>,
        view: *mut ffi::Py_buffer,
        flags: c_int,
    ) -> PyResult<()> {
        let memory = slf.get();
        let (start, bytes) = (memory.start, memory.bytes.len());
        // SAFETY: the caller gives a valid `view`; the memory stays where it is while `slf`, of which
        // Python takes a reference here, lives.
        let refused = unsafe {
            ffi::PyBuffer_FillInfo(
                view,
                slf.as_ptr(),
                start.cast::<c_void>(),
                bytes as ffi::Py_ssize_t,
                0,
                flags,
            )
        };
        match refused {
            0 => Ok(()),
            _ => Err(PyErr::fetch(slf.py())),
        }
    }
}

//! Memory of the processor, aligned to cache lines.

use std::ops::{Deref, DerefMut};

use crate::Element;

/// Bytes in a cache line, and in a 512-bit register.
const LINE: usize = 64;

/// A buffer of elements that starts at a cache line.
#[derive(Clone)]
pub struct CpuBuffer<T> {
    lines: Vec<Line>,
    len: usize,
    element: std::marker::PhantomData<T>,
}

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u64; LINE / 8]);

impl<T: Element> CpuBuffer<T> {
    /// A buffer of `len` zeros.
    pub fn zeros(len: usize) -> Self {
        let bytes = len * size_of::<T>();
        Self {
            lines: vec![Line([0; LINE / 8]); bytes.div_ceil(LINE)],
            len,
            element: std::marker::PhantomData,
        }
    }
}

impl<T: Element> CpuBuffer<T> {
    /// The same memory for `len` elements of another type, with any contents.
    pub(super) fn reuse<U: Element>(self, len: usize) -> CpuBuffer<U> {
        let mut lines = self.lines;
        let needed = (len * size_of::<U>()).div_ceil(LINE);
        if lines.len() < needed {
            // Not `resize`: the old contents need no copy into new memory.
            lines = vec![Line([0; LINE / 8]); needed];
        }
        CpuBuffer {
            lines,
            len,
            element: std::marker::PhantomData,
        }
    }

    /// Bytes of memory held.
    pub(super) fn capacity_bytes(&self) -> usize {
        self.lines.len() * LINE
    }
}

impl<T> Default for CpuBuffer<T> {
    fn default() -> Self {
        Self {
            lines: Vec::new(),
            len: 0,
            element: std::marker::PhantomData,
        }
    }
}

impl<T: Element> From<&[T]> for CpuBuffer<T> {
    fn from(values: &[T]) -> Self {
        let mut buffer = Self::zeros(values.len());
        buffer.copy_from_slice(values);
        buffer
    }
}

impl<T: Element> Deref for CpuBuffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the lines hold at least `len` elements; they are initialized, aligned for every
        // element, and any bits make an element: `Element` is implemented by numbers only.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl<T: Element> DerefMut for CpuBuffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}

impl<T: Element> std::fmt::Debug for CpuBuffer<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

//! Memory for the length of one operation, kept by the thread that used it.
//!
//! Allocating and clearing a few megabytes for each operation costs more than many operations.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

use super::CpuBuffer;
use crate::Element;

/// Most buffers that a thread keeps.
const KEPT: usize = 16;
/// Most bytes in a buffer that a thread keeps.
const KEPT_BYTES: usize = 64 << 20;

thread_local! {
    static FREE: RefCell<Vec<CpuBuffer<u64>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer whose first contents are left over from other operations: write before you read.
pub(crate) struct Scratch<T: Element> {
    buffer: CpuBuffer<T>,
}

impl<T: Element> Scratch<T> {
    /// A buffer of `len` elements with any contents.
    pub(crate) fn new(len: usize) -> Self {
        // The last buffer returned is the likeliest to be in the cache; any is grown as needed.
        let free = FREE.with_borrow_mut(Vec::pop).unwrap_or_default();
        Self {
            buffer: free.reuse(len),
        }
    }
}

impl<T: Element> Drop for Scratch<T> {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer).reuse(0);
        // A thread that is ending has no place to keep it.
        let _ = FREE.try_with(|free| {
            if let Ok(mut free) = free.try_borrow_mut()
                && free.len() < KEPT
                && buffer.capacity_bytes() <= KEPT_BYTES
            {
                free.push(buffer);
            }
        });
    }
}

impl<T: Element> Deref for Scratch<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.buffer
    }
}

impl<T: Element> DerefMut for Scratch<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.buffer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_again_for_another_type_and_length() {
        let first = Scratch::<f32>::new(1000);
        let place = first.as_ptr().addr();
        drop(first);
        let mut second = Scratch::<i16>::new(500);
        assert_eq!(second.as_ptr().addr(), place);
        assert_eq!(second.len(), 500);
        second.fill(-1);
        let third = Scratch::<i8>::new(7);
        assert_ne!(third.as_ptr().addr(), place);
    }
}

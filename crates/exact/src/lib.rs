//! Deterministic kernels: the arithmetic that every machine recomputes bit for bit.

mod bytes;

pub use bytes::{ALIGNMENT, Bytes};

//! Deterministic kernels: the arithmetic that every machine recomputes bit for bit.

mod bytes;
pub mod int8;
mod integer;
mod isa;
pub mod panels;
mod rows;
pub mod ternary;
pub mod tile;
mod write;

pub use bytes::{ALIGNMENT, Bytes};
pub use isa::{Isa, IsaError};
pub use rows::{Codes, ROW_PADDING, WideCodes, row_stride};
pub use tile::Tile;
pub use write::Write;

//! How attention finds its operands in memory, shared by the scalar definition and the vector
//! kernels.

use crate::{AttentionShape, Write};

/// Positions in a block: sums over positions chain inside absolute blocks of this size (rule 10).
pub const BLOCK: usize = 64;

/// Keys and values of one key-value head in blocks of 64 positions: in each block first the keys,
/// transposed (head_dim x 64), then the values (64 x head_dim).
#[derive(Debug, Clone, Copy)]
pub(crate) struct KvHead<'a> {
    pub(crate) data: &'a [f32],
    /// Elements from one block to the next.
    pub(crate) stride: usize,
    pub(crate) head_dim: usize,
}

/// Elements that one head occupies in a block.
pub(crate) fn head_block(head_dim: usize) -> usize {
    2 * BLOCK * head_dim
}

impl<'a> KvHead<'a> {
    /// Transposed keys of a block: element (d, j) at `d * 64 + j`.
    pub(crate) fn keys(&self, block: usize) -> &'a [f32] {
        let start = block * self.stride;
        &self.data[start..start + BLOCK * self.head_dim]
    }

    /// Values of a block: element (j, d) at `j * head_dim + d`.
    pub(crate) fn values(&self, block: usize) -> &'a [f32] {
        let start = block * self.stride + BLOCK * self.head_dim;
        &self.data[start..start + BLOCK * self.head_dim]
    }

    pub(crate) fn key(&self, position: usize, d: usize) -> f32 {
        self.keys(position / BLOCK)[d * BLOCK + position % BLOCK]
    }

    pub(crate) fn value(&self, position: usize, d: usize) -> f32 {
        self.values(position / BLOCK)[(position % BLOCK) * self.head_dim + d]
    }
}

/// Writes one position's key and value of one head into its block.
pub(crate) fn store_position(block: &mut [f32], position: usize, key: &[f32], value: &[f32]) {
    let head_dim = key.len();
    let j = position % BLOCK;
    for (d, key) in key.iter().enumerate() {
        block[d * BLOCK + j] = *key;
    }
    let start = BLOCK * head_dim + j * head_dim;
    block[start..start + head_dim].copy_from_slice(value);
}

/// A matrix of which one head's columns are read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeadRows<'a> {
    pub(crate) data: &'a [f32],
    /// Elements from one row to the next.
    pub(crate) stride: usize,
    /// First column of the head.
    pub(crate) column: usize,
    pub(crate) head_dim: usize,
}

impl<'a> HeadRows<'a> {
    /// Head `head` in rows from `first` on of a matrix of rows of `width`.
    pub(crate) fn new(
        matrix: &'a [f32],
        first: usize,
        width: usize,
        head: usize,
        head_dim: usize,
    ) -> Self {
        Self {
            data: &matrix[first * width..],
            stride: width,
            column: head * head_dim,
            head_dim,
        }
    }

    pub(crate) fn row(&self, row: usize) -> &'a [f32] {
        &self.from(row)[..self.head_dim]
    }

    /// From the head's first element in `row` on.
    pub(crate) fn from(&self, row: usize) -> &'a [f32] {
        &self.data[row * self.stride + self.column..]
    }
}

/// What the forward pass of consecutive rows in one query head reads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AttendPass<'a> {
    pub(crate) q: HeadRows<'a>,
    pub(crate) kv: KvHead<'a>,
    /// Position of the first row, which sees itself and all before it.
    pub(crate) start: usize,
    /// The factor on scores.
    pub(crate) scale: f32,
}

/// What the backward pass of one query head in one sequence reads.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeadPass<'a> {
    pub(crate) q: HeadRows<'a>,
    pub(crate) k: HeadRows<'a>,
    pub(crate) v: HeadRows<'a>,
    pub(crate) out: HeadRows<'a>,
    pub(crate) dout: HeadRows<'a>,
    /// Positions in the sequence.
    pub(crate) rows: usize,
    /// What becomes of the gradients of keys and values: the first of the query heads that share
    /// them replaces, the others add.
    pub(crate) write: Write,
    /// The factor on scores.
    pub(crate) scale: f32,
}

impl AttentionShape {
    pub(crate) fn check(&self) {
        assert!(
            self.kv_heads > 0 && self.heads.is_multiple_of(self.kv_heads) && self.head_dim > 0,
            "key-value heads must divide query heads"
        );
    }
}

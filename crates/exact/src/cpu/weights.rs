//! What the processor keeps in memory beside plain buffers.

use std::fmt;
use std::sync::OnceLock;

use super::CpuBuffer;
use crate::attention::{BLOCK, KvHead, head_block, store_position};
use crate::{
    AttentionShape, Bytes, Codes, RopePairs, RopeShape, int8, rope_tables, row_stride, ternary,
};

/// A packed ternary matrix, used where its bytes lie.
pub struct CpuTernary {
    pub(super) panels: Bytes,
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) scale: f32,
    /// Made at the first backward pass.
    transposed: OnceLock<Bytes>,
}

impl CpuTernary {
    pub(super) fn new(panels: Bytes, rows: usize, cols: usize, scale: f32) -> Self {
        Self {
            panels,
            rows,
            cols,
            scale,
            transposed: OnceLock::new(),
        }
    }

    pub(super) fn panels(&self) -> ternary::Panels<'_> {
        ternary::Panels::trusted(&self.panels, self.rows, self.cols)
    }

    pub(super) fn transposed(&self) -> ternary::Panels<'_> {
        let make = || Bytes::from_slice(&ternary::transpose(self.panels()));
        ternary::Panels::trusted(self.transposed.get_or_init(make), self.cols, self.rows)
    }
}

/// A packed int8 matrix with a scale for each row.
pub struct CpuInt8 {
    pub(super) panels: Bytes,
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) row_scales: CpuBuffer<f32>,
    transposed: OnceLock<Bytes>,
}

impl CpuInt8 {
    pub(super) fn new(panels: Bytes, rows: usize, cols: usize, row_scales: &[f32]) -> Self {
        Self {
            panels,
            rows,
            cols,
            row_scales: row_scales.into(),
            transposed: OnceLock::new(),
        }
    }

    pub(super) fn panels(&self) -> int8::Panels<'_> {
        int8::Panels::trusted(&self.panels, self.rows, self.cols)
    }

    pub(super) fn transposed(&self) -> int8::Panels<'_> {
        let make = || Bytes::from_slice(&int8::transpose(self.panels()));
        int8::Panels::trusted(self.transposed.get_or_init(make), self.cols, self.rows)
    }
}

/// Quantized rows.
#[derive(Clone)]
pub struct CpuCodes {
    pub(super) codes: CpuBuffer<i8>,
    pub(super) sums: CpuBuffer<i32>,
    pub(super) scales: CpuBuffer<f32>,
    pub(super) cols: usize,
    /// Rows quantized last.
    pub(super) rows: usize,
}

impl CpuCodes {
    pub(super) fn new(rows: usize, cols: usize) -> Self {
        Self {
            codes: CpuBuffer::zeros(rows * row_stride(cols)),
            sums: CpuBuffer::zeros(rows),
            scales: CpuBuffer::zeros(rows),
            cols,
            rows: 0,
        }
    }

    pub(super) fn stride(&self) -> usize {
        row_stride(self.cols)
    }

    pub(super) fn row(&self, row: usize) -> &[i8] {
        &self.codes[row * self.stride()..][..self.cols]
    }

    /// Rows `start..end` as the kernels read them.
    pub(super) fn view(&self, rows: std::ops::Range<usize>) -> Codes<'_> {
        let stride = self.stride();
        Codes {
            codes: &self.codes[rows.start * stride..rows.end * stride],
            stride,
            sums: &self.sums[rows.clone()],
            scales: &self.scales[rows.clone()],
            rows: rows.len(),
        }
    }
}

/// Cosines and sines of every position, in the order in which kernels read them.
#[derive(Clone)]
pub struct CpuRope {
    pub(super) pairs: RopePairs,
    pub(super) head_dim: usize,
    /// Values for one position.
    width: usize,
    cos: CpuBuffer<f32>,
    sin: CpuBuffer<f32>,
}

impl CpuRope {
    pub(super) fn new(shape: &RopeShape) -> Self {
        let (mut cos, mut sin) = rope_tables(shape);
        let width = match shape.pairs {
            RopePairs::HalfSplit => shape.head_dim / 2,
            RopePairs::Interleaved => {
                cos = cos.iter().flat_map(|c| [*c, *c]).collect();
                sin = sin.iter().flat_map(|s| [-s, *s]).collect();
                shape.head_dim
            }
        };
        Self {
            pairs: shape.pairs,
            head_dim: shape.head_dim,
            width,
            cos: cos.as_slice().into(),
            sin: sin.as_slice().into(),
        }
    }

    pub(super) fn at(&self, position: u32) -> (&[f32], &[f32]) {
        let start = position as usize * self.width;
        let range = start..start + self.width;
        (&self.cos[range.clone()], &self.sin[range])
    }
}

/// Keys and values of one sequence in one layer, growing by blocks of 64 positions.
#[derive(Clone)]
pub struct CpuKvCache {
    shape: AttentionShape,
    blocks: Vec<f32>,
    len: usize,
}

impl CpuKvCache {
    pub(super) fn new(shape: AttentionShape) -> Self {
        shape.check();
        Self {
            shape,
            blocks: Vec::new(),
            len: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
        self.blocks
            .truncate(self.len.div_ceil(BLOCK) * self.stride());
    }

    /// Appends rows of keys and of values.
    pub(super) fn append(&mut self, keys: &[f32], values: &[f32]) {
        let width = self.shape.kv_width();
        let stride = self.stride();
        for (keys, values) in keys.chunks_exact(width).zip(values.chunks_exact(width)) {
            let block = self.len / BLOCK;
            if self.blocks.len() == block * stride {
                self.blocks.resize((block + 1) * stride, 0.0);
            }
            let heads =
                self.blocks[block * stride..].chunks_exact_mut(head_block(self.shape.head_dim));
            let keys = keys.chunks_exact(self.shape.head_dim);
            let values = values.chunks_exact(self.shape.head_dim);
            for ((head, key), value) in heads.zip(keys).zip(values) {
                store_position(head, self.len, key, value);
            }
            self.len += 1;
        }
    }

    pub(super) fn head(&self, head: usize) -> KvHead<'_> {
        KvHead {
            data: self
                .blocks
                .get(head * head_block(self.shape.head_dim)..)
                .unwrap_or(&[]),
            stride: self.stride(),
            head_dim: self.shape.head_dim,
        }
    }

    fn stride(&self) -> usize {
        self.shape.kv_heads * head_block(self.shape.head_dim)
    }
}

macro_rules! debug_shape {
    ($($type:ident: $($field:ident),*;)*) => {$(
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($type))$(.field(stringify!($field), &self.$field))*.finish()
            }
        }
    )*};
}

debug_shape! {
    CpuTernary: rows, cols, scale;
    CpuInt8: rows, cols;
    CpuCodes: rows, cols;
    CpuRope: pairs, head_dim;
    CpuKvCache: shape, len;
}

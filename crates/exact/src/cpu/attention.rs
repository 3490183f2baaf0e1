//! Attention on the processor: heads and sequences over threads.

use super::scratch::Scratch;
use super::{Cpu, CpuKvCache};
use crate::attention::{AttendPass, BLOCK, HeadPass, HeadRows, KvHead, head_block};
use crate::tile::Tile;
use crate::{AttentionBackward, AttentionShape, Write, kernels};

impl Cpu {
    pub(super) fn attend_sequences(
        &self,
        shape: &AttentionShape,
        qkv: [&[f32]; 3],
        sequences: &[usize],
        out: &mut [f32],
    ) {
        shape.check();
        let [q, k, v] = qkv;
        let d = shape.head_dim;
        self.pool.each(
            self.by_head(shape, sequences, out),
            |(first, kv_head, out)| {
                let rows = out.rows();
                let keys = HeadRows::new(k, first, shape.kv_width(), kv_head, d);
                let values = HeadRows::new(v, first, shape.kv_width(), kv_head, d);
                let mut blocks = Scratch::<f32>::new(rows.div_ceil(BLOCK) * head_block(d));
                let in_blocks = blocks.chunks_exact_mut(head_block(d));
                for (first, block) in (0..rows).step_by(BLOCK).zip(in_blocks) {
                    let n = BLOCK.min(rows - first);
                    kernels::transpose(self.isa, keys, first, n, block);
                    let of_values = block[BLOCK * d..].chunks_exact_mut(d);
                    for (row, value) in (first..first + n).zip(of_values) {
                        value.copy_from_slice(values.row(row));
                    }
                }
                let kv = KvHead {
                    data: &blocks,
                    stride: head_block(d),
                    head_dim: d,
                };
                self.attend_group(shape, (q, first), kv_head, (kv, 0), out);
            },
        );
    }

    pub(super) fn attend_caches(
        &self,
        shape: &AttentionShape,
        qkv: [&[f32]; 3],
        segments: &[usize],
        caches: &mut [&mut CpuKvCache],
        out: &mut [f32],
    ) {
        shape.check();
        assert_eq!(segments.len(), caches.len(), "one cache for each segment");
        let [q, k, v] = qkv;
        let width = shape.kv_width();
        let mut first = 0;
        for (rows, cache) in segments.iter().zip(&mut *caches) {
            let part = first * width..(first + rows) * width;
            cache.append(&k[part.clone()], &v[part]);
            first += rows;
        }
        let firsts: Vec<usize> = segments
            .iter()
            .scan(0, |first, rows| {
                let start = *first;
                *first += rows;
                Some(start)
            })
            .collect();
        let caches: Vec<&CpuKvCache> = caches.iter().map(|cache| &**cache).collect();
        self.pool.each(
            self.by_head(shape, segments, out),
            |(first, kv_head, out)| {
                // Empty segments have no items, so the last segment that starts here has the rows.
                let i = firsts.partition_point(|start| *start <= first) - 1;
                let start = caches[i].len() - out.rows();
                let kv = caches[i].head(kv_head);
                self.attend_group(shape, (q, first), kv_head, (kv, start), out);
            },
        );
    }

    pub(super) fn attend_gradients(
        &self,
        shape: &AttentionShape,
        pass: AttentionBackward<'_, Self>,
        sequences: &[usize],
    ) {
        shape.check();
        let AttentionBackward {
            qkv: [q, k, v],
            out,
            dout,
            dqkv: [dq, dk, dv],
        } = pass;
        let d = shape.head_dim;
        let dk = one_head_tiles(dk, sequences, shape.kv_width(), d);
        let dv = one_head_tiles(dv, sequences, shape.kv_width(), d);
        let items = self.by_head(shape, sequences, dq).zip(dk).zip(dv);
        self.pool
            .each(items, |(((first, kv_head, dq), mut dk), mut dv)| {
                let group = shape.group();
                for (i, (_, dq)) in dq.col_chunks(d).enumerate() {
                    let head = kv_head * group + i;
                    let of_query = |m| HeadRows::new(m, first, shape.q_width(), head, d);
                    let of_key = |m| HeadRows::new(m, first, shape.kv_width(), kv_head, d);
                    let pass = HeadPass {
                        q: of_query(q),
                        k: of_key(k),
                        v: of_key(v),
                        out: of_query(out),
                        dout: of_query(dout),
                        rows: dq.rows(),
                        write: if i == 0 { Write::Replace } else { Write::Add },
                        scale: shape.scale(),
                    };
                    kernels::attend_backward(self.isa, &pass, dq, dk.reborrow(), dv.reborrow());
                }
            });
    }

    /// Attends with all rows of one sequence, in all heads that share a key-value head: the rows
    /// of `q` from `first` on, which have the positions from `start` on.
    fn attend_group(
        &self,
        shape: &AttentionShape,
        (q, first): (&[f32], usize),
        kv_head: usize,
        (kv, start): (KvHead<'_>, usize),
        out: Tile<'_, f32>,
    ) {
        let d = shape.head_dim;
        for (i, (_, out)) in out.col_chunks(d).enumerate() {
            let head = kv_head * shape.group() + i;
            let pass = AttendPass {
                q: HeadRows::new(q, first, shape.q_width(), head, d),
                kv,
                start,
                scale: shape.scale(),
            };
            kernels::attend(self.isa, &pass, out);
        }
    }

    /// The output cut by sequence and key-value head: (first row, head, tile of the group).
    fn by_head<'a>(
        &self,
        shape: &AttentionShape,
        sequences: &'a [usize],
        out: &'a mut [f32],
    ) -> impl Iterator<Item = (usize, usize, Tile<'a, f32>)> {
        let width = shape.group() * shape.head_dim;
        let mut first = 0;
        sequence_tiles(out, sequences, shape.q_width()).flat_map(move |tile| {
            let start = first;
            first += tile.rows();
            tile.col_chunks(width)
                .enumerate()
                .map(move |(kv_head, (_, tile))| (start, kv_head, tile))
        })
    }
}

/// One tile for each sequence that has rows.
fn sequence_tiles<'a>(
    matrix: &'a mut [f32],
    sequences: &'a [usize],
    width: usize,
) -> impl Iterator<Item = Tile<'a, f32>> {
    let rows = sequences.iter().sum::<usize>();
    let mut rest = Some(Tile::new(matrix, rows, width));
    sequences
        .iter()
        .filter(|len| **len > 0)
        .filter_map(move |len| {
            let (tile, others) = rest.take()?.split_rows(*len);
            rest = Some(others);
            Some(tile)
        })
}

/// One tile for each sequence that has rows and each key-value head, in the order of `by_head`.
fn one_head_tiles<'a>(
    matrix: &'a mut [f32],
    sequences: &'a [usize],
    width: usize,
    head_dim: usize,
) -> impl Iterator<Item = Tile<'a, f32>> {
    sequence_tiles(matrix, sequences, width)
        .flat_map(move |tile| tile.col_chunks(head_dim).map(|(_, tile)| tile))
}

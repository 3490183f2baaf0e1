//! Rows of codes in the order in which tiles read them.

use std::ops::Range;

use super::{COLUMNS, for_columns};
use crate::cpu::scratch::Scratch;
use crate::integer::{Even, even};
use crate::panels::LANES;

/// A code of which several fill a 32-bit lane.
pub(crate) trait Code: Copy {
    /// Codes in a lane.
    const IN_LANE: usize;
}

impl Code for i8 {
    const IN_LANE: usize = 4;
}

impl Code for i16 {
    const IN_LANE: usize = 2;
}

/// Codes by blocks of columns, in a block by tiles of rows, in a tile by steps: what the rows of a
/// tile have for one step lies side by side, and a pass over a block reads forwards only.
///
/// Rows that lie apart would be so many places to read from, which displace each other from the
/// cache where their distance is a multiple of a power of two, and which no processor fetches ahead.
pub(crate) struct Interleaved {
    lanes: Scratch<i32>,
    rows: usize,
    /// Lanes of a row in sixteen columns.
    in_block: usize,
}

impl Interleaved {
    /// The rows at the start of `codes`, which are `stride` codes apart; blocks count sixteen columns.
    #[target_feature(enable = "avx2")]
    pub(crate) fn new<T: Code>(codes: &[T], stride: usize, rows: usize, blocks: Even) -> Self {
        let in_block = LANES / T::IN_LANE;
        let columns = blocks.map(|block| block.len()).sum::<usize>() * LANES;
        assert!(
            columns <= stride && codes.len() >= rows.saturating_sub(1) * stride + columns,
            "codes shorter than their shape"
        );
        let mut all = Self {
            lanes: Scratch::new(rows * columns / T::IN_LANE),
            rows,
            in_block,
        };
        for block in blocks {
            for part in all.tiles() {
                let from = codes[part.start * stride + block.start * LANES..].as_ptr();
                let place = all.place(&block, &part);
                let out = &mut all.lanes[place];
                // SAFETY: the tile's rows have the columns of all blocks, as asserted.
                unsafe { for_columns!(part.len(), interleave::<T>(from, stride, out)) };
            }
        }
        all
    }

    /// The tiles of rows.
    pub(crate) fn tiles(&self) -> Even {
        even(self.rows, COLUMNS)
    }

    /// What a tile has in a block.
    pub(crate) fn part(&self, block: &Range<usize>, tile: &Range<usize>) -> &[i32] {
        &self.lanes[self.place(block, tile)]
    }

    fn place(&self, block: &Range<usize>, tile: &Range<usize>) -> Range<usize> {
        let start = (self.rows * block.start + tile.start * block.len()) * self.in_block;
        start..start + tile.len() * block.len() * self.in_block
    }
}

/// Fills `out` with the lanes of `C` rows in turn.
///
/// # Safety
/// Each of the rows, `stride` codes apart from `codes` on, has as many lanes as `out` takes of it.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn interleave<T: Code, const C: usize>(codes: *const T, stride: usize, out: &mut [i32]) {
    for (step, out) in out.as_chunks_mut::<C>().0.iter_mut().enumerate() {
        for (c, out) in out.iter_mut().enumerate() {
            // SAFETY: the caller vouches for the lane.
            *out = unsafe {
                let lane = codes.add(c * stride + step * T::IN_LANE);
                lane.cast::<i32>().read_unaligned()
            };
        }
    }
}

//! A rectangle inside a row-major matrix, written by one thread while others write elsewhere.

use std::marker::PhantomData;
use std::ops::Range;
use std::slice;

/// Exclusive access to some rows and columns of a row-major matrix.
///
/// A tile is split into disjoint tiles, each of which may go to another thread.
///
/// ```
/// use r3mes_exact::tile::Tile;
///
/// let mut matrix = [0.0; 6];
/// let (mut left, mut right) = Tile::new(&mut matrix, 2, 3).split_cols(1);
/// left.row_mut(1)[0] = 1.0;
/// right.row_mut(0)[1] = 2.0;
/// assert_eq!(matrix, [0.0, 0.0, 2.0, 1.0, 0.0, 0.0]);
/// ```
#[derive(Debug)]
pub struct Tile<'a, T> {
    start: *mut T,
    rows: usize,
    cols: usize,
    stride: usize,
    matrix: PhantomData<&'a mut [T]>,
}

// SAFETY: a tile is an exclusive borrow of its elements, as `&mut [T]` is.
unsafe impl<T: Send> Send for Tile<'_, T> {}
// SAFETY: a shared tile gives only shared access, as `&&mut [T]` does.
unsafe impl<T: Sync> Sync for Tile<'_, T> {}

impl<'a, T> Tile<'a, T> {
    /// The whole of a matrix of `rows` x `cols` at the start of `values`.
    pub fn new(values: &'a mut [T], rows: usize, cols: usize) -> Self {
        assert!(values.len() >= rows * cols, "matrix shorter than its shape");
        Self {
            start: values.as_mut_ptr(),
            rows,
            cols,
            stride: cols,
            matrix: PhantomData,
        }
    }

    /// Rows of the tile.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns of the tile.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Elements from one row's start to the next row's.
    pub fn stride(&self) -> usize {
        self.stride
    }

    /// First element of the first row. Row r has `cols` elements from `r * stride` on.
    pub fn as_mut_ptr(&mut self) -> *mut T {
        self.start
    }

    /// Row `row` of the tile.
    pub fn row(&self, row: usize) -> &[T] {
        assert!(row < self.rows, "row outside the tile");
        // SAFETY: the row lies inside the matrix that this tile borrows, and no other tile has it.
        unsafe { slice::from_raw_parts(self.start.add(row * self.stride), self.cols) }
    }

    /// Row `row` of the tile, to write.
    pub fn row_mut(&mut self, row: usize) -> &mut [T] {
        assert!(row < self.rows, "row outside the tile");
        // SAFETY: as in `row`, and `self` is borrowed exclusively.
        unsafe { slice::from_raw_parts_mut(self.start.add(row * self.stride), self.cols) }
    }

    /// The same tile for a shorter time.
    pub fn reborrow(&mut self) -> Tile<'_, T> {
        Tile {
            start: self.start,
            rows: self.rows,
            cols: self.cols,
            stride: self.stride,
            matrix: PhantomData,
        }
    }

    /// The rows before `at`, and the others.
    pub fn split_rows(self, at: usize) -> (Self, Self) {
        assert!(at <= self.rows, "split outside the tile");
        // wrapping_add: the pointer of an empty tile may lie past the matrix and is never read.
        let second = self.start.wrapping_add(at * self.stride);
        (
            Self { rows: at, ..self },
            Self {
                start: second,
                rows: self.rows - at,
                ..self
            },
        )
    }

    /// The columns before `at`, and the others.
    pub fn split_cols(self, at: usize) -> (Self, Self) {
        assert!(at <= self.cols, "split outside the tile");
        let second = self.start.wrapping_add(at);
        (
            Self { cols: at, ..self },
            Self {
                start: second,
                cols: self.cols - at,
                ..self
            },
        )
    }

    /// Tiles of at most `rows` rows, in order, each with the range of its rows.
    pub fn row_chunks(self, rows: usize) -> impl Iterator<Item = (Range<usize>, Self)> {
        assert!(rows > 0, "empty chunks");
        let len = self.rows;
        let mut rest = Some(self);
        (0..len).step_by(rows).filter_map(move |start| {
            let end = len.min(start + rows);
            let (tile, others) = rest.take()?.split_rows(end - start);
            rest = Some(others);
            Some((start..end, tile))
        })
    }

    /// Tiles of at most `cols` columns, in order, each with the range of its columns.
    pub fn col_chunks(self, cols: usize) -> impl Iterator<Item = (Range<usize>, Self)> {
        assert!(cols > 0, "empty chunks");
        let len = self.cols;
        let mut rest = Some(self);
        (0..len).step_by(cols).filter_map(move |start| {
            let end = len.min(start + cols);
            let (tile, others) = rest.take()?.split_cols(end - start);
            rest = Some(others);
            Some((start..end, tile))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_of_rows_and_columns_cover_every_element_once() {
        let mut matrix = vec![0; 7 * 5];
        for (rows, tile) in Tile::new(&mut matrix, 7, 5).row_chunks(3) {
            for (cols, mut tile) in tile.col_chunks(2) {
                for row in 0..tile.rows() {
                    for (i, value) in tile.row_mut(row).iter_mut().enumerate() {
                        *value += (rows.start + row) * 5 + cols.start + i + 1;
                    }
                }
            }
        }
        assert_eq!(matrix, (1..=35).collect::<Vec<_>>());
    }
}

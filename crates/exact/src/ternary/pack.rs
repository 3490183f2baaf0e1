//! Packing, unpacking and checking ternary panels.

use super::{LIMIT, Panels};
use crate::panels::{LANES, PanelError, check_dimensions, check_length, padded};

/// Bytes for sixteen columns of a panel.
pub(crate) const BLOCK: usize = 64;

/// Number of bytes of a packed matrix.
pub const fn packed_len(rows: usize, cols: usize) -> usize {
    padded(rows) * padded(cols) / 4
}

/// Where the weight (row, col) lies: its byte, and its lowest bit there.
fn position(row: usize, col: usize, cols: usize) -> (usize, u32) {
    let panel = row / LANES * packed_len(LANES, cols);
    let byte = panel + col / LANES * BLOCK + row % LANES * 4 + col % 4;
    (byte, (col % LANES / 4 * 2) as u32)
}

/// Packs row-major weights of -1, 0 and 1.
pub fn pack(weights: &[i8], rows: usize, cols: usize) -> Result<Vec<u8>, PanelError> {
    check_dimensions(rows, cols, LIMIT)?;
    check_length(rows, cols, rows * cols, weights.len())?;
    // Code 1 is the weight zero.
    let mut bytes = vec![0b01_01_01_01u8; packed_len(rows, cols)];
    for (row, values) in weights.chunks_exact(cols).enumerate() {
        for (col, &value) in values.iter().enumerate() {
            if !(-1..=1).contains(&value) {
                return Err(PanelError::Value { row, col, value });
            }
            let (byte, bit) = position(row, col, cols);
            // Adding w to the code 1 never carries: the sum is 0, 1 or 2.
            bytes[byte] = bytes[byte].wrapping_add((value as u8) << bit);
        }
    }
    Ok(bytes)
}

/// Unpacks to row-major weights of -1, 0 and 1.
pub fn unpack(panels: Panels<'_>) -> Vec<i8> {
    let (rows, cols) = (panels.rows, panels.cols);
    let mut weights = Vec::with_capacity(rows * cols);
    for row in 0..rows {
        for col in 0..cols {
            weights.push(weight(panels.bytes, row, col, cols));
        }
    }
    weights
}

/// Packs the transposed matrix, through which gradients flow.
pub fn transpose(panels: Panels<'_>) -> Vec<u8> {
    let (rows, cols) = (panels.rows, panels.cols);
    let mut bytes = vec![0b01_01_01_01u8; packed_len(cols, rows)];
    for row in 0..rows {
        for col in 0..cols {
            let value = weight(panels.bytes, row, col, cols);
            let (byte, bit) = position(col, row, rows);
            bytes[byte] = bytes[byte].wrapping_add((value as u8) << bit);
        }
    }
    bytes
}

fn weight(bytes: &[u8], row: usize, col: usize, cols: usize) -> i8 {
    let (byte, bit) = position(row, col, cols);
    (bytes[byte] >> bit & 3) as i8 - 1
}

/// Accepts exactly the bytes that [`pack`] makes.
pub(super) fn validate(bytes: &[u8], rows: usize, cols: usize) -> Result<(), PanelError> {
    check_dimensions(rows, cols, LIMIT)?;
    check_length(rows, cols, packed_len(rows, cols), bytes.len())?;
    let unused_code = bytes.chunks(BLOCK).position(|block| {
        block.iter().fold(0, |bits, byte| bits | (byte & byte >> 1)) & 0b01_01_01_01 != 0
    });
    if let Some(block) = unused_code {
        return Err(first_unused_code(bytes, block, rows, cols));
    }
    let padding = (0..rows).flat_map(|row| (cols..padded(cols)).map(move |col| (row, col)));
    let below = (rows..padded(rows)).flat_map(|row| (0..padded(cols)).map(move |col| (row, col)));
    match padding
        .chain(below)
        .find(|&(row, col)| weight(bytes, row, col, cols) != 0)
    {
        Some((row, col)) => Err(PanelError::Padding { row, col }),
        None => Ok(()),
    }
}

/// Names the code 3 found in a block of 64 bytes.
fn first_unused_code(bytes: &[u8], block: usize, rows: usize, cols: usize) -> PanelError {
    let blocks = padded(cols) / LANES;
    let (panel, first) = (block / blocks * LANES, block % blocks * LANES);
    for row in panel..panel + LANES {
        for col in first..first + LANES {
            if weight(bytes, row, col, cols) == 2 {
                if row >= rows || col >= cols {
                    return PanelError::Padding { row, col };
                }
                return PanelError::Value { row, col, value: 2 };
            }
        }
    }
    unreachable!("the block holds a code 3")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(rows: usize, cols: usize) -> Vec<i8> {
        (0..rows * cols).map(|i| (i * 7919 % 3) as i8 - 1).collect()
    }

    #[test]
    fn packing_and_unpacking_give_the_weights_back() {
        for (rows, cols) in [(1, 1), (16, 16), (17, 33), (288, 96), (5, 1000)] {
            let weights = sample(rows, cols);
            let bytes = pack(&weights, rows, cols).unwrap();
            let panels = Panels::new(&bytes, rows, cols).unwrap();
            assert_eq!(unpack(panels), weights);
        }
    }

    #[test]
    fn the_transposed_pack_is_the_pack_of_the_transpose() {
        let (rows, cols) = (35, 50);
        let weights = sample(rows, cols);
        let bytes = pack(&weights, rows, cols).unwrap();
        let turned: Vec<i8> = (0..rows * cols)
            .map(|i| weights[i % rows * cols + i / rows])
            .collect();
        let panels = Panels::new(&bytes, rows, cols).unwrap();
        assert_eq!(transpose(panels), pack(&turned, cols, rows).unwrap());
    }

    #[test]
    fn the_layout_never_changes() {
        let bytes = pack(&sample(19, 37), 19, 37).unwrap();
        assert_eq!(bytes.len(), 32 * 48 / 4);
        assert_eq!(
            blake3::hash(&bytes).to_hex().as_str(),
            "a027b667a5bd9d861feb7db0ef06e0027337aedd6cf1fbe37770b6988b724704"
        );
        // Row 1, columns 0..16 of a matrix with a single one at column 6.
        let mut weights = vec![0; 32 * 16];
        weights[16 + 6] = 1;
        let bytes = pack(&weights, 32, 16).unwrap();
        assert_eq!(bytes[4 + 2], 0b01_01_10_01);
    }

    #[test]
    fn values_other_than_minus_one_zero_and_one_are_refused_by_place() {
        let mut weights = sample(20, 20);
        weights[3 * 20 + 7] = 2;
        let error = pack(&weights, 20, 20).unwrap_err();
        assert_eq!(
            error,
            PanelError::Value {
                row: 3,
                col: 7,
                value: 2
            }
        );
    }

    #[test]
    fn the_code_three_is_refused_by_place() {
        let mut bytes = pack(&sample(40, 40), 40, 40).unwrap();
        let (byte, bit) = position(21, 38, 40);
        bytes[byte] |= 3 << bit;
        let error = Panels::new(&bytes, 40, 40).unwrap_err();
        assert_eq!(
            error,
            PanelError::Value {
                row: 21,
                col: 38,
                value: 2
            }
        );
    }

    #[test]
    fn padding_other_than_zero_is_refused() {
        for (row, col) in [(3, 41), (44, 0), (47, 47)] {
            let mut bytes = pack(&sample(40, 40), 40, 40).unwrap();
            let (byte, bit) = position(row, col, 40);
            bytes[byte] ^= 3 << bit;
            let error = Panels::new(&bytes, 40, 40).unwrap_err();
            assert_eq!(error, PanelError::Padding { row, col });
        }
    }

    #[test]
    fn wrong_lengths_and_dimensions_are_refused() {
        assert!(matches!(
            pack(&[0; 5], 2, 3),
            Err(PanelError::Length {
                expected: 6,
                found: 5,
                ..
            })
        ));
        assert!(matches!(
            pack(&[], 0, 3),
            Err(PanelError::Dimensions { .. })
        ));
        assert!(matches!(
            Panels::new(&[0; 64], 16, 17),
            Err(PanelError::Length { .. })
        ));
        assert!(matches!(
            Panels::new(&[], LIMIT + 1, 1),
            Err(PanelError::Dimensions { .. })
        ));
    }
}

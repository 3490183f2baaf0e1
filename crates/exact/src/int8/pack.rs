//! Packing, unpacking and checking int8 panels.

use super::{LIMIT, Panels};
use crate::panels::{LANES, PanelError, check_dimensions, check_length, padded};

/// Bytes for four columns of a panel.
pub(crate) const GROUP: usize = 64;

/// Number of bytes of a packed matrix.
pub const fn packed_len(rows: usize, cols: usize) -> usize {
    padded(rows) * padded(cols)
}

/// Where the weight (row, col) lies.
fn position(row: usize, col: usize, cols: usize) -> usize {
    row / LANES * packed_len(LANES, cols) + col / 4 * GROUP + row % LANES * 4 + col % 4
}

/// Packs row-major weights within +-127.
pub fn pack(weights: &[i8], rows: usize, cols: usize) -> Result<Vec<u8>, PanelError> {
    check_dimensions(rows, cols, LIMIT)?;
    check_length(rows, cols, rows * cols, weights.len())?;
    let mut bytes = vec![0; packed_len(rows, cols)];
    for (row, values) in weights.chunks_exact(cols).enumerate() {
        for (col, &value) in values.iter().enumerate() {
            if value == i8::MIN {
                return Err(PanelError::Value { row, col, value });
            }
            bytes[position(row, col, cols)] = value as u8;
        }
    }
    Ok(bytes)
}

/// Unpacks to row-major weights.
pub fn unpack(panels: Panels<'_>) -> Vec<i8> {
    let mut weights = vec![0; panels.rows * panels.cols];
    for (index, values) in weights.chunks_exact_mut(panels.cols).enumerate() {
        row(panels, index, values);
    }
    weights
}

/// Copies the weights of one row, such as a token's embedding.
///
/// # Panics
/// When `values` is not as long as the row, or the row is outside the matrix.
pub fn row(panels: Panels<'_>, row: usize, values: &mut [i8]) {
    assert!(row < panels.rows, "row {row} of {}", panels.rows);
    assert_eq!(values.len(), panels.cols, "length of a row");
    let groups = panels.panel(row / LANES).chunks_exact(GROUP);
    let lane = row % LANES * 4;
    for (values, group) in values.chunks_mut(4).zip(groups) {
        for (value, &byte) in values.iter_mut().zip(&group[lane..lane + 4]) {
            *value = byte as i8;
        }
    }
}

/// Packs the transposed matrix, through which gradients flow.
pub fn transpose(panels: Panels<'_>) -> Vec<u8> {
    let (rows, cols) = (panels.rows, panels.cols);
    let mut bytes = vec![0; packed_len(cols, rows)];
    for row in 0..rows {
        for col in 0..cols {
            bytes[position(col, row, rows)] = panels.bytes[position(row, col, cols)];
        }
    }
    bytes
}

/// Accepts exactly the bytes that [`pack`] makes.
pub(super) fn validate(bytes: &[u8], rows: usize, cols: usize) -> Result<(), PanelError> {
    check_dimensions(rows, cols, LIMIT)?;
    check_length(rows, cols, packed_len(rows, cols), bytes.len())?;
    if let Some(at) = bytes.iter().position(|&byte| byte as i8 == i8::MIN) {
        let panel_len = packed_len(LANES, cols);
        let (panel, at) = (at / panel_len, at % panel_len);
        let row = panel * LANES + at % GROUP / 4;
        return Err(PanelError::Value {
            row,
            col: at / GROUP * 4 + at % 4,
            value: i8::MIN,
        });
    }
    let padding = (0..rows).flat_map(|row| (cols..padded(cols)).map(move |col| (row, col)));
    let below = (rows..padded(rows)).flat_map(|row| (0..padded(cols)).map(move |col| (row, col)));
    match padding
        .chain(below)
        .find(|&(row, col)| bytes[position(row, col, cols)] != 0)
    {
        Some((row, col)) => Err(PanelError::Padding { row, col }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(rows: usize, cols: usize) -> Vec<i8> {
        (0..rows * cols)
            .map(|i| (i * 7919 % 255) as u8 as i8)
            .map(|w| w.max(-127))
            .collect()
    }

    #[test]
    fn packing_and_unpacking_give_the_weights_back() {
        for (rows, cols) in [(1, 1), (16, 16), (17, 33), (288, 96), (5, 1000)] {
            let weights = sample(rows, cols);
            let bytes = pack(&weights, rows, cols).unwrap();
            assert_eq!(unpack(Panels::new(&bytes, rows, cols).unwrap()), weights);
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
        assert_eq!(bytes.len(), 32 * 48);
        assert_eq!(
            blake3::hash(&bytes).to_hex().as_str(),
            "0ceddd616ca857683bd4014308f0270b130c7243d5066335d0a6df8917c1c8ce"
        );
        // Row 1 of a panel, column 6: the second group of four, third byte of lane 1.
        let mut weights = vec![0; 32 * 16];
        weights[16 + 6] = -5;
        assert_eq!(pack(&weights, 32, 16).unwrap()[64 + 4 + 2] as i8, -5);
    }

    #[test]
    fn minus_128_is_refused_by_place_when_packing_and_when_reading() {
        let mut weights = sample(20, 20);
        weights[17 * 20 + 9] = -128;
        let expected = PanelError::Value {
            row: 17,
            col: 9,
            value: -128,
        };
        assert_eq!(pack(&weights, 20, 20).unwrap_err(), expected);
        let mut bytes = pack(&sample(20, 20), 20, 20).unwrap();
        bytes[position(17, 9, 20)] = 0x80;
        assert_eq!(Panels::new(&bytes, 20, 20).unwrap_err(), expected);
    }

    #[test]
    fn padding_other_than_zero_is_refused() {
        for (row, col) in [(3, 41), (44, 0), (47, 47)] {
            let mut bytes = pack(&sample(40, 40), 40, 40).unwrap();
            bytes[position(row, col, 40)] = 1;
            let error = Panels::new(&bytes, 40, 40).unwrap_err();
            assert_eq!(error, PanelError::Padding { row, col });
        }
    }

    #[test]
    fn wrong_lengths_and_dimensions_are_refused() {
        assert!(matches!(
            pack(&[0; 5], 2, 3),
            Err(PanelError::Length { .. })
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

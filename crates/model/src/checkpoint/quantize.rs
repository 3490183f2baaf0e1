//! From what a checkpoint stores to integer codes and scales.

use r3mes_exact::elementary::round_even;

use super::{CheckpointError, QuantizedMatrix};

/// Smallest magnitude that a scale is made from, so that no quantizer divides by zero.
const LEAST_MAGNITUDE: f32 = 1e-5;

/// Int8 values that must all be in {-1, 0, 1}.
pub(super) fn ternary_int8(
    name: &str,
    columns: usize,
    bytes: &[u8],
) -> Result<Vec<i8>, CheckpointError> {
    int8_within(name, columns, bytes, 1)
}

/// Int8 values, of which -128 is refused: kernels count on magnitudes up to 127.
pub(super) fn plain_int8(
    name: &str,
    columns: usize,
    bytes: &[u8],
) -> Result<Vec<i8>, CheckpointError> {
    int8_within(name, columns, bytes, 127)
}

fn int8_within(
    name: &str,
    columns: usize,
    bytes: &[u8],
    most: u8,
) -> Result<Vec<i8>, CheckpointError> {
    let codes: Vec<i8> = bytes.iter().map(|byte| byte.cast_signed()).collect();
    match codes.iter().position(|code| code.unsigned_abs() > most) {
        None => Ok(codes),
        Some(index) => Err(CheckpointError::Code {
            name: name.to_owned(),
            row: index / columns,
            column: index % columns,
            value: codes[index].into(),
        }),
    }
}

/// The layout of published BitNet models: bits `2g..2g+1` of byte `(r, c)` hold `w + 1` of row
/// `g * (rows / 4) + r`, column `c`. Code 3 stands for no weight.
pub(super) fn unpack_codes(
    name: &str,
    rows: usize,
    columns: usize,
    bytes: &[u8],
) -> Result<Vec<i8>, CheckpointError> {
    let quarter = rows / 4;
    let mut codes = vec![0; rows * columns];
    for (at, byte) in bytes.iter().enumerate() {
        let (r, column) = (at / columns, at % columns);
        for group in 0..4 {
            let code = (byte >> (2 * group)) & 3;
            let row = group * quarter + r;
            if code == 3 {
                return Err(CheckpointError::Code {
                    name: name.to_owned(),
                    row,
                    column,
                    value: 3,
                });
            }
            codes[row * columns + column] = code.cast_signed() - 1;
        }
    }
    Ok(codes)
}

/// BitNet b1.58: `s = max(mean|W|, 1e-5)`, weights rounded to the nearest of {-1, 0, 1} after
/// multiplication by `1 / s`; a half rounds to even, that is to 0.
pub(super) fn to_ternary(weights: &[f32]) -> QuantizedMatrix {
    let magnitudes: Vec<f32> = weights.iter().map(|weight| weight.abs()).collect();
    let mean = r3mes_exact::lane_sum(&magnitudes) / weights.len() as f32;
    let scale = if mean > LEAST_MAGNITUDE {
        mean
    } else {
        LEAST_MAGNITUDE
    };
    let inverse = 1.0 / scale;
    let code = |weight: &f32| {
        let scaled = weight * inverse;
        i8::from(scaled > 0.5) - i8::from(scaled < -0.5)
    };
    QuantizedMatrix {
        codes: weights.iter().map(code).collect(),
        scales: vec![scale],
    }
}

/// Int8 by row, with the quantizer of activations: `m = max(absmax, 1e-5)`,
/// `q = rne(w * (127 / m))`, scale `m / 127`.
pub(super) fn rows_to_int8(weights: &[f32], columns: usize) -> QuantizedMatrix {
    let mut codes = Vec::with_capacity(weights.len());
    let mut scales = Vec::with_capacity(weights.len() / columns);
    for row in weights.chunks_exact(columns) {
        let mut most = LEAST_MAGNITUDE;
        for weight in row {
            if weight.abs() > most {
                most = weight.abs();
            }
        }
        let factor = 127.0 / most;
        codes.extend(row.iter().map(|weight| round_even(weight * factor) as i8));
        scales.push(most / 127.0);
    }
    QuantizedMatrix { codes, scales }
}

/// Refuses scales that are not positive normal numbers.
pub(super) fn check_scales(name: &str, scales: &[f32]) -> Result<(), CheckpointError> {
    match scales
        .iter()
        .position(|scale| !(scale.is_normal() && *scale > 0.0))
    {
        None => Ok(()),
        Some(index) => {
            let value = scales[index];
            Err(CheckpointError::Scale {
                name: name.to_owned(),
                index,
                value,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floating_weights_round_to_the_nearest_ternary_and_halves_to_zero() {
        // The mean magnitude is 1, so the weights are their own multiples of the scale.
        let matrix = to_ternary(&[0.5, -0.5, 0.75, -0.75, 3.0, -0.5, 1.0, 1.0]);
        assert_eq!(matrix.scales, [1.0]);
        assert_eq!(matrix.codes, [0, 0, 1, -1, 1, 0, 1, 1]);
    }

    #[test]
    fn published_codes_unpack_by_quarters_of_rows() {
        // 8 x 1: byte r holds rows r, 2 + r, 4 + r, 6 + r.
        let codes = unpack_codes("w", 8, 1, &[0b00_01_10_00, 0b10_00_01_01]).unwrap();
        assert_eq!(codes, [-1, 0, 1, 0, 0, -1, -1, 1]);
        let error = unpack_codes("w", 8, 1, &[0, 0b00_11_00_00]).unwrap_err();
        assert!(matches!(
            error,
            CheckpointError::Code {
                row: 5,
                column: 0,
                value: 3,
                ..
            }
        ));
    }

    #[test]
    fn rows_quantize_with_their_own_scale() {
        let matrix = rows_to_int8(&[127.0, -63.5, 0.5, 0.0, 0.0, 0.0], 3);
        assert_eq!(matrix.codes, [127, -64, 0, 0, 0, 0]);
        assert_eq!(matrix.scales, [1.0, 1e-5 / 127.0]);
    }

    #[test]
    fn values_that_are_not_ternary_are_named() {
        let error = ternary_int8("w", 2, &[0, 1, 255, 2]).unwrap_err();
        assert!(matches!(
            error,
            CheckpointError::Code {
                row: 1,
                column: 1,
                value: 2,
                ..
            }
        ));
        assert!(plain_int8("e", 1, &[0x80]).is_err());
    }
}

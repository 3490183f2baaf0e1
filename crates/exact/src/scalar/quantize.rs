//! Quantizers of one row (rules 2, 5 and 6).

use crate::elementary::round_even;

/// Smallest magnitude that the activation quantizer divides by (rule 2).
pub(crate) const SMALLEST_ABSMAX: f32 = 1e-5;
/// Rows of gradients below this magnitude are zero (rule 5): 2^-100.
pub(crate) const SMALLEST_GRADIENT: f32 = f32::from_bits((127 - 100) << 23);
/// Range of gradients behind ternary weights (rule 5): 127 * 256.
pub(crate) const TERNARY_RANGE: f32 = 32_512.0;
/// Range of gradients behind int8 weights (rule 6): 2^22 - 1.
pub(crate) const INT8_RANGE: f32 = 4_194_303.0;

/// Bits of the largest magnitude; infinity's or more when a value is infinite or NaN.
pub(crate) fn absmax_bits(x: &[f32]) -> u32 {
    x.iter()
        .map(|v| v.to_bits() & 0x7FFF_FFFF)
        .max()
        .unwrap_or(0)
}

/// The largest magnitude, or `None` when a value is infinite or NaN.
pub(crate) fn finite(bits: u32) -> Option<f32> {
    (bits < 0x7F80_0000).then(|| f32::from_bits(bits))
}

/// Quantizes a row to int8; returns its scale and the sum of its codes, or `None` when a value is
/// not finite. Codes after the row are set to 0.
pub(crate) fn activations(x: &[f32], codes: &mut [i8]) -> Option<(f32, i32)> {
    let absmax = finite(absmax_bits(x))?;
    let m = if absmax > SMALLEST_ABSMAX {
        absmax
    } else {
        SMALLEST_ABSMAX
    };
    let factor = 127.0 / m;
    let (used, padding) = codes.split_at_mut(x.len());
    let mut sum = 0;
    for (code, x) in used.iter_mut().zip(x) {
        let q = round_even(x * factor);
        *code = q as i8;
        sum += q;
    }
    padding.fill(0);
    Some((m / 127.0, sum))
}

/// Quantizes a gradient row to +-32,512; returns its scale, or `None` when a value is not finite.
pub(crate) fn gradient_narrow(x: &[f32], low: &mut [i16]) -> Option<f32> {
    let absmax = finite(absmax_bits(x))?;
    if absmax < SMALLEST_GRADIENT {
        low.fill(0);
        return Some(0.0);
    }
    let factor = TERNARY_RANGE / absmax;
    let (used, padding) = low.split_at_mut(x.len());
    for (low, x) in used.iter_mut().zip(x) {
        *low = round_even(x * factor) as i16;
    }
    padding.fill(0);
    Some(absmax / TERNARY_RANGE)
}

/// Quantizes a gradient row to +-4,194,303; returns its scale, or `None` when a value is not
/// finite. The row's values have been multiplied by the row scales of the weights before.
pub(crate) fn gradient_wide(x: &[f32], low: &mut [i16], high: &mut [i8]) -> Option<f32> {
    let absmax = finite(absmax_bits(x))?;
    if absmax < SMALLEST_GRADIENT {
        low.fill(0);
        high.fill(0);
        return Some(0.0);
    }
    let factor = INT8_RANGE / absmax;
    let (used_low, padding_low) = low.split_at_mut(x.len());
    let (used_high, padding_high) = high.split_at_mut(x.len());
    for ((low, high), x) in used_low.iter_mut().zip(used_high).zip(x) {
        (*low, *high) = split(round_even(x * factor));
    }
    padding_low.fill(0);
    padding_high.fill(0);
    Some(absmax / INT8_RANGE)
}

/// The lower sixteen bits of a code, with their sign, and what remains.
pub(crate) fn split(code: i32) -> (i16, i8) {
    let low = code as i16;
    (low, ((code - i32::from(low)) >> 16) as i8)
}

/// `out = f32(code) * scale`
pub(crate) fn dequantize(codes: &[i8], scale: f32, out: &mut [f32]) {
    for (out, code) in out.iter_mut().zip(codes) {
        *out = f32::from(*code) * scale;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows' largest magnitudes; beside each, values within a few units in the last place of a half of
    /// a step, by their bits, and their codes. Dividing by the scale gives each another code.
    const NEAR_HALVES: [(f32, [(u32, i8); 5]); 4] = [
        (
            0.7,
            [
                (0xBE75_84A2, -44),
                (0xBEF9_C04E, -89),
                (0x3E0A_47C3, 25),
                (0x3F2A_0742, 121),
                (0x3DE7_686B, 21),
            ],
        ),
        (
            1.0,
            [
                (0xBF50_A142, -103),
                (0x3F30_60C1, 87),
                (0xBF70_E1C3, -119),
                (0x3D71_E3C7, 7),
                (0xBD71_E3C7, -7),
            ],
        ),
        (
            3.0,
            [
                (0xBFF6_6CD9, -81),
                (0x3F89_9326, 45),
                (0x402B_972E, 113),
                (0x4014_E9D4, 98),
                (0xC014_E9D4, -98),
            ],
        ),
        (
            10.0,
            [
                (0x3E49_9327, 2),
                (0x406F_5EBD, 47),
                (0xBF92_2449, -14),
                (0x40D2_64C9, 83),
                (0xC0A7_8F1F, -66),
            ],
        ),
    ];

    #[test]
    fn activations_are_multiplied_by_one_factor_and_not_divided_by_the_scale() {
        for (most, halves) in NEAR_HALVES {
            let values = halves.map(|(bits, _)| f32::from_bits(bits));
            let mut row = values.to_vec();
            row.push(most);
            let mut codes = [0; 6];
            let (scale, _) = activations(&row, &mut codes).unwrap();
            assert_eq!(codes[..5], halves.map(|(_, code)| code), "of {most}");
            assert_eq!(codes[5], 127);
            for (value, code) in values.iter().zip(codes) {
                assert_ne!(
                    round_even(value / scale),
                    i32::from(code),
                    "{value} of {most}"
                );
            }
        }
    }
}

//! Widening stored floating numbers to f32, exactly.

use safetensors::Dtype;

/// The values of a tensor of `dtype` as f32, or `None` when it does not hold f32, f16 or bf16.
pub(super) fn widen(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f32>> {
    let halves = || {
        bytes
            .as_chunks::<2>()
            .0
            .iter()
            .map(|half| u16::from_le_bytes(*half))
    };
    match dtype {
        Dtype::F32 => Some(
            bytes
                .as_chunks::<4>()
                .0
                .iter()
                .map(|word| f32::from_le_bytes(*word))
                .collect(),
        ),
        Dtype::BF16 => Some(
            halves()
                .map(|half| f32::from_bits(u32::from(half) << 16))
                .collect(),
        ),
        Dtype::F16 => Some(halves().map(from_f16).collect()),
        _ => None,
    }
}

/// An IEEE half as f32; every half is exactly an f32.
fn from_f16(half: u16) -> f32 {
    let sign = u32::from(half & 0x8000) << 16;
    let exponent = u32::from(half >> 10) & 0x1f;
    let fraction = u32::from(half & 0x3ff);
    let magnitude = match exponent {
        // Subnormal: fraction * 2^-24, exact in f32.
        0 => (fraction as f32 * (1.0 / 16_777_216.0)).to_bits(),
        31 => 0x7f80_0000 | fraction << 13,
        _ => (exponent + 112) << 23 | fraction << 13,
    };
    f32::from_bits(sign | magnitude)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_widen_exactly() {
        for (half, value) in [
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65504.0),
            (0x0400, 6.103_515_6e-5),
            (0x0001, 5.960_464_5e-8),
            (0x83ff, -6.097_555e-5),
        ] {
            assert_eq!(from_f16(half), value);
        }
        assert_eq!(from_f16(0x8000).to_bits(), 0x8000_0000);
        assert!(from_f16(0x7c00).is_infinite() && from_f16(0x7e00).is_nan());
    }

    #[test]
    fn bf16_is_the_upper_half_of_f32() {
        assert_eq!(
            widen(Dtype::BF16, &[0x80, 0x3f, 0x00, 0xc0]),
            Some(vec![1.0, -2.0])
        );
        assert_eq!(widen(Dtype::I64, &[0; 8]), None);
    }
}

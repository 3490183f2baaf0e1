//! Elementary functions from IEEE additions, multiplications and bit operations only (rule 9).
//!
//! The f32 functions are part of the exact arithmetic. The f64 ones make tables on the host, which
//! are then rounded to f32: every device uploads the same table.

/// Adding and subtracting this rounds an f32 below 2^22 in magnitude to an integer, ties to even.
pub(crate) const ROUND_F32: f32 = 12_582_912.0;
/// The same for an f64 below 2^51.
const ROUND_F64: f64 = 6_755_399_441_055_744.0;

/// Below this, [`exp`] is 0.
pub const EXP_LOWEST: f32 = -87.0;
/// Above this, [`exp`] is `f32::MAX`.
pub const EXP_HIGHEST: f32 = 88.0;

/// `x` rounded to an integer, ties to even. Exact for |x| <= 2^22.
#[inline(always)]
pub fn round_even(x: f32) -> i32 {
    ((x + ROUND_F32).to_bits() as i32).wrapping_sub(ROUND_F32.to_bits() as i32)
}

/// `x` rounded to an integer, ties to even. Exact for |x| <= 2^51.
#[inline]
pub fn round_even_f64(x: f64) -> i64 {
    (x + ROUND_F64).to_bits().wrapping_sub(ROUND_F64.to_bits()) as i64
}

/// log2(e), and ln 2 in two parts of which the first has few bits, so that multiples are exact.
pub(crate) const LOG2_E: f32 = std::f32::consts::LOG2_E;
pub(crate) const LN2_PARTS: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
/// Coefficients of r^7 to r^2 in e^r - 1 - r (Cephes).
pub(crate) const EXP_COEFFICIENTS: [f32; 6] = [
    1.987_569_1e-4,
    1.398_199_9e-3,
    8.333_452e-3,
    4.166_579_6e-2,
    1.666_666_6e-1,
    5e-1,
];

/// `e^x`: 0 below -87, `f32::MAX` above 88; otherwise within 2 units in the last place.
///
/// Cephes' polynomial on [-ln2/2, ln2/2], evaluated by Horner without fused operations.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    let shifted = x * LOG2_E + ROUND_F32;
    let n = shifted - ROUND_F32;
    let r = (x - n * LN2_PARTS[0]) - n * LN2_PARTS[1];
    let [mut p, rest @ ..] = EXP_COEFFICIENTS;
    for c in rest {
        p = p * r + c;
    }
    let y = (p * (r * r) + r) + 1.0;
    let power = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    if x < EXP_LOWEST {
        0.0
    } else if x > EXP_HIGHEST {
        f32::MAX
    } else {
        y * power
    }
}

/// Coefficients of r^11 to r^3 in ln(1 + r) - r + r^2/2 (Cephes).
const LN_COEFFICIENTS: [f32; 9] = [
    7.037_683_6e-2,
    -1.151_461e-1,
    1.167_699_87e-1,
    -1.242_014_1e-1,
    1.424_932_3e-1,
    -1.666_805_8e-1,
    2.000_071_4e-1,
    -2.499_999_4e-1,
    3.333_333e-1,
];

/// Natural logarithm of a positive, finite `x`, within 2 units in the last place.
///
/// Cephes' `logf`, with `x` reduced to [sqrt(1/2), sqrt(2)). Other arguments give negative
/// infinity for 0 and NaN for the rest; the arithmetic never asks for them.
pub fn ln(x: f32) -> f32 {
    if x == 0.0 {
        return f32::NEG_INFINITY;
    }
    if !(x > 0.0 && x < f32::INFINITY) {
        return f32::NAN;
    }
    let (x, offset) = if x < f32::MIN_POSITIVE {
        (x * 8_388_608.0, -23)
    } else {
        (x, 0)
    };
    // The exponent that leaves a mantissa in [sqrt(1/2), sqrt(2)).
    let exponent = (x.to_bits() as i32 - 0x3F35_04F3) >> 23;
    let mantissa = f32::from_bits((x.to_bits() as i32 - (exponent << 23)) as u32);
    let e = (exponent + offset) as f32;
    let r = mantissa - 1.0;
    let z = r * r;
    let [mut p, rest @ ..] = LN_COEFFICIENTS;
    for c in rest {
        p = p * r + c;
    }
    let y = (p * r) * z;
    let y = y + e * LN2_PARTS[1];
    let y = y + -0.5 * z;
    (r + y) + e * LN2_PARTS[0]
}

/// ln 2 in two parts: `n * LN2_HIGH` is exact for |n| < 2^11 and more.
const LN2_HIGH: f64 = 0.693_147_180_369_123_8;
const LN2_LOW: f64 = 1.908_214_929_270_587_7e-10;

/// `e^x` in f64 for |x| < 700, within 2 units in the last place.
pub fn exp_f64(x: f64) -> f64 {
    let n = round_even_f64(x * std::f64::consts::LOG2_E);
    let nf = n as f64;
    let r = (x - nf * LN2_HIGH) - nf * LN2_LOW;
    // Taylor series on |r| <= ln2/2: the term after the last is below 2^-60.
    let mut sum = 0.0;
    for k in (1..=16).rev() {
        sum = (sum + 1.0) * r / f64::from(k);
    }
    (sum + 1.0) * f64::from_bits(((n + 1023) as u64) << 52)
}

/// Natural logarithm in f64 of a positive, finite, normal `x`.
pub fn ln_f64(x: f64) -> f64 {
    // sqrt(1/2) as bits: the exponent that leaves a mantissa in [sqrt(1/2), sqrt(2)).
    let exponent = (x.to_bits() as i64 - 0x3FE6_A09E_667F_3BCD) >> 52;
    let mantissa = f64::from_bits((x.to_bits() as i64 - (exponent << 52)) as u64);
    // ln m = 2 artanh((m-1)/(m+1)), |s| <= 0.1716: terms fall below 2^-60 after s^23.
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let s2 = s * s;
    let mut sum = 0.0;
    for k in (1..=12).rev() {
        sum = (sum + 1.0 / f64::from(2 * k + 1)) * s2;
    }
    let e = exponent as f64;
    e * LN2_HIGH + (2.0 * s * (sum + 1.0) + e * LN2_LOW)
}

/// pi/2 in three parts of 33 bits each, as in fdlibm: `n * PART` is exact for n < 2^20.
const HALF_PI: [f64; 3] = [
    1.570_796_326_734_125_6,
    6.077_100_506_303_966e-11,
    2.022_266_248_795_950_6e-21,
];
/// Largest angle that [`sin_cos_f64`] reduces exactly enough.
pub const MAX_ANGLE: f64 = 1_048_576.0;

/// Sine and cosine of an angle of |x| <= 2^20 radians, in f64, within 2^-50.
pub fn sin_cos_f64(x: f64) -> (f64, f64) {
    let n = round_even_f64(x * std::f64::consts::FRAC_2_PI);
    let nf = n as f64;
    let r = ((x - nf * HALF_PI[0]) - nf * HALF_PI[1]) - nf * HALF_PI[2];
    let r2 = r * r;
    // Taylor series on |r| <= pi/4; the terms after the last are below 2^-60.
    let (mut sin, mut cos) = (0.0, 0.0);
    for k in (1..=9).rev() {
        let k = f64::from(2 * k);
        sin = (sin + 1.0) * -r2 / (k * (k + 1.0));
        cos = (cos + 1.0) * -r2 / (k * (k - 1.0));
    }
    let (sin, cos) = ((sin + 1.0) * r, cos + 1.0);
    match n & 3 {
        0 => (sin, cos),
        1 => (cos, -sin),
        2 => (-sin, -cos),
        _ => (-cos, sin),
    }
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "compared with the standard library, within a tolerance"
)]
mod tests {
    use super::*;

    fn ulps(a: f32, b: f64) -> f64 {
        let spacing = f64::from(f32::from_bits((b as f32).to_bits() + 1) - b as f32).abs();
        (f64::from(a) - b).abs() / spacing
    }

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        let worst = (-86_900..=87_900)
            .map(|i| i as f32 * 1e-3 + 1e-4)
            .map(|x| ulps(exp(x), f64::from(x).exp()))
            .fold(0.0, f64::max);
        assert!(worst < 2.0, "{worst}");
        assert_eq!(exp(-87.1), 0.0);
        assert_eq!(exp(88.1), f32::MAX);
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-0.0), 1.0);
    }

    #[test]
    fn ln_is_within_two_units_in_the_last_place() {
        let worst = (1..0x7F80)
            .map(|high| f32::from_bits((high << 16) + 0x1234))
            .map(|x| ulps(ln(x), f64::from(x).ln()))
            .fold(0.0, f64::max);
        assert!(worst < 2.0, "{worst}");
        assert_eq!(ln(1.0), 0.0);
        assert_eq!(ln(0.0), f32::NEG_INFINITY);
    }

    #[test]
    fn f64_functions_agree_with_the_standard_library() {
        for i in -20_000..20_000 {
            let x = f64::from(i) * 0.017 + 1e-3;
            let relative = (exp_f64(x) / x.exp() - 1.0).abs();
            assert!(relative < 1e-15, "exp {x}: {relative}");
            let y = x * x + 1e-6;
            let error = (ln_f64(y) - y.ln()).abs();
            assert!(error < 4e-15, "ln {y}: {error}");
            let angle = f64::from(i) * 6.55;
            let (sin, cos) = sin_cos_f64(angle);
            let error = (sin - angle.sin()).abs() + (cos - angle.cos()).abs();
            assert!(error < 2e-15, "angle {angle}: {error}");
        }
    }

    #[test]
    fn ties_round_to_even_up_to_the_limit() {
        let cases = [
            (0.5, 0),
            (1.5, 2),
            (2.5, 2),
            (-0.5, 0),
            (-1.5, -2),
            (126.5, 126),
        ];
        for (x, rounded) in cases {
            assert_eq!(round_even(x), rounded);
            assert_eq!(round_even_f64(f64::from(x)), i64::from(rounded));
        }
        assert_eq!(round_even(4_194_304.0), 4_194_304);
        assert_eq!(round_even(-4_194_304.0), -4_194_304);
        assert_eq!(round_even(4_194_302.5), 4_194_302);
    }
}

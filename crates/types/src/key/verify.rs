//! Verifying ECDSA signatures over secp256k1 in variable time.
//!
//! What `k256` does in constant time, for secrets, takes half the time where everything is public:
//! `R = u1 G + u2 Q` by signed windows over halves of the scalars (Gallant, Lambert and Vanstone, "Faster
//! point multiplication on elliptic curves with efficient endomorphisms", 2001), the windows of `G` from a
//! table that is made once. Points, their complete addition formulas and scalars are `k256`'s, so no case
//! needs care of its own; tests hold the answers against `k256`'s.

use std::sync::LazyLock;

use k256::ecdsa::Signature;
use k256::elliptic_curve::bigint::Encoding;
use k256::elliptic_curve::group::prime::PrimeCurveAffine;
use k256::elliptic_curve::ops::{Invert, Reduce};
use k256::elliptic_curve::point::AffineCoordinates;
use k256::elliptic_curve::scalar::IsHigh;
use k256::elliptic_curve::{BatchNormalize, PrimeField};
use k256::{AffinePoint, ProjectivePoint, Scalar, U256};

/// Width of the windows over the key's scalar: its multiples are worked out for each signature.
const KEY_WIDTH: u32 = 5;
/// Width of the windows over the generator's scalar.
const BASE_WIDTH: u32 = 9;
/// Most digits of a half scalar, which is below 2^128 in magnitude.
const DIGITS: usize = 129;

/// Odd multiples 1, 3, 5, .. of the generator, and of its image under the endomorphism.
static BASE: LazyLock<[[AffinePoint; 1 << (BASE_WIDTH - 2)]; 2]> = LazyLock::new(|| {
    multiples_and_images(&ProjectivePoint::GENERATOR)
        .map(|points| ProjectivePoint::batch_normalize(&points))
});

/// Whether `signature`, whose parts are neither zero nor out of range, was made over the SHA-256 `digest`
/// with the secret of `key`.
pub(super) fn verify(key: &AffinePoint, digest: &[u8; 32], signature: &Signature) -> bool {
    let z = <Scalar as Reduce<U256>>::reduce_bytes(&(*digest).into());
    let (r, s) = signature.split_scalars();
    let inverse = *s.invert_vartime();
    let point = combine(&(z * inverse), key, &(*r * inverse)).to_affine();
    if bool::from(point.is_identity()) {
        return false;
    }
    <Scalar as Reduce<U256>>::reduce_bytes(&point.x()) == *r
}

/// `a G + b Q`.
fn combine(a: &Scalar, q: &AffinePoint, b: &Scalar) -> ProjectivePoint {
    let of_key: [[ProjectivePoint; 1 << (KEY_WIDTH - 2)]; 2] = multiples_and_images(&(*q).into());
    let by_key = halves(b).map(|half| half.digits(KEY_WIDTH));
    let by_base = halves(a).map(|half| half.digits(BASE_WIDTH));
    let mut sum = ProjectivePoint::IDENTITY;
    let mut begun = false;
    for place in (0..DIGITS).rev() {
        if begun {
            sum = sum.double();
        }
        for (digits, points) in by_key.iter().zip(&of_key) {
            let digit = digits[place];
            if digit != 0 {
                let point = &points[usize::from(digit.unsigned_abs() / 2)];
                sum = if digit > 0 { sum + point } else { sum - point };
                begun = true;
            }
        }
        for (digits, points) in by_base.iter().zip(&*BASE) {
            let digit = digits[place];
            if digit != 0 {
                let point = &points[usize::from(digit.unsigned_abs() / 2)];
                sum = if digit > 0 { sum + point } else { sum - point };
                begun = true;
            }
        }
    }
    sum
}

/// Multiples 1, 3, 5, .. of a point, and their images under the endomorphism.
fn multiples_and_images<const N: usize>(point: &ProjectivePoint) -> [[ProjectivePoint; N]; 2] {
    let twice = point.double();
    let mut multiples = [*point; N];
    for place in 1..N {
        multiples[place] = multiples[place - 1] + twice;
    }
    [multiples, multiples.map(|multiple| multiple.endomorphism())]
}

/// One of two numbers that stand for a scalar: `k = first + second lambda`.
#[derive(Clone, Copy, Debug)]
struct Half {
    magnitude: u128,
    negative: bool,
}

/// `-lambda`, where `lambda (x, y) = (beta x, y)`.
const MINUS_LAMBDA: [u8; 32] = [
    0xac, 0x9c, 0x52, 0xb3, 0x3f, 0xa3, 0xcf, 0x1f, 0x5a, 0xd9, 0xe3, 0xfd, 0x77, 0xed, 0x9b, 0xa4,
    0xa8, 0x80, 0xb9, 0xfc, 0x8e, 0xc7, 0x39, 0xc2, 0xe0, 0xcf, 0xc8, 0x10, 0xb5, 0x12, 0x83, 0xcf,
];
/// `-b1` and `-b2` of the lattice's short basis, modulo the order.
const MINUS_B: [[u8; 32]; 2] = [
    [
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0xe4, 0x43, 0x7e, 0xd6, 0x01, 0x0e, 0x88, 0x28, 0x6f, 0x54, 0x7f, 0xa9, 0x0a, 0xbf,
        0xe4, 0xc3,
    ],
    [
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        0xfe, 0x8a, 0x28, 0x0a, 0xc5, 0x07, 0x74, 0x34, 0x6d, 0xd7, 0x65, 0xcd, 0xa8, 0x3d, 0xb1,
        0x56, 0x2c,
    ],
];
/// `round(2^384 b2 / n)` and `round(2^384 (-b1) / n)`, least word first: dividing by `n` becomes a product.
const G: [[u64; 4]; 2] = [
    [
        0xe893_209a_45db_b031,
        0x3daa_8a14_71e8_ca7f,
        0xe86c_90e4_9284_eb15,
        0x3086_d221_a7d4_6bcd,
    ],
    [
        0x1571_b4ae_8ac4_7f71,
        0x2212_08ac_9df5_06c6,
        0x6f54_7fa9_0abf_e4c4,
        0xe443_7ed6_010e_8828,
    ],
];

/// Two numbers below 2^128 in magnitude that stand for a scalar.
fn halves(k: &Scalar) -> [Half; 2] {
    let constant = |bytes: &[u8; 32]| {
        let scalar: Option<Scalar> = Scalar::from_repr((*bytes).into()).into();
        scalar.expect("the constants are below the order")
    };
    let bytes = U256::from(*k).to_le_bytes();
    let words = std::array::from_fn(|word| {
        let word = &bytes[8 * word..8 * word + 8];
        u64::from_le_bytes(word.try_into().expect("8 of 32 bytes"))
    });
    let c = G.map(|g| Scalar::from(rounded_product(&words, &g)));
    let second = c[0] * constant(&MINUS_B[0]) + c[1] * constant(&MINUS_B[1]);
    let first = *k + second * constant(&MINUS_LAMBDA);
    [first, second].map(Half::new)
}

/// `round(a b / 2^384)`, which is below 2^128.
fn rounded_product(a: &[u64; 4], b: &[u64; 4]) -> u128 {
    let mut product = [0u64; 8];
    for (i, a) in a.iter().enumerate() {
        let mut carry = 0u128;
        for (j, b) in b.iter().enumerate() {
            carry += u128::from(product[i + j]) + u128::from(*a) * u128::from(*b);
            product[i + j] = carry as u64;
            carry >>= 64;
        }
        product[i + 4] = carry as u64;
    }
    let high = u128::from(product[6]) | u128::from(product[7]) << 64;
    high + u128::from(product[5] >> 63)
}

impl Half {
    fn new(scalar: Scalar) -> Self {
        let negative = bool::from(scalar.is_high());
        let bytes = if negative { -scalar } else { scalar }.to_bytes();
        let mut low = [0; 16];
        low.copy_from_slice(&bytes[16..]);
        Self {
            magnitude: u128::from_be_bytes(low),
            negative,
        }
    }

    /// Digits to the base 2, least first, that add up to the number: zero, or odd and below
    /// `2^(width - 1)` in magnitude, with at least `width - 1` zeros after each.
    fn digits(&self, width: u32) -> [i16; DIGITS] {
        let mut digits = [0; DIGITS];
        let (mut rest, mut place) = (self.magnitude, 0);
        // One more bit than the number has: a negative digit is made up for above it.
        let mut carry = false;
        while rest != 0 || carry {
            let odd = (rest & 1 == 1) != carry;
            if !odd {
                // 1 + 1 is 0 and carries on.
                carry = rest & 1 == 1 && carry;
                rest >>= 1;
                place += 1;
                continue;
            }
            let window = (rest & ((1 << width) - 1)) as i16 + i16::from(carry);
            let digit = match window >> (width - 1) {
                0 => window,
                _ => window - (1 << width),
            };
            carry = digit < 0;
            digits[place] = if self.negative { -digit } else { digit };
            rest >>= width;
            place += width as usize;
        }
        digits
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k256::Secp256k1;
    use k256::ecdsa::hazmat;
    use k256::elliptic_curve::ops::LinearCombination;
    use proptest::prelude::*;

    /// Scalars of all kinds: any, small, near the order, near powers of two and of lambda.
    fn scalar() -> impl Strategy<Value = Scalar> {
        let number = any::<[u8; 32]>().prop_map(|bytes| {
            let bytes = k256::FieldBytes::from(bytes);
            <Scalar as Reduce<U256>>::reduce_bytes(&bytes)
        });
        let small = any::<u64>().prop_map(|n| Scalar::from(n % 70));
        let power =
            (0u32..256).prop_map(|bits| (0..bits).fold(Scalar::ONE, |power, _| power + power));
        let lambda: Option<Scalar> = Scalar::from_repr(MINUS_LAMBDA.into()).into();
        let lambda = lambda.unwrap();
        (prop_oneof![number, small, power], any::<bool>(), 0u8..3).prop_map(
            move |(scalar, negative, times)| {
                let scalar = (0..times).fold(scalar, |scalar, _| scalar * lambda);
                if negative { -scalar } else { scalar }
            },
        )
    }

    proptest! {
        #[test]
        fn halves_and_their_digits_add_up_to_the_scalar(k in scalar(), width in 2u32..12) {
            let lambda: Option<Scalar> = Scalar::from_repr(MINUS_LAMBDA.into()).into();
            let sums = halves(&k).map(|half| {
                let digits = half.digits(width);
                digits.iter().rev().fold(Scalar::ZERO, |sum, digit| {
                    let magnitude = Scalar::from(u64::from(digit.unsigned_abs()));
                    assert!(*digit == 0 || digit.unsigned_abs() % 2 == 1);
                    assert!(digit.unsigned_abs() < 1 << (width - 1));
                    sum + sum + if *digit < 0 { -magnitude } else { magnitude }
                })
            });
            prop_assert_eq!(sums[0] - sums[1] * lambda.unwrap(), k);
        }

        #[test]
        fn combinations_are_those_of_k256(a in scalar(), b in scalar(), q in scalar()) {
            let q = ProjectivePoint::GENERATOR * q;
            let expected = ProjectivePoint::lincomb(&ProjectivePoint::GENERATOR, &a, &q, &b);
            prop_assert_eq!(combine(&a, &q.to_affine(), &b), expected);
        }

        #[test]
        fn signatures_are_good_here_if_they_are_for_k256(
            secret in scalar(), nonce in scalar(), digest in any::<[u8; 32]>(), other in scalar(),
        ) {
            let key = ProjectivePoint::GENERATOR * secret;
            let x = (ProjectivePoint::GENERATOR * nonce).to_affine().x();
            let r = <Scalar as Reduce<U256>>::reduce_bytes(&x);
            let z = <Scalar as Reduce<U256>>::reduce_bytes(&digest.into());
            let s = |z: Scalar| Option::<Scalar>::from(nonce.invert()).map(|k| k * (z + r * secret));
            // Good, over another digest, with another s, and such that R is no point.
            let no_point = (-(r * secret)).to_bytes().into();
            let cases = [
                (s(z), digest), (s(z + Scalar::ONE), digest), (Some(other), digest),
                (Some(other), no_point),
            ];
            for (case, (s, digest)) in cases.into_iter().enumerate() {
                let Some(signature) = s.and_then(|s| Signature::from_scalars(r, s).ok()) else {
                    continue;
                };
                let expected =
                    hazmat::verify_prehashed::<Secp256k1>(&key, &digest.into(), &signature).is_ok();
                prop_assert_eq!(verify(&key.to_affine(), &digest, &signature), expected);
                prop_assert_eq!(expected, case == 0 || s == cases[0].0 && digest == cases[0].1);
            }
        }
    }
}

//! ECDSA verification of several signatures at once. The two inversions that one signature takes are
//! worked out for all of them together.

use k256::ecdsa::Signature as EcdsaSignature;
use k256::elliptic_curve::BatchNormalize;
use k256::elliptic_curve::ff::BatchInverter;
use k256::elliptic_curve::ops::{MulByGeneratorVartime, Reduce};
use k256::elliptic_curve::point::AffineCoordinates;
use k256::elliptic_curve::scalar::IsHigh;
use k256::{FieldBytes, ProjectivePoint, Scalar};
use sha2::{Digest, Sha256};

use crate::{PublicKey, Signature};

/// A message with the signature that is said to be made over it with a key.
#[derive(Clone, Debug)]
pub struct Signed {
    /// The key.
    pub key: PublicKey,
    /// The message.
    pub message: Vec<u8>,
    /// The signature.
    pub signature: Signature,
}

impl Signed {
    /// Which of `signed` are good: for each what [`PublicKey::verify`] says, in less time than one after
    /// another.
    pub fn verify_all(signed: &[Self]) -> Vec<bool> {
        let equations = signed.iter().map(|signed| {
            let Self {
                key,
                message,
                signature,
            } = signed;
            Equation::of(key, message, signature)
        });
        hold(&equations.collect::<Vec<_>>())
    }
}

/// Whether `signature` is over `message` with the secret of `key`, with a low S.
pub(crate) fn verify(key: &PublicKey, message: &[u8], signature: &Signature) -> bool {
    hold(&[Equation::of(key, message, signature)])[0]
}

/// What has to hold for a signature to be good: `z / s` times the generator and `r / s` times the key are
/// a point whose x is `r`.
struct Equation {
    key: ProjectivePoint,
    z: Scalar,
    r: Scalar,
    s: Scalar,
}

impl Equation {
    /// None for a signature that cannot be good: r or s out of range, or a high s.
    fn of(key: &PublicKey, message: &[u8], signature: &Signature) -> Option<Self> {
        let signature = EcdsaSignature::from_slice(signature.as_bytes()).ok()?;
        let (r, s) = signature.split_scalars();
        if bool::from(s.is_high()) {
            return None;
        }
        let digest: [u8; 32] = Sha256::digest(message).into();
        Some(Self {
            key: key.point(),
            z: Scalar::reduce(&FieldBytes::from(digest)),
            r: *r,
            s: *s,
        })
    }
}

/// Which equations there are and hold.
fn hold(equations: &[Option<Equation>]) -> Vec<bool> {
    let inverted = |equation: &Option<Equation>| equation.as_ref().map_or(Scalar::ONE, |e| e.s);
    let mut inverses: Vec<Scalar> = equations.iter().map(inverted).collect();
    let mut scratch = inverses.clone();
    BatchInverter::invert_with_external_scratch(&mut inverses, &mut scratch);
    let points = equations
        .iter()
        .zip(inverses)
        .map(|(equation, inverse)| match equation {
            Some(Equation { key, z, r, .. }) => {
                ProjectivePoint::mul_by_generator_and_mul_add_vartime(
                    &(z * &inverse),
                    &(r * &inverse),
                    key,
                )
            }
            None => ProjectivePoint::IDENTITY,
        });
    let points: Vec<ProjectivePoint> = points.collect();
    let points = ProjectivePoint::batch_normalize_vartime(points.as_slice());
    let holds = |(equation, point): (&Option<Equation>, &k256::AffinePoint)| {
        // The point at infinity has the x 0 here, which is no r.
        equation
            .as_ref()
            .is_some_and(|equation| Scalar::reduce(&point.x()) == equation.r)
    };
    equations.iter().zip(&points).map(holds).collect()
}

#[cfg(test)]
mod tests {
    use k256::ecdsa::VerifyingKey;
    use k256::ecdsa::signature::Verifier;
    use proptest::prelude::*;

    use super::*;
    use crate::SecretKey;

    /// What the library says of one signature, which is always by itself there.
    fn by_the_library(signed: &Signed) -> bool {
        let key = VerifyingKey::from_sec1_bytes(&signed.key.to_bytes()).unwrap();
        EcdsaSignature::from_slice(signed.signature.as_bytes())
            .is_ok_and(|signature| key.verify(&signed.message, &signature).is_ok())
    }

    /// A signature, and then what is done to it: nothing, a high s, or a byte changed somewhere.
    fn signed() -> impl Strategy<Value = Signed> {
        let message = prop::collection::vec(any::<u8>(), 0..100);
        (1u8..20, message, any::<[u8; 2]>(), 0..97usize, 0u8..4).prop_map(
            |(key, message, change, place, what)| {
                let key = SecretKey::from_bytes(&[key; 32]).unwrap();
                let mut signature = *key.sign(&message).as_bytes();
                match what {
                    0 => {
                        let low = EcdsaSignature::from_slice(&signature).unwrap();
                        let high = EcdsaSignature::from_scalars(low.r(), -low.s()).unwrap();
                        signature = high.to_bytes().into();
                    }
                    1 if place < 64 => signature[place] ^= change[0],
                    1 => signature[(place - 64) & 32..][..32].fill(change[0] | change[1]),
                    _ => {}
                }
                Signed {
                    key: key.public_key(),
                    message,
                    signature: signature.into(),
                }
            },
        )
    }

    proptest! {
        #[test]
        fn together_they_are_as_good_as_the_library_says_of_each(
            mut signed in prop::collection::vec(signed(), 0..12),
        ) {
            if let [first, .., last] = signed.as_mut_slice() {
                last.message.clone_from(&first.message);
            }
            let expected: Vec<bool> = signed.iter().map(by_the_library).collect();
            prop_assert_eq!(Signed::verify_all(&signed), expected.clone());
            for (signed, expected) in signed.iter().zip(expected) {
                prop_assert_eq!(signed.key.verify(&signed.message, &signed.signature), expected);
            }
        }
    }

    #[test]
    fn the_point_at_infinity_is_no_signature() {
        // With this key, z / s times the generator and r / s times the key cancel out.
        let message = b"message";
        let digest: [u8; 32] = Sha256::digest(message).into();
        let z = Scalar::reduce(&FieldBytes::from(digest));
        let r = Scalar::from(7u32);
        let key = (-z * r.invert().unwrap()).to_bytes();
        let key = SecretKey::from_bytes(&key.into()).unwrap().public_key();
        let signature = EcdsaSignature::from_scalars(r, Scalar::from(5u32)).unwrap();
        let signature = Signature::from(<[u8; 64]>::from(signature.to_bytes()));
        assert!(!key.verify(message, &signature));
        let signed = Signed {
            key,
            message: message.to_vec(),
            signature,
        };
        assert!(!by_the_library(&signed));
    }
}

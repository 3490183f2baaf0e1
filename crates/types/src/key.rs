//! Keys and signatures: secp256k1 for accounts, ed25519 public keys for block validators.

use std::fmt;

use k256::ecdsa::signature::{Signer, Verifier};
use k256::ecdsa::{Signature as EcdsaSignature, SigningKey, VerifyingKey};
use ripemd::Ripemd160;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::wire::{DELIMITED, DecodeError, Reader, Value, put_delimited};
use crate::{Address, Hasher};

/// A secp256k1 secret key. Never printed; wiped from memory when dropped.
#[derive(Clone)]
pub struct SecretKey(SigningKey);

/// Bytes that are not a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("these bytes are not a secp256k1 {what}")]
pub struct KeyError {
    /// Which kind of key was expected.
    pub what: &'static str,
}

impl SecretKey {
    /// Length in bytes.
    pub const LEN: usize = 32;

    /// A key from its 32 bytes.
    ///
    /// # Errors
    /// When they are zero or not below the group order.
    pub fn from_bytes(bytes: &[u8; Self::LEN]) -> Result<Self, KeyError> {
        SigningKey::from_slice(bytes)
            .map(Self)
            .map_err(|_| KeyError { what: "secret key" })
    }

    /// The 32 bytes, wiped when dropped.
    pub fn to_bytes(&self) -> Zeroizing<[u8; Self::LEN]> {
        Zeroizing::new(self.0.to_bytes().into())
    }

    /// The public key.
    pub fn public_key(&self) -> PublicKey {
        PublicKey(*self.0.verifying_key())
    }

    /// The address of this key's account.
    pub fn address(&self) -> Address {
        self.public_key().address()
    }

    /// Signs sha256 of `message`: deterministic (RFC 6979), low S.
    pub fn sign(&self, message: &[u8]) -> Signature {
        let signature: EcdsaSignature = self.0.sign(message);
        Signature(signature.normalize_s().to_bytes().into())
    }

    /// A secret for one purpose, derived from this key; it does not reveal the key.
    pub fn derive_secret(&self, purpose: &str) -> Zeroizing<[u8; 32]> {
        let hash = Hasher::new("r3mes derived secret v1")
            .part(purpose.as_bytes())
            .part(self.to_bytes().as_ref())
            .finish();
        Zeroizing::new(*hash.as_bytes())
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey of {}", self.address())
    }
}

/// A secp256k1 public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// Length of the compressed form in bytes.
    pub const LEN: usize = 33;

    /// A key from its compressed form.
    ///
    /// # Errors
    /// When the bytes are not a point on the curve in compressed form.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        let refused = KeyError {
            what: "public key in compressed form",
        };
        if bytes.len() != Self::LEN {
            return Err(refused);
        }
        VerifyingKey::from_sec1_bytes(bytes)
            .map(Self)
            .map_err(|_| refused)
    }

    /// The compressed form.
    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        let point = self.0.to_sec1_point(true);
        point
            .as_bytes()
            .try_into()
            .expect("a compressed point has 33 bytes")
    }

    /// `ripemd160(sha256(key))`.
    pub fn address(&self) -> Address {
        let digest: [u8; 20] = Ripemd160::digest(Sha256::digest(self.to_bytes())).into();
        Address::from(digest)
    }

    /// Whether `signature` was made over `message` with the secret of this key.
    ///
    /// Signatures with a high S are refused, so that nobody can alter a transaction's bytes.
    pub fn verify(&self, message: &[u8], signature: &Signature) -> bool {
        let Ok(parsed) = EcdsaSignature::from_slice(&signature.0) else {
            return false;
        };
        parsed.normalize_s() == parsed && self.0.verify(message, &parsed).is_ok()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.to_bytes()))
    }
}

impl Value for PublicKey {
    const WIRE_TYPE: u8 = DELIMITED;
    fn kind() -> crate::wire::Kind {
        crate::wire::Kind::Bytes
    }
    fn put(&self, out: &mut Vec<u8>) {
        put_delimited(&self.to_bytes(), out);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Self::from_bytes(reader.delimited()?)
            .map_err(|error| DecodeError::invalid(error.to_string()))
    }
}

/// A public key as an account keeps it: in compressed form, and known to be a key, since it has verified
/// a signature of the account. Unlike a [`PublicKey`] it takes no arithmetic to read.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AccountKey([u8; PublicKey::LEN]);

impl AccountKey {
    /// The compressed form.
    pub const fn as_bytes(&self) -> &[u8; PublicKey::LEN] {
        &self.0
    }

    /// The key, to verify with.
    ///
    /// # Errors
    /// When the bytes came from elsewhere and are no key.
    pub fn public_key(&self) -> Result<PublicKey, KeyError> {
        PublicKey::from_bytes(&self.0)
    }
}

impl From<PublicKey> for AccountKey {
    fn from(key: PublicKey) -> Self {
        Self(key.to_bytes())
    }
}

impl fmt::Debug for AccountKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl Value for AccountKey {
    const WIRE_TYPE: u8 = DELIMITED;
    fn kind() -> crate::wire::Kind {
        crate::wire::Kind::Bytes
    }
    fn put(&self, out: &mut Vec<u8>) {
        put_delimited(&self.0, out);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.exactly("a public key in compressed form").map(Self)
    }
}

/// A secp256k1 signature: r and s, 32 bytes each.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Signature([u8; Self::LEN]);

impl Signature {
    /// Length in bytes.
    pub const LEN: usize = 64;

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

impl From<[u8; Signature::LEN]> for Signature {
    fn from(bytes: [u8; Signature::LEN]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl Value for Signature {
    const WIRE_TYPE: u8 = DELIMITED;
    fn kind() -> crate::wire::Kind {
        crate::wire::Kind::Bytes
    }
    fn put(&self, out: &mut Vec<u8>) {
        put_delimited(&self.0, out);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.exactly("a signature").map(Self)
    }
}

/// The ed25519 public key with which a block validator signs blocks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConsensusKey([u8; Self::LEN]);

impl ConsensusKey {
    /// Length in bytes.
    pub const LEN: usize = 32;

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// The first 20 bytes of sha256 of the key, as CometBFT names validators.
    pub fn address(&self) -> ConsensusAddress {
        let digest: [u8; 32] = Sha256::digest(self.0).into();
        let mut address = [0; ConsensusAddress::LEN];
        address.copy_from_slice(&digest[..ConsensusAddress::LEN]);
        ConsensusAddress(address)
    }
}

impl From<[u8; ConsensusKey::LEN]> for ConsensusKey {
    fn from(bytes: [u8; ConsensusKey::LEN]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for ConsensusKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl Value for ConsensusKey {
    const WIRE_TYPE: u8 = DELIMITED;
    fn kind() -> crate::wire::Kind {
        crate::wire::Kind::Bytes
    }
    fn put(&self, out: &mut Vec<u8>) {
        put_delimited(&self.0, out);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.exactly("an ed25519 key").map(Self)
    }
}

/// Names a block validator; printed as 40 upper-case hexadecimal digits, as CometBFT does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConsensusAddress([u8; Self::LEN]);

impl ConsensusAddress {
    /// Length in bytes.
    pub const LEN: usize = 20;

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

impl From<[u8; ConsensusAddress::LEN]> for ConsensusAddress {
    fn from(bytes: [u8; ConsensusAddress::LEN]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for ConsensusAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode_upper(self.0))
    }
}

impl fmt::Debug for ConsensusAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Value for ConsensusAddress {
    const WIRE_TYPE: u8 = DELIMITED;
    fn kind() -> crate::wire::Kind {
        crate::wire::Kind::Bytes
    }
    fn put(&self, out: &mut Vec<u8>) {
        put_delimited(&self.0, out);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.exactly("a validator").map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SecretKey {
        SecretKey::from_bytes(&[1; 32]).unwrap()
    }

    #[test]
    fn a_signature_verifies_only_its_own_message_and_key() {
        let signature = key().sign(b"message");
        assert!(key().public_key().verify(b"message", &signature));
        assert!(!key().public_key().verify(b"another", &signature));
        let other = SecretKey::from_bytes(&[2; 32]).unwrap();
        assert!(!other.public_key().verify(b"message", &signature));
    }

    #[test]
    fn a_signature_with_a_high_s_is_refused() {
        let signature = EcdsaSignature::from_slice(key().sign(b"message").as_bytes()).unwrap();
        let high = EcdsaSignature::from_scalars(signature.r(), -signature.s()).unwrap();
        let high = Signature(high.to_bytes().into());
        assert!(!key().public_key().verify(b"message", &high));
    }

    #[test]
    fn the_address_of_a_known_key_is_the_one_cosmos_gives() {
        // sha256/ripemd160 of 031b84...8f with another prefix in any Cosmos wallet.
        assert_eq!(
            hex::encode(key().public_key().to_bytes()),
            "031b84c5567b126440995d3ed5aaba0565d71e1834604819ff9c17f5e9d5dd078f"
        );
        assert_eq!(
            hex::encode(key().address()),
            "79b000887626b294a914501a4cd226b58b235983"
        );
    }

    #[test]
    fn an_account_s_key_is_the_public_key_unread() {
        let kept = AccountKey::from(key().public_key());
        assert_eq!(kept.public_key(), Ok(key().public_key()));
        let mut bytes = Vec::new();
        kept.put(&mut bytes);
        assert_eq!(AccountKey::take(&mut Reader::new(&bytes)).unwrap(), kept);
        // Five is the x of no point.
        let mut no_key = [0; PublicKey::LEN];
        (no_key[0], no_key[32]) = (2, 5);
        assert!(AccountKey(no_key).public_key().is_err());
    }

    #[test]
    fn secret_keys_do_not_print_themselves() {
        assert!(!format!("{:?}", key()).contains("0101"));
    }
}

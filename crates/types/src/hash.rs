//! BLAKE3 hashes.

use std::{fmt, str::FromStr};

use crate::wire::{DELIMITED, DecodeError, Reader, Value, put_delimited};

/// A BLAKE3 hash; printed as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash([u8; Self::LEN]);

impl Hash {
    /// Length in bytes.
    pub const LEN: usize = 32;

    /// All bits zero: stands for "nothing yet", since no known bytes have this hash.
    pub const ZERO: Self = Self([0; Self::LEN]);

    /// The hash of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

/// Hashes parts under a domain, so that equal bytes with different meanings never collide.
///
/// BLAKE3 in its key-derivation mode separates the domains; every part is preceded by its length
/// (u64, little-endian), so that parts cannot be shifted into each other.
///
/// ```
/// use r3mes_types::Hasher;
///
/// let hash = Hasher::new("r3mes example v1").part(b"a").part(b"bc").finish();
/// assert_ne!(hash, Hasher::new("r3mes example v1").part(b"ab").part(b"c").finish());
/// ```
#[derive(Clone, Debug)]
pub struct Hasher(blake3::Hasher);

impl Hasher {
    /// Starts a hash in `domain`.
    pub fn new(domain: &str) -> Self {
        Self(blake3::Hasher::new_derive_key(domain))
    }

    /// Adds a part of any length.
    #[must_use]
    pub fn part(mut self, bytes: &[u8]) -> Self {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    /// Adds a number.
    #[must_use]
    pub fn number(self, number: u64) -> Self {
        self.part(&number.to_le_bytes())
    }

    /// The hash of all parts.
    pub fn finish(self) -> Hash {
        Hash(*self.0.finalize().as_bytes())
    }
}

impl From<[u8; Hash::LEN]> for Hash {
    fn from(bytes: [u8; Hash::LEN]) -> Self {
        Self(bytes)
    }
}

impl AsRef<[u8]> for Hash {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Text that is not a hash.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a hash: 64 hexadecimal digits are needed")]
pub struct HashError {
    /// The text.
    pub text: String,
}

impl FromStr for Hash {
    type Err = HashError;
    fn from_str(text: &str) -> Result<Self, HashError> {
        let mut bytes = [0; Self::LEN];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| HashError {
            text: text.chars().take(80).collect(),
        })?;
        Ok(Self(bytes))
    }
}

impl Value for Hash {
    const WIRE_TYPE: u8 = DELIMITED;
    fn kind() -> crate::wire::Kind {
        crate::wire::Kind::Bytes
    }
    fn put(&self, out: &mut Vec<u8>) {
        put_delimited(&self.0, out);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.exactly("a hash").map(Self)
    }
}

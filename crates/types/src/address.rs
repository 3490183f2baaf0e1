//! Account addresses.

use std::{fmt, str::FromStr};

use bech32::{Bech32, Hrp};

use crate::wire::{DELIMITED, DecodeError, Reader, Value, put_delimited, take_str};

/// Prefix of account addresses.
const PREFIX: Hrp = Hrp::parse_unchecked(Address::PREFIX);

/// Longest text looked at, in bytes: the limit of bech32.
const TEXT_LEN: usize = 90;

/// An account: 20 bytes, written in bech32 with the prefix `remes`.
///
/// A user's address is `ripemd160(sha256(compressed secp256k1 key))`, as in the Cosmos SDK; a module
/// account's is the first 20 bytes of `sha256(name)`, which no key is known for.
///
/// ```
/// use r3mes_types::Address;
///
/// let address = Address::from([0; 20]);
/// assert_eq!(address.to_string(), "remes1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqvumral");
/// assert_eq!(address.to_string().parse::<Address>()?, address);
/// # Ok::<(), r3mes_types::AddressError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address([u8; Self::LEN]);

impl Address {
    /// Length in bytes.
    pub const LEN: usize = 20;
    /// What addresses begin with.
    pub const PREFIX: &'static str = "remes";

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

/// Text that is not an address of this network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an address: {why}; addresses look like remes1... with 38 more characters")]
pub struct AddressError {
    /// The text, cut after 64 characters.
    pub text: String,
    /// What is wrong with it.
    pub why: String,
}

impl From<[u8; Address::LEN]> for Address {
    fn from(bytes: [u8; Address::LEN]) -> Self {
        Self(bytes)
    }
}

impl AsRef<[u8]> for Address {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        bech32::encode_lower_to_fmt::<Bech32, _>(f, PREFIX, &self.0).map_err(|_| fmt::Error)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Address {
    type Err = AddressError;
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let refuse = |why: String| AddressError {
            text: text.chars().take(64).collect(),
            why,
        };
        if text.len() > TEXT_LEN {
            return Err(refuse("it is too long".into()));
        }
        let parsed = bech32::primitives::decode::CheckedHrpstring::new::<Bech32>(text)
            .map_err(|error| refuse(error.to_string()))?;
        if parsed.hrp() != PREFIX {
            return Err(refuse(format!("its prefix is {}", parsed.hrp())));
        }
        let bytes: Vec<u8> = parsed.byte_iter().collect();
        let length = bytes.len();
        bytes
            .try_into()
            .map(Self)
            .map_err(|_| refuse(format!("it has {length} bytes, not 20")))
    }
}

/// Carried as lower-case text, as Cosmos messages do.
impl Value for Address {
    const WIRE_TYPE: u8 = DELIMITED;
    fn kind() -> crate::wire::Kind {
        crate::wire::Kind::String
    }
    fn put(&self, out: &mut Vec<u8>) {
        put_delimited(self.to_string().as_bytes(), out);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let text = take_str(reader.delimited()?)?;
        let address: Self = text
            .parse()
            .map_err(|error: AddressError| DecodeError::invalid(error.to_string()))?;
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(DecodeError::invalid("addresses are written in lower case"));
        }
        Ok(address)
    }
}

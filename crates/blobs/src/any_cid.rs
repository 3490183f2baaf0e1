//! CIDs of any kind: what other writers' links, paths and CARs name.

use std::{fmt, str::FromStr, sync::Arc};

use cid::{Version, multihash::Multihash};
use r3mes_types::{Cid, CidError, Codec};

use crate::hash::{self, HashFunction, IDENTITY, SHA2_256};

/// Multicodec number of `raw`: content.
pub(crate) const RAW: u64 = 0x55;
/// Multicodec number of `dag-pb`: UnixFS nodes.
pub(crate) const DAG_PB: u64 = 0x70;
/// Multicodec number of `dag-cbor`.
pub(crate) const DAG_CBOR: u64 = 0x71;
/// Multicodec number of `dag-json`.
pub(crate) const DAG_JSON: u64 = 0x0129;

/// Longest text that is looked at: no multibase needs more characters for [`AnyCid::MAX_BYTES`].
const MAX_CHARS: usize = 8 * AnyCid::MAX_BYTES + 1;

/// A CID of any version, codec and hash.
///
/// The network's own blobs are named by [`Cid`], which knows the two codecs and the one hash that
/// are used here. Blocks of other writers may be kept, sent and followed too, and links may name
/// anything: that is this type. A `CIDv0` and the `CIDv1` of the same node name one block.
///
/// ```
/// use r3mes_blobs::AnyCid;
///
/// let old: AnyCid = "QmdfTbBqBPQ7VNxZEYEj14VmRuZBkqFbiwReogJgS1zR1n".parse()?;
/// let new: AnyCid = "bafybeihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku".parse()?;
/// assert_ne!(old, new);
/// assert_eq!(old.key(), new);
/// let inline: AnyCid = "bafkqac3imvwgy3zao5xxe3de".parse()?;
/// assert_eq!(inline.inline(), Some(&b"hello world"[..]));
/// # Ok::<(), r3mes_blobs::AnyCidError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AnyCid(Form);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Form {
    /// A `dag-pb` block by its sha2-256 alone.
    V0([u8; 32]),
    /// A block of any codec by its sha2-256.
    V1 { codec: u64, digest: [u8; 32] },
    /// Content that stands in the CID itself, or another hash.
    Other(Arc<cid::Cid>),
}

impl AnyCid {
    /// Longest binary form in bytes: version, codec, hash code and length, a hash of 64 bytes.
    pub const MAX_BYTES: usize = 1 + 10 + 10 + 1 + 64;

    /// Reads the binary form.
    ///
    /// # Errors
    /// When `bytes` is not a CID, or goes on behind one.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, AnyCidError> {
        match Self::read(bytes)? {
            (cid, []) => Ok(cid),
            _ => Err(AnyCidError),
        }
    }

    /// Reads the binary form that `bytes` begin with, and returns what follows it.
    pub(crate) fn read(bytes: &[u8]) -> Result<(Self, &[u8]), AnyCidError> {
        let mut rest = bytes;
        let cid = cid::Cid::read_bytes(&mut rest).map_err(|_| AnyCidError)?;
        Ok((cid.into(), rest))
    }

    /// The binary form.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.general().to_bytes()
    }

    /// The multicodec number that says how the block is read, such as 0x55 for `raw`.
    #[must_use]
    pub fn codec(&self) -> u64 {
        match &self.0 {
            Form::V0(_) => DAG_PB,
            Form::V1 { codec, .. } => *codec,
            Form::Other(cid) => cid.codec(),
        }
    }

    /// The content that stands in the CID itself, if it does (hash `identity`).
    #[must_use]
    pub fn inline(&self) -> Option<&[u8]> {
        match &self.0 {
            Form::Other(cid) if cid.hash().code() == IDENTITY => Some(cid.hash().digest()),
            _ => None,
        }
    }

    /// The sha2-256 of the block; `None` when the content is inline or the hash another.
    #[must_use]
    pub fn digest(&self) -> Option<&[u8; 32]> {
        match &self.0 {
            Form::V0(digest) | Form::V1 { digest, .. } => Some(digest),
            Form::Other(_) => None,
        }
    }

    /// Whether bytes can be held against it here: by sha2-256, `identity`, or one of the hash functions
    /// that other writers use. Others are not known, nor are digests that were cut short.
    #[must_use]
    pub fn is_checkable(&self) -> bool {
        self.digest().is_some() || self.inline().is_some() || self.other_hash().is_some()
    }

    /// Whether `block` is what this CID names; never for a hash that is not known here.
    #[must_use]
    pub fn matches(&self, block: &[u8]) -> bool {
        match (self.digest(), self.inline(), self.other_hash()) {
            (Some(digest), ..) => Cid::new(Codec::Raw, *digest).matches(block),
            (_, Some(inline), _) => inline == block,
            (.., Some((function, digest))) => function.matches(digest, block),
            _ => false,
        }
    }

    /// A hash that is neither sha2-256 nor `identity`, if it is known here.
    fn other_hash(&self) -> Option<(&'static HashFunction, &[u8])> {
        let Form::Other(cid) = &self.0 else {
            return None;
        };
        let (code, digest) = (cid.hash().code(), cid.hash().digest());
        let function = HashFunction::known(code, digest.len())?;
        Some((function, digest))
    }

    /// By which hash function the block is named, and how long the digest is, for people.
    pub(crate) fn hash_named(&self) -> hash::Named {
        let cid = self.general();
        let (code, digest_bytes) = (cid.hash().code(), cid.hash().digest().len());
        hash::Named { code, digest_bytes }
    }

    /// The name under which a store keeps the block: that of version 1.
    #[must_use]
    pub fn key(&self) -> Self {
        match self.0 {
            Form::V0(digest) => Self(Form::V1 {
                codec: DAG_PB,
                digest,
            }),
            _ => self.clone(),
        }
    }

    fn general(&self) -> cid::Cid {
        let hash = |digest: &[u8; 32]| {
            Multihash::wrap(SHA2_256, digest).expect("a digest of 32 bytes fits into 64")
        };
        match &self.0 {
            Form::V0(digest) => cid::Cid::new_v0(hash(digest)).expect("the hash is a sha2-256"),
            Form::V1 { codec, digest } => cid::Cid::new_v1(*codec, hash(digest)),
            Form::Other(cid) => **cid,
        }
    }
}

impl From<cid::Cid> for AnyCid {
    fn from(cid: cid::Cid) -> Self {
        let hash = cid.hash();
        let digest = <[u8; 32]>::try_from(hash.digest());
        Self(match (cid.version(), hash.code(), digest) {
            (Version::V0, _, Ok(digest)) => Form::V0(digest),
            (Version::V1, SHA2_256, Ok(digest)) => Form::V1 {
                codec: cid.codec(),
                digest,
            },
            _ => Form::Other(Arc::new(cid)),
        })
    }
}

impl From<Cid> for AnyCid {
    fn from(cid: Cid) -> Self {
        let codec = match cid.codec() {
            Codec::Raw => RAW,
            Codec::DagPb => DAG_PB,
        };
        let digest = *cid.digest();
        Self(Form::V1 { codec, digest })
    }
}

impl From<&Cid> for AnyCid {
    fn from(cid: &Cid) -> Self {
        (*cid).into()
    }
}

impl From<&Self> for AnyCid {
    fn from(cid: &Self) -> Self {
        cid.clone()
    }
}

impl TryFrom<&AnyCid> for Cid {
    type Error = CidError;

    /// The network's own form, if the CID is of a kind that it uses.
    fn try_from(cid: &AnyCid) -> Result<Self, CidError> {
        match &cid.0 {
            Form::V0(_) => Err(CidError::Version),
            Form::V1 { codec, digest } => match *codec {
                RAW => Ok(Self::new(Codec::Raw, *digest)),
                DAG_PB => Ok(Self::new(Codec::DagPb, *digest)),
                code => Err(CidError::Codec { code }),
            },
            Form::Other(cid) => Err(CidError::Hash {
                code: cid.hash().code(),
            }),
        }
    }
}

impl PartialEq<Cid> for AnyCid {
    fn eq(&self, other: &Cid) -> bool {
        Cid::try_from(self).is_ok_and(|own| own == *other)
    }
}

impl fmt::Display for AnyCid {
    /// Version 1 in base32, version 0 in Base58.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.general().to_string())
    }
}

impl fmt::Debug for AnyCid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AnyCid({self})")
    }
}

impl FromStr for AnyCid {
    type Err = AnyCidError;

    /// Reads the text form in any multibase.
    fn from_str(text: &str) -> Result<Self, AnyCidError> {
        if text.len() > MAX_CHARS || text.contains('/') {
            return Err(AnyCidError);
        }
        let cid = cid::Cid::try_from(text).map_err(|_| AnyCidError)?;
        Ok(cid.into())
    }
}

/// Something is not a CID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a CID: expected text such as bafkrei... or Qm..., or its bytes, with a hash of at most 64 \
     bytes"
)]
pub struct AnyCidError;

#[cfg(test)]
mod tests {
    use super::*;

    const DIRECTORY: &str = "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn";

    fn of(codec: u64, hash: u64, digest: &[u8]) -> AnyCid {
        cid::Cid::new_v1(codec, Multihash::wrap(hash, digest).unwrap()).into()
    }

    #[test]
    fn both_forms_of_every_kind_come_back() {
        let sha1 = of(RAW, 0x11, &[7; 20]);
        for cid in [
            Cid::raw(b"a").into(),
            DIRECTORY.parse().unwrap(),
            of(DAG_CBOR, SHA2_256, &[1; 32]),
            of(DAG_JSON, SHA2_256, &[1; 32]),
            of(u64::MAX >> 1, 0x13, &[1; 64]),
            of(RAW, IDENTITY, b""),
            of(RAW, IDENTITY, &[9; 64]),
            of(RAW, 0x1e, &[7; 32]),
            of(RAW, 0xb240, &[7; 64]),
            sha1.clone(),
        ] {
            let bytes = cid.to_bytes();
            assert!(bytes.len() <= AnyCid::MAX_BYTES);
            assert_eq!(AnyCid::from_bytes(&bytes), Ok(cid.clone()));
            assert_eq!(cid.to_string().parse(), Ok(cid.clone()));
            assert!(AnyCid::from_bytes(&[&bytes[..], &[0]].concat()).is_err());
            assert!(AnyCid::from_bytes(&bytes[..bytes.len() - 1]).is_err());
            assert_eq!(cid.is_checkable(), cid != sha1, "{cid}");
        }
    }

    #[test]
    fn only_kinds_that_the_network_uses_are_its_own() {
        for cid in [Cid::raw(b"a"), Cid::dag_pb(b"b")] {
            assert_eq!(Cid::try_from(&AnyCid::from(cid)), Ok(cid));
            assert_eq!(AnyCid::from(cid).to_bytes(), cid.to_bytes());
        }
        let old: AnyCid = DIRECTORY.parse().unwrap();
        assert_eq!(Cid::try_from(&old), Err(CidError::Version));
        let own = Cid::try_from(&old.key()).unwrap();
        assert_eq!(Some(own.digest()), old.digest());
        for (cid, error) in [
            (
                of(DAG_CBOR, SHA2_256, &[1; 32]),
                CidError::Codec { code: 0x71 },
            ),
            (of(RAW, IDENTITY, b"x"), CidError::Hash { code: 0 }),
            (of(RAW, SHA2_256, &[1; 20]), CidError::Hash { code: 0x12 }),
        ] {
            assert_eq!(Cid::try_from(&cid), Err(error));
        }
    }

    #[test]
    fn bytes_are_held_against_the_hash_or_the_inline_content() {
        let raw = AnyCid::from(Cid::raw(b"one"));
        assert!(raw.matches(b"one") && !raw.matches(b"two"));
        let inline = of(RAW, IDENTITY, b"one");
        assert!(inline.matches(b"one") && !inline.matches(b"two"));
        let keccak = of(
            RAW,
            0x1b,
            &hex::decode("4e03657aea45a94fc7d47ba826c8d667c0d1e6e33a64a036ec44f58fa12d6c45")
                .unwrap(),
        );
        assert!(keccak.matches(b"abc") && !keccak.matches(b"one"));
        assert!(!of(RAW, 0x11, &[0; 20]).matches(b"one"));
    }

    #[test]
    fn garbage_is_refused() {
        let long = "b".repeat(100_000);
        for text in [
            "",
            "b",
            "Qm",
            "bafk",
            "/ipfs/bafkqaaa",
            "hello world",
            &long,
        ] {
            assert!(text.parse::<AnyCid>().is_err(), "{text}");
        }
    }
}

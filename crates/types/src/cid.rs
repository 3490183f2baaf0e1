//! Content identifiers: the names of everything that is stored as bytes.

use std::{fmt, str::FromStr};

use cid::multihash::Multihash;
use sha2::{Digest, Sha256};

use crate::sha256;
use crate::wire::{DELIMITED, DecodeError, Reader, Value, put_delimited};

/// Multicodec number of `raw`: the block is the content itself.
const RAW: u64 = 0x55;
/// Multicodec number of `dag-pb`: the block is a MerkleDAG node with links.
const DAG_PB: u64 = 0x70;
/// Multihash number of `sha2-256`.
const SHA2_256: u64 = 0x12;

/// How the block behind a [`Cid`] is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Codec {
    /// The block is content.
    Raw,
    /// The block is a MerkleDAG node in protobuf: links to other blocks and UnixFS data.
    DagPb,
}

/// A CIDv1 of a `raw` or `dag-pb` block, hashed with sha2-256.
///
/// Other versions, codecs and hashes exist; none is used on this network, so they are refused
/// where they come in and nobody has to think of them afterwards.
///
/// ```
/// use r3mes_types::Cid;
///
/// let cid = Cid::raw(b"");
/// assert_eq!(cid.to_string(), "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku");
/// assert_eq!(cid.to_string().parse::<Cid>()?, cid);
/// # Ok::<(), r3mes_types::CidError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cid {
    codec: Codec,
    digest: [u8; 32],
}

impl Cid {
    /// Length of the binary form in bytes.
    pub const LEN: usize = 36;

    /// Length of the text form in characters.
    pub const TEXT_LEN: usize = 59;

    /// A CID from its parts.
    #[must_use]
    pub const fn new(codec: Codec, digest: [u8; 32]) -> Self {
        Self { codec, digest }
    }

    /// The CID of a `raw` block with these bytes.
    #[must_use]
    pub fn raw(block: &[u8]) -> Self {
        Self::new(Codec::Raw, Sha256::digest(block).into())
    }

    /// The CIDs of two `raw` blocks, in less time than one after another.
    #[must_use]
    pub fn raw_pair(blocks: [&[u8]; 2]) -> [Self; 2] {
        sha256::pair(blocks).map(|digest| Self::new(Codec::Raw, digest))
    }

    /// The CID of a `dag-pb` block with these bytes.
    #[must_use]
    pub fn dag_pb(block: &[u8]) -> Self {
        Self::new(Codec::DagPb, Sha256::digest(block).into())
    }

    /// How the block is read.
    #[must_use]
    pub const fn codec(&self) -> Codec {
        self.codec
    }

    /// The sha2-256 of the block.
    #[must_use]
    pub const fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// Whether `block` is what this CID names.
    #[must_use]
    pub fn matches(&self, block: &[u8]) -> bool {
        <[u8; 32]>::from(Sha256::digest(block)) == self.digest
    }

    /// Whether each of two blocks is what its CID names, in less time than one after another.
    #[must_use]
    pub fn match_pair(cids: [&Self; 2], blocks: [&[u8]; 2]) -> [bool; 2] {
        let digests = sha256::pair(blocks);
        [0, 1].map(|which| digests[which] == cids[which].digest)
    }

    /// The binary form: version, codec, hash code, hash length, hash.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        let codec = match self.codec {
            Codec::Raw => RAW,
            Codec::DagPb => DAG_PB,
        };
        let mut bytes = [0; Self::LEN];
        bytes[..4].copy_from_slice(&[1, codec as u8, SHA2_256 as u8, 32]);
        bytes[4..].copy_from_slice(&self.digest);
        bytes
    }

    /// Reads the binary form.
    ///
    /// # Errors
    /// When `bytes` is not a CID, or one of a kind that this network does not use.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CidError> {
        // All that we accept is this long, and a limit here bounds the parser behind it.
        if bytes.len() != Self::LEN {
            return Err(CidError::Malformed);
        }
        Self::from_general(&cid::Cid::try_from(bytes).map_err(|_| CidError::Malformed)?)
    }

    fn from_general(cid: &cid::Cid) -> Result<Self, CidError> {
        if cid.version() != cid::Version::V1 {
            return Err(CidError::Version);
        }
        let codec = match cid.codec() {
            RAW => Codec::Raw,
            DAG_PB => Codec::DagPb,
            code => return Err(CidError::Codec { code }),
        };
        let hash = cid.hash();
        match (hash.code(), <[u8; 32]>::try_from(hash.digest())) {
            (SHA2_256, Ok(digest)) => Ok(Self { codec, digest }),
            (code, _) => Err(CidError::Hash { code }),
        }
    }
}

impl fmt::Display for Cid {
    /// The text form: multibase base32, 59 characters.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let codec = match self.codec {
            Codec::Raw => RAW,
            Codec::DagPb => DAG_PB,
        };
        let hash = Multihash::<64>::wrap(SHA2_256, &self.digest).map_err(|_| fmt::Error)?;
        f.pad(&cid::Cid::new_v1(codec, hash).to_string())
    }
}

impl fmt::Debug for Cid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cid({self})")
    }
}

impl FromStr for Cid {
    type Err = CidError;

    /// Reads the text form in any multibase.
    fn from_str(text: &str) -> Result<Self, CidError> {
        /// No multibase spends more characters on 36 bytes than binary digits do.
        const MAX_CHARS: usize = 8 * Cid::LEN + 1;
        if text.len() > MAX_CHARS || text.contains('/') {
            return Err(CidError::Malformed);
        }
        Self::from_general(&cid::Cid::try_from(text).map_err(|_| CidError::Malformed)?)
    }
}

/// Why something is not a [`Cid`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CidError {
    /// Not a CID at all.
    #[error("not a CID: expected CIDv1 text such as bafkrei..., or its 36 bytes")]
    Malformed,
    /// CIDv0.
    #[error("CIDv0 is not supported: convert it to CIDv1 (`ipfs cid base32 CID`)")]
    Version,
    /// A codec other than raw and dag-pb.
    #[error("CID codec {code:#x} is not supported: only raw (0x55) and dag-pb (0x70) are")]
    Codec {
        /// The multicodec number found.
        code: u64,
    },
    /// A hash other than sha2-256 of 32 bytes.
    #[error("CID hash {code:#x} is not supported: only sha2-256 (0x12, 32 bytes) is")]
    Hash {
        /// The multihash number found.
        code: u64,
    },
}

/// Carried in its binary form.
impl Value for Cid {
    const WIRE_TYPE: u8 = DELIMITED;
    fn kind() -> crate::wire::Kind {
        crate::wire::Kind::Bytes
    }
    fn shown(&self) -> crate::wire::Shown {
        crate::wire::Shown::Text(self.to_string())
    }
    fn put(&self, out: &mut Vec<u8>) {
        put_delimited(&self.to_bytes(), out);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Self::from_bytes(reader.delimited()?)
            .map_err(|error| DecodeError::invalid(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_is_the_one_that_kubo_prints() {
        // echo -n 'hello world' | ipfs add --cid-version 1 --raw-leaves
        assert_eq!(
            Cid::raw(b"hello world").to_string(),
            "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"
        );
        assert_eq!(Cid::raw(b"").to_string().len(), Cid::TEXT_LEN);
    }

    #[test]
    fn both_forms_come_back() {
        for cid in [Cid::raw(b"a"), Cid::dag_pb(b"b")] {
            assert_eq!(Cid::from_bytes(&cid.to_bytes()), Ok(cid));
            assert_eq!(cid.to_string().parse(), Ok(cid));
            assert_ne!(cid, Cid::raw(b"b"));
        }
    }

    #[test]
    fn codec_is_part_of_the_name() {
        assert_ne!(Cid::raw(b"x"), Cid::dag_pb(b"x"));
        assert!(Cid::dag_pb(b"x").matches(b"x"));
        assert!(!Cid::dag_pb(b"x").matches(b"y"));
    }

    #[test]
    fn other_kinds_are_refused_by_name() {
        let v0 = "QmdfTbBqBPQ7VNxZEYEj14VmRuZBkqFbiwReogJgS1zR1n";
        assert_eq!(v0.parse::<Cid>(), Err(CidError::Version));
        let identity = "bafkqaaa";
        assert_eq!(identity.parse::<Cid>(), Err(CidError::Hash { code: 0 }));
        let cbor = cid::Cid::new_v1(0x71, Multihash::wrap(SHA2_256, &[0; 32]).unwrap());
        assert_eq!(
            cbor.to_string().parse::<Cid>(),
            Err(CidError::Codec { code: 0x71 })
        );
    }

    #[test]
    fn garbage_is_refused() {
        let long = "b".repeat(100_000);
        for text in ["", "b", "bafk", "/ipfs/bafkqaaa", "hello world", &long] {
            assert!(text.parse::<Cid>().is_err(), "{text}");
        }
        let mut longer = Cid::raw(b"").to_bytes().to_vec();
        longer.push(0);
        assert!(Cid::from_bytes(&longer).is_err());
        assert!(Cid::from_bytes(&longer[..35]).is_err());
        assert!(Cid::from_bytes(&[]).is_err());
    }
}

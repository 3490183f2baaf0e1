use bytes::Bytes;
use r3mes_types::{Cid, Codec};

use crate::{
    AnyCid,
    any_cid::{DAG_CBOR, DAG_JSON, DAG_PB},
    dag_pb::{Node, NodeError},
    hash, ipld,
};

/// Longest block that is stored, sent or accepted, in bytes (the limit of IPFS's Bitswap).
pub const MAX_BLOCK_BYTES: usize = 2 << 20;

/// Bytes together with the CID that they match. Cloning shares the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    cid: AnyCid,
    bytes: Bytes,
}

impl Block {
    /// Checks that `bytes` are what `cid` names.
    ///
    /// # Errors
    /// [`BlockError::TooLong`] above [`MAX_BLOCK_BYTES`], [`BlockError::Mismatch`] when the hash
    /// is another, [`BlockError::Hash`] when it is of a kind that is not known here.
    pub fn verify(cid: impl Into<AnyCid>, bytes: Bytes) -> Result<Self, BlockError> {
        let cid = cid.into();
        check_length(&bytes)?;
        match (cid.matches(&bytes), cid.is_checkable()) {
            (true, _) => Ok(Self { cid, bytes }),
            (false, true) => Err(BlockError::Mismatch { cid }),
            (false, false) => Err(BlockError::Hash { cid }),
        }
    }

    /// The block whose content stands in the CID itself, if it does.
    #[must_use]
    pub fn inline(cid: &AnyCid) -> Option<Self> {
        let bytes = Bytes::copy_from_slice(cid.inline()?);
        let cid = cid.clone();
        Some(Self { cid, bytes })
    }

    /// The same block by another CID of its own, which a store keeps under one [key](AnyCid::key).
    pub(crate) fn by(self, cid: &AnyCid) -> Self {
        debug_assert_eq!(self.cid.key(), cid.key(), "one block");
        let cid = cid.clone();
        Self { cid, ..self }
    }

    /// Names a block of content.
    ///
    /// # Errors
    /// [`BlockError::TooLong`] above [`MAX_BLOCK_BYTES`].
    pub fn raw(bytes: Bytes) -> Result<Self, BlockError> {
        check_length(&bytes)?;
        let cid = Cid::raw(&bytes).into();
        Ok(Self { cid, bytes })
    }

    /// Names blocks of content; in pairs, which takes less time than one after another.
    ///
    /// # Errors
    /// As [`Block::raw`].
    pub(crate) fn raw_all(contents: &[Bytes]) -> Result<Vec<Self>, BlockError> {
        let [left, right] = contents else {
            return contents.iter().cloned().map(Self::raw).collect();
        };
        for bytes in contents {
            check_length(bytes)?;
        }
        let cids = Cid::raw_pair([left, right]);
        let named = cids.into_iter().zip([left.clone(), right.clone()]);
        let named = named.map(|(cid, bytes)| {
            let cid = cid.into();
            Self { cid, bytes }
        });
        Ok(named.collect())
    }

    /// As [`Block::verify`], of two blocks in less time than of one after another.
    pub(crate) fn verify_pair(
        cids: [&AnyCid; 2],
        bytes: [Bytes; 2],
    ) -> [Result<Self, BlockError>; 2] {
        let [left, right] = bytes;
        let (Some(first), Some(second)) = (cids[0].digest(), cids[1].digest()) else {
            return [Self::verify(cids[0], left), Self::verify(cids[1], right)];
        };
        let hashed = [first, second].map(|digest| Cid::new(Codec::Raw, *digest));
        let matches = Cid::match_pair([&hashed[0], &hashed[1]], [&left, &right]);
        let checked = |which: usize, bytes: Bytes| {
            let cid = cids[which].clone();
            check_length(&bytes)?;
            match matches[which] {
                true => Ok(Self { cid, bytes }),
                false => Err(BlockError::Mismatch { cid }),
            }
        };
        [checked(0, left), checked(1, right)]
    }

    /// Names an encoded MerkleDAG node, which our own encoder keeps far below the limit.
    pub(crate) fn dag_pb(bytes: Bytes) -> Self {
        let cid = Cid::dag_pb(&bytes).into();
        Self { cid, bytes }
    }

    /// The name.
    #[must_use]
    pub const fn cid(&self) -> &AnyCid {
        &self.cid
    }

    /// The content.
    #[must_use]
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The blocks that this one refers to, in order, repetitions included: the links of `dag-pb`,
    /// `dag-cbor` and `dag-json`. A block of another codec is content and has none.
    ///
    /// # Errors
    /// When the block is not what its codec says.
    pub fn links(&self) -> Result<Vec<AnyCid>, NodeError> {
        match self.cid.codec() {
            DAG_PB => {
                let links = Node::decode(&self.bytes)?.links.into_iter();
                Ok(links.map(|link| link.cid).collect())
            }
            DAG_CBOR | DAG_JSON => ipld::links(self),
            _ => Ok(Vec::new()),
        }
    }
}

fn check_length(bytes: &Bytes) -> Result<(), BlockError> {
    if bytes.len() > MAX_BLOCK_BYTES {
        return Err(BlockError::TooLong {
            bytes: bytes.len() as u64,
        });
    }
    Ok(())
}

/// Why bytes are not the block that they were said to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BlockError {
    /// The hash of the bytes is another one.
    #[error("the bytes received for {cid} do not match it: their hash is another")]
    Mismatch {
        /// The name that was asked for.
        cid: AnyCid,
    },
    /// A hash that is not known here, so that nothing can be held against it.
    #[error(
        "{cid} cannot be checked: its hash is {}, and known are only {}, whole",
        cid.hash_named(),
        hash::all_names()
    )]
    Hash {
        /// The name that was asked for.
        cid: AnyCid,
    },
    /// More bytes than a block may have.
    #[error("a block of {bytes} bytes is over the limit of {MAX_BLOCK_BYTES}")]
    TooLong {
        /// Length found.
        bytes: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_another_block_are_refused() {
        let cid = Cid::raw(b"one");
        assert!(Block::verify(cid, Bytes::from_static(b"one")).is_ok());
        assert_eq!(
            Block::verify(cid, Bytes::from_static(b"two")),
            Err(BlockError::Mismatch { cid: cid.into() })
        );
    }

    #[test]
    fn a_hash_that_is_not_known_is_named_as_the_fault() {
        // blake3 of nothing, and sha1 of nothing.
        let text = "bafkr4ifpcne3t5pzugtkaqcn5i3nzskjtpfslsnnyejlpte2spfoihzsmi";
        let cid: AnyCid = text.parse().unwrap();
        assert!(Block::verify(cid.clone(), Bytes::new()).is_ok());
        let other = Block::verify(cid.clone(), Bytes::from_static(b"x"));
        assert_eq!(other, Err(BlockError::Mismatch { cid }));
        let digest = hex::decode("01551114da39a3ee5e6b4b0d3255bfef95601890afd80709").unwrap();
        let cid = AnyCid::from_bytes(&digest).unwrap();
        let refused = Block::verify(cid.clone(), Bytes::new()).unwrap_err();
        let said = refused.to_string();
        assert_eq!(refused, BlockError::Hash { cid });
        assert!(
            said.contains("its hash is sha1 (0x11) of 20 bytes"),
            "{said}"
        );
        assert!(said.contains("sha2-256, identity, sha2-512,"), "{said}");
    }

    #[test]
    fn a_block_over_the_limit_is_refused_before_it_is_hashed() {
        let long = Bytes::from(vec![0; MAX_BLOCK_BYTES + 1]);
        let bytes = long.len() as u64;
        assert_eq!(Block::raw(long.clone()), Err(BlockError::TooLong { bytes }));
        assert_eq!(
            Block::verify(Cid::raw(&long), long),
            Err(BlockError::TooLong { bytes })
        );
    }
}

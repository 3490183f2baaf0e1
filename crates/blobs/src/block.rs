use bytes::Bytes;
use r3mes_types::{Cid, Codec};

use crate::dag_pb::{Node, NodeError};

/// Longest block that is stored, sent or accepted, in bytes (the limit of IPFS's Bitswap).
pub const MAX_BLOCK_BYTES: usize = 2 << 20;

/// Bytes together with the CID that they match. Cloning shares the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    cid: Cid,
    bytes: Bytes,
}

impl Block {
    /// Checks that `bytes` are what `cid` names.
    ///
    /// # Errors
    /// [`BlockError::TooLong`] above [`MAX_BLOCK_BYTES`], [`BlockError::Mismatch`] when the hash
    /// is another.
    pub fn verify(cid: Cid, bytes: Bytes) -> Result<Self, BlockError> {
        check_length(&bytes)?;
        if !cid.matches(&bytes) {
            return Err(BlockError::Mismatch { cid });
        }
        Ok(Self { cid, bytes })
    }

    /// Names a block of content.
    ///
    /// # Errors
    /// [`BlockError::TooLong`] above [`MAX_BLOCK_BYTES`].
    pub fn raw(bytes: Bytes) -> Result<Self, BlockError> {
        check_length(&bytes)?;
        let cid = Cid::raw(&bytes);
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
        Ok(named.map(|(cid, bytes)| Self { cid, bytes }).collect())
    }

    /// As [`Block::verify`], of two blocks in less time than of one after another.
    pub(crate) fn verify_pair(cids: [&Cid; 2], bytes: [Bytes; 2]) -> [Result<Self, BlockError>; 2] {
        let matches = Cid::match_pair(cids, [&bytes[0], &bytes[1]]);
        let [left, right] = bytes;
        let checked = |which: usize, bytes: Bytes| {
            let cid = *cids[which];
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
        let cid = Cid::dag_pb(&bytes);
        Self { cid, bytes }
    }

    /// The name.
    #[must_use]
    pub const fn cid(&self) -> &Cid {
        &self.cid
    }

    /// The content.
    #[must_use]
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The blocks that this one refers to, in order, repetitions included.
    ///
    /// # Errors
    /// When a dag-pb block is not a node, or links to a CID of a kind that is not used here.
    pub fn links(&self) -> Result<Vec<Cid>, NodeError> {
        match self.cid.codec() {
            Codec::Raw => Ok(Vec::new()),
            Codec::DagPb => Ok(Node::decode(&self.bytes)?
                .links
                .into_iter()
                .map(|link| link.cid)
                .collect()),
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
        cid: Cid,
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
            Err(BlockError::Mismatch { cid })
        );
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

//! MerkleDAG nodes (dag-pb) and the UnixFS file metadata that they carry.
//!
//! Specifications: <https://ipld.io/specs/codecs/dag-pb/spec/> and
//! <https://specs.ipfs.tech/unixfs/>.

use bytes::{BufMut, Bytes};
use prost::{
    Message,
    encoding::{WireType, encode_key, encode_varint, encoded_len_varint},
};

use crate::{AnyCid, AnyCidError};

/// Most links that a node may have. Kubo makes 174; other writers up to 8192.
pub(crate) const MAX_LINKS: usize = 8192;

/// A MerkleDAG node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) links: Vec<Link>,
    pub(crate) data: Bytes,
}

/// A link of a node; names are not used in files and are dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) cid: AnyCid,
    /// Bytes of the linked block and of all below it, as its writer counted them.
    pub(crate) total_bytes: u64,
}

/// A node as it is written.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct RawNode {
    #[prost(bytes = "bytes", optional, tag = "1")]
    pub(crate) data: Option<Bytes>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) links: Vec<RawLink>,
}

/// A link as it is written.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct RawLink {
    #[prost(bytes = "bytes", optional, tag = "1")]
    pub(crate) hash: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "2")]
    pub(crate) name: Option<Bytes>,
    #[prost(uint64, optional, tag = "3")]
    pub(crate) total_bytes: Option<u64>,
}

impl RawNode {
    /// Reads a node that does not have too many links. The caller has bounded `block` by the length
    /// of a block.
    pub(crate) fn read(block: &Bytes) -> Result<Self, NodeError> {
        let node = Self::decode(block.clone()).map_err(|source| NodeError::Encoding { source })?;
        let links = node.links.len();
        if links > MAX_LINKS {
            return Err(NodeError::TooManyLinks { links });
        }
        Ok(node)
    }
}

impl Node {
    /// The canonical form: links first, then data; each link with an empty name, as Kubo does.
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(self.links.len() * 56 + self.data.len() + 16);
        for link in &self.links {
            let cid = link.cid.to_bytes();
            let length = encoded_len_varint(cid.len() as u64) + cid.len();
            let body = 1 + length + 2 + 1 + encoded_len_varint(link.total_bytes);
            encode_key(2, WireType::LengthDelimited, &mut out);
            encode_varint(body as u64, &mut out);
            encode_key(1, WireType::LengthDelimited, &mut out);
            encode_varint(cid.len() as u64, &mut out);
            out.put_slice(&cid);
            encode_key(2, WireType::LengthDelimited, &mut out);
            encode_varint(0, &mut out);
            encode_key(3, WireType::Varint, &mut out);
            encode_varint(link.total_bytes, &mut out);
        }
        encode_key(1, WireType::LengthDelimited, &mut out);
        encode_varint(self.data.len() as u64, &mut out);
        out.put_slice(&self.data);
        out.into()
    }

    /// Reads a node, as [`RawNode::read`] does, with its links.
    pub(crate) fn decode(block: &Bytes) -> Result<Self, NodeError> {
        let raw = RawNode::read(block)?;
        let link = |raw: RawLink| {
            let hash = raw.hash.unwrap_or_default();
            let cid = AnyCid::from_bytes(&hash).map_err(|source| NodeError::Link { source })?;
            let total_bytes = raw.total_bytes.unwrap_or_default();
            Ok(Link { cid, total_bytes })
        };
        Ok(Self {
            links: raw.links.into_iter().map(link).collect::<Result<_, _>>()?,
            data: raw.data.unwrap_or_default(),
        })
    }
}

/// UnixFS kinds that are a file.
const KIND_RAW: i32 = 0;
const KIND_FILE: i32 = 2;
/// UnixFS kinds that are a directory.
pub(crate) const KIND_DIRECTORY: i32 = 1;
pub(crate) const KIND_HAMT_SHARD: i32 = 5;

/// What a node's data says of a file: bytes held in the node itself and sizes of the parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FilePart {
    /// Content in the node itself, which comes before that of the links. Kubo's `--raw-leaves`
    /// leaves it empty.
    pub(crate) inline: Bytes,
    /// Length of the whole file below this node.
    pub(crate) size: u64,
    /// Content length below each link, in order.
    pub(crate) part_sizes: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
struct RawFile {
    #[prost(int32, required, tag = "1")]
    kind: i32,
    #[prost(bytes = "bytes", optional, tag = "2")]
    inline: Option<Bytes>,
    #[prost(uint64, optional, tag = "3")]
    size: Option<u64>,
    #[prost(uint64, repeated, packed = "false", tag = "4")]
    part_sizes: Vec<u64>,
}

impl FilePart {
    pub(crate) fn encode(self) -> Bytes {
        let raw = RawFile {
            kind: KIND_FILE,
            inline: (!self.inline.is_empty()).then_some(self.inline),
            size: Some(self.size),
            part_sizes: self.part_sizes,
        };
        raw.encode_to_vec().into()
    }

    /// Reads the metadata of a node with `links` links and checks that the sizes add up.
    ///
    /// Parts of no bytes are refused: nobody writes them, and a tree of them would cost time
    /// without bound for a file without content.
    pub(crate) fn decode(data: &Bytes, links: usize) -> Result<Self, NodeError> {
        let raw = RawFile::decode(data.clone()).map_err(|source| NodeError::Encoding { source })?;
        if raw.kind != KIND_FILE && raw.kind != KIND_RAW {
            return Err(NodeError::NotAFile { kind: raw.kind });
        }
        let inline = raw.inline.unwrap_or_default();
        let size = raw.size.unwrap_or(inline.len() as u64);
        let sum = raw
            .part_sizes
            .iter()
            .try_fold(inline.len() as u64, |sum, part| sum.checked_add(*part));
        if raw.part_sizes.len() != links || raw.part_sizes.contains(&0) || sum != Some(size) {
            return Err(NodeError::Sizes);
        }
        Ok(Self {
            inline,
            size,
            part_sizes: raw.part_sizes,
        })
    }
}

/// Why a node cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// Not protobuf of the right shape.
    #[error("not a dag-pb node")]
    Encoding {
        /// What the decoder said.
        #[source]
        source: prost::DecodeError,
    },
    /// A link that names nothing.
    #[error("the node has a link that cannot be followed")]
    Link {
        /// What is wrong with the CID.
        #[source]
        source: AnyCidError,
    },
    /// A block that is not the data that its codec says.
    #[error("not {codec}: {reason}")]
    Data {
        /// The codec, such as DAG-CBOR.
        codec: &'static str,
        /// What the decoder said.
        reason: String,
    },
    /// A block of a codec whose links are not known here, or that no file is written in.
    #[error("a block of codec {code:#x} is neither a file nor a part of one")]
    Codec {
        /// The multicodec number.
        code: u64,
    },
    /// More links than allowed.
    #[error("the node has {links} links, the limit is {MAX_LINKS}")]
    TooManyLinks {
        /// Number found.
        links: usize,
    },
    /// A UnixFS directory, symbolic link or other kind.
    #[error("the node is not a UnixFS file (kind {kind}): directories cannot be read as a file")]
    NotAFile {
        /// UnixFS kind found: 1 directory, 3 metadata, 4 symbolic link, 5 HAMT shard.
        kind: i32,
    },
    /// Sizes of parts that do not add up.
    #[error("the file's part sizes do not agree with its links, its size or its content")]
    Sizes,
    /// A sharded directory of another hash or an odd number of children.
    #[error("the sharded directory is of a kind that cannot be followed here")]
    Shard,
    /// A tree deeper than any that can be honest.
    #[error("the file's tree is deeper than {limit} levels")]
    TooDeep {
        /// Levels allowed.
        limit: usize,
    },
}

#[cfg(test)]
mod tests {
    use r3mes_types::Cid;

    use super::*;

    fn node() -> Node {
        let part = FilePart {
            inline: Bytes::new(),
            size: 300,
            part_sizes: vec![256, 44],
        };
        Node {
            links: vec![
                Link {
                    cid: Cid::raw(&[1; 256]).into(),
                    total_bytes: 256,
                },
                Link {
                    cid: Cid::raw(&[2; 44]).into(),
                    total_bytes: 44,
                },
            ],
            data: part.encode(),
        }
    }

    #[test]
    fn node_is_encoded_byte_for_byte_as_the_specification_says() {
        let encoded = hex::encode(node().encode());
        let link = |cid: Cid, tail: &str, len: &str| {
            format!("12{len}0a24{}1200{tail}", hex::encode(cid.to_bytes()))
        };
        let first = link(Cid::raw(&[1; 256]), "188002", "2b");
        let second = link(Cid::raw(&[2; 44]), "182c", "2a");
        assert_eq!(
            encoded,
            format!("{first}{second}0a0a080218ac0220800220 2c").replace(' ', "")
        );
    }

    #[test]
    fn node_comes_back() {
        let node = node();
        assert_eq!(Node::decode(&node.encode()), Ok(node.clone()));
        let part = FilePart::decode(&node.data, 2).unwrap();
        assert_eq!(part.part_sizes, [256, 44]);
    }

    #[test]
    fn sizes_that_do_not_add_up_are_refused() {
        let data = |size, part_sizes: &[u64]| {
            FilePart {
                inline: Bytes::from_static(b"ab"),
                size,
                part_sizes: part_sizes.to_vec(),
            }
            .encode()
        };
        assert!(FilePart::decode(&data(5, &[1, 2]), 2).is_ok());
        assert_eq!(
            FilePart::decode(&data(5, &[1, 2]), 1),
            Err(NodeError::Sizes)
        );
        assert_eq!(
            FilePart::decode(&data(6, &[1, 2]), 2),
            Err(NodeError::Sizes)
        );
        assert_eq!(
            FilePart::decode(&data(5, &[3, 0]), 2),
            Err(NodeError::Sizes)
        );
        assert_eq!(
            FilePart::decode(&data(1, &[u64::MAX, 1]), 2),
            Err(NodeError::Sizes)
        );
    }

    #[test]
    fn directory_is_not_a_file() {
        let data = RawFile {
            kind: 1,
            ..RawFile::default()
        }
        .encode_to_vec()
        .into();
        assert_eq!(
            FilePart::decode(&data, 0),
            Err(NodeError::NotAFile { kind: 1 })
        );
    }

    #[test]
    fn too_many_links_are_refused() {
        let link = node().links[0].clone();
        let node = Node {
            links: vec![link; MAX_LINKS + 1],
            data: Bytes::new(),
        };
        assert_eq!(
            Node::decode(&node.encode()),
            Err(NodeError::TooManyLinks {
                links: MAX_LINKS + 1
            })
        );
    }
}

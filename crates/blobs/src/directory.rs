//! UnixFS directories, plain and sharded (HAMT): finding an entry by name.
//!
//! This network writes files only. Directories are read so that a gateway can follow
//! `/ipfs/{cid}/{path}` below what other writers made.
//!
//! Specification: <https://specs.ipfs.tech/unixfs/>.

use bytes::Bytes;
use prost::Message;

use crate::{
    AnyCid, Block, NodeError,
    any_cid::DAG_PB,
    dag_pb::{KIND_DIRECTORY, KIND_HAMT_SHARD, RawLink, RawNode},
};

/// The multihash code of murmur3-x64-64, the only hash that sharded directories use.
const MURMUR3_X64_64: u64 = 0x22;

/// Largest number of children that a shard may have.
const MAX_FANOUT: u64 = 1024;

#[derive(Clone, PartialEq, Message)]
struct RawDirectory {
    #[prost(int32, required, tag = "1")]
    kind: i32,
    #[prost(uint64, optional, tag = "5")]
    hash: Option<u64>,
    #[prost(uint64, optional, tag = "6")]
    fanout: Option<u64>,
}

/// One block of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Directory {
    links: Vec<(Bytes, Bytes)>,
    shard: Option<Shard>,
}

/// How a shard's links are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shard {
    /// Bits of a name's hash that choose among the children.
    bits: u32,
    /// Hexadecimal digits before each link's name.
    digits: usize,
}

/// What a directory block says of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// The name's content.
    Found(AnyCid),
    /// The name can only be in this shard, one level down.
    Below(AnyCid),
}

impl Directory {
    /// Reads a block; `None` when it is no directory.
    ///
    /// # Errors
    /// When it is a directory that cannot be followed.
    pub(crate) fn decode(block: &Block) -> Result<Option<Self>, NodeError> {
        if block.cid().codec() != DAG_PB {
            return Ok(None);
        }
        let wrong = |source| NodeError::Encoding { source };
        let node = RawNode::read(block.bytes())?;
        let data = node.data.unwrap_or_default();
        let raw = RawDirectory::decode(data).map_err(wrong)?;
        let shard = match raw.kind {
            KIND_DIRECTORY => None,
            KIND_HAMT_SHARD => Some(Shard::new(&raw)?),
            _ => return Ok(None),
        };
        let link = |link: RawLink| {
            let name = link.name.unwrap_or_default();
            (name, link.hash.unwrap_or_default())
        };
        let links = node.links.into_iter().map(link).collect();
        Ok(Some(Self { links, shard }))
    }

    /// Looks a name up; `level` counts the shards above this one.
    ///
    /// # Errors
    /// When the link names nothing.
    pub(crate) fn find(&self, name: &str, level: u32) -> Result<Option<Entry>, NodeError> {
        let Some(shard) = self.shard else {
            return Ok(self.link(name.as_bytes())?.map(Entry::Found));
        };
        let Some(prefix) = shard.prefix(name, level) else {
            return Ok(None);
        };
        if let Some(cid) = self.link(prefix.as_bytes())? {
            return Ok(Some(Entry::Below(cid)));
        }
        let found = self.link(format!("{prefix}{name}").as_bytes())?;
        Ok(found.map(Entry::Found))
    }

    /// The shards one level down.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub(crate) fn shards(&self) -> Result<Vec<AnyCid>, NodeError> {
        let Some(Shard { digits, .. }) = self.shard else {
            return Ok(Vec::new());
        };
        let below = self.links.iter().filter(|(name, _)| name.len() == digits);
        below.map(|(_, hash)| cid(hash)).collect()
    }

    fn link(&self, name: &[u8]) -> Result<Option<AnyCid>, NodeError> {
        let mut links = self.links.iter();
        let found = links.find(|(known, _)| *known == name);
        found.map(|(_, hash)| cid(hash)).transpose()
    }
}

impl Shard {
    fn new(raw: &RawDirectory) -> Result<Self, NodeError> {
        let fanout = raw.fanout.unwrap_or_default();
        let usual = fanout.is_power_of_two() && (8..=MAX_FANOUT).contains(&fanout);
        if !usual || raw.hash != Some(MURMUR3_X64_64) {
            return Err(NodeError::Shard);
        }
        Ok(Self {
            bits: fanout.trailing_zeros(),
            digits: format!("{:X}", fanout - 1).len(),
        })
    }

    /// What the name's link begins with at this level; `None` when its hash is used up.
    fn prefix(self, name: &str, level: u32) -> Option<String> {
        let rest = 64_u32.checked_sub(self.bits * (level + 1))?;
        let index = (murmur3(name.as_bytes()) >> rest) & ((1 << self.bits) - 1);
        Some(format!("{index:0width$X}", width = self.digits))
    }
}

fn cid(hash: &Bytes) -> Result<AnyCid, NodeError> {
    AnyCid::from_bytes(hash).map_err(|source| NodeError::Link { source })
}

/// The first half of MurmurHash3 x64 with seed 0 (Austin Appleby, public domain).
fn murmur3(bytes: &[u8]) -> u64 {
    const C1: u64 = 0x87c3_7b91_1142_53d5;
    const C2: u64 = 0x4cf5_ad43_2745_937f;
    let low = |k: u64| k.wrapping_mul(C1).rotate_left(31).wrapping_mul(C2);
    let high = |k: u64| k.wrapping_mul(C2).rotate_left(33).wrapping_mul(C1);
    let word = |bytes: &[u8]| {
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(word)
    };
    let (mut h1, mut h2) = (0_u64, 0_u64);
    let mut blocks = bytes.chunks_exact(16);
    for block in &mut blocks {
        h1 ^= low(word(&block[..8]));
        h1 = h1.rotate_left(27).wrapping_add(h2);
        h1 = h1.wrapping_mul(5).wrapping_add(0x52dc_e729);
        h2 ^= high(word(&block[8..]));
        h2 = h2.rotate_left(31).wrapping_add(h1);
        h2 = h2.wrapping_mul(5).wrapping_add(0x3849_5ab5);
    }
    let (first, second) = blocks.remainder().split_at(blocks.remainder().len().min(8));
    h1 ^= low(word(first)) ^ bytes.len() as u64;
    h2 ^= high(word(second)) ^ bytes.len() as u64;
    h1 = h1.wrapping_add(h2);
    h2 = h2.wrapping_add(h1);
    let (h1, h2) = (mixed(h1), mixed(h2));
    h1.wrapping_add(h2)
}

fn mixed(mut k: u64) -> u64 {
    k = (k ^ (k >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    k = (k ^ (k >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    k ^ (k >> 33)
}

#[cfg(test)]
mod tests {
    use r3mes_types::Cid;

    use super::*;

    fn block(kind: i32, fanout: Option<u64>, names: &[&str]) -> Block {
        let data = RawDirectory {
            kind,
            hash: fanout.map(|_| MURMUR3_X64_64),
            fanout,
        };
        let link = |name: &&str| RawLink {
            hash: Some(Cid::raw(name.as_bytes()).to_bytes().to_vec().into()),
            name: Some(name.as_bytes().to_vec().into()),
            total_bytes: None,
        };
        let node = RawNode {
            data: Some(data.encode_to_vec().into()),
            links: names.iter().map(link).collect(),
        };
        Block::dag_pb(node.encode_to_vec().into())
    }

    /// Printed by other implementations of the hash.
    #[test]
    fn murmur3_gives_the_published_values() {
        assert_eq!(murmur3(b""), 0);
        assert_eq!(murmur3(b"hello"), 0xcbd8_a7b3_41bd_9b02);
        assert_eq!(
            murmur3(b"The quick brown fox jumps over the lazy dog"),
            0xe34b_bc7b_bc07_1b6c
        );
    }

    #[test]
    fn an_entry_of_a_plain_directory_is_found_by_its_name() {
        let directory = Directory::decode(&block(KIND_DIRECTORY, None, &["a", "b"]));
        let directory = directory.unwrap().unwrap();
        assert_eq!(
            directory.find("b", 0),
            Ok(Some(Entry::Found(Cid::raw(b"b").into())))
        );
        assert_eq!(directory.find("c", 0), Ok(None));
        assert_eq!(directory.shards(), Ok(Vec::new()));
    }

    #[test]
    fn a_shard_names_its_entries_by_their_hash() {
        // The hash of "hello" begins with 0xcb, then 0xd8.
        let names = ["00", "CBhello", "D8hello"];
        let directory = Directory::decode(&block(KIND_HAMT_SHARD, Some(256), &names));
        let directory = directory.unwrap().unwrap();
        let found = |name: &str| Ok(Some(Entry::Found(Cid::raw(name.as_bytes()).into())));
        assert_eq!(directory.find("hello", 0), found("CBhello"));
        assert_eq!(directory.find("hello", 1), found("D8hello"));
        assert_eq!(directory.find("hello", 8), Ok(None));
        assert_eq!(directory.shards(), Ok(vec![Cid::raw(b"00").into()]));
        let below = Directory::decode(&block(KIND_HAMT_SHARD, Some(256), &["CB"]));
        assert_eq!(
            below.unwrap().unwrap().find("hello", 0),
            Ok(Some(Entry::Below(Cid::raw(b"CB").into())))
        );
    }

    #[test]
    fn a_shard_of_an_unusual_shape_is_refused() {
        for fanout in [0, 1, 3, 4, 1 << 20] {
            let shard = block(KIND_HAMT_SHARD, Some(fanout), &[]);
            assert_eq!(Directory::decode(&shard), Err(NodeError::Shard), "{fanout}");
        }
    }

    #[test]
    fn a_file_is_no_directory() {
        assert_eq!(Directory::decode(&block(2, None, &[])), Ok(None));
        assert_eq!(
            Directory::decode(&Block::raw(Bytes::new()).unwrap()),
            Ok(None)
        );
    }
}

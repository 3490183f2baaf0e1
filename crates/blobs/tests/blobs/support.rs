use bytes::Bytes;
use r3mes_blobs::{Block, Cid, PinName};

/// Bytes that repeat nowhere, the same on every machine: a plain xorshift generator.
pub(crate) fn content(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

pub(crate) fn block(seed: u64, len: usize) -> Block {
    Block::raw(Bytes::from(content(seed, len))).unwrap()
}

pub(crate) fn name(name: &str) -> PinName {
    PinName::new(name).unwrap()
}

/// The CID of a block of the network's own kinds.
pub(crate) fn own(block: &Block) -> Cid {
    Cid::try_from(block.cid()).unwrap()
}

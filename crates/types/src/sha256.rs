//! SHA-256 of two messages at once. Each step of the hash waits for the one before, which leaves half of a
//! processor's hash unit idle: it works on the block of another message meanwhile.

use std::slice;

use sha2::Sha256;
use sha2::digest::core_api::{Block, Buffer, CoreProxy, FixedOutputCore, UpdateCore};

type Core = <Sha256 as CoreProxy>::Core;

/// Bytes that one step takes.
const BLOCK: usize = 64;

/// The SHA-256 of each of two messages.
pub(crate) fn pair(messages: [&[u8]; 2]) -> [[u8; 32]; 2] {
    let [mut left, mut right] = messages.map(|message| message.chunks_exact(BLOCK));
    let (mut first, mut second) = (Core::default(), Core::default());
    loop {
        match (left.next(), right.next()) {
            (Some(left), Some(right)) => {
                step(&mut first, left);
                step(&mut second, right);
            }
            (Some(left), None) => step(&mut first, left),
            (None, Some(right)) => step(&mut second, right),
            (None, None) => break,
        }
    }
    [
        finish(first, left.remainder()),
        finish(second, right.remainder()),
    ]
}

fn step(core: &mut Core, block: &[u8]) {
    core.update_blocks(slice::from_ref(<&Block<Core>>::from(block)));
}

/// Hashes what is left after the whole blocks, the padding and the length.
fn finish(mut core: Core, rest: &[u8]) -> [u8; 32] {
    let mut digest = Default::default();
    core.finalize_fixed_core(&mut Buffer::<Core>::new(rest), &mut digest);
    digest.into()
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn each_of_two_messages_has_its_own_hash() {
        let bytes: Vec<u8> = (0..400u32).map(|i| (i * i) as u8).collect();
        for left in 0..200 {
            for right in [left, 0, 1, 55, 56, 63, 64, 65, 119, 120, 128, 200] {
                let messages = [&bytes[..left], &bytes[200 - right / 2..][..right]];
                let expected = messages.map(|message| <[u8; 32]>::from(Sha256::digest(message)));
                assert_eq!(pair(messages), expected, "{left} and {right} bytes");
            }
        }
    }
}

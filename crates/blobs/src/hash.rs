//! Hash functions by which other writers name blocks.
//!
//! Numbers and names are those of the multicodec table. sha2-256, the hash of the network's own blobs,
//! and `identity` are no part of this list: [`AnyCid`](crate::AnyCid) has forms of its own for them.

use std::fmt;

use blake2::{Blake2b512, Blake2s256, digest::consts::U32};
use sha2::{Digest, Sha256, Sha512};
use sha3::{Keccak256, Keccak512, Sha3_224, Sha3_256, Sha3_384, Sha3_512};

/// Multihash number of `sha2-256`.
pub(crate) const SHA2_256: u64 = 0x12;
/// Multihash number of `identity`: the "hash" is the content itself.
pub(crate) const IDENTITY: u64 = 0;

/// A hash function that is known here. Only its whole digest names a block.
pub(crate) struct HashFunction {
    code: u64,
    name: &'static str,
    digest_bytes: usize,
    digest: fn(&[u8]) -> Vec<u8>,
}

const KNOWN: [HashFunction; 12] = [
    HashFunction::new(0x13, "sha2-512", 64, of::<Sha512>),
    HashFunction::new(0x14, "sha3-512", 64, of::<Sha3_512>),
    HashFunction::new(0x15, "sha3-384", 48, of::<Sha3_384>),
    HashFunction::new(0x16, "sha3-256", 32, of::<Sha3_256>),
    HashFunction::new(0x17, "sha3-224", 28, of::<Sha3_224>),
    HashFunction::new(0x1b, "keccak-256", 32, of::<Keccak256>),
    HashFunction::new(0x1d, "keccak-512", 64, of::<Keccak512>),
    HashFunction::new(0x1e, "blake3", 32, |block| {
        blake3::hash(block).as_bytes().to_vec()
    }),
    HashFunction::new(0x56, "dbl-sha2-256", 32, |block| {
        of::<Sha256>(&of::<Sha256>(block))
    }),
    HashFunction::new(0xb220, "blake2b-256", 32, of::<blake2::Blake2b<U32>>),
    HashFunction::new(0xb240, "blake2b-512", 64, of::<Blake2b512>),
    HashFunction::new(0xb260, "blake2s-256", 32, of::<Blake2s256>),
];

/// Names of hash functions that are met in CIDs and not known here.
const NAMED: [(u64, &str); 8] = [
    (0x11, "sha1"),
    (0x18, "shake-128"),
    (0x19, "shake-256"),
    (0x1a, "keccak-224"),
    (0x1c, "keccak-384"),
    (0x20, "sha2-384"),
    (0x22, "murmur3-x64-64"),
    (0xd5, "md5"),
];

fn of<D: Digest>(block: &[u8]) -> Vec<u8> {
    D::digest(block).to_vec()
}

impl HashFunction {
    const fn new(
        code: u64,
        name: &'static str,
        digest_bytes: usize,
        digest: fn(&[u8]) -> Vec<u8>,
    ) -> Self {
        Self {
            code,
            name,
            digest_bytes,
            digest,
        }
    }

    /// The function with this multihash number, if it is known here and its digests are so long.
    pub(crate) fn known(code: u64, digest_bytes: usize) -> Option<&'static Self> {
        KNOWN
            .iter()
            .find(|known| (known.code, known.digest_bytes) == (code, digest_bytes))
    }

    /// Whether the hash of a block is this one.
    pub(crate) fn matches(&self, digest: &[u8], block: &[u8]) -> bool {
        (self.digest)(block) == digest
    }
}

/// A hash function and the length of its digests, as people are told of it: by name where it has one.
pub(crate) struct Named {
    pub(crate) code: u64,
    pub(crate) digest_bytes: usize,
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = KNOWN.iter().map(|known| (known.code, known.name));
        let more = [(SHA2_256, "sha2-256")].into_iter().chain(NAMED);
        match known.chain(more).find(|(code, _)| *code == self.code) {
            Some((code, name)) => write!(f, "{name} ({code:#x})"),
            None => write!(f, "{:#x}", self.code),
        }?;
        write!(f, " of {} bytes", self.digest_bytes)
    }
}

/// Every hash function that blocks may be named by, as people are told of them.
pub(crate) fn all_names() -> String {
    let more = KNOWN.iter().map(|known| known.name);
    let names: Vec<&str> = ["sha2-256", "identity"].into_iter().chain(more).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `b2sum`, `b3sum`, `sha512sum` and OpenSSL print for `abc`, and Ethereum's Keccak test.
    const OF_ABC: [(&str, &str); 12] = [
        (
            "sha2-512",
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
        ),
        (
            "sha3-512",
            "b751850b1a57168a5693cd924b6b096e08f621827444f70d884f5d0240d2712e10e116e9192af3c91a7ec57647e3934057340b4cf408d5a56592f8274eec53f0",
        ),
        (
            "sha3-384",
            "ec01498288516fc926459f58e2c6ad8df9b473cb0fc08c2596da7cf0e49be4b298d88cea927ac7f539f1edf228376d25",
        ),
        (
            "sha3-256",
            "3a985da74fe225b2045c172d6bd390bd855f086e3e9d525b46bfe24511431532",
        ),
        (
            "sha3-224",
            "e642824c3f8cf24ad09234ee7d3c766fc9a3a5168d0c94ad73b46fdf",
        ),
        (
            "keccak-256",
            "4e03657aea45a94fc7d47ba826c8d667c0d1e6e33a64a036ec44f58fa12d6c45",
        ),
        (
            "keccak-512",
            "18587dc2ea106b9a1563e32b3312421ca164c7f1f07bc922a9c83d77cea3a1e5d0c69910739025372dc14ac9642629379540c17e2a65b19d77aa511a9d00bb96",
        ),
        (
            "blake3",
            "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85",
        ),
        (
            "dbl-sha2-256",
            "4f8b42c22dd3729b519ba6f68d2da7cc5b2d606d05daed5ad5128cc03e6c6358",
        ),
        (
            "blake2b-256",
            "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319",
        ),
        (
            "blake2b-512",
            "ba80a53f981c4d0d6a2797b69f12f6e94c212f14685ac4b74b12bb6fdbffa2d17d87c5392aab792dc252d5de4533cc9518d38aa8dbf1925ab92386edd4009923",
        ),
        (
            "blake2s-256",
            "508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982",
        ),
    ];

    #[test]
    fn each_function_is_the_one_of_its_name() {
        assert_eq!(KNOWN.map(|known| known.name), OF_ABC.map(|(name, _)| name));
        for (known, (name, digits)) in KNOWN.iter().zip(OF_ABC) {
            let digest = hex::decode(digits).unwrap();
            assert!(known.matches(&digest, b"abc"), "{name}");
            assert!(!known.matches(&digest, b"abd"), "{name}");
            let found = HashFunction::known(known.code, digest.len());
            assert_eq!(found.map(|found| found.name), Some(name));
            // A part of a digest is easier to forge.
            assert!(HashFunction::known(known.code, digest.len() - 1).is_none());
        }
    }

    #[test]
    fn a_function_is_told_by_its_name() {
        let told = |code, digest_bytes| Named { code, digest_bytes }.to_string();
        assert_eq!(told(0x11, 20), "sha1 (0x11) of 20 bytes");
        assert_eq!(told(0x12, 20), "sha2-256 (0x12) of 20 bytes");
        assert_eq!(told(0x1e, 64), "blake3 (0x1e) of 64 bytes");
        assert_eq!(told(0x7777, 32), "0x7777 of 32 bytes");
    }
}

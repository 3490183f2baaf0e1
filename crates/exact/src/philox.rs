//! Counter-based random numbers: Philox4x32-10 (Salmon et al., 2011), keyed by BLAKE3 (rule 17).

/// Context of the key derivation; a new meaning of the numbers needs a new one.
const CONTEXT: &str = "r3mes exact v1 philox4x32-10";

/// A stream of random words, each of which can be computed on its own.
///
/// ```
/// use r3mes_exact::Philox;
///
/// let random = Philox::derive(&[7; 32], b"miner", 3, "batch");
/// assert_eq!(random.word(9), random.block(2)[1]);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Philox {
    key: [u32; 2],
    /// Upper half of the counter: it names the stream, the lower half the block in it.
    stream: [u32; 2],
}

impl Philox {
    /// The stream with this key and upper half of the counter.
    pub fn new(key: [u32; 2], stream: [u32; 2]) -> Self {
        Self { key, stream }
    }

    /// The stream of a participant for a purpose in a round, under a beacon: nobody chooses it.
    pub fn derive(beacon: &[u8; 32], participant: &[u8], round: u64, purpose: &str) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
        hasher.update(beacon);
        hasher.update(&(participant.len() as u64).to_le_bytes());
        hasher.update(participant);
        hasher.update(&round.to_le_bytes());
        hasher.update(&(purpose.len() as u64).to_le_bytes());
        hasher.update(purpose.as_bytes());
        let hash = *hasher.finalize().as_bytes();
        let word = |i: usize| u32::from_le_bytes([hash[i], hash[i + 1], hash[i + 2], hash[i + 3]]);
        Self::new([word(0), word(4)], [word(8), word(12)])
    }

    /// The stream of a user's seed: the sampler's.
    pub fn from_seed(seed: u64) -> Self {
        Self::new([seed as u32, (seed >> 32) as u32], [0, 0])
    }

    /// Words 4 * index to 4 * index + 3.
    pub fn block(&self, index: u64) -> [u32; 4] {
        let mut c = [
            index as u32,
            (index >> 32) as u32,
            self.stream[0],
            self.stream[1],
        ];
        let mut k = self.key;
        for _ in 0..10 {
            let p0 = u64::from(c[0]) * 0xD251_1F53;
            let p1 = u64::from(c[2]) * 0xCD9E_8D57;
            c = [
                (p1 >> 32) as u32 ^ c[1] ^ k[0],
                p1 as u32,
                (p0 >> 32) as u32 ^ c[3] ^ k[1],
                p0 as u32,
            ];
            k[0] = k[0].wrapping_add(0x9E37_79B9);
            k[1] = k[1].wrapping_add(0xBB67_AE85);
        }
        c
    }

    /// Word number `index` of the stream.
    pub fn word(&self, index: u64) -> u32 {
        self.block(index / 4)[(index % 4) as usize]
    }

    /// 64 random bits for position `index`: the first two words of that block, low word first.
    pub fn bits64(&self, index: u64) -> u64 {
        let block = self.block(index);
        u64::from(block[0]) | u64::from(block[1]) << 32
    }

    /// Word number `index` scaled to `0..bound` by the upper half of the product (rule 17).
    pub fn below(&self, index: u64, bound: u32) -> u32 {
        ((u64::from(self.word(index)) * u64::from(bound)) >> 32) as u32
    }

    /// All words from the start.
    pub fn words(self) -> impl Iterator<Item = u32> {
        (0..).flat_map(move |index| self.block(index))
    }
}

/// `word` as a multiple of 2^-23 in [-1, 1): `((u32 >> 8) - 2^23) * 2^-23` (rule 4).
pub fn signed_unit(word: u32) -> f32 {
    ((word >> 8) as i32 - (1 << 23)) as f32 * (1.0 / 8_388_608.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_equal_the_published_vectors() {
        let zero = Philox::new([0, 0], [0, 0]).block(0);
        assert_eq!(zero, [0x6627_E8D5, 0xE169_C58D, 0xBC57_AC4C, 0x9B00_DBD8]);
        let ones = Philox::new([u32::MAX; 2], [u32::MAX; 2]).block(u64::MAX);
        assert_eq!(ones, [0x408F_276D, 0x41C8_3B0E, 0xA20B_C7C6, 0x6D54_51FD]);
        let pi = Philox::new([0xA409_3822, 0x299F_31D0], [0x1319_8A2E, 0x0370_7344])
            .block(0x85A3_08D3_243F_6A88);
        assert_eq!(pi, [0xD16C_FE09, 0x94FD_CCEB, 0x5001_E420, 0x2412_6EA1]);
    }

    #[test]
    fn every_field_of_a_derivation_changes_the_stream() {
        let base = Philox::derive(&[1; 32], b"a", 2, "p");
        assert_ne!(base, Philox::derive(&[2; 32], b"a", 2, "p"));
        assert_ne!(base, Philox::derive(&[1; 32], b"b", 2, "p"));
        assert_ne!(base, Philox::derive(&[1; 32], b"a", 3, "p"));
        assert_ne!(base, Philox::derive(&[1; 32], b"a", 2, "q"));
    }

    #[test]
    fn units_lie_in_minus_one_to_one() {
        assert_eq!(signed_unit(0), -1.0);
        assert_eq!(signed_unit(0x8000_0000), 0.0);
        assert!(signed_unit(u32::MAX) < 1.0);
    }
}

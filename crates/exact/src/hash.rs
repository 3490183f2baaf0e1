//! Hashes of tensors over their canonical bytes: little-endian, in canonical order (rule 20).

/// Elements converted to bytes at once.
const CHUNK: usize = 1024;

/// BLAKE3 over numbers as little-endian bytes.
///
/// ```
/// use r3mes_exact::CanonicalHasher;
///
/// let mut hasher = CanonicalHasher::default();
/// hasher.f32(&[1.0, -0.0]);
/// hasher.u64(7);
/// let bytes = [0, 0, 0x80, 0x3F, 0, 0, 0, 0x80, 7, 0, 0, 0, 0, 0, 0, 0];
/// assert_eq!(hasher.finish(), *blake3::hash(&bytes).as_bytes());
/// ```
#[derive(Clone, Default)]
pub struct CanonicalHasher(blake3::Hasher);

macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident: $type:ty;)*) => {$(
        $(#[$doc])*
        pub fn $name(&mut self, values: &[$type]) {
            const SIZE: usize = size_of::<$type>();
            let mut bytes = [0; CHUNK * SIZE];
            for chunk in values.chunks(CHUNK) {
                for (bytes, value) in bytes.chunks_exact_mut(SIZE).zip(chunk) {
                    bytes.copy_from_slice(&value.to_le_bytes());
                }
                self.0.update(&bytes[..chunk.len() * SIZE]);
            }
        }
    )*};
}

impl CanonicalHasher {
    numbers! {
        /// Adds f32 numbers.
        f32: f32;
        /// Adds bytes with a sign.
        i8: i8;
        /// Adds 16-bit integers with a sign.
        i16: i16;
        /// Adds 32-bit integers with a sign.
        i32: i32;
        /// Adds 32-bit integers.
        u32: u32;
        /// Adds 64-bit integers with a sign.
        i64: i64;
    }

    /// Adds one 64-bit integer.
    pub fn u64(&mut self, value: u64) {
        self.0.update(&value.to_le_bytes());
    }

    /// Adds bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash of all that was added.
    pub fn finish(&self) -> [u8; 32] {
        *self.0.finalize().as_bytes()
    }
}

/// The hash of one f32 tensor.
pub fn hash_f32(values: &[f32]) -> [u8; 32] {
    let mut hasher = CanonicalHasher::default();
    hasher.f32(values);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_do_not_show_in_the_hash() {
        let values: Vec<f32> = (0..3000).map(|i| i as f32).collect();
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(hash_f32(&values), *blake3::hash(&bytes).as_bytes());
    }
}

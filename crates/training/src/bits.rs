//! Golomb-Rice codes in a little-endian bit stream, canonical both ways.

/// Appends bits, lowest first, to a byte vector.
pub(crate) struct BitWriter<'a> {
    out: &'a mut Vec<u8>,
    pending: u64,
    bits: u32,
}

impl<'a> BitWriter<'a> {
    pub(crate) fn new(out: &'a mut Vec<u8>) -> Self {
        Self {
            out,
            pending: 0,
            bits: 0,
        }
    }

    /// `value >> low_bits` ones, a zero, then the `low_bits` lowest bits.
    pub(crate) fn write_rice(&mut self, value: u32, low_bits: u32) {
        for _ in 0..value >> low_bits {
            self.write(1, 1);
        }
        self.write(0, 1);
        self.write(value & ((1 << low_bits) - 1), low_bits);
    }

    /// Pads with zeros to a whole byte.
    pub(crate) fn finish(mut self) {
        if self.bits > 0 {
            self.write(0, 8 - self.bits);
        }
    }

    fn write(&mut self, value: u32, bits: u32) {
        self.pending |= u64::from(value) << self.bits;
        self.bits += bits;
        while self.bits >= 8 {
            self.out.push(self.pending as u8);
            self.pending >>= 8;
            self.bits -= 8;
        }
    }
}

/// Reads what [`BitWriter`] wrote.
pub(crate) struct BitReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> BitReader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next value; none at the end of the bytes. Reading stops at the
    /// first value that is known to reach `limit`, which is then returned or
    /// passed, so that a hostile run of ones costs nothing.
    pub(crate) fn read_rice(&mut self, low_bits: u32, limit: u32) -> Option<u32> {
        let mut value = 0;
        while self.bit()? {
            value += 1 << low_bits;
            if value >= limit {
                return Some(limit);
            }
        }
        for low in 0..low_bits {
            value |= u32::from(self.bit()?) << low;
        }
        Some(value)
    }

    /// The bytes after the stream; none unless the padding is zero.
    pub(crate) fn finish(mut self) -> Option<&'a [u8]> {
        while !self.at.is_multiple_of(8) {
            if self.bit()? {
                return None;
            }
        }
        Some(&self.bytes[self.at / 8..])
    }

    fn bit(&mut self) -> Option<bool> {
        let byte = self.bytes.get(self.at / 8)?;
        let bit = byte >> (self.at % 8) & 1 == 1;
        self.at += 1;
        Some(bit)
    }
}

//! The proto3 wire format: varints, lengths, keys.

use super::{DecodeError, Reason};

/// A cursor over encoded bytes.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// Whether everything has been read.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Reads a varint in its shortest form.
    ///
    /// # Errors
    /// [`Reason::Truncated`] or [`Reason::Varint`].
    pub fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for (index, &byte) in self.bytes.iter().enumerate() {
            let group = u64::from(byte & 0x7f);
            if index == 9 && group > 1 {
                return Err(Reason::Varint.into());
            }
            value |= group << (7 * index);
            if byte & 0x80 == 0 {
                if byte == 0 && index > 0 {
                    return Err(Reason::Varint.into());
                }
                self.bytes = &self.bytes[index + 1..];
                return Ok(value);
            }
            if index == 9 {
                return Err(Reason::Varint.into());
            }
        }
        Err(Reason::Truncated.into())
    }

    /// Reads a length and that many bytes.
    ///
    /// # Errors
    /// [`Reason::Truncated`] when fewer bytes are left.
    pub fn delimited(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.varint()?;
        let length = usize::try_from(length).map_err(|_| Reason::Truncated)?;
        if length > self.bytes.len() {
            return Err(Reason::Truncated.into());
        }
        let (head, tail) = self.bytes.split_at(length);
        self.bytes = tail;
        Ok(head)
    }

    /// Bytes of which there must be exactly `N`; `what` has them, in the complaint.
    ///
    /// # Errors
    /// When they are truncated or of another length.
    pub fn exactly<const N: usize>(&mut self, what: &str) -> Result<[u8; N], DecodeError> {
        let bytes = self.delimited()?;
        bytes.try_into().map_err(|_| {
            DecodeError::invalid(format!("{what} has {N} bytes, these are {}", bytes.len()))
        })
    }

    /// Consumes the key of field `tag` if it comes next.
    ///
    /// # Errors
    /// [`Reason::WireType`] when the field is next but has another wire type.
    pub fn take_key(&mut self, tag: u32, wire_type: u8) -> Result<bool, DecodeError> {
        if self.is_empty() {
            return Ok(false);
        }
        let mut ahead = self.clone();
        let key = ahead.varint()?;
        if key >> 3 != u64::from(tag) {
            return Ok(false);
        }
        let found = (key & 7) as u8;
        if found != wire_type {
            return Err(Reason::WireType {
                expected: wire_type,
                found,
            }
            .into());
        }
        *self = ahead;
        Ok(true)
    }

    /// Checks that nothing is left.
    ///
    /// # Errors
    /// [`Reason::Unexpected`] with the number of the field that is left.
    pub fn finish(mut self) -> Result<(), DecodeError> {
        if self.is_empty() {
            return Ok(());
        }
        let key = self.varint()?;
        Err(Reason::Unexpected(key >> 3).into())
    }
}

/// Appends a varint.
pub fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a length and the bytes.
pub fn put_delimited(bytes: &[u8], out: &mut Vec<u8>) {
    put_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// Appends the key of a field.
pub fn put_key(tag: u32, wire_type: u8, out: &mut Vec<u8>) {
    put_varint(u64::from(tag) << 3 | u64::from(wire_type), out);
}

/// Reads delimited UTF-8.
///
/// # Errors
/// [`Reason::Invalid`] when the bytes are not UTF-8.
pub fn take_str(bytes: &[u8]) -> Result<&str, DecodeError> {
    std::str::from_utf8(bytes).map_err(|_| DecodeError::invalid("not UTF-8"))
}

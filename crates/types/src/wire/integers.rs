//! Numbers and truth values.

use super::{DecodeError, Kind, Reader, Reason, Shown, VARINT, Value, put_varint};

impl Value for u64 {
    const WIRE_TYPE: u8 = VARINT;
    fn kind() -> Kind {
        Kind::Uint64
    }
    fn shown(&self) -> Shown {
        Shown::Number(i128::from(*self))
    }
    fn put(&self, out: &mut Vec<u8>) {
        put_varint(*self, out);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.varint()
    }
    fn default_value() -> Option<Self> {
        Some(0)
    }
    fn is_default(&self) -> bool {
        *self == 0
    }
}

impl Value for u32 {
    const WIRE_TYPE: u8 = VARINT;
    fn kind() -> Kind {
        Kind::Uint32
    }
    fn shown(&self) -> Shown {
        Shown::Number(i128::from(*self))
    }
    fn put(&self, out: &mut Vec<u8>) {
        put_varint(u64::from(*self), out);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        u32::try_from(reader.varint()?).map_err(|_| Reason::Varint.into())
    }
    fn default_value() -> Option<Self> {
        Some(0)
    }
    fn is_default(&self) -> bool {
        *self == 0
    }
}

impl Value for bool {
    const WIRE_TYPE: u8 = VARINT;
    fn kind() -> Kind {
        Kind::Bool
    }
    fn shown(&self) -> Shown {
        Shown::Bool(*self)
    }
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match reader.varint()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::invalid("a truth value is 0 or 1")),
        }
    }
    fn default_value() -> Option<Self> {
        Some(false)
    }
    fn is_default(&self) -> bool {
        !*self
    }
}

/// Signed integers are zigzag (`sint64`).
impl Value for i64 {
    const WIRE_TYPE: u8 = VARINT;
    fn kind() -> Kind {
        Kind::Sint64
    }
    fn shown(&self) -> Shown {
        Shown::Number(i128::from(*self))
    }
    fn put(&self, out: &mut Vec<u8>) {
        put_varint(((*self << 1) ^ (*self >> 63)) as u64, out);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let raw = reader.varint()?;
        Ok(((raw >> 1) as i64) ^ -((raw & 1) as i64))
    }
    fn default_value() -> Option<Self> {
        Some(0)
    }
    fn is_default(&self) -> bool {
        *self == 0
    }
}

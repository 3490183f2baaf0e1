//! Canonical protobuf: one value, one encoding.
//!
//! Everything that is hashed, signed or stored is written with this codec. It speaks the proto3
//! wire format, so any protobuf library can produce and read the bytes, but it is strict where
//! protobuf is loose. A value has exactly one encoding, and [`Wire::decode`] refuses every other:
//! fields come in ascending order, at most once, defaults are absent, varints are minimal, integer
//! lists are packed, and unknown fields are errors. What has been decoded is therefore already
//! checked, and encoding it again gives the same bytes.
//!
//! Types are declared with [`schema!`](crate::schema):
//!
//! ```
//! use r3mes_types::{schema, wire::Wire, Address, Amount};
//!
//! schema! {
//!     /// What one account pays another.
//!     pub struct Payment {
//!         /// Who is paid.
//!         1 => to: Address,
//!         /// How much.
//!         2 => amount: Amount,
//!     }
//! }
//!
//! let payment = Payment { to: Address::from([7; 20]), amount: Amount::new(5) };
//! assert_eq!(Payment::decode(&payment.encode()), Ok(payment));
//! ```

use std::fmt;

mod bounded;
mod declare;
mod describe;
mod error;
mod integers;
mod reader;

pub use bounded::{Blob, List, Text};
pub use describe::{EnumType, FieldType, Kind, Label, MessageType};
pub use error::{DecodeError, Reason};
pub use reader::{Reader, put_delimited, put_key, put_varint, take_str};

/// Varint wire type of protobuf.
pub const VARINT: u8 = 0;
/// Length-delimited wire type of protobuf.
pub const DELIMITED: u8 = 2;

/// A value laid open for people and programs: what JSON and command-line output are made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// An absent field.
    Absent,
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Number(i128),
    /// Text: names, addresses, hashes.
    Text(String),
    /// Values in order.
    List(Vec<Shown>),
    /// Named fields in order.
    Record(Vec<(&'static str, Shown)>),
}

/// A type with one canonical protobuf encoding.
pub trait Wire: Sized {
    /// The value laid open.
    fn shown(&self) -> Shown;

    /// The type as it stands in a `.proto` file.
    fn described() -> MessageType;

    /// Appends the fields, in ascending order, to `out`.
    fn write_fields(&self, out: &mut Vec<u8>);

    /// Reads all fields from `reader`.
    ///
    /// # Errors
    /// When the bytes are not the canonical encoding of a valid value.
    fn read_fields(reader: &mut Reader<'_>) -> Result<Self, DecodeError>;

    /// The canonical encoding.
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write_fields(&mut out);
        out
    }

    /// Parses the canonical encoding; every other form is refused.
    ///
    /// # Errors
    /// Names the first field at fault and why.
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let value = Self::read_fields(&mut reader)?;
        reader.finish()?;
        Ok(value)
    }
}

/// A single value inside a field.
pub trait Value: Sized + fmt::Debug {
    /// [`VARINT`] or [`DELIMITED`].
    const WIRE_TYPE: u8;

    /// The value laid open; by default its debug form as text.
    fn shown(&self) -> Shown {
        Shown::Text(format!("{self:?}"))
    }

    /// What the value is in protobuf.
    fn kind() -> Kind;

    /// Appends the value, with its length if it is delimited.
    fn put(&self, out: &mut Vec<u8>);

    /// Reads the value.
    ///
    /// # Errors
    /// When the bytes are not a canonical, valid value.
    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError>;

    /// What an absent field means, if it may be absent. Such a value is never written.
    fn default_value() -> Option<Self> {
        None
    }

    /// Whether this is the value that an absent field means.
    fn is_default(&self) -> bool {
        false
    }
}

/// A field of a message: a [`Value`], an `Option` of one, or a [`List`].
pub trait Field: Sized {
    /// The field laid open.
    fn shown(&self) -> Shown;

    /// What the field is in protobuf.
    fn described() -> (Label, Kind);

    /// Appends key and value, or nothing.
    fn write(&self, tag: u32, out: &mut Vec<u8>);

    /// Reads the field if it comes next; otherwise gives what absence means.
    ///
    /// # Errors
    /// When the field is malformed, or absent and required.
    fn read(tag: u32, reader: &mut Reader<'_>) -> Result<Self, DecodeError>;
}

impl<T: Value> Field for T {
    fn shown(&self) -> Shown {
        Value::shown(self)
    }

    fn described() -> (Label, Kind) {
        // A message that must be there has no default, and so is a plain field as well.
        (Label::Single, T::kind())
    }

    fn write(&self, tag: u32, out: &mut Vec<u8>) {
        if !self.is_default() {
            put_key(tag, T::WIRE_TYPE, out);
            self.put(out);
        }
    }

    fn read(tag: u32, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        if !reader.take_key(tag, T::WIRE_TYPE)? {
            return T::default_value().ok_or_else(|| Reason::Missing.into());
        }
        let value = T::take(reader)?;
        if value.is_default() {
            return Err(Reason::ExplicitDefault.into());
        }
        Ok(value)
    }
}

/// An absent field is `None`; a present one is `Some`, defaults included.
impl<T: Value> Field for Option<T> {
    fn shown(&self) -> Shown {
        self.as_ref().map_or(Shown::Absent, Value::shown)
    }

    fn described() -> (Label, Kind) {
        (Label::Optional, T::kind())
    }

    fn write(&self, tag: u32, out: &mut Vec<u8>) {
        if let Some(value) = self {
            put_key(tag, T::WIRE_TYPE, out);
            value.put(out);
        }
    }

    fn read(tag: u32, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        if reader.take_key(tag, T::WIRE_TYPE)? {
            T::take(reader).map(Some)
        } else {
            Ok(None)
        }
    }
}

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

/// Why bytes were refused, and at which field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeError {
    path: Vec<&'static str>,
    reason: Reason,
}

impl DecodeError {
    /// An error not yet attached to a field.
    pub fn new(reason: Reason) -> Self {
        Self {
            path: Vec::new(),
            reason,
        }
    }

    /// An error about a value that parsed but is not allowed.
    pub fn invalid(why: impl Into<String>) -> Self {
        Self::new(Reason::Invalid(why.into()))
    }

    /// The same error, one level further out.
    pub fn within(mut self, field: &'static str) -> Self {
        self.path.insert(0, field);
        self
    }

    /// What is wrong.
    pub fn reason(&self) -> &Reason {
        &self.reason
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            write!(f, "{}", self.reason)
        } else {
            write!(f, "field {}: {}", self.path.join("."), self.reason)
        }
    }
}

impl std::error::Error for DecodeError {}

/// What is wrong with encoded bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The bytes end inside a value.
    #[error("the bytes end in the middle of the value")]
    Truncated,
    /// A varint has superfluous bytes or more than 64 bits.
    #[error("the varint is not in its shortest form or does not fit")]
    Varint,
    /// The field has another wire type than declared.
    #[error("wire type {found} found where {expected} is declared")]
    WireType {
        /// Declared wire type.
        expected: u8,
        /// Wire type in the bytes.
        found: u8,
    },
    /// A field that is not declared, comes twice, or is out of order.
    #[error("field number {0} is unknown, repeated or out of order")]
    Unexpected(u64),
    /// A default value that must be left out.
    #[error("a default value must be left out")]
    ExplicitDefault,
    /// A required field is absent.
    #[error("required, but absent")]
    Missing,
    /// Longer than its bound.
    #[error("length {length} is above the limit of {limit}")]
    TooLong {
        /// Length in the bytes.
        length: u64,
        /// Largest length allowed.
        limit: u64,
    },
    /// Parsed, but not a valid value.
    #[error("{0}")]
    Invalid(String),
}

impl From<Reason> for DecodeError {
    fn from(reason: Reason) -> Self {
        Self::new(reason)
    }
}

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

/// A single value inside a field.
pub trait Value: Sized + fmt::Debug {
    /// [`VARINT`] or [`DELIMITED`].
    const WIRE_TYPE: u8;

    /// The value laid open; by default its debug form as text.
    fn shown(&self) -> Shown {
        Shown::Text(format!("{self:?}"))
    }

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

/// At most `MAX` values of one type.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct List<T, const MAX: usize>(Vec<T>);

impl<T, const MAX: usize> List<T, MAX> {
    /// Takes the values over if there are not too many.
    ///
    /// # Errors
    /// [`Reason::TooLong`].
    pub fn new(values: Vec<T>) -> Result<Self, DecodeError> {
        check_length(values.len(), MAX)?;
        Ok(Self(values))
    }

    /// Appends a value.
    ///
    /// # Errors
    /// [`Reason::TooLong`] when the list is full.
    pub fn push(&mut self, value: T) -> Result<(), DecodeError> {
        check_length(self.0.len() + 1, MAX)?;
        self.0.push(value);
        Ok(())
    }

    /// The values.
    pub fn into_inner(self) -> Vec<T> {
        self.0
    }
}

impl<T, const MAX: usize> Default for List<T, MAX> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T, const MAX: usize> std::ops::Deref for List<T, MAX> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.0
    }
}

/// The values can change in place; their number cannot.
impl<T, const MAX: usize> std::ops::DerefMut for List<T, MAX> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.0
    }
}

impl<'a, T, const MAX: usize> IntoIterator for &'a List<T, MAX> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl<T, const MAX: usize> IntoIterator for List<T, MAX> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<T, const MAX: usize> TryFrom<Vec<T>> for List<T, MAX> {
    type Error = DecodeError;
    fn try_from(values: Vec<T>) -> Result<Self, DecodeError> {
        Self::new(values)
    }
}

impl<T: Value, const MAX: usize> Field for List<T, MAX> {
    fn shown(&self) -> Shown {
        Shown::List(self.0.iter().map(Value::shown).collect())
    }

    fn write(&self, tag: u32, out: &mut Vec<u8>) {
        if T::WIRE_TYPE == DELIMITED {
            for value in &self.0 {
                put_key(tag, DELIMITED, out);
                value.put(out);
            }
        } else if !self.0.is_empty() {
            let mut packed = Vec::new();
            self.0.iter().for_each(|value| value.put(&mut packed));
            put_key(tag, DELIMITED, out);
            put_delimited(&packed, out);
        }
    }

    fn read(tag: u32, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut list = Self::default();
        if T::WIRE_TYPE == DELIMITED {
            while reader.take_key(tag, DELIMITED)? {
                list.push(T::take(reader)?)?;
            }
        } else if reader.take_key(tag, DELIMITED)? {
            let mut packed = Reader::new(reader.delimited()?);
            if packed.is_empty() {
                return Err(Reason::ExplicitDefault.into());
            }
            while !packed.is_empty() {
                list.push(T::take(&mut packed)?)?;
            }
        }
        Ok(list)
    }
}

fn check_length(length: usize, limit: usize) -> Result<(), DecodeError> {
    if length > limit {
        return Err(Reason::TooLong {
            length: length as u64,
            limit: limit as u64,
        }
        .into());
    }
    Ok(())
}

/// Text of at most `MAX` bytes without control characters.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Text<const MAX: usize>(String);

impl<const MAX: usize> Text<MAX> {
    /// Checks length and characters.
    ///
    /// # Errors
    /// [`Reason::TooLong`], or [`Reason::Invalid`] for a control character.
    pub fn new(text: impl Into<String>) -> Result<Self, DecodeError> {
        let text = text.into();
        check_length(text.len(), MAX)?;
        if text.chars().any(char::is_control) {
            return Err(DecodeError::invalid("control characters are not allowed"));
        }
        Ok(Self(text))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<const MAX: usize> std::ops::Deref for Text<MAX> {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl<const MAX: usize> fmt::Display for Text<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<const MAX: usize> std::str::FromStr for Text<MAX> {
    type Err = DecodeError;
    fn from_str(text: &str) -> Result<Self, DecodeError> {
        Self::new(text)
    }
}

impl<const MAX: usize> Value for Text<MAX> {
    const WIRE_TYPE: u8 = DELIMITED;
    fn shown(&self) -> Shown {
        Shown::Text(self.0.clone())
    }
    fn put(&self, out: &mut Vec<u8>) {
        put_delimited(self.0.as_bytes(), out);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let bytes = reader.delimited()?;
        check_length(bytes.len(), MAX)?;
        Self::new(take_str(bytes)?)
    }
    fn default_value() -> Option<Self> {
        Some(Self::default())
    }
    fn is_default(&self) -> bool {
        self.0.is_empty()
    }
}

/// At most `MAX` bytes.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Blob<const MAX: usize>(Vec<u8>);

impl<const MAX: usize> Blob<MAX> {
    /// Checks the length.
    ///
    /// # Errors
    /// [`Reason::TooLong`].
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, DecodeError> {
        let bytes = bytes.into();
        check_length(bytes.len(), MAX)?;
        Ok(Self(bytes))
    }

    /// The bytes.
    pub fn into_inner(self) -> Vec<u8> {
        self.0
    }
}

impl<const MAX: usize> fmt::Debug for Blob<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl<const MAX: usize> std::ops::Deref for Blob<MAX> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl<const MAX: usize> Value for Blob<MAX> {
    const WIRE_TYPE: u8 = DELIMITED;
    fn put(&self, out: &mut Vec<u8>) {
        put_delimited(&self.0, out);
    }
    fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let bytes = reader.delimited()?;
        check_length(bytes.len(), MAX)?;
        Ok(Self(bytes.to_vec()))
    }
    fn default_value() -> Option<Self> {
        Some(Self::default())
    }
    fn is_default(&self) -> bool {
        self.0.is_empty()
    }
}

/// Reads delimited UTF-8.
///
/// # Errors
/// [`Reason::Invalid`] when the bytes are not UTF-8.
pub fn take_str(bytes: &[u8]) -> Result<&str, DecodeError> {
    std::str::from_utf8(bytes).map_err(|_| DecodeError::invalid("not UTF-8"))
}

impl Value for u64 {
    const WIRE_TYPE: u8 = VARINT;
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

/// Declares structs with their protobuf field numbers and implements [`Wire`](crate::wire::Wire).
///
/// Fields must be listed in ascending order of their numbers.
#[macro_export]
macro_rules! schema {
    ($(
        $(#[$meta:meta])*
        pub struct $name:ident {
            $( $(#[$field_meta:meta])* $tag:literal => $field:ident : $type:ty ),* $(,)?
        }
    )*) => { $(
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name {
            $( $(#[$field_meta])* pub $field: $type, )*
        }

        impl $crate::wire::Wire for $name {
            fn shown(&self) -> $crate::wire::Shown {
                $crate::wire::Shown::Record(vec![
                    $( (stringify!($field), $crate::wire::Field::shown(&self.$field)), )*
                ])
            }

            fn write_fields(&self, _out: &mut Vec<u8>) {
                $( $crate::wire::Field::write(&self.$field, $tag, _out); )*
            }

            fn read_fields(
                _reader: &mut $crate::wire::Reader<'_>,
            ) -> Result<Self, $crate::wire::DecodeError> {
                Ok(Self {
                    $( $field: <$type as $crate::wire::Field>::read($tag, _reader)
                        .map_err(|error| error.within(stringify!($field)))?, )*
                })
            }
        }

        $crate::message_value!($name);
    )* };
}

/// Makes a [`Wire`](crate::wire::Wire) type usable as a field of another.
#[macro_export]
macro_rules! message_value {
    ($name:ty) => {
        impl $crate::wire::Value for $name {
            const WIRE_TYPE: u8 = $crate::wire::DELIMITED;
            fn shown(&self) -> $crate::wire::Shown {
                $crate::wire::Wire::shown(self)
            }
            fn put(&self, out: &mut Vec<u8>) {
                $crate::wire::put_delimited(&$crate::wire::Wire::encode(self), out);
            }
            fn take(
                reader: &mut $crate::wire::Reader<'_>,
            ) -> Result<Self, $crate::wire::DecodeError> {
                <Self as $crate::wire::Wire>::decode(reader.delimited()?)
            }
        }
    };
}

/// Declares an enum carried as a number. Zero is never a valid value, so absence is an error.
#[macro_export]
macro_rules! wire_enum {
    (
        $(#[$meta:meta])*
        pub enum $name:ident {
            $( $(#[$variant_meta:meta])* $variant:ident = $number:literal => $label:literal ),* $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $( $(#[$variant_meta])* $variant = $number, )*
        }

        impl $name {
            /// Every value, ascending by number.
            pub const ALL: &'static [Self] = &[$( Self::$variant ),*];

            /// The number that stands for this value.
            pub const fn number(self) -> u32 {
                self as u32
            }

            /// The value a number stands for.
            pub const fn from_number(number: u32) -> Option<Self> {
                match number {
                    $( $number => Some(Self::$variant), )*
                    _ => None,
                }
            }

            /// Lower-case name.
            pub const fn name(self) -> &'static str {
                match self {
                    $( Self::$variant => $label, )*
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }

        impl $crate::wire::Value for $name {
            const WIRE_TYPE: u8 = $crate::wire::VARINT;
            fn shown(&self) -> $crate::wire::Shown {
                $crate::wire::Shown::Text(self.name().to_owned())
            }
            fn put(&self, out: &mut Vec<u8>) {
                $crate::wire::put_varint(u64::from(self.number()), out);
            }
            fn take(
                reader: &mut $crate::wire::Reader<'_>,
            ) -> Result<Self, $crate::wire::DecodeError> {
                let number = <u32 as $crate::wire::Value>::take(reader)?;
                Self::from_number(number).ok_or_else(|| {
                    $crate::wire::DecodeError::invalid(format!(
                        "{number} is not a {}", stringify!($name)
                    ))
                })
            }
        }
    };
}

/// Declares an enum of messages: exactly one numbered field is present.
#[macro_export]
macro_rules! wire_oneof {
    (
        $(#[$meta:meta])*
        pub enum $name:ident {
            $( $(#[$variant_meta:meta])* $tag:literal => $variant:ident($type:ty) ),* $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum $name {
            $( $(#[$variant_meta])* $variant($type), )*
        }

        impl $crate::wire::Wire for $name {
            fn shown(&self) -> $crate::wire::Shown {
                match self {
                    $( Self::$variant(value) => $crate::wire::Shown::Record(vec![(
                        stringify!($variant),
                        $crate::wire::Value::shown(value),
                    )]), )*
                }
            }

            fn write_fields(&self, out: &mut Vec<u8>) {
                match self {
                    $( Self::$variant(value) => {
                        $crate::wire::put_key($tag, $crate::wire::DELIMITED, out);
                        $crate::wire::Value::put(value, out);
                    } )*
                }
            }

            fn read_fields(
                reader: &mut $crate::wire::Reader<'_>,
            ) -> Result<Self, $crate::wire::DecodeError> {
                $(
                    if reader.take_key($tag, $crate::wire::DELIMITED)? {
                        return <$type as $crate::wire::Value>::take(reader)
                            .map(Self::$variant)
                            .map_err(|error| error.within(stringify!($variant)));
                    }
                )*
                Err($crate::wire::DecodeError::invalid(concat!("no known ", stringify!($name))))
            }
        }

        $crate::message_value!($name);
    };
}

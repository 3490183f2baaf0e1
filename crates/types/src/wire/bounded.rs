//! Lists, text and bytes with a limit in their type.

use std::fmt;

use super::{
    DELIMITED, DecodeError, Field, Kind, Label, Reader, Reason, Shown, Value, put_delimited,
    put_key, take_str,
};

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

    fn described() -> (Label, Kind) {
        (Label::Repeated, T::kind())
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
    fn kind() -> Kind {
        Kind::String
    }
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
    fn kind() -> Kind {
        Kind::Bytes
    }
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

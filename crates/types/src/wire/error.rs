//! Why bytes are refused.

use std::fmt;

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

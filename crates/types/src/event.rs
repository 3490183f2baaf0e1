//! What happened on the ledger, for those who watch it.

use std::fmt::Display;

/// Something that happened: `domain.what`, with named values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// For example `bank.transfer`.
    pub kind: &'static str,
    /// Names and values, in the order they were added.
    pub attributes: Vec<(&'static str, String)>,
}

impl Event {
    /// An event without values yet.
    pub const fn new(kind: &'static str) -> Self {
        Self {
            kind,
            attributes: Vec::new(),
        }
    }

    /// Adds a value.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Display) -> Self {
        self.attributes.push((name, value.to_string()));
        self
    }

    /// The value under `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.attributes
            .iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.as_str())
    }
}

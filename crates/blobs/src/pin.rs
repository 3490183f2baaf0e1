use std::{fmt, str::FromStr};

use r3mes_types::Cid;

/// A reason to keep a blob: everything reachable from `root` stays until the pin is removed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pin {
    /// What is kept, with everything below it.
    pub root: Cid,
    /// Who wants it kept. The same root may be pinned under several names.
    pub name: PinName,
}

/// Name of a pin, such as `round-7` or `base-model`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PinName(String);

impl PinName {
    /// Longest name in characters.
    pub const MAX_CHARS: usize = 64;

    /// Checks a name: 1 to 64 of `a-z`, `0-9`, `-`, `_`.
    ///
    /// # Errors
    /// When it is empty, too long or has another character.
    pub fn new(name: impl Into<String>) -> Result<Self, PinNameError> {
        let name = name.into();
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c);
        if name.is_empty() || name.len() > Self::MAX_CHARS || !name.chars().all(allowed) {
            return Err(PinNameError { name });
        }
        Ok(Self(name))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PinName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for PinName {
    type Err = PinNameError;

    fn from_str(name: &str) -> Result<Self, PinNameError> {
        Self::new(name)
    }
}

/// A name that a pin cannot have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} cannot name a pin: use 1 to 64 of a-z, 0-9, '-' and '_'")]
pub struct PinNameError {
    /// The name refused.
    pub name: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_the_pin_folder_are_refused() {
        for name in ["", "..", "a/b", "a.b", "a~b", "Ä", &"x".repeat(65)] {
            assert!(PinName::new(name).is_err(), "{name}");
        }
        assert!(PinName::new("round-7_x").is_ok());
    }
}

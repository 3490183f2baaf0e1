//! How an operation leaves its result.

/// Whether an operation replaces its output or adds to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Write {
    /// `out = value`
    Replace,
    /// `out = out + value`, one rounded addition for each element
    Add,
}

impl Write {
    /// Writes one value.
    #[inline(always)]
    pub(crate) fn put(self, out: &mut f32, value: f32) {
        match self {
            Self::Replace => *out = value,
            Self::Add => *out += value,
        }
    }
}

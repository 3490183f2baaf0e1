//! Time as the broker sees it.

/// Microseconds since 1970, never going back while a process runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub u64);

impl Moment {
    /// So many microseconds later.
    pub const fn after(self, micros: u64) -> Self {
        Self(self.0.saturating_add(micros))
    }

    /// Microseconds from `earlier` to here; 0 if that is later.
    pub const fn micros_after(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

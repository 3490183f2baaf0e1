//! Points in time and spans, both given from outside: nothing here reads a clock.

use std::fmt;

use crate::wire::{DecodeError, Reader, Shown, VARINT, Value, put_varint};

/// Nanoseconds since 1970-01-01T00:00:00Z; good until the year 2554.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

/// A span of time in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(u64);

/// Longest pause between two blocks that a node may be set to, under an engine that makes them all the
/// time.
pub const MAX_BLOCK_INTERVAL: Millis = Millis::seconds(1);

/// Shortest time that anybody is given to answer: four blocks, of which each is made after at most
/// [`MAX_BLOCK_INTERVAL`] and agreed on in as long again. So an answer is late only if four block proposers
/// in a row leave it out.
pub const MIN_WINDOW: Millis = Millis(4 * 2 * MAX_BLOCK_INTERVAL.millis());

/// Nanoseconds in a millisecond.
const NANOS_PER_MILLI: u64 = 1_000_000;

impl Time {
    /// So many nanoseconds after the epoch.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds after the epoch.
    pub const fn nanos(self) -> u64 {
        self.0
    }

    /// This much later; the end of time at most.
    pub const fn after(self, span: Millis) -> Self {
        Self(
            self.0
                .saturating_add(span.0.saturating_mul(NANOS_PER_MILLI)),
        )
    }

    /// Whole milliseconds from `earlier` to `self`; zero if it is not earlier.
    pub const fn since(self, earlier: Self) -> Millis {
        Millis(self.0.saturating_sub(earlier.0) / NANOS_PER_MILLI)
    }
}

impl Millis {
    /// So many milliseconds.
    pub const fn new(millis: u64) -> Self {
        Self(millis)
    }

    /// So many seconds.
    pub const fn seconds(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1_000))
    }

    /// The number of milliseconds.
    pub const fn millis(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", self.0)
    }
}

macro_rules! varint_newtype {
    ($($name:ident),*) => { $(
        impl Value for $name {
            const WIRE_TYPE: u8 = VARINT;
            fn kind() -> crate::wire::Kind {
                crate::wire::Kind::Uint64
            }
            fn shown(&self) -> Shown {
                Shown::Number(i128::from(self.0))
            }
            fn put(&self, out: &mut Vec<u8>) {
                put_varint(self.0, out);
            }
            fn take(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
                reader.varint().map(Self)
            }
            fn default_value() -> Option<Self> {
                Some(Self(0))
            }
            fn is_default(&self) -> bool {
                self.0 == 0
            }
        }
    )* };
}

varint_newtype!(Time, Millis);

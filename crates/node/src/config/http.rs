//! What clients over HTTP are held to, on every address of this node.

use std::{num::NonZeroU32, time::Duration};

use garde::Validate;
use r3mes_http::server::Limits;
use serde::{Deserialize, Serialize};

/// Longest pause within a body that can be allowed, in seconds.
const MAX_PAUSE_S: u64 = 3600;

/// What clients over HTTP are held to, on every address of this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Validate)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    /// Seconds for which a request's body may pause. Whoever pauses longer is answered 408, and the
    /// connection ends.
    #[garde(range(min = 1, max = MAX_PAUSE_S))]
    pub body_pause_s: u64,
    /// Bytes of a body that have to come in a second: all pauses within it together may last
    /// `body_pause_s`, and a second for each so many bytes that have come.
    #[garde(skip)]
    pub body_bytes_per_s: NonZeroU32,
}

impl Default for Http {
    fn default() -> Self {
        let limits = Limits::default();
        Self {
            body_pause_s: limits.body_pause.as_secs(),
            body_bytes_per_s: limits.body_bytes_per_s,
        }
    }
}

impl Http {
    /// The limits that servers take.
    pub fn limits(&self) -> Limits {
        Limits {
            body_pause: Duration::from_secs(self.body_pause_s),
            body_bytes_per_s: self.body_bytes_per_s,
            ..Limits::default()
        }
    }
}

//! A call, whom it is for, and how it goes.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Head, HeadError, MAX_HEAD_BYTES, invalid};
use crate::registry::{Requirements, Strategy};

/// Digits of a call's id that logs have.
const LOGGED_DIGITS: usize = 8;

/// A client's call.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CallHead {
    /// The function's name.
    pub function: String,
    /// Only on this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Only on a node that can do this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capability: Option<String>,
    /// Only on a node that has this.
    #[serde(default, skip_serializing_if = "Requirements::is_empty")]
    pub requirements: Requirements,
    /// How a node is chosen among several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<Strategy>,
    /// Milliseconds in which the call must end; the function's own limit when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// The most that the call may cost, in uremes; only functions without a price when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_price: Option<u64>,
    /// How old a kept result may be, in milliseconds; none is taken when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age_ms: Option<u64>,
    /// Set by the broker; a client that sets it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller: Option<Caller>,
}

impl CallHead {
    /// A call of a function anywhere.
    pub fn new(function: impl Into<String>) -> Self {
        Self {
            function: function.into(),
            ..Self::default()
        }
    }

    /// The bytes of a client's head with the caller added, everything else as it came.
    ///
    /// # Errors
    /// When `head` is not a map, or becomes too long.
    pub fn with_caller(head: &[u8], caller: &Caller) -> Result<Bytes, HeadError> {
        let mut rest = head;
        let entries = rmp::decode::read_map_len(&mut rest).map_err(invalid::<Self>)?;
        let mut bytes = Vec::with_capacity(head.len() + 96);
        rmp::encode::write_map_len(&mut bytes, entries.saturating_add(1))
            .and_then(|_| {
                bytes.extend_from_slice(rest);
                rmp::encode::write_str(&mut bytes, "caller")
            })
            .map_err(invalid::<Self>)?;
        bytes.extend_from_slice(&caller.encode()?);
        match bytes.len() <= MAX_HEAD_BYTES {
            true => Ok(bytes.into()),
            false => Err(invalid::<Self>("it is too long")),
        }
    }
}

/// Whom a call is for, as the broker knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// The token's name; empty for somebody without one.
    pub user: String,
    /// Groups that the token carries.
    #[serde(default)]
    pub groups: Vec<String>,
    /// The broker's id of the call, 16 hexadecimal digits.
    pub call: String,
}

/// The beginning of a call's id, which is all that logs have of it: whoever knows the whole may ask a
/// gateway for the result.
pub fn logged_call(id: &str) -> &str {
    id.get(..LOGGED_DIGITS).unwrap_or(id)
}

/// Further bytes that may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credit {
    /// How many.
    pub bytes: u32,
}

/// How far a call has come.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Share that is done, 0 to 1, if known.
    #[serde(default)]
    pub done: Option<f64>,
    /// A line for people.
    #[serde(default)]
    pub note: String,
}

/// A call waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queued {
    /// Calls before it, of the queue that it waits in.
    pub before: u32,
}

/// A node has the call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// Which.
    pub node: String,
}

/// The answer that follows was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cached {
    /// Microseconds since a node gave it.
    pub age_us: u64,
}

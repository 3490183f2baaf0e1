//! Why a call failed.

use serde::{Deserialize, Serialize};

/// What went wrong with a call: the head of a `Failed` frame, and the error that callers see.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What kind of failure it is.
    pub reason: Reason,
    /// What was wrong, where, and what to do.
    pub message: String,
    /// The type of the exception that the function raised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exception: Option<String>,
    /// Where the function raised it, as its language writes that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceback: Option<String>,
    /// Milliseconds after which trying again may help.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

/// The kinds of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// No node offers such a function.
    NotFound,
    /// Nodes offer it, and none of them can take a call.
    NoHealthyNodes,
    /// The token is missing, was not given out, was revoked or has expired.
    Unauthenticated,
    /// The caller may not call it.
    Denied,
    /// The caller has used up what it may use.
    QuotaExceeded,
    /// The function has a price that the caller did not agree to, or cannot pay here.
    PaymentRequired,
    /// Too many calls wait already.
    Busy,
    /// The call itself is malformed.
    Invalid,
    /// The deadline passed.
    DeadlineExceeded,
    /// The caller cancelled.
    Cancelled,
    /// The node that had the call is gone.
    NodeLost,
    /// The connection to the broker is gone.
    Disconnected,
    /// The function raised an exception.
    Raised,
    /// A fault of the node or the broker.
    Internal,
    /// A reason that this version does not know.
    #[serde(other)]
    Other,
}

impl Reason {
    /// Whether it speaks against the node rather than against the call.
    pub const fn blames_node(self) -> bool {
        matches!(self, Self::NodeLost | Self::Internal)
    }
}

impl Failure {
    /// A failure with nothing but its words.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            exception: None,
            traceback: None,
            retry_after_ms: None,
        }
    }
}

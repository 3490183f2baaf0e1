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

    /// The same failure in at most 50 KiB: the beginning of its message, and the end of its traceback,
    /// where what was raised stands.
    pub(crate) fn cut(&self) -> Self {
        Self {
            reason: self.reason,
            message: beginning(&self.message, 16 << 10),
            exception: self
                .exception
                .as_deref()
                .map(|name| beginning(name, 1 << 10)),
            traceback: self.traceback.as_deref().map(|text| end(text, 32 << 10)),
            retry_after_ms: self.retry_after_ms,
        }
    }
}

/// The first `most` bytes, and how many were left out.
pub(crate) fn beginning(text: &str, most: usize) -> String {
    let kept = &text[..text.floor_char_boundary(most)];
    match text.len() - kept.len() {
        0 => kept.to_owned(),
        cut => format!("{kept} [{cut} bytes left out]"),
    }
}

/// The last `most` bytes, and how many were left out.
fn end(text: &str, most: usize) -> String {
    let kept = &text[text.ceil_char_boundary(text.len().saturating_sub(most))..];
    match text.len() - kept.len() {
        0 => kept.to_owned(),
        cut => format!("[{cut} bytes left out]\n{kept}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::messages::{Head, MAX_HEAD_BYTES};

    #[test]
    fn a_failure_that_is_too_long_is_told_in_part() {
        let failure = Failure {
            exception: Some("E".repeat(MAX_HEAD_BYTES)),
            traceback: Some(format!("{}the last line", "ä\n".repeat(MAX_HEAD_BYTES))),
            ..Failure::new(
                Reason::Raised,
                format!("first {}", "€".repeat(MAX_HEAD_BYTES)),
            )
        };
        let told = Failure::decode(&failure.encode().unwrap()).unwrap();
        assert_eq!(told.reason, Reason::Raised);
        assert!(told.message.starts_with("first €€") && told.message.ends_with("left out]"));
        assert!(told.exception.unwrap().starts_with("EEE"));
        let traceback = told.traceback.unwrap();
        assert!(traceback.starts_with('[') && traceback.ends_with("ä\nthe last line"));
        let short = Failure::new(Reason::Raised, "short");
        assert_eq!(Failure::decode(&short.encode().unwrap()).unwrap(), short);
    }
}

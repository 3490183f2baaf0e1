//! What is kept of a call, and under which names.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::KeepError;
use crate::{failure::Failure, webhook::Webhook, wire::messages::CallHead};

/// How a call stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallState {
    /// It has not begun.
    Waiting {
        /// How many calls are before it, where that is known.
        before: Option<u32>,
    },
    /// A node has it.
    Running {
        /// How much of it is done, 0 to 1.
        done: Option<f64>,
        /// What the function says of it.
        note: String,
    },
    /// It is over, and there is a result.
    Succeeded {
        /// Pieces that the result lies in.
        pieces: u32,
    },
    /// It is over without a result.
    Failed(Failure),
}

/// A call that was taken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CallRecord {
    /// Its id.
    pub id: String,
    /// What is called, and by whom.
    pub head: CallHead,
    /// When it was taken, in microseconds since 1970.
    pub created_at_us: u64,
    /// Who has given it to a node, or is about to: made anew each time that a gateway takes it.
    pub runner: Option<String>,
    /// How it stands.
    pub state: CallState,
    /// Pieces that its arguments lie in.
    pub arguments: u32,
    /// Who is told that it is over.
    #[serde(default)]
    pub webhook: Option<Webhook>,
}

impl CallRecord {
    /// Whether nothing will change any more.
    pub fn is_over(&self) -> bool {
        matches!(
            self.state,
            CallState::Succeeded { .. } | CallState::Failed(_)
        )
    }

    /// Whose it is; empty for somebody without a token.
    pub fn user(&self) -> &str {
        self.head
            .caller
            .as_ref()
            .map_or("", |caller| caller.user.as_str())
    }

    /// Pieces that its result lies in.
    pub(super) fn pieces(&self) -> u32 {
        match self.state {
            CallState::Succeeded { pieces } => pieces,
            _ => 0,
        }
    }

    pub(super) fn name(&self) -> String {
        name(self.user(), &self.id)
    }
}

pub(super) fn is_id(id: &str) -> bool {
    !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

pub(super) fn user_name(user: &str) -> String {
    hex::encode(&blake3::hash(user.as_bytes()).as_bytes()[..16])
}

pub(super) fn name(user: &str, id: &str) -> String {
    format!("{}.{id}", user_name(user))
}

pub(super) fn key_name(user: &str, key: &str) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(user_name(user).as_bytes());
    hasher.update(key.as_bytes());
    format!("key.{}", hasher.finalize().to_hex())
}

pub(super) fn arguments_of(id: &str) -> String {
    format!("arguments.{id}")
}

/// Each runner has a result of its own, so that one that lost its turn spoils nothing.
pub(super) fn result_of(record: &CallRecord) -> String {
    let runner = record.runner.as_deref().unwrap_or_default();
    format!("result.{}.{runner}", record.id)
}

pub(super) fn encoded<T: Serialize>(value: &T) -> Result<Bytes, KeepError> {
    let bytes = rmp_serde::to_vec_named(value);
    bytes
        .map(Bytes::from)
        .map_err(|error| KeepError::Malformed(error.to_string()))
}

pub(super) fn decoded<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Result<T, KeepError> {
    rmp_serde::from_slice(bytes).map_err(|error| KeepError::Malformed(error.to_string()))
}

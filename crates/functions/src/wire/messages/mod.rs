//! Heads of frames: MessagePack maps with named fields.
//!
//! A reader ignores fields that it does not know. A broker passes the head of a call on as it came,
//! with entries of its own added, so what newer clients say reaches newer nodes through an older broker.

mod byte_array;
mod call;
mod gateway;
mod greeting;
mod question;

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

pub use self::{
    call::{Cached, CallHead, Caller, Credit, Progress, Queued, Started, logged_call},
    gateway::{NodeState, OfferedNode, Used, Withdraw},
    greeting::{Challenge, Goodbye, Hello, Load, NodeHello, Register, Welcome, node_proof},
    question::{Ask, Question},
};
use crate::failure::{Failure, beginning};

/// The version of the protocol that this code speaks.
pub const PROTOCOL: u16 = 1;
/// Most bytes of a head.
pub const MAX_HEAD_BYTES: usize = u16::MAX as usize;
/// Bytes of a note of progress that are sent; of a longer one, how many were left out stands behind them.
pub const MAX_NOTE_BYTES: usize = 4 << 10;

/// Why a head was not understood.
#[derive(Debug, thiserror::Error)]
#[error("the head of a {what} frame is not valid: {problem}")]
pub struct HeadError {
    /// Which frame's.
    what: &'static str,
    /// What was wrong.
    problem: String,
}

/// A head: what kind of frame it belongs to is its type.
pub trait Head: Serialize + DeserializeOwned {
    /// The frame's name in complaints.
    const WHAT: &'static str;

    /// The head as bytes.
    ///
    /// # Errors
    /// When it is longer than [`MAX_HEAD_BYTES`].
    fn encode(&self) -> Result<Bytes, HeadError> {
        whole(self)
    }

    /// Reads a head.
    ///
    /// # Errors
    /// When it is not such a map.
    fn decode(bytes: &[u8]) -> Result<Self, HeadError> {
        rmp_serde::from_slice(bytes).map_err(|error| invalid::<Self>(error))
    }
}

/// A head as bytes, as it is.
fn whole<T: Head>(head: &T) -> Result<Bytes, HeadError> {
    let bytes = rmp_serde::to_vec_named(head).map_err(|error| invalid::<T>(error))?;
    match bytes.len() <= MAX_HEAD_BYTES {
        true => Ok(bytes.into()),
        false => Err(invalid::<T>(format_args!(
            "it has {} bytes, at most {MAX_HEAD_BYTES}",
            bytes.len()
        ))),
    }
}

fn invalid<T: Head>(problem: impl ToString) -> HeadError {
    HeadError {
        what: T::WHAT,
        problem: problem.to_string(),
    }
}

macro_rules! heads {
    ($($name:ident: $what:literal),* $(,)?) => {
        $(impl Head for $name { const WHAT: &'static str = $what; })*
    };
}

heads! {
    Challenge: "challenge",
    Hello: "hello",
    Welcome: "welcome",
    Goodbye: "goodbye",
    Load: "load",
    CallHead: "call",
    Caller: "call",
    Credit: "credit",
    Ask: "ask",
    Queued: "queued",
    Started: "started",
    Cached: "cached",
    Withdraw: "withdraw",
    NodeState: "state",
    Used: "used",
}

impl Head for Failure {
    const WHAT: &'static str = "failed";

    /// The head as bytes; with its words cut where they would not go into one.
    ///
    /// # Errors
    /// None: what was cut goes into a head.
    fn encode(&self) -> Result<Bytes, HeadError> {
        whole(self).or_else(|_| whole(&self.cut()))
    }
}

impl Head for Progress {
    const WHAT: &'static str = "progress";

    /// The head as bytes, with the first [`MAX_NOTE_BYTES`] of its note.
    ///
    /// # Errors
    /// None: what was cut goes into a head.
    fn encode(&self) -> Result<Bytes, HeadError> {
        whole(&Self {
            done: self.done,
            note: beginning(&self.note, MAX_NOTE_BYTES),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[test]
    fn a_call_passes_a_broker_with_fields_that_it_does_not_know() {
        #[derive(Serialize)]
        struct Newer {
            function: &'static str,
            colour: &'static str,
        }
        #[derive(Debug, Deserialize)]
        struct AtTheNode {
            colour: String,
            caller: Caller,
        }
        let head = rmp_serde::to_vec_named(&Newer {
            function: "paint",
            colour: "green",
        })
        .unwrap();
        assert_eq!(CallHead::decode(&head).unwrap(), CallHead::new("paint"));
        let caller = Caller {
            user: "alice".into(),
            groups: vec!["team".into()],
            call: "00".into(),
        };
        let passed = CallHead::with_caller(&head, &caller).unwrap();
        let seen: AtTheNode = rmp_serde::from_slice(&passed).unwrap();
        assert_eq!((seen.colour.as_str(), seen.caller), ("green", caller));
    }

    #[test]
    fn a_caller_that_the_client_wrote_cannot_reach_the_node_beside_the_brokers() {
        let forged = CallHead {
            caller: Some(Caller::default()),
            ..CallHead::new("f")
        };
        let passed = CallHead::with_caller(&forged.encode().unwrap(), &Caller::default()).unwrap();
        assert!(CallHead::decode(&passed).is_err());
    }

    #[test]
    fn a_head_that_is_too_long_is_an_error() {
        let long = CallHead::new("f".repeat(MAX_HEAD_BYTES));
        assert!(long.encode().unwrap_err().to_string().contains("at most"));
    }

    #[test]
    fn a_note_that_is_too_long_is_told_in_part() {
        let told = |note: String| {
            let done = Some(0.5);
            let told = Progress::decode(&Progress { done, note }.encode().unwrap()).unwrap();
            assert_eq!(told.done, done);
            told.note
        };
        assert_eq!(told("a".repeat(MAX_NOTE_BYTES)), "a".repeat(MAX_NOTE_BYTES));
        let cut = told("€".repeat(MAX_HEAD_BYTES));
        let kept = "€".repeat(MAX_NOTE_BYTES / 3);
        let left_out = "€".len() * MAX_HEAD_BYTES - kept.len();
        assert_eq!(cut, format!("{kept} [{left_out} bytes left out]"));
    }

    #[test]
    fn keys_of_another_length_are_refused() {
        let head = rmp_serde::to_vec_named(&BTreeMap::from([("nonce", [1u8; 3])])).unwrap();
        assert!(Challenge::decode(&head).is_err());
    }
}

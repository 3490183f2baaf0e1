//! Heads of frames: MessagePack maps with named fields.
//!
//! A reader ignores fields that it does not know. A broker passes the head of a call on as it came,
//! with entries of its own added, so what newer clients say reaches newer nodes through an older broker.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    failure::{Failure, beginning},
    registry::{Capabilities, FunctionInfo, Quota, Requirements, Strategy},
};

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

/// What a node signs to show that it holds its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Challenge {
    /// Newest version of the protocol that the broker speaks.
    pub protocol: u16,
    /// 32 random bytes.
    #[serde(with = "serde_bytes_array")]
    pub nonce: [u8; 32],
}

/// Who a peer is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// The version of the protocol that the peer speaks.
    pub protocol: u16,
    /// Program and version, for people.
    pub agent: String,
    /// A token that the broker gave out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Present when the peer offers functions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeHello>,
}

/// What a node says of itself when it comes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeHello {
    /// Its name at the broker.
    pub id: String,
    /// Its Ed25519 public key.
    #[serde(with = "serde_bytes_array")]
    pub key: [u8; 32],
    /// Its signature over [`node_proof`].
    #[serde(with = "serde_bytes_array")]
    pub signature: [u8; 64],
    /// What it can do.
    #[serde(default)]
    pub capabilities: Capabilities,
    /// Calls it runs at a time.
    pub max_concurrent: u32,
    /// Resources it has at all, as `gpu_memory` in bytes.
    #[serde(default)]
    pub resources: BTreeMap<String, f64>,
}

/// What a node signs: domain, the broker's nonce and the id it takes.
pub fn node_proof(nonce: &[u8; 32], id: &str) -> Vec<u8> {
    [
        b"r3mes functions v1 node\0".as_slice(),
        nonce,
        id.as_bytes(),
    ]
    .concat()
}

/// A peer may go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The version both speak from here.
    pub protocol: u16,
    /// Milliseconds without a frame after which the other side is taken for gone.
    pub silence_ms: u64,
    /// Calls that this peer may have open at a time.
    pub max_calls: u32,
}

/// Why a connection ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Goodbye {
    /// What was wrong, and what to do.
    pub reason: String,
    /// Whether trying again can help.
    pub retry: bool,
}

impl From<String> for Goodbye {
    /// That trying again is no use.
    fn from(reason: String) -> Self {
        Self {
            reason,
            retry: false,
        }
    }
}

/// A node's live load. What it does not know is absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// Share of all processors in use, 0 to 1.
    #[serde(default)]
    pub cpu: Option<f64>,
    /// Share of memory in use, 0 to 1.
    #[serde(default)]
    pub memory: Option<f64>,
    /// Share of the GPUs in use, 0 to 1.
    #[serde(default)]
    pub gpu: Option<f64>,
    /// Resources that are free now, in the units of [`NodeHello::resources`].
    #[serde(default)]
    pub free: BTreeMap<String, f64>,
}

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

/// A client's question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// Which nodes are there? The answer's body is a list of `broker::NodeView`, by their ids.
    Nodes,
    /// Which functions may I call? The answer's body is a list of `broker::FunctionView`, by nodes and names.
    Functions,
}

/// The head of an `Ask` frame. An answer that does not end the stream is a page: what comes after its last
/// entry is to be asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// The question.
    pub question: Question,
    /// Only what comes after this node, or after a function of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_node: Option<String>,
    /// After this function of that node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_function: Option<String>,
}

impl Ask {
    /// Asks from the beginning.
    pub const fn new(question: Question) -> Self {
        Self {
            question,
            after_node: None,
            after_function: None,
        }
    }
}

/// The functions a node offers, the body of a `Register` frame.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Register {
    /// All of them.
    pub functions: Vec<FunctionInfo>,
}

/// A node that a gateway has, as it tells other gateways: the body of an `Offer` frame.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OfferedNode {
    /// Its name.
    pub id: String,
    /// The Ed25519 key that its name belongs to.
    #[serde(with = "serde_bytes_array")]
    pub key: [u8; 32],
    /// What it can do.
    pub capabilities: Capabilities,
    /// Resources it has at all, in base units.
    pub resources: BTreeMap<String, f64>,
    /// Calls it runs at a time.
    pub max_concurrent: u32,
    /// When it came, in microseconds since 1970.
    pub registered_at_us: u64,
    /// Its functions.
    pub functions: Vec<FunctionInfo>,
}

/// A gateway has a node no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withdraw {
    /// Which.
    pub id: String,
}

/// How busy a node is, as its gateway sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeState {
    /// Which node.
    pub id: String,
    /// Calls it runs.
    pub running: u32,
    /// What it said of its load last.
    pub load: Load,
    /// Microseconds of the round trip between it and its gateway; absent before the first ping.
    #[serde(default)]
    pub latency_us: Option<f64>,
}

/// What a call used of a quota, so that every gateway counts the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    /// Whose quota.
    pub user: String,
    /// Of which function.
    pub function: String,
    /// The quota, which says in which period it counts.
    pub quota: Quota,
    /// Calls that began.
    pub calls: u64,
    /// Microseconds for which calls ran.
    pub micros: u64,
}

/// Fixed-size byte arrays as MessagePack binaries.
mod serde_bytes_array {
    use serde::{Deserializer, Serializer, de::Error};

    pub(super) fn serialize<const N: usize, S: Serializer>(
        bytes: &[u8; N],
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, const N: usize, D: Deserializer<'de>>(
        from: D,
    ) -> Result<[u8; N], D::Error> {
        struct Visitor<const N: usize>;
        impl<const N: usize> serde::de::Visitor<'_> for Visitor<N> {
            type Value = [u8; N];

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{N} bytes")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<[u8; N], E> {
                bytes
                    .try_into()
                    .map_err(|_| E::invalid_length(bytes.len(), &self))
            }
        }
        from.deserialize_bytes(Visitor::<N>)
    }
}

#[cfg(test)]
mod tests {
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

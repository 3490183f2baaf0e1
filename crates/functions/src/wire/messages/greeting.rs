//! Who a peer is, and what a node offers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::byte_array;
use crate::registry::{Capabilities, FunctionInfo};

/// What a node signs to show that it holds its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Challenge {
    /// Newest version of the protocol that the broker speaks.
    pub protocol: u16,
    /// 32 random bytes.
    #[serde(with = "byte_array")]
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
    #[serde(with = "byte_array")]
    pub key: [u8; 32],
    /// Its signature over [`node_proof`].
    #[serde(with = "byte_array")]
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

/// The functions a node offers, the body of a `Register` frame.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Register {
    /// All of them.
    pub functions: Vec<FunctionInfo>,
}

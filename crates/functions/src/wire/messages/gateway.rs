//! What gateways tell each other of their nodes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Load, byte_array};
use crate::registry::{Capabilities, FunctionInfo, Quota};

/// A node that a gateway has, as it tells other gateways: the body of an `Offer` frame.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OfferedNode {
    /// Its name.
    pub id: String,
    /// The Ed25519 key that its name belongs to.
    #[serde(with = "byte_array")]
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

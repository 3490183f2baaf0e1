//! The roles of a node, a process each, and where they keep their blobs.

use std::net::SocketAddr;

use garde::Validate;
use r3mes_types::Role;
use serde::{Deserialize, Serialize};

use super::{
    checks::{is_blob_source, is_http_url},
    loopback,
};

/// The roles of this node. One that is absent does not run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, Validate)]
#[serde(deny_unknown_fields, default)]
pub struct Roles {
    /// Role 1: trains.
    #[garde(dive)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub miner: Option<RoleConfig>,
    /// Role 2: answers.
    #[garde(dive)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serving: Option<RoleConfig>,
    /// Role 3: re-executes and votes.
    #[garde(dive)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validator: Option<RoleConfig>,
    /// Role 4: aggregates.
    #[garde(dive)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proposer: Option<RoleConfig>,
}

/// One role's process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Validate)]
#[serde(deny_unknown_fields, default)]
pub struct RoleConfig {
    /// Address this role's blob gateway listens on; `null` for none, where `flight_listen` is set.
    #[garde(custom(serves_blobs(self.flight_listen.is_some())))]
    pub blobs_listen: Option<SocketAddr>,
    /// Where other machines fetch this role's blobs: a base URL, or flight://HOST:PORT. When absent,
    /// the address of the blob gateway, or of Arrow Flight if that runs alone.
    #[garde(inner(custom(is_blob_source)))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blobs_url: Option<String>,
    /// Address Arrow Flight listens on, for whoever has the token; absent for none.
    #[garde(skip)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flight_listen: Option<SocketAddr>,
    /// Address the answering API listens on (role serving only).
    #[garde(skip)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_listen: Option<SocketAddr>,
    /// Base URL the gateway reaches the answering API under; the listen address when absent.
    #[garde(inner(custom(is_http_url)))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_url: Option<String>,
    /// Name of the registered model that is served (role serving only); the first that was registered
    /// when absent.
    #[garde(skip)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Memory for activations, in MiB. Bounds the micro-batch and never changes a result.
    #[garde(range(min = 16))]
    pub memory_mb: u64,
    /// Disk for this role's blobs, in MiB; pinned blobs are never evicted. Kubo has its own limit.
    #[garde(range(min = 64))]
    pub storage_mb: u64,
    /// Whether blobs and work are flushed to the disk before they count as written. Without it a
    /// power failure may cost the newest work, and with it the round's pay.
    #[garde(skip)]
    pub durable: bool,
}

impl Default for RoleConfig {
    fn default() -> Self {
        Self {
            blobs_listen: Some(loopback(0)),
            blobs_url: None,
            flight_listen: None,
            api_listen: None,
            api_url: None,
            model: None,
            memory_mb: 1024,
            storage_mb: 4096,
            durable: true,
        }
    }
}

impl RoleConfig {
    /// The role's defaults, on a port of its own.
    pub fn for_role(role: Role) -> Self {
        Self {
            blobs_listen: Some(loopback(Self::blobs_port(role))),
            api_listen: (role == Role::Serving).then(|| loopback(8100)),
            ..Self::default()
        }
    }

    /// The port that a role's blob gateway listens on, unless the file names another.
    pub fn blobs_port(role: Role) -> u16 {
        8090 + role.number() as u16
    }

    /// Where others fetch this role's blobs: a base URL or `flight://HOST:PORT`; empty where nothing
    /// listens, which a checked configuration does not say.
    pub fn public_blobs_url(&self) -> String {
        let http = self.blobs_listen.map(|address| format!("http://{address}"));
        let flight = self
            .flight_listen
            .map(|address| format!("flight://{address}"));
        let named = self.blobs_url.clone();
        named.or(http).or(flight).unwrap_or_default()
    }

    /// Base URL that the gateway sends requests to, for the role serving.
    pub fn public_api_url(&self) -> Option<String> {
        self.api_url
            .clone()
            .or_else(|| self.api_listen.map(|address| format!("http://{address}")))
    }
}

/// A role's work is fetched by others.
fn serves_blobs(over_flight: bool) -> impl FnOnce(&Option<SocketAddr>, &()) -> garde::Result {
    move |listen, &()| match listen.is_some() || over_flight {
        true => Ok(()),
        false => Err(garde::Error::new(
            "can be null only where flight_listen is set: others fetch the role's work",
        )),
    }
}

/// Where the roles keep their blobs. The ledger's bootstrap store is always a folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Validate)]
#[serde(deny_unknown_fields, default)]
pub struct Blobs {
    /// `own`: a folder for each role; `kubo`: a Kubo node, which all roles share.
    #[garde(skip)]
    pub store: BlobBackEnd,
    /// Base URL of Kubo's RPC, which only this machine should reach.
    #[garde(custom(is_http_url))]
    pub kubo_rpc: String,
}

impl Default for Blobs {
    fn default() -> Self {
        Self {
            store: BlobBackEnd::Own,
            kubo_rpc: "http://127.0.0.1:5001".into(),
        }
    }
}

/// Who keeps blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BlobBackEnd {
    /// Folders of our own.
    Own,
    /// A Kubo node.
    Kubo,
}

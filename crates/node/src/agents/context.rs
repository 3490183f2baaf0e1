//! What every agent has: its identity, the ledger, the blobs, and the wish to stop.

use r3mes_gateway::rpc;
use r3mes_http::server::Limits;
use r3mes_types::Address;
use tokio_util::sync::CancellationToken;

use super::depot::Depot;

/// What every agent has. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    /// The node's account, for which the role acts.
    pub node: Address,
    /// The ledger.
    pub chain: rpc::Client,
    /// Blobs.
    pub depot: Depot,
    /// What clients over HTTP are held to.
    pub http: Limits,
    /// Cancelled when the process is to end.
    pub shutdown: CancellationToken,
}

//! Services that hold no role: the ledger, and the public gateway.

pub mod gateway;
pub mod ledger;

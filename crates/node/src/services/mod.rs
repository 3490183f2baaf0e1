//! Services that hold no role: the ledger, CometBFT beside it, the public gateway, and the gateway of
//! remote functions.

pub mod billing;
pub mod cometbft;
pub mod functions;
pub mod gateway;
pub mod inspect;
pub mod ledger;

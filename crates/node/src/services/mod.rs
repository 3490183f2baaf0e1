//! Services that hold no role: the ledger, CometBFT beside it, and the public gateway.

pub mod cometbft;
pub mod gateway;
pub mod inspect;
pub mod ledger;

//! The chain over HTTP, in CometBFT's shape: a server, and a typed client.
//!
//! Methods answer as CometBFT 0.38 does, as `GET /status` (parameters in the query string) and as
//! JSON-RPC 2.0 by `POST /`: `health`, `status`, `net_info`, `genesis`, `blockchain`, `header`, `block`,
//! `block_by_hash`, `block_results`, `commit`, `validators`, `consensus_params`, `tx`,
//! `tx_search`, `num_unconfirmed_txs`, `abci_info`, `abci_query`, `broadcast_tx_async`, `broadcast_tx_sync`,
//! `broadcast_tx_commit`. `broadcast_tx_async` answers after the check too, and tells nothing of it.
//!
//! Two methods are our own, so that clients follow the chain without asking all the time:
//!
//! - `wait_height?above=H&timeout_ms=T`: `{"height": "N"}` as soon as `N > H`, or the newest height
//!   after `T` milliseconds.
//! - `wait_tx?hash=0x..&timeout_ms=T`: `{"state": "included", "tx": {..}}`, `{"state": "dropped",
//!   "result": {..}}`, `{"state": "waiting"}` after `T` milliseconds, or `{"state": "unknown"}`.
//!
//! `GET /websocket` takes the same calls over a WebSocket, and `subscribe`, `unsubscribe` and
//! `unsubscribe_all` with CometBFT's queries over the events NewBlock, NewBlockHeader and Tx.
//!
//! Under engine `cometbft` the same [comes from CometBFT](Relay), and what CometBFT has besides.
//!
//! [`Client`] asks; [`TxClient`] signs and sends. Bytes from a server are checked as they are parsed,
//! but a server can still tell a story that hangs together: who does not run it gives the client a
//! [light client](light), which finds that out.

mod client;
mod events;
pub mod light;
mod methods;
mod relay;
mod request;
mod search;
mod serve;
mod shapes;
mod socket;
mod tx;

pub use client::{
    Client, ClientError, Listed, MAX_LISTED, Paged, Refusal, Status, TxOutcome, TxState,
};
pub use relay::{Relay, UpstreamError, genesis_file};
pub(crate) use request::RpcError;
pub use serve::{Chain, RpcLimits, Service, router};
pub use tx::{SendError, TxClient};

//! Drives the ledger through one [`application::Application`]: blocks, commits, mempool, history.
//!
//! Engine [`local`] is one validator in this process. It makes a block as soon as a transaction waits,
//! in CometBFT's shape and signed so that a light client accepts it, and goes on from any crash with
//! the same hashes. Engine [`cometbft`] leaves agreement to the program CometBFT, which drives the same
//! application over ABCI.

pub mod app;
pub mod application;
pub mod block;
pub mod clock;
pub mod cometbft;
pub mod genesis;
pub mod key;
pub mod local;
pub mod mempool;
mod results;
pub mod store;
mod verified;

#[cfg(test)]
extern crate self as r3mes_consensus;

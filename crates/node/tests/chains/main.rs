//! Chains on this machine, used from the command line: proofs from far away, and networks that go on
//! under another name, training that an operator begins and a conversation with what came of it,
//! training over Arrow Flight only, files for the chain registry, one service alone, calls that an
//! escrow pays for, and what is said of mistakes.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod chat;
#[path = "../support/checkpoint.rs"]
mod checkpoint;
mod escrow;
mod export;
mod flight;
mod homes;
#[path = "../support/kubo.rs"]
mod kubo;
mod mistakes;
mod proofs;
mod registry;
mod services;
mod training;

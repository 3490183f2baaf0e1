#![expect(clippy::unwrap_used, reason = "a test")]
//! Calls over real sockets: a broker, nodes and clients in one process.

mod calls;
mod failures;
mod network;

//! Remote functions: any machine's functions, called from anywhere as if they were here.
//!
//! A **node** dials out to a **broker**, says which functions it offers, and keeps one connection, so it
//! may stand behind any NAT. A **client** calls through the broker, which chooses the node, watches over
//! access, quotas and deadlines, and passes bytes on without reading them.
//!
//! - [`wire`]: frames and what they say;
//! - [`registry`]: nodes, functions, who may call what, and which node takes a call;
//! - [`billing`]: what calls cost, and who pays;
//! - [`broker`]: the broker as a state machine without sockets or clocks;
//! - [`serve`]: a broker with its clock and connections; [`listen`]: its port;
//! - [`federation`]: several brokers that meet on NATS;
//! - [`node`] and [`client`]: the two ends of a call;
//! - [`webhook`]: whom a caller wants to be told of an asynchronous call's end;
//! - [`tls`]: certificates, whom to trust, and a local authority.

pub mod billing;
pub mod broker;
pub mod client;
pub mod failure;
pub mod federation;
mod link;
pub mod listen;
mod moment;
pub mod node;
mod outbox;
mod reach;
pub mod registry;
pub mod serve;
pub mod tls;
pub mod tokens;
pub mod webhook;
pub mod wire;

pub use failure::{Failure, Reason};
pub use moment::Moment;

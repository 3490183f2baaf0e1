//! What every surface over HTTP stands on: [`server`] runs a router with limits and a clean end,
//! [`requests`] names each request in the log, [`metrics`] counts.

mod body;
pub mod metrics;
pub mod requests;
pub mod server;

//! What every surface over HTTP stands on: [`server`] runs a router with limits and a clean end,
//! [`metrics`] counts.

mod body;
pub mod metrics;
pub mod server;

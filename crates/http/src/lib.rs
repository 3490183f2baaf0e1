//! What every surface over HTTP stands on: [`server`] runs a router with limits and a clean end,
//! [`metrics`] counts.

pub mod metrics;
pub mod server;

//! Configuration, agents, supervisor and command line: everything the binary `r3mes` does.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use clap::Parser;
//! r3mes_node::cli::run(r3mes_node::cli::Cli::parse_from(["r3mes", "version"]))
//! # }
//! ```
//!
//! In reading order: a node's [`home`] holds its [`config`] and [`keyring`]; [`process`] runs each
//! service and role as a child; [`services`] are the ledger and the gateway, [`agents`] play the
//! roles; [`materials`] are what they train on, by the [`plan`] of a run; [`demo`] puts a whole network on one machine, [`testnet`] one on many; [`cli`] is what a person types.

pub mod agents;
pub mod assets;
pub mod cli;
pub mod clock;
pub mod config;
pub mod demo;
pub mod flight;
pub mod genesis;
pub mod golden;
pub mod home;
pub mod keyring;
pub mod materials;
pub mod plan;
pub mod ports;
pub mod process;
pub mod services;
pub mod telemetry;
pub mod testnet;
mod yaml;

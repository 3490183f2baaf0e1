//! Many nodes in one seeded process: delays, crashes, partitions, liars.
//!
//! The ledger is the real one, driven through in-memory state; the agents plan with the real
//! [`plan`](r3mes_training::agent::plan). Only the work is simulated ([`compute`]): a step is a hash,
//! so that thousands of rounds pass in minutes. After every block the network is held to its promises
//! ([`watch`]): coins are conserved, nobody is paid twice, no honest node is slashed, rounds close.
//!
//! ```
//! use r3mes_sim::{network::Network, world::World};
//!
//! let mut world = World::new(&Network::honest(1, 3, 3, 1))?;
//! let report = world.run()?;
//! assert_eq!(report.rounds, 1);
//! # Ok::<(), anyhow::Error>(())
//! ```

pub mod network;
pub mod world;

pub mod behaviour;
pub mod chain;
pub mod compute;
pub mod node;
pub mod partition;
pub mod rng;
mod weather;

pub mod detection;
pub mod report;
pub mod watch;

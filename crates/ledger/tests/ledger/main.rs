//! The ledger as an engine sees it: blocks in, changes and results out.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod admission;
mod beacon;
mod chain;
mod codes;
mod cosmos;
mod draws;
mod escrow;
mod export;
mod kept;
mod lane;
mod messages;
mod naive;
mod nodes;
mod play;
mod prepare;
mod second;
mod serving;
mod tables;
mod training_messages;
mod vesting;
mod votes;

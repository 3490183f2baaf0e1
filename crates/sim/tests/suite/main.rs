//! Whole networks: stories of one round, a zoo of liars, and statistics over a thousand rounds.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod partitions;
mod pins;
mod statistics;
mod stories;
mod zoo;

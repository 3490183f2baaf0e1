//! Rewards: what is issued for closed rounds, what deters, and the trust that nodes have earned.
//!
//! Coins for a round are issued when it closes, and only then. Who gets how much is the round's affair;
//! what nobody earned goes to the treasury. Rewards vest: they are held for a while, in which they can be
//! slashed like stake. Slashing and its appeals are with the nodes' stake.

pub mod economics;
mod events;
mod genesis;
mod handle;
mod params;
mod query;
mod state;
mod vesting;

pub(crate) use genesis::init;
pub use handle::{Deed, issue, note};
pub use params::{check as check_params, defaults as default_params};
pub(crate) use query::route;
pub use state::{PARAMS, RECORDS, VESTING};
pub(crate) use vesting::longest as longest_vesting;
pub(crate) use vesting::{end_block, next_deadline};
pub use vesting::{pay, seize};

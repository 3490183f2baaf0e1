//! Bank: balances, transfers, module accounts and the supply.
//!
//! All coins are in some account at any time. What the network itself holds (stakes, slashed amounts,
//! the treasury) is in module accounts, which no key is known for. Coins come into being only by
//! [`mint`] and go only by [`burn`], and [`audit`](crate::invariants) adds up what there is.

mod events;
mod genesis;
mod handle;
mod messages;
mod params;
mod query;
mod state;

pub(crate) use genesis::init;
pub(crate) use handle::execute;
pub use handle::{BankError, burn, mint, transfer};
pub(crate) use messages::check;
pub use params::check as check_params;
pub(crate) use query::route;
pub use state::{BALANCES, MODULES, Module, PARAMS, SUPPLY, balance};

//! Governance: proposals, votes by stake, and what an accepted proposal does.
//!
//! A development network can name an authority, which decides alone.

mod apply;
mod events;
mod genesis;
mod handle;
mod messages;
mod params;
mod query;
mod state;

pub use apply::params;
pub(crate) use genesis::init;
pub use handle::GovernanceError;
pub(crate) use handle::{end_block, execute, next_deadline};
pub(crate) use messages::check;
pub use params::{check as check_params, check_all, defaults as default_params};
pub(crate) use query::route;
pub use state::{PARAMS, PROPOSALS, authority, is_authority};

//! Auth: accounts and their sequences, keys that act for others, fees, and the obligation lane.
//!
//! One key signs a transaction. It acts for its own account, and for accounts that granted it the
//! message types in question: that is how the roles of a node, each with an operations key of its
//! own, act for the node without racing on one sequence. Fees are paid by the key's account, or by
//! one that granted it fees.

mod admit;
mod events;
mod genesis;
mod handle;
mod messages;
mod params;
mod query;
mod state;

pub(crate) use admit::{Pending, admit, is_signed, lane, payer, priority};
pub(crate) use genesis::init;
pub use handle::AuthError;
pub(crate) use handle::execute;
pub(crate) use messages::check;
pub use params::{check as check_params, defaults as default_params};
pub(crate) use query::route;
pub use state::{ACCOUNTS, FEE_GRANTS, GRANTS, PARAMS, ensure_account};

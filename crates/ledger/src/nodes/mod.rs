//! Nodes: registration, roles, stake, locks, unbonding, slashing, jail, and who signs blocks.
//!
//! A node's stake is in one of three places, all of them in the module account
//! [`Module::Stake`](crate::bank::Module): bonded and free, bonded and locked by an open obligation, or
//! unbonding. All three can be slashed, and after them its rewards that vest. What is slashed is held for a while, so that its owner can
//! appeal; then it goes to the treasury.

mod events;
mod genesis;
mod handle;
mod messages;
mod params;
mod query;
mod slash;
mod stake;
mod state;
mod validators;

pub(crate) use genesis::{begin_validators, forget_validators, init};
pub use handle::NodesError;
pub(crate) use handle::execute;
pub(crate) use messages::check;
pub use params::{check as check_params, defaults as default_params};
pub(crate) use query::route;
pub use slash::{decide, jail, slash};
pub use stake::{
    dispute_closed, dispute_opened, enlist_leaver, is_leaver, leaver_last, leaver_seen, leavers,
    lock, unlock,
};
pub use state::{LOCKS, MAX_ELECTORS, NODES, PARAMS, SLASHES, active, count, get, max_nodes};
pub(crate) use validators::{changed, punish, updates};

use r3mes_types::Time;

use crate::block::BlockInput;
use crate::error::LedgerError;
use crate::store::{Context, View};

/// Pays out what has unbonded, and ends appeal windows.
pub(crate) fn end_block(ctx: &mut Context<'_>, _: &BlockInput) -> Result<(), LedgerError> {
    stake::release_due(ctx)?;
    slash::finish_due(ctx)
}

/// When the next stake is released or appeal window ends.
pub(crate) fn next_deadline(view: &dyn View) -> Result<Option<Time>, LedgerError> {
    let release = stake::next_release(view)?;
    let finish = slash::next_final(view)?;
    Ok(release.into_iter().chain(finish).min())
}

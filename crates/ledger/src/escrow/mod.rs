//! Escrow: what payers set aside for calls of remote functions, and what gateways charge of it.
//!
//! A payer opens an escrow for a gateway's account, with a deposit and an end. The gateway charges it by
//! cumulative totals for those whose functions were called; what it has no total for goes back to the
//! payer, when the gateway closes the escrow or by itself at its end. No more than the deposit is ever
//! charged, and where the escrow names a key, no more than that key has signed for.

mod events;
mod handle;
mod messages;
mod params;
mod query;
mod state;

pub use handle::EscrowError;
pub(crate) use handle::{end_block, execute, next_deadline};
pub(crate) use messages::check;
pub use params::{MAX_LIFETIME, MIN_DEPOSIT};
pub(crate) use query::route;
pub use state::ESCROWS;

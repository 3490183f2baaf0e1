//! Billing: calls of functions with a price are paid out of escrows on the ledger.
//!
//! - [`Book`]: what each escrow has left and what each provider has earned out of it; it answers the
//!   broker at once;
//! - [`Journal`]: what was earned, in a file before the end of the call's answer leaves, so that a gateway that is
//!   killed forgets nothing;
//! - [`Billing`]: reads the gateway's escrows from the ledger, and charges them.

mod book;
mod entry;
mod journal;
mod refusal;
mod settle;

pub use self::{
    book::Book,
    journal::{Earnings, EscrowKey, Journal, JournalError},
    settle::Billing,
};

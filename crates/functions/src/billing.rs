//! Who pays for calls of functions that have a price.
//!
//! The broker knows no ledger and no coins. It asks a [`Purse`], if it has one, to set a call's price
//! aside before a node gets the call, and tells it what became of the call.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Moment;

/// What a call of a function costs, and who is paid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Price {
    /// The price of one call, in uremes: millionths of a REMES.
    pub uremes: u64,
    /// The account on the ledger that is paid, as the ledger writes it.
    pub payee: String,
}

/// A price that is set aside for a call that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bill {
    /// Out of which escrow it is paid.
    pub escrow: u64,
    /// When that one ends, in nanoseconds since 1970: it tells it from one of the same number on another
    /// ledger.
    pub ends_ns: u64,
    /// What and whom.
    pub price: Price,
}

/// What calls have cost and nobody has been paid for yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unpaid {
    /// All of it, in uremes.
    pub uremes: u64,
    /// Escrows that the ledger refuses to have charged now.
    pub refused_escrows: u64,
    /// What they owe, in uremes.
    pub refused_uremes: u64,
    /// Of that, what is never asked for again, in uremes.
    pub given_up_uremes: u64,
}

/// Pays for calls. It is asked while nobody else can drive the broker, and so answers at once.
pub trait Purse: fmt::Debug + Send {
    /// Whether a node may ask this price here.
    ///
    /// # Errors
    /// What is wrong with it, for the node's owner.
    fn check(&self, price: &Price) -> Result<(), String>;

    /// Sets the price of a call aside that is about to begin, and that [`Purse::settle`] is told of by
    /// `end` at the latest. The user is never empty.
    ///
    /// # Errors
    /// Why the user cannot pay, and what to do.
    fn reserve(&mut self, user: &str, price: &Price, end: Moment) -> Result<Bill, String>;

    /// A call has ended: its price is owed, or goes back to the user.
    fn settle(&mut self, bill: &Bill, owed: bool);

    /// What is still to be paid.
    fn unpaid(&self) -> Unpaid;
}

//! What wallets and libraries of the Cosmos SDK ask a ledger: its questions and answers, and the
//! transactions they send only to learn what they would cost.
//!
//! These are the SDK's own types, as far as a ledger with one denomination and no vesting accounts
//! has something to say in them. [`crate::bank::MsgSend`] and the parts of a transaction in
//! [`crate::tx`] are the SDK's as well.

use crate::query::MAX_PAGE_KEY;
use crate::schema;
use crate::wire::{Blob, Text};

pub mod auth;
pub mod bank;
pub mod tx;

/// Longest denomination that is read, as in the SDK.
pub const MAX_DENOM: usize = 128;
/// Digits of the largest amount.
pub const MAX_DIGITS: usize = 20;

schema! {
    /// `cosmos.base.query.v1beta1.PageRequest`.
    #[derive(Default)]
    pub struct PageRequest {
        /// Where the page before ended; empty for the first.
        1 => key: Blob<MAX_PAGE_KEY>,
        /// Entries to leave out.
        2 => offset: u64,
        /// Most entries wanted; 0 for as many as are given at once.
        3 => limit: u64,
        /// Whether all are to be counted.
        4 => count_total: bool,
        /// Whether the last comes first.
        5 => reverse: bool,
    }

    /// `cosmos.base.query.v1beta1.PageResponse`.
    #[derive(Default)]
    pub struct PageResponse {
        /// Where the next page begins; empty at the end.
        1 => next_key: Blob<MAX_PAGE_KEY>,
        /// How many there are.
        2 => total: u64,
    }

    /// `cosmos.base.v1beta1.Coin` of any denomination: what is asked about may not exist here.
    pub struct DenomAmount {
        /// The denomination.
        1 => denom: Text<MAX_DENOM>,
        /// How much, in decimal digits.
        2 => amount: Text<MAX_DIGITS>,
    }
}

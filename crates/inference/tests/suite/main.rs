//! The exact engine from outside: answers do not depend on company, receipts prove them, limits
//! hold.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail the test that called them"
)]

mod answers;
mod limits;
mod receipts;
mod setup;

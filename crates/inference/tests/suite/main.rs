//! The exact engine from outside: answers do not depend on company, receipts prove them, limits
//! hold.

mod answers;
mod limits;
mod receipts;
mod setup;

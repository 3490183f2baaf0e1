//! What wallets and libraries of the Cosmos SDK ask, answered from the tables of auth and bank.
//!
//! Nothing is kept here. [`simulate`] runs a transaction without a signature and throws away what it
//! did.

mod auth;
mod bank;
mod simulate;

use crate::error::LedgerError;
use crate::query::Answer;
use crate::store::View;

pub(crate) use simulate::simulate;

/// Answers a question of the SDK; `None` when the path is another.
pub(crate) fn route(
    view: &dyn View,
    path: &str,
    data: &[u8],
) -> Option<Result<Answer, LedgerError>> {
    auth::route(view, path, data).or_else(|| bank::route(view, path, data))
}

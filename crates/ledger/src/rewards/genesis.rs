//! How rewards begin.

use super::state::PARAMS;
use crate::error::LedgerError;
use crate::genesis::Genesis;
use crate::store::Context;

/// Sets the parameters.
pub(crate) fn init(ctx: &mut Context<'_>, genesis: &Genesis) -> Result<(), LedgerError> {
    PARAMS.put(ctx, &genesis.params.rewards)
}

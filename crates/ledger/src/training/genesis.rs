//! How training begins.

use super::runs;
use crate::error::LedgerError;
use crate::genesis::Genesis;
use crate::store::Context;

/// Starts the runs that the genesis names.
pub(crate) fn init(ctx: &mut Context<'_>, genesis: &Genesis) -> Result<(), LedgerError> {
    for params in &genesis.runs {
        runs::start(ctx, params.clone())?;
    }
    Ok(())
}

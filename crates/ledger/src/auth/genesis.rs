//! How auth begins.

use super::state::{PARAMS, ensure_account};
use crate::bank::MODULES;
use crate::error::LedgerError;
use crate::genesis::Genesis;
use crate::store::Context;

/// Sets the parameters and creates the accounts of the network itself.
pub(crate) fn init(ctx: &mut Context<'_>, genesis: &Genesis) -> Result<(), LedgerError> {
    PARAMS.put(ctx, &genesis.params.auth)?;
    for module in MODULES {
        ensure_account(ctx, &module.address())?;
    }
    Ok(())
}

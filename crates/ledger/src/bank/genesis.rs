//! How the bank begins.

use super::handle::mint;
use super::state::{PARAMS, SUPPLY};
use crate::error::LedgerError;
use crate::genesis::Genesis;
use crate::store::Context;
use r3mes_types::Amount;

/// Sets the parameters and the first balances.
pub(crate) fn init(ctx: &mut Context<'_>, genesis: &Genesis) -> Result<(), LedgerError> {
    PARAMS.put(ctx, &genesis.params.bank)?;
    SUPPLY.put(ctx, &Amount::ZERO)?;
    for entry in &genesis.balances {
        mint(ctx, entry.address, entry.amount)?;
    }
    Ok(())
}

//! How data begins.

use r3mes_types::data::DatasetStatus;

use super::handle::add;
use super::messages::check_spec;
use super::state::PARAMS;
use crate::bank::Module;
use crate::error::LedgerError;
use crate::genesis::Genesis;
use crate::store::Context;

/// Sets the parameters and adopts the first datasets, in the name of the treasury.
pub(crate) fn init(ctx: &mut Context<'_>, genesis: &Genesis) -> Result<(), LedgerError> {
    PARAMS.put(ctx, &genesis.params.data)?;
    for spec in &genesis.datasets {
        check_spec(spec)?;
        add(
            ctx,
            Module::Treasury.address(),
            spec,
            DatasetStatus::Adopted,
        )?;
    }
    Ok(())
}

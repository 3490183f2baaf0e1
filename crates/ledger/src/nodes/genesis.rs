//! How nodes begin.

use super::handle::register;
use super::messages::check_spec;
use super::state::{BLOCK_VALIDATORS, BlockValidator, MAX_ELECTORS, PARAMS, VALIDATORS_CHANGED};
use super::validators::claim;
use crate::error::LedgerError;
use crate::genesis::Genesis;
use crate::store::Context;

/// Sets the parameters, the first block validators, and the nodes registered from the start.
pub(crate) fn init(ctx: &mut Context<'_>, genesis: &Genesis) -> Result<(), LedgerError> {
    PARAMS.put(ctx, &genesis.params.nodes)?;
    begin_validators(ctx, genesis)?;
    for message in &genesis.nodes {
        check_spec(&message.spec)?;
        register(ctx, message)?;
    }
    Ok(())
}

/// Sets the first block validators.
pub(crate) fn begin_validators(
    ctx: &mut Context<'_>,
    genesis: &Genesis,
) -> Result<(), LedgerError> {
    for validator in &genesis.validators {
        let address = validator.key.address();
        claim(ctx, &validator.operator, &address)?;
        let entry = BlockValidator {
            key: validator.key,
            power: validator.power,
        };
        BLOCK_VALIDATORS.put(ctx, &address, &entry)?;
    }
    Ok(())
}

/// Forgets the block validators: another chain begins with its own.
pub(crate) fn forget_validators(ctx: &mut Context<'_>) -> Result<(), LedgerError> {
    for (address, _) in BLOCK_VALIDATORS.range(ctx, None, MAX_ELECTORS)? {
        BLOCK_VALIDATORS.remove(ctx, &address)?;
    }
    VALIDATORS_CHANGED.remove(ctx)
}

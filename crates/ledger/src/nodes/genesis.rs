//! How nodes begin.

use super::handle::register;
use super::messages::check_spec;
use super::state::{BLOCK_VALIDATORS, BlockValidator, PARAMS};
use super::validators::claim;
use crate::error::LedgerError;
use crate::genesis::Genesis;
use crate::store::Context;

/// Sets the parameters, the first block validators, and the nodes registered from the start.
pub(crate) fn init(ctx: &mut Context<'_>, genesis: &Genesis) -> Result<(), LedgerError> {
    PARAMS.put(ctx, &genesis.params.nodes)?;
    for validator in &genesis.validators {
        let address = validator.key.address();
        claim(ctx, &validator.operator, &address)?;
        let entry = BlockValidator {
            key: validator.key,
            power: validator.power,
        };
        BLOCK_VALIDATORS.put(ctx, &address, &entry)?;
    }
    for message in &genesis.nodes {
        check_spec(&message.spec)?;
        register(ctx, message)?;
    }
    Ok(())
}

//! How the registry of models begins.

use super::handle::register;
use crate::error::LedgerError;
use crate::genesis::Genesis;
use crate::store::Context;

/// Registers the first models.
pub(crate) fn init(ctx: &mut Context<'_>, genesis: &Genesis) -> Result<(), LedgerError> {
    genesis
        .models
        .iter()
        .try_for_each(|spec| register(ctx, spec))
}

//! What can be said of a training message without looking anything up.

use r3mes_types::training::TrainingMessage;

use super::error::TrainingError;
use super::params;
use crate::error::LedgerError;

/// Checks a message by itself.
pub(crate) fn check(message: &TrainingMessage) -> Result<(), LedgerError> {
    if let TrainingMessage::CreateRun(message) = message {
        params::check(&message.params).map_err(|source| TrainingError::Params { source })?;
    }
    Ok(())
}

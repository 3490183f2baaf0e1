//! What can be said of a message of governance without looking anything up.

use r3mes_types::governance::{Change, GovernanceMessage};

use crate::bank::BankError;
use crate::error::LedgerError;

/// Checks a message by itself.
pub(crate) fn check(message: &GovernanceMessage) -> Result<(), LedgerError> {
    if let GovernanceMessage::Propose(message) = message
        && let Change::Spend(spend) = &message.change
        && spend.amount.is_zero()
    {
        return Err(BankError::Nothing.into());
    }
    Ok(())
}

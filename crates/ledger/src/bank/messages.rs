//! What can be said of a bank message without looking anything up.

use r3mes_types::bank::BankMessage;

use super::handle::BankError;
use crate::error::LedgerError;

/// Checks a message by itself.
pub(crate) fn check(message: &BankMessage) -> Result<(), LedgerError> {
    let nothing = match message {
        BankMessage::Send(message) => message.amount.first().is_none_or(|coin| coin.0.is_zero()),
        BankMessage::Faucet(message) => message.amount.is_zero(),
    };
    if nothing {
        Err(BankError::Nothing.into())
    } else {
        Ok(())
    }
}

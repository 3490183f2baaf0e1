//! What can be said of a beacon message without looking anything up.

use r3mes_types::beacon::{BeaconMessage, MAX_CHAIN};

use super::handle::BeaconError;
use crate::error::LedgerError;

/// Checks a message by itself.
pub(crate) fn check(message: &BeaconMessage) -> Result<(), LedgerError> {
    let BeaconMessage::RegisterChain(message) = message;
    let length = message.length;
    if length == 0 || length > MAX_CHAIN {
        return Err(BeaconError::Length {
            length,
            max: MAX_CHAIN,
        }
        .into());
    }
    Ok(())
}

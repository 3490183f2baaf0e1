//! What can be said of a message about escrows without looking anything up.

use r3mes_types::escrow::{EscrowMessage, MsgCharge, MsgOpen};

use super::handle::EscrowError;
use super::params::MIN_DEPOSIT;
use crate::bank::MODULES;
use crate::error::LedgerError;

/// Checks a message by itself.
pub(crate) fn check(message: &EscrowMessage) -> Result<(), LedgerError> {
    match message {
        EscrowMessage::Open(message) => Ok(check_open(message)?),
        EscrowMessage::Charge(message) => Ok(check_charge(message)?),
        EscrowMessage::Close(_) => Ok(()),
    }
}

fn check_open(message: &MsgOpen) -> Result<(), EscrowError> {
    let refuse = |field, why: &str| {
        Err(EscrowError::Terms {
            field,
            why: why.to_owned(),
        })
    };
    if message.payer == message.gateway {
        return refuse("gateway", "an account cannot charge an escrow of its own");
    }
    if message.user.is_empty() {
        return refuse("user", "name the user of the gateway whose calls are paid");
    }
    if message.deposit < MIN_DEPOSIT {
        return refuse("deposit", &format!("it must be at least {MIN_DEPOSIT}"));
    }
    Ok(())
}

fn check_charge(message: &MsgCharge) -> Result<(), EscrowError> {
    let totals = &message.totals;
    let refuse = |why: String| Err(EscrowError::Totals { why });
    if totals.is_empty() || !totals.is_sorted_by(|a, b| a.payee < b.payee) {
        return refuse("there are none, or they do not ascend by address".into());
    }
    for total in totals {
        let payee = total.payee;
        if total.amount.is_zero() {
            return refuse(format!("{payee} has earned nothing"));
        }
        if MODULES.iter().any(|module| module.address() == payee) {
            return refuse(format!("{payee} is an account of the network itself"));
        }
    }
    Ok(())
}

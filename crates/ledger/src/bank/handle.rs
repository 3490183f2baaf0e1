//! What the bank does.

use r3mes_types::bank::{BankMessage, MsgFaucet, MsgSend};
use r3mes_types::{Address, Amount};

use super::events;
use super::state::{BALANCES, FAUCET, MODULES, PARAMS, SUPPLY, balance};
use crate::auth;
use crate::coded_errors;
use crate::error::LedgerError;
use crate::store::Context;

coded_errors! {
    /// Why the bank refuses.
    pub enum BankError in "bank" {
        /// There are not enough coins.
        #[error("{account} has {has}, {needed} are needed")]
        1 => Insufficient {
            /// Whose coins.
            account: Address,
            /// What it has.
            has: Amount,
            /// What is needed.
            needed: Amount,
        },
        /// Nothing would be moved.
        #[error("an amount above zero is needed")]
        2 => Nothing,
        /// More coins than can be counted.
        #[error("the supply would not fit any more")]
        3 => Overflow,
        /// The recipient belongs to the network.
        #[error("{account} is an account of the network itself: coins sent there would be lost")]
        4 => ModuleAccount {
            /// The recipient.
            account: Address,
        },
        /// The faucet is closed, or has given enough.
        #[error("the faucet gives {limit} to one account in all, and {given} were given to this one")]
        5 => Faucet {
            /// Most for one account.
            limit: Amount,
            /// What it got before.
            given: Amount,
        },
    }
}

/// Does what a message says.
pub(crate) fn execute(ctx: &mut Context<'_>, message: &BankMessage) -> Result<(), LedgerError> {
    match message {
        BankMessage::Send(message) => send(ctx, message),
        BankMessage::Faucet(message) => faucet(ctx, message),
    }
}

fn send(ctx: &mut Context<'_>, message: &MsgSend) -> Result<(), LedgerError> {
    let to = message.to_address;
    if MODULES.iter().any(|module| module.address() == to) {
        return Err(BankError::ModuleAccount { account: to }.into());
    }
    let amount = message.amount.first().map_or(Amount::ZERO, |coin| coin.0);
    transfer(ctx, message.from_address, to, amount)
}

fn faucet(ctx: &mut Context<'_>, message: &MsgFaucet) -> Result<(), LedgerError> {
    let limit = PARAMS.require(ctx)?.faucet_limit;
    let given = FAUCET.get(ctx, &message.to)?.unwrap_or(Amount::ZERO);
    let total = given
        .checked_add(message.amount)
        .filter(|total| *total <= limit);
    let total = total.ok_or(BankError::Faucet { limit, given })?;
    FAUCET.put(ctx, &message.to, &total)?;
    mint(ctx, message.to, message.amount)
}

/// Moves coins. The recipient's account begins with the first coins it gets.
///
/// # Errors
/// [`BankError::Insufficient`].
pub fn transfer(
    ctx: &mut Context<'_>,
    from: impl Into<Address>,
    to: impl Into<Address>,
    amount: Amount,
) -> Result<(), LedgerError> {
    let (from, to) = (from.into(), to.into());
    take(ctx, &from, amount)?;
    give(ctx, &to, amount)?;
    ctx.emit_with(|| events::transfer(&from, &to, amount));
    Ok(())
}

/// Makes new coins.
///
/// # Errors
/// [`BankError::Overflow`].
pub fn mint(
    ctx: &mut Context<'_>,
    to: impl Into<Address>,
    amount: Amount,
) -> Result<(), LedgerError> {
    let to = to.into();
    let supply = SUPPLY.get(ctx)?.unwrap_or(Amount::ZERO);
    SUPPLY.put(ctx, &supply.checked_add(amount).ok_or(BankError::Overflow)?)?;
    give(ctx, &to, amount)?;
    ctx.emit(events::mint(&to, amount));
    Ok(())
}

/// Destroys coins.
///
/// # Errors
/// [`BankError::Insufficient`].
pub fn burn(
    ctx: &mut Context<'_>,
    from: impl Into<Address>,
    amount: Amount,
) -> Result<(), LedgerError> {
    let from = from.into();
    take(ctx, &from, amount)?;
    let supply = SUPPLY.get(ctx)?.unwrap_or(Amount::ZERO);
    SUPPLY.put(ctx, &supply.checked_sub(amount).ok_or(BankError::Overflow)?)?;
    ctx.emit(events::burn(&from, amount));
    Ok(())
}

fn take(ctx: &mut Context<'_>, account: &Address, amount: Amount) -> Result<(), LedgerError> {
    let has = balance(ctx, account)?;
    let left = has.checked_sub(amount).ok_or(BankError::Insufficient {
        account: *account,
        has,
        needed: amount,
    })?;
    set(ctx, account, left)
}

fn give(ctx: &mut Context<'_>, account: &Address, amount: Amount) -> Result<(), LedgerError> {
    auth::ensure_account(ctx, account)?;
    let sum = balance(ctx, account)?
        .checked_add(amount)
        .ok_or(BankError::Overflow)?;
    set(ctx, account, sum)
}

fn set(ctx: &mut Context<'_>, account: &Address, amount: Amount) -> Result<(), LedgerError> {
    if amount.is_zero() {
        BALANCES.remove(ctx, account)
    } else {
        BALANCES.put(ctx, account, &amount)
    }
}

//! What messages about escrows do, and what becomes of escrows at their end.

use r3mes_types::escrow::{
    Escrow, EscrowMessage, MAX_PAYEES, MsgCharge, MsgClose, MsgOpen, Total, Voucher, VoucherContent,
};
use r3mes_types::wire::List;
use r3mes_types::{Address, Amount, PublicKey, Time};

use super::events;
use super::params::MAX_LIFETIME;
use super::state::{DUE, ESCROWS, NEXT, OF_ACCOUNT};
use crate::bank::{self, Module};
use crate::block::BlockInput;
use crate::error::LedgerError;
use crate::store::{Context, View};
use crate::{CHAIN_ID, coded_errors, gas};

/// Most escrows that one block ends by itself.
const MAX_DUE: usize = 64;

coded_errors! {
    /// Why something about an escrow is refused.
    pub enum EscrowError in "escrow" {
        /// What the escrow is to be cannot be.
        #[error("{field}: {why}")]
        1 => Terms {
            /// Which part.
            field: &'static str,
            /// What is wrong, and what would do.
            why: String,
        },
        /// There is no such escrow, or it has ended.
        #[error("there is no open escrow {escrow}: it was never opened, or it has ended")]
        2 => NotOpen {
            /// Its number.
            escrow: u64,
        },
        /// Another account may charge and close it.
        #[error("escrow {escrow} is charged and closed by {gateway} only")]
        3 => NotGateway {
            /// Its number.
            escrow: u64,
            /// Who may.
            gateway: Address,
        },
        /// The totals are no usage record.
        #[error("the totals of a charge must be above zero and ascend by address: {why}")]
        4 => Totals {
            /// What is wrong.
            why: String,
        },
        /// More is charged than there is.
        #[error("escrow {escrow} has a deposit of {deposit}, and {charged} would be charged in all")]
        5 => Deposit {
            /// Its number.
            escrow: u64,
            /// The most that can be charged.
            deposit: Amount,
            /// What would be.
            charged: Amount,
        },
        /// The payer's key has not signed for so much.
        #[error("escrow {escrow} is charged by vouchers of its payer's key, and {charged} would be charged in all: {why}")]
        6 => Voucher {
            /// Its number.
            escrow: u64,
            /// What would be charged.
            charged: Amount,
            /// What is wrong with the voucher.
            why: String,
        },
        /// Too many are paid out of it.
        #[error("escrow {escrow} pays at most {MAX_PAYEES} accounts: close it, and open another")]
        7 => Payees {
            /// Its number.
            escrow: u64,
        },
    }
}

/// Does what a message says.
pub(crate) fn execute(ctx: &mut Context<'_>, message: &EscrowMessage) -> Result<(), LedgerError> {
    match message {
        EscrowMessage::Open(message) => open(ctx, message),
        EscrowMessage::Charge(message) => charge(ctx, message),
        EscrowMessage::Close(message) => close(ctx, message),
    }
}

fn open(ctx: &mut Context<'_>, message: &MsgOpen) -> Result<(), LedgerError> {
    let (now, expires_at) = (ctx.now(), message.expires_at);
    let why = match expires_at {
        at if at <= now => "it has passed: name a later time".to_owned(),
        at if at > now.after(MAX_LIFETIME) => format!("it is more than {MAX_LIFETIME} away"),
        _ => String::new(),
    };
    if !why.is_empty() {
        let field = "expires_at";
        return Err(EscrowError::Terms { field, why }.into());
    }
    bank::transfer(ctx, message.payer, Module::Escrow, message.deposit)?;
    let escrow = Escrow {
        id: NEXT.next(ctx)?,
        payer: message.payer,
        gateway: message.gateway,
        user: message.user.clone(),
        deposit: message.deposit,
        charged: Amount::ZERO,
        expires_at,
        voucher_key: message.voucher_key,
        totals: List::default(),
    };
    for account in [escrow.payer, escrow.gateway] {
        OF_ACCOUNT.put(ctx, &(account, escrow.id), &true)?;
    }
    DUE.put(ctx, &(expires_at, escrow.id), &true)?;
    ESCROWS.put(ctx, &escrow.id, &escrow)?;
    ctx.emit(events::opened(&escrow));
    Ok(())
}

/// Pays each payee what its total is above what it was paid. A total that is not is of an earlier
/// record, or of this one again, and pays nothing.
fn charge(ctx: &mut Context<'_>, message: &MsgCharge) -> Result<(), LedgerError> {
    let mut escrow = open_escrow(ctx, message.escrow, &message.gateway)?;
    let mut dues = Vec::new();
    let mut charged = escrow.charged;
    for total in &message.totals {
        let due = total.amount.saturating_sub(escrow.paid_to(&total.payee));
        if due.is_zero() {
            continue;
        }
        // More than can be counted is more than any deposit.
        charged = charged.saturating_add(due);
        dues.push((total.payee, due));
    }
    if dues.is_empty() {
        return Ok(());
    }
    let (id, deposit) = (escrow.id, escrow.deposit);
    if charged > deposit {
        return Err(EscrowError::Deposit {
            escrow: id,
            deposit,
            charged,
        }
        .into());
    }
    if let Some(key) = &escrow.voucher_key {
        covered(ctx, id, key, charged, message.voucher.as_ref())?;
    }
    for (payee, due) in &dues {
        bank::transfer(ctx, Module::Escrow, *payee, *due)?;
        ctx.emit(events::charged(id, payee, *due));
    }
    escrow.charged = charged;
    escrow.totals = merged(&escrow, &dues)?;
    ESCROWS.put(ctx, &id, &escrow)
}

/// The totals with what is due added.
fn merged(
    escrow: &Escrow,
    dues: &[(Address, Amount)],
) -> Result<List<Total, MAX_PAYEES>, LedgerError> {
    let mut totals = escrow.totals.to_vec();
    for &(payee, due) in dues {
        match totals.binary_search_by(|total| total.payee.cmp(&payee)) {
            Ok(at) => totals[at].amount = totals[at].amount.saturating_add(due),
            Err(at) => totals.insert(at, Total { payee, amount: due }),
        }
    }
    let escrow = escrow.id;
    Ok(List::new(totals).map_err(|_| EscrowError::Payees { escrow })?)
}

/// Whether the payer's key has signed for so much.
fn covered(
    ctx: &Context<'_>,
    escrow: u64,
    key: &PublicKey,
    charged: Amount,
    voucher: Option<&Voucher>,
) -> Result<(), LedgerError> {
    let refuse = |why: String| {
        Err(EscrowError::Voucher {
            escrow,
            charged,
            why,
        }
        .into())
    };
    let Some(voucher) = voucher else {
        return refuse("there is none".into());
    };
    if voucher.total < charged {
        return refuse(format!("it is for {}", voucher.total));
    }
    ctx.use_gas(gas::SIGNATURE)?;
    let content = VoucherContent {
        chain_id: CHAIN_ID.require(ctx)?,
        escrow,
        total: voucher.total,
    };
    if content.is_in(voucher, key) {
        Ok(())
    } else {
        refuse("its signature is not of that key, for this chain, escrow and total".into())
    }
}

fn close(ctx: &mut Context<'_>, message: &MsgClose) -> Result<(), LedgerError> {
    let escrow = open_escrow(ctx, message.escrow, &message.gateway)?;
    end(ctx, &escrow)
}

/// An escrow that this gateway may charge and close now.
fn open_escrow(view: &Context<'_>, id: u64, gateway: &Address) -> Result<Escrow, LedgerError> {
    let escrow = ESCROWS.get(view, &id)?;
    // What is over may not have been ended yet, since a block ends a bounded number.
    let escrow = escrow.filter(|escrow| view.now() < escrow.expires_at);
    let escrow = escrow.ok_or(EscrowError::NotOpen { escrow: id })?;
    if escrow.gateway == *gateway {
        Ok(escrow)
    } else {
        Err(EscrowError::NotGateway {
            escrow: id,
            gateway: escrow.gateway,
        }
        .into())
    }
}

/// Gives back what is left, and forgets the escrow.
fn end(ctx: &mut Context<'_>, escrow: &Escrow) -> Result<(), LedgerError> {
    let left = escrow.left();
    if !left.is_zero() {
        bank::transfer(ctx, Module::Escrow, escrow.payer, left)?;
    }
    for account in [escrow.payer, escrow.gateway] {
        OF_ACCOUNT.remove(ctx, &(account, escrow.id))?;
    }
    DUE.remove(ctx, &(escrow.expires_at, escrow.id))?;
    ESCROWS.remove(ctx, &escrow.id)?;
    ctx.emit(events::closed(escrow));
    Ok(())
}

/// Ends escrows whose time is over, up to a number per block.
///
/// # Errors
/// When the state cannot be read.
pub(crate) fn end_block(ctx: &mut Context<'_>, _: &BlockInput) -> Result<(), LedgerError> {
    for ((at, id), _) in DUE.range(ctx, None, MAX_DUE)? {
        if at > ctx.now() {
            break;
        }
        if let Some(escrow) = ESCROWS.get(ctx, &id)? {
            end(ctx, &escrow)?;
        }
    }
    Ok(())
}

/// When the next escrow ends by itself.
///
/// # Errors
/// When the state cannot be read.
pub(crate) fn next_deadline(view: &dyn View) -> Result<Option<Time>, LedgerError> {
    Ok(DUE.range(view, None, 1)?.first().map(|((at, _), _)| *at))
}

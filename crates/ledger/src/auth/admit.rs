//! Whether a transaction may run: signature, sequence, grants, fee, lane.

use std::collections::BTreeSet;

use r3mes_types::auth::{Account, AuthParams};
use r3mes_types::tx::Tx;
use r3mes_types::{Address, Amount, Hash, Message};

use super::events;
use super::state::{ACCOUNTS, FEE_GRANTS, GRANTS, PARAMS};
use crate::bank::{self, Module};
use crate::block::{Admitted, Lane};
use crate::error::{LedgerError, TxRefusal};
use crate::gas;
use crate::obligations::{self, Standing};
use crate::store::{Context, View};
use crate::{CHAIN_ID, dispatch};

/// What is known from outside the state when a transaction is admitted.
pub(crate) struct Pending<'a> {
    /// The sequence that comes next, where transactions that wait have used some.
    pub(crate) sequence: Option<u64>,
    /// Fees that waiting transactions will take from the same payer.
    pub(crate) fees: Amount,
    /// Those among them that will be taken by the same grant.
    pub(crate) granted: Amount,
    /// Obligations that waiting transactions answer.
    pub(crate) answered: &'a BTreeSet<Hash>,
    /// Whether the signature over the same bytes is known to be the account's.
    pub(crate) verified: bool,
    /// Whether an obligation that has been answered may be answered again, to no effect: in a
    /// block, but not on the way into one.
    pub(crate) repeats: bool,
}

impl Pending<'static> {
    /// What is pending inside a block: nothing, since all before it has run.
    pub(crate) fn in_block(verified: bool) -> Self {
        static NOTHING: BTreeSet<Hash> = BTreeSet::new();
        Self {
            sequence: None,
            fees: Amount::ZERO,
            granted: Amount::ZERO,
            answered: &NOTHING,
            verified,
            repeats: true,
        }
    }
}

/// Checks everything about a transaction but what its messages do; takes the fee and counts the
/// sequence up.
pub(crate) fn admit(
    ctx: &mut Context<'_>,
    tx: &Tx,
    size: usize,
    pending: &Pending<'_>,
) -> Result<Admitted, LedgerError> {
    ctx.use_gas(gas::SIGNATURE + gas::TX_BYTE * size as u64)?;
    let height = ctx.height();
    if tx.timeout_height != 0 && height > tx.timeout_height {
        return Err(TxRefusal::TimedOut {
            timeout: tx.timeout_height,
            height,
        }
        .into());
    }
    let params = PARAMS.require(ctx)?;
    let limit = tx.fee.gas_limit;
    if limit > params.max_tx_gas {
        return Err(TxRefusal::GasLimit {
            limit,
            max: params.max_tx_gas,
        }
        .into());
    }
    let signer = tx.signer();
    let account = ACCOUNTS
        .get(ctx, &signer)?
        .ok_or(TxRefusal::UnknownAccount { address: signer })?;
    let expected = pending.sequence.unwrap_or(account.sequence);
    if tx.sequence != expected {
        return Err(TxRefusal::Sequence {
            expected,
            found: tx.sequence,
        }
        .into());
    }
    for message in &tx.messages {
        dispatch::check(message)?;
        authorize(ctx, signer, message)?;
    }
    let lane = lane(ctx, tx, pending)?;
    let payer = if lane == Lane::Paid {
        pay(ctx, tx, pending, &params)?
    } else {
        signer
    };
    // Read in any case: gas must not depend on what this process has verified before.
    let chain_id = CHAIN_ID.require(ctx)?.to_string();
    if !pending.verified {
        verify(tx, chain_id, &account)?;
    }
    let sequence = tx.sequence;
    let account = Account {
        sequence: sequence + 1,
        public_key: Some(tx.public_key.into()),
        ..account
    };
    ACCOUNTS.put(ctx, &signer, &account)?;
    let fee = tx.fee.paid();
    ctx.emit_with(|| events::admitted(&signer, sequence, fee, &payer));
    Ok(Admitted {
        sender: signer,
        sequence,
        payer,
        fee: fee.uremes(),
        priority: priority(tx),
        gas_wanted: limit,
        lane,
    })
}

/// Fee per million gas.
pub(crate) fn priority(tx: &Tx) -> u64 {
    let limit = tx.fee.gas_limit.max(1);
    tx.fee
        .paid()
        .mul_div(1_000_000, limit)
        .unwrap_or(Amount::MAX)
        .uremes()
}

/// The signer is the actor, or has a grant from it that is still good.
fn authorize(ctx: &Context<'_>, signer: Address, message: &Message) -> Result<(), LedgerError> {
    let (actor, type_url) = (message.actor(), message.type_url());
    if actor == signer {
        return Ok(());
    }
    let granted = GRANTS.get(ctx, &(actor, signer))?.is_some_and(|grant| {
        ctx.now() < grant.expires_at && grant.type_urls.iter().any(|url| &**url == type_url)
    });
    if granted {
        return Ok(());
    }
    Err(TxRefusal::Unauthorized {
        signer,
        actor,
        type_url: type_url.to_owned(),
    }
    .into())
}

/// Free if there is no fee and every message answers something that its node owes.
pub(crate) fn lane(ctx: &Context<'_>, tx: &Tx, pending: &Pending<'_>) -> Result<Lane, LedgerError> {
    let params = PARAMS.require(ctx)?;
    if !tx.fee.paid().is_zero() || tx.fee.gas_limit > params.max_obligation_gas {
        return Ok(Lane::Paid);
    }
    let mut keys = BTreeSet::new();
    for message in &tx.messages {
        let free = match obligations::standing(ctx, message)? {
            Standing::None => false,
            Standing::Owed(key) => keys.insert(key),
            Standing::Answered(key) => pending.repeats && keys.insert(key),
        };
        if !free {
            return Ok(Lane::Paid);
        }
    }
    if keys.iter().any(|key| pending.answered.contains(key)) {
        return Err(TxRefusal::AlreadyPending.into());
    }
    Ok(Lane::Obligation(keys.into_iter().collect()))
}

/// Who pays the fee, if there is one.
pub(crate) fn payer(tx: &Tx) -> Address {
    tx.fee.granter.unwrap_or_else(|| tx.signer())
}

/// Takes the fee; gives who paid.
fn pay(
    ctx: &mut Context<'_>,
    tx: &Tx,
    pending: &Pending<'_>,
    params: &AuthParams,
) -> Result<Address, LedgerError> {
    let fee = tx.fee.paid();
    let price = params.fee_per_million_gas.uremes();
    let required = u128::from(price) * u128::from(tx.fee.gas_limit);
    let required = Amount::new(u64::try_from(required.div_ceil(1_000_000)).unwrap_or(u64::MAX));
    if fee < required {
        return Err(TxRefusal::Fee {
            paid: fee,
            required,
        }
        .into());
    }
    let signer = tx.signer();
    let payer = payer(tx);
    let refuse = |why: &str| TxRefusal::Funds {
        payer,
        fee,
        why: why.to_owned(),
    };
    if tx.fee.payer.is_some_and(|named| named != signer) {
        return Err(refuse("the fee payer must be the signer; name a granter instead").into());
    }
    if fee.is_zero() {
        return Ok(payer);
    }
    if payer != signer {
        let mut grant = FEE_GRANTS
            .get(ctx, &(payer, signer))?
            .filter(|grant| ctx.now() < grant.expires_at)
            .ok_or_else(|| refuse("it has granted the signer no fees, or the grant has expired"))?;
        grant.remaining = grant
            .remaining
            .checked_sub(fee)
            .filter(|left| *left >= pending.granted)
            .ok_or_else(|| refuse("the fee grant is used up"))?;
        FEE_GRANTS.put(ctx, &(payer, signer), &grant)?;
    }
    if bank::balance(ctx, &payer)? < fee.saturating_add(pending.fees) {
        return Err(refuse("its balance is too low").into());
    }
    bank::transfer(ctx, payer, Module::Treasury, fee)?;
    Ok(payer)
}

/// Whether the account of the key that signed is there and the signature is its own.
pub(crate) fn is_signed(view: &dyn View, tx: &Tx) -> Result<bool, LedgerError> {
    let Some(account) = ACCOUNTS.get(view, &tx.signer())? else {
        return Ok(false);
    };
    Ok(tx.verify(&CHAIN_ID.require(view)?, account.number))
}

fn verify(tx: &Tx, chain_id: String, account: &Account) -> Result<(), LedgerError> {
    if tx.verify(&chain_id, account.number) {
        return Ok(());
    }
    Err(TxRefusal::Signature {
        chain_id,
        account_number: account.number,
    }
    .into())
}

//! What a transaction would cost and do, before anybody signs it.

use r3mes_state::Read;
use r3mes_types::cosmos::tx::{
    Draft, Event, EventAttribute, GasInfo, SimulateRequest, SimulateResponse, SimulationResult,
};
use r3mes_types::tx::{Fee, Tx};
use r3mes_types::wire::{Blob, DecodeError, List, Text, Wire};
use r3mes_types::{self as types, Amount};

use crate::auth::{self, ACCOUNTS, PARAMS, Pending, admit};
use crate::block::Lane;
use crate::error::{LedgerError, QueryError, TxRefusal};
use crate::gas::Gas;
use crate::query::Answer;
use crate::store::{Block, Committed, Context};
use crate::{LAST_HEIGHT, LAST_TIME, bank, dispatch};

/// Runs a transaction on committed state as if it were signed, paid for, and next of its sender, and
/// throws away what it did.
///
/// Gas is what the same transaction takes once it is signed with the same sequence: the signature is
/// not looked at, but charged. Where no fee is given, one is assumed, since taking it takes gas too.
pub(crate) fn simulate(state: &dyn Read, data: &[u8]) -> Result<Answer, LedgerError> {
    let request = SimulateRequest::decode(data).map_err(malformed)?;
    let view = Committed(state);
    let block = Block {
        height: LAST_HEIGHT.require(&view)? + 1,
        time: LAST_TIME.require(&view)?,
    };
    let max_gas = PARAMS.require(&view)?.max_tx_gas;
    let draft = Draft::parse(request.bytes(), max_gas).map_err(|error| TxRefusal::Decode {
        why: error.to_string(),
    })?;
    let (size, mut tx) = (draft.signed_bytes, draft.tx);
    let pending = pending(&view, &tx)?;
    tx.fee.gas_limit = tx.fee.gas_limit.min(max_gas);
    assume_fee(state, block, &mut tx, &pending)?;
    let mut ctx = Context::with_gas(state, block, Gas::new(max_gas));
    admit(&mut ctx, &tx, size, &pending)?;
    ctx.attempt(|messages| {
        let mut messages_left = tx.messages.iter();
        messages_left.try_for_each(|message| dispatch::execute(messages, message))
    })?;
    let gas_used = ctx.gas().used();
    let (_, events) = ctx.finish();
    let result = SimulationResult {
        data: Blob::default(),
        log: Text::default(),
        events: shown(events).map_err(malformed)?,
    };
    let gas_info = GasInfo {
        gas_wanted: tx.fee.gas_limit,
        gas_used,
    };
    let value = SimulateResponse { gas_info, result }.encode();
    Ok(Answer { value, key: None })
}

/// Transactions of the same sender may wait: those are taken to have run.
fn pending(view: &Committed<'_>, tx: &Tx) -> Result<Pending<'static>, LedgerError> {
    let account = ACCOUNTS.get(view, &tx.signer())?;
    // No account comes to the last number, which has none after it.
    let asked = tx.sequence.min(u64::MAX - 1);
    let sequence = account.map_or(0, |account| account.sequence.max(asked));
    Ok(Pending {
        sequence: Some(sequence),
        verified: true,
        ..Pending::in_block(true)
    })
}

/// Sets the fee that a wallet would set, as far as the payer has it, unless the transaction is free.
fn assume_fee(
    state: &dyn Read,
    block: Block,
    tx: &mut Tx,
    pending: &Pending<'_>,
) -> Result<(), LedgerError> {
    if !tx.fee.paid().is_zero() {
        return Ok(());
    }
    let ctx = Context::new(state, block);
    let params = PARAMS.require(&ctx)?;
    let asked = tx.fee.gas_limit;
    tx.fee.gas_limit = asked.min(params.max_obligation_gas);
    if matches!(auth::lane(&ctx, tx, pending)?, Lane::Obligation(_)) {
        return Ok(());
    }
    let price = params.fee_per_million_gas.max(Amount::new(1));
    let has = bank::balance(&ctx, &auth::payer(tx))?;
    let Fee { payer, granter, .. } = tx.fee;
    // The limit is what the assumed fee pays for; the gas itself is bounded by the context.
    tx.fee = Fee {
        payer,
        granter,
        ..Fee::of(price.min(has), 0)
    };
    Ok(())
}

fn shown<const MAX: usize>(events: Vec<types::Event>) -> Result<List<Event, MAX>, DecodeError> {
    let attribute = |(key, value): (&str, String)| {
        Ok(EventAttribute {
            key: Text::new(key)?,
            value: Text::new(value)?,
            index: true,
        })
    };
    let event = |event: types::Event| {
        let attributes: Result<Vec<_>, DecodeError> =
            event.attributes.into_iter().map(attribute).collect();
        Ok(Event {
            kind: Text::new(event.kind)?,
            attributes: List::new(attributes?)?,
        })
    };
    let events: Result<Vec<Event>, DecodeError> = events.into_iter().take(MAX).map(event).collect();
    List::new(events?)
}

fn malformed(error: DecodeError) -> LedgerError {
    QueryError::Malformed {
        why: error.to_string(),
    }
    .into()
}

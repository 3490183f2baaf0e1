//! The ledger as an engine drives it: genesis in, blocks in; changes, results and answers out.

mod order;
mod waiting;

use std::collections::BTreeMap;
use std::sync::Arc;

use r3mes_state::{Changes, Read};
use r3mes_types::beacon::HashChain;
use r3mes_types::cosmos::tx::SimulateRequest;
use r3mes_types::query::Query;
use r3mes_types::tx::{MAX_CHAIN_ID, Tx, TxError, reveal_tx};
use r3mes_types::wire::Text;
use r3mes_types::{ConsensusAddress, Time};

use self::order::order;
pub use self::waiting::Waiting;
use crate::auth::{self, Pending, admit};
use crate::block::{BlockInput, BlockOutput, CheckResult, QueryResult, TxResult, ValidatorUpdate};
use crate::error::{Fault, LedgerError, TxRefusal};
use crate::gas::Gas;
use crate::genesis::Genesis;
use crate::query::Answer;
use crate::store::{Block, Committed, Context, Item};
use crate::{beacon, cosmos, dispatch, genesis, hooks};

/// Name of the chain.
pub const CHAIN_ID: Item<Text<MAX_CHAIN_ID>> = Item::new("app/chain-id");
/// Height of the last block.
pub const LAST_HEIGHT: Item<u64> = Item::new("app/height");
/// Time of the last block.
pub const LAST_TIME: Item<Time> = Item::new("app/time");

/// Height of the first block, of a chain that goes on from another.
pub(crate) const FIRST_HEIGHT: Item<u64> = Item::new("app/first-height");

/// Transactions that this process knows by their bytes: they are parsed, and the signature was found to
/// be the account's by [`Ledger::verify_txs`]. What is known is not worked out again, and the results are the
/// same as if nothing were.
pub type Known<'a> = &'a dyn Fn(&[u8]) -> Option<Arc<Tx>>;

/// The state machine. It keeps nothing itself: state, time and randomness are arguments, and what it
/// does to them is a value.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ledger;

/// What a block proposer brings to its proposal.
#[derive(Clone, Copy, Debug)]
pub struct Proposal<'a> {
    /// The block.
    pub block: Block,
    /// The block proposer.
    pub proposer: ConsensusAddress,
    /// Its hash chains in order: the registered one, and the one to go on with.
    pub chains: &'a [HashChain],
    /// Most bytes of all transactions together.
    pub max_bytes: u64,
}

impl Ledger {
    /// Begins a ledger: the state of height 0, and the first block validators.
    ///
    /// # Errors
    /// [`Fault::Genesis`] says what is wrong.
    pub fn init_chain(genesis: &Genesis) -> Result<(Changes, Vec<ValidatorUpdate>), Fault> {
        genesis::check(genesis).map_err(|why| Fault::Genesis { why })?;
        let empty = BTreeMap::<Vec<u8>, Vec<u8>>::new();
        let mut ctx = Context::new(
            &empty,
            Block {
                height: genesis.initial_height().saturating_sub(1),
                time: genesis.time,
            },
        );
        match genesis::init(&mut ctx, genesis) {
            Ok(updates) => Ok((ctx.finish().0, updates)),
            Err(LedgerError::Fault(fault)) => Err(fault),
            Err(refusal) => Err(Fault::Genesis {
                why: refusal.to_string(),
            }),
        }
    }

    /// The transactions in `txs`, each in its place, whose signature is that of an account which is there.
    /// This is most of the work of a check, and depends on nothing that another transaction changes; what
    /// is wrong with a transaction that is not given back, [`Ledger::check_tx`] tells.
    ///
    /// # Errors
    /// Only for a [`Fault`].
    pub fn verify_txs(state: &dyn Read, txs: &[&[u8]]) -> Result<Vec<Option<Tx>>, Fault> {
        let view = Committed(state);
        let verified = txs.iter().map(|bytes| {
            let Ok(tx) = Tx::parse(bytes) else {
                return Ok(None);
            };
            let good = auth::is_signed(&view, &tx).map_err(LedgerError::into_fault)?;
            Ok(good.then_some(tx))
        });
        verified.collect()
    }

    /// Whether a transaction may wait for a block. `block` is the next one, as far as it is known.
    ///
    /// # Errors
    /// Only for a [`Fault`]; a refusal is a [`CheckResult`].
    pub fn check_tx(
        state: &dyn Read,
        block: Block,
        waiting: &Waiting,
        bytes: &[u8],
        known: Known<'_>,
    ) -> Result<CheckResult, Fault> {
        let (tx, verified) = match parse(bytes, known) {
            Ok(parsed) => parsed,
            Err(error) => {
                let result = TxResult::refused(0, 0, &undecodable(&error));
                return Ok(CheckResult {
                    result,
                    admitted: None,
                });
            }
        };
        let limit = tx.fee.gas_limit;
        let mut ctx = Context::with_gas(state, block, Gas::new(limit)).unwatched();
        let pending = waiting.pending(&tx, verified);
        let outcome = admit(&mut ctx, &tx, bytes.len(), &pending);
        let used = ctx.gas().used();
        Ok(match refusal(outcome)? {
            Ok(admitted) => {
                let result = TxResult::ok(limit, used, Vec::new());
                CheckResult {
                    result,
                    admitted: Some(admitted),
                }
            }
            Err(error) => CheckResult {
                result: TxResult::refused(limit, used, &error),
                admitted: None,
            },
        })
    }

    /// The transactions of a block: the reveal, what nodes owe, then the rest by fee, each sender's in
    /// the order of their sequences; without those that could not run. `candidates` have passed
    /// [`Ledger::check_tx`].
    ///
    /// # Errors
    /// When the proposer has no reveal to make, or for another [`Fault`].
    pub fn prepare(
        state: &dyn Read,
        proposal: &Proposal<'_>,
        candidates: &[Vec<u8>],
        known: Known<'_>,
    ) -> Result<Vec<Vec<u8>>, Fault> {
        let Proposal {
            block,
            proposer,
            chains,
            max_bytes,
        } = *proposal;
        let mut ctx = Context::new(state, block).unwatched();
        let reveal = beacon::preimage(&ctx, &proposer, chains, block.height)
            .map_err(LedgerError::into_fault)?;
        let params = auth::PARAMS
            .require(&ctx)
            .map_err(LedgerError::into_fault)?;
        let mut txs = vec![reveal_tx(&reveal)];
        let mut bytes_left = max_bytes
            .min(params.max_block_bytes)
            .saturating_sub(txs[0].len() as u64);
        let mut gas_left = params.max_block_gas;
        for candidate in order(&ctx, candidates, known)? {
            let (bytes, tx) = candidate;
            let (size, gas) = (bytes.len() as u64, tx.fee.gas_limit);
            if size > bytes_left || gas > gas_left {
                continue;
            }
            let admitted =
                ctx.attempt(|inner| admit(inner, &tx, bytes.len(), &Pending::in_block(true)));
            if refusal(admitted)?.is_ok() {
                bytes_left -= size;
                gas_left -= gas;
                txs.push(bytes.to_vec());
            }
        }
        Ok(txs)
    }

    /// Whether a proposed block may be voted for.
    ///
    /// # Errors
    /// [`Fault::InvalidBlock`] says why not; other faults stop the node.
    pub fn process(state: &dyn Read, input: &BlockInput, known: Known<'_>) -> Result<(), Fault> {
        let refuse = |why: String| Fault::InvalidBlock {
            height: input.height,
            why,
        };
        let view = Committed(state);
        let last = LAST_TIME.require(&view).map_err(LedgerError::into_fault)?;
        // The first block may have the time of genesis, as CometBFT's has.
        let height = LAST_HEIGHT
            .require(&view)
            .map_err(LedgerError::into_fault)?;
        let first_height = FIRST_HEIGHT.get(&view).map_err(LedgerError::into_fault)?;
        let first = height + 1 == first_height.unwrap_or(1);
        if input.time < last || (input.time == last && !first) {
            return Err(refuse(
                "its time is not after that of the block before".into(),
            ));
        }
        beacon::verify(&view, input).map_err(LedgerError::into_fault)?;
        let params = auth::PARAMS
            .require(&view)
            .map_err(LedgerError::into_fault)?;
        let bytes: u64 = input.txs.iter().map(|tx| tx.len() as u64).sum();
        if bytes > params.max_block_bytes {
            return Err(refuse(format!(
                "{bytes} bytes of transactions are too many"
            )));
        }
        let mut gas = 0u64;
        for (index, bytes) in input.txs.iter().enumerate().skip(1) {
            let parsed = parse(bytes, known);
            let (tx, _) = parsed.map_err(|e| refuse(format!("transaction {index}: {e}")))?;
            gas = gas.saturating_add(tx.fee.gas_limit);
        }
        if gas > params.max_block_gas {
            return Err(refuse(format!(
                "its transactions may use {gas} gas, which is too much"
            )));
        }
        Ok(())
    }

    /// Runs a decided block.
    ///
    /// # Errors
    /// Only for a [`Fault`]: the engine must stop.
    pub fn finalize_block(
        state: &dyn Read,
        input: &BlockInput,
        known: Known<'_>,
    ) -> Result<BlockOutput, Fault> {
        let block = Block {
            height: input.height,
            time: input.time,
        };
        let mut ctx = Context::new(state, block);
        hooks::begin_block(&mut ctx, input)?;
        let max_gas = auth::PARAMS
            .require(&ctx)
            .map_err(LedgerError::into_fault)?
            .max_block_gas;
        let mut gas_left = max_gas;
        let mut tx_results = vec![TxResult::ok(0, 0, Vec::new())];
        for bytes in input.txs.iter().skip(1) {
            let result = match parse(bytes, known) {
                Err(error) => TxResult::refused(0, 0, &undecodable(&error)),
                Ok((tx, _)) if tx.fee.gas_limit > gas_left => {
                    let error = TxRefusal::BlockGas { max: max_gas };
                    TxResult::refused(tx.fee.gas_limit, 0, &error.into())
                }
                Ok((tx, verified)) => deliver(&mut ctx, &tx, bytes.len(), verified)?,
            };
            gas_left = gas_left.saturating_sub(result.gas_used);
            tx_results.push(result);
        }
        hooks::end_block(&mut ctx, input)?;
        let validator_updates = hooks::validator_updates(&mut ctx)?;
        LAST_HEIGHT
            .put(&mut ctx, &input.height)
            .map_err(LedgerError::into_fault)?;
        LAST_TIME
            .put(&mut ctx, &input.time)
            .map_err(LedgerError::into_fault)?;
        let next_deadline = hooks::next_deadline(&ctx).map_err(LedgerError::into_fault)?;
        let (changes, events) = ctx.finish();
        Ok(BlockOutput {
            changes,
            tx_results,
            events,
            validator_updates,
            next_deadline,
        })
    }

    /// Answers a question about committed state.
    ///
    /// # Errors
    /// Only for a [`Fault`]; a refusal is a [`QueryResult`].
    pub fn query(state: &dyn Read, path: &str, data: &[u8]) -> Result<QueryResult, Fault> {
        Ok(match refusal(answer(state, path, data))? {
            Ok(answer) => QueryResult {
                code: 0,
                codespace: String::new(),
                log: String::new(),
                value: answer.value,
                key: answer.key,
            },
            Err(error) => {
                let TxResult {
                    code,
                    codespace,
                    log,
                    ..
                } = TxResult::refused(0, 0, &error);
                QueryResult {
                    code,
                    codespace,
                    log,
                    value: Vec::new(),
                    key: None,
                }
            }
        })
    }

    /// The next time at which something happens by itself. One that has passed asks for a block now.
    ///
    /// # Errors
    /// Only for a [`Fault`].
    pub fn next_deadline(state: &dyn Read) -> Result<Option<Time>, Fault> {
        hooks::next_deadline(&Committed(state)).map_err(LedgerError::into_fault)
    }
}

/// Most questions read what is there; one runs a transaction on it.
fn answer(state: &dyn Read, path: &str, data: &[u8]) -> Result<Answer, LedgerError> {
    match path {
        SimulateRequest::PATH => cosmos::simulate(state, data),
        _ => dispatch::query(&Committed(state), path, data),
    }
}

/// Runs one transaction; what it did stays in `ctx`, or only its fee and sequence if it failed.
fn deliver(ctx: &mut Context<'_>, tx: &Tx, size: usize, verified: bool) -> Result<TxResult, Fault> {
    let limit = tx.fee.gas_limit;
    let (result, changes) = {
        let mut inner = Context::with_gas(ctx.state(), ctx.block(), Gas::new(limit));
        let pending = Pending::in_block(verified);
        if let Err(error) = refusal(admit(&mut inner, tx, size, &pending))? {
            return Ok(TxResult::refused(limit, inner.gas().used(), &error));
        }
        let outcome = inner.attempt(|messages| {
            tx.messages
                .iter()
                .try_for_each(|message| dispatch::execute(messages, message))
        });
        let used = inner.gas().used();
        let (changes, events) = inner.finish();
        let result = match refusal(outcome)? {
            Ok(()) => TxResult::ok(limit, used, events),
            Err(error) => TxResult::refused(limit, used, &error),
        };
        (result, changes)
    };
    ctx.apply(changes, Vec::new());
    Ok(result)
}

/// A transaction, and whether its signature is known to be good.
fn parse(bytes: &[u8], known: Known<'_>) -> Result<(Arc<Tx>, bool), TxError> {
    match known(bytes) {
        Some(tx) => Ok((tx, true)),
        None => Ok((Arc::new(Tx::parse(bytes)?), false)),
    }
}

/// Separates faults from refusals.
fn refusal<T>(outcome: Result<T, LedgerError>) -> Result<Result<T, LedgerError>, Fault> {
    match outcome {
        Err(LedgerError::Fault(fault)) => Err(fault),
        other => Ok(other),
    }
}

fn undecodable(error: &TxError) -> LedgerError {
    TxRefusal::Decode {
        why: error.to_string(),
    }
    .into()
}

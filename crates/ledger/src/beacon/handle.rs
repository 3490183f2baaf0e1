//! What the beacon does.

use r3mes_types::beacon::{
    BeaconMessage, Chain, HashChain, MAX_CHAIN, MsgRegisterChain, MsgReveal, NextChain, chain_step,
    mix,
};
use r3mes_types::tx::parse_reveal;
use r3mes_types::{Address, ConsensusAddress, Hash};

use super::events;
use super::state::{CHAINS, KEPT_MIXES, MIX, MIXES, VALIDATOR_OF};
use crate::block::BlockInput;
use crate::error::{Fault, LedgerError};
use crate::store::{Context, View};
use crate::{coded_errors, nodes};

coded_errors! {
    /// Why the beacon refuses.
    pub enum BeaconError in "beacon" {
        /// The account speaks for no block validator.
        #[error("{operator} operates no block validator: register a node with a consensus key first")]
        1 => NoValidator {
            /// The account.
            operator: Address,
        },
        /// A chain of no or too many elements.
        #[error("a hash chain has between 1 and {max} elements, not {length}")]
        2 => Length {
            /// The length registered.
            length: u64,
            /// The longest allowed.
            max: u64,
        },
        /// Another chain waits already.
        #[error("the chain to go on with is registered already and cannot be exchanged")]
        3 => NextIsSet,
    }
}

/// Does what a message says.
pub(crate) fn execute(ctx: &mut Context<'_>, message: &BeaconMessage) -> Result<(), LedgerError> {
    match message {
        BeaconMessage::RegisterChain(message) => register_chain(ctx, message),
    }
}

fn register_chain(ctx: &mut Context<'_>, message: &MsgRegisterChain) -> Result<(), LedgerError> {
    let operator = message.operator;
    let validator = VALIDATOR_OF
        .get(ctx, &operator)?
        .ok_or(BeaconError::NoValidator { operator })?;
    let chain = match CHAINS.get(ctx, &validator)? {
        None => Chain {
            last: message.end,
            remaining: message.length,
            next_end: None,
            next_length: 0,
        },
        Some(chain) if is_repeat(&chain, message) => return Ok(()),
        Some(chain) if chain.next_end.is_some() => return Err(BeaconError::NextIsSet.into()),
        Some(chain) => Chain {
            next_end: Some(message.end),
            next_length: message.length,
            ..chain
        },
    };
    CHAINS.put(ctx, &validator, &chain)?;
    nodes::changed(ctx)?;
    ctx.emit(events::chain_registered(&validator, message.length));
    Ok(())
}

fn is_repeat(chain: &Chain, message: &MsgRegisterChain) -> bool {
    let waiting = chain.next_end == Some(message.end) && chain.next_length == message.length;
    let fresh = chain.last == message.end && chain.remaining == message.length;
    waiting || fresh
}

/// Lets an account speak for a block validator.
pub(crate) fn bind_validator(
    ctx: &mut Context<'_>,
    operator: &Address,
    validator: &ConsensusAddress,
) -> Result<(), LedgerError> {
    VALIDATOR_OF.put(ctx, operator, validator)
}

/// The chain after `preimage` was revealed; `None` if it is not the next element.
fn advance(chain: &Chain, preimage: &Hash) -> Option<Chain> {
    let step = chain_step(preimage);
    if chain.remaining > 0 {
        return (step == chain.last).then(|| Chain {
            last: *preimage,
            remaining: chain.remaining - 1,
            ..*chain
        });
    }
    (chain.next_end == Some(step)).then(|| Chain {
        last: *preimage,
        remaining: chain.next_length - 1,
        next_end: None,
        next_length: 0,
    })
}

/// The chain with the one to go on with; `None` if that is registered already, or of no length.
fn succeeded_by(chain: &Chain, next: &NextChain) -> Option<Chain> {
    let allowed = chain.next_end.is_none() && (1..=MAX_CHAIN).contains(&next.length);
    allowed.then_some(Chain {
        next_end: Some(next.end),
        next_length: next.length,
        ..*chain
    })
}

/// Checks that a block's first transaction is the proposer's reveal.
///
/// Gives the reveal and the chain after it.
pub(crate) fn verify(
    view: &dyn View,
    input: &BlockInput,
) -> Result<(MsgReveal, Chain), LedgerError> {
    let refuse = |why: String| Fault::InvalidBlock {
        height: input.height,
        why,
    };
    let first = input.txs.first().and_then(|bytes| parse_reveal(bytes));
    let reveal =
        first.ok_or_else(|| refuse("its first transaction reveals no beacon element".into()))?;
    if reveal.validator != input.proposer {
        return Err(refuse(format!(
            "{} reveals for {}",
            input.proposer, reveal.validator
        ))
        .into());
    }
    let chain = CHAINS
        .get(view, &input.proposer)?
        .ok_or_else(|| refuse(format!("{} has no beacon chain", input.proposer)))?;
    let chain = advance(&chain, &reveal.preimage)
        .ok_or_else(|| refuse("the element revealed is not the next of the chain".into()))?;
    let chain = match &reveal.next {
        None => chain,
        Some(next) => succeeded_by(&chain, next).ok_or_else(|| {
            refuse("the chain to go on with is registered already, or has no allowed length".into())
        })?,
    };
    Ok((reveal, chain))
}

/// The element that `validator` has to reveal next, from one of the chains it keeps in their order.
/// While no chain to go on with is registered, it registers the one that follows.
///
/// # Errors
/// [`Fault::InvalidBlock`] when none of them is the one registered, or it is used up.
pub fn preimage(
    view: &dyn View,
    validator: &ConsensusAddress,
    chains: &[HashChain],
    height: u64,
) -> Result<MsgReveal, LedgerError> {
    let registered = CHAINS.get(view, validator)?;
    let found = registered.and_then(|registered| {
        let left = match registered.remaining {
            0 => registered.next_length,
            left => left,
        };
        chains.iter().enumerate().find_map(|(at, chain)| {
            let preimage = chain.preimage(left)?;
            let after = advance(&registered, &preimage)?;
            let next = chains.get(at + 1).filter(|_| after.next_end.is_none());
            let next = next.map(|next| NextChain {
                end: next.end(),
                length: next.len(),
            });
            Some(MsgReveal {
                validator: *validator,
                preimage,
                next,
            })
        })
    });
    found.ok_or_else(|| Fault::InvalidBlock {
        height,
        why: format!("{validator} keeps no secret of the beacon chain that is registered for it, or the chain is used up: register the next one in time"),
    }.into())
}

/// Takes the block's reveal into the mix.
pub(crate) fn begin_block(ctx: &mut Context<'_>, input: &BlockInput) -> Result<(), LedgerError> {
    let (reveal, chain) = verify(ctx, input)?;
    CHAINS.put(ctx, &input.proposer, &chain)?;
    if let Some(next) = &reveal.next {
        ctx.emit(events::chain_registered(&input.proposer, next.length));
    }
    let value = mix(&MIX.require(ctx)?, &reveal.preimage);
    MIX.put(ctx, &value)?;
    MIXES.put(ctx, &input.height, &value)?;
    if let Some(old) = input.height.checked_sub(KEPT_MIXES) {
        MIXES.remove(ctx, &old)?;
    }
    ctx.emit(events::mixed(input.height, &value));
    Ok(())
}

//! Who signs blocks: active nodes with the role validator, a consensus key and a beacon chain; the
//! power of each is its bonded stake in whole REMES.
//!
//! With `max_block_validators` at zero the set of genesis stays as it is, which is what a network with
//! the engine `local` wants. A set is never emptied: with nobody to sign, no block could change that.

use std::collections::BTreeMap;

use r3mes_types::nodes::NodeSpec;
use r3mes_types::{Address, ConsensusAddress, Role, UREMES_PER_REMES};

use super::handle::NodesError;
use super::slash::{jail, slash};
use super::state::{
    BLOCK_VALIDATORS, BlockValidator, MAX_ELECTORS, OPERATOR_OF, PARAMS, VALIDATORS_CHANGED,
    active, get,
};
use crate::beacon;
use crate::block::{BlockInput, ValidatorUpdate};
use crate::error::LedgerError;
use crate::store::Context;

/// Ties a consensus key to its node; a key belongs to one node for good.
pub(super) fn claim_key(
    ctx: &mut Context<'_>,
    address: &Address,
    spec: &NodeSpec,
) -> Result<(), LedgerError> {
    let Some(key) = spec.consensus_key else {
        return Ok(());
    };
    claim(ctx, address, &key.address())
}

/// Ties a consensus address to an account.
pub(super) fn claim(
    ctx: &mut Context<'_>,
    operator: &Address,
    validator: &ConsensusAddress,
) -> Result<(), LedgerError> {
    match OPERATOR_OF.get(ctx, validator)? {
        Some(owner) if owner != *operator => {
            return Err(NodesError::ConsensusKey { operator: owner }.into());
        }
        Some(_) => {}
        None => OPERATOR_OF.put(ctx, validator, operator)?,
    }
    beacon::bind_validator(ctx, operator, validator)
}

/// Says that the block validators have to be determined anew.
pub(crate) fn changed(ctx: &mut Context<'_>) -> Result<(), LedgerError> {
    VALIDATORS_CHANGED.put(ctx, &true)
}

/// Block validators whose power changed in this block.
pub(crate) fn updates(ctx: &mut Context<'_>) -> Result<Vec<ValidatorUpdate>, LedgerError> {
    if VALIDATORS_CHANGED.get(ctx)?.is_none() {
        return Ok(Vec::new());
    }
    VALIDATORS_CHANGED.remove(ctx)?;
    let wanted = wanted(ctx)?;
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let present: BTreeMap<_, _> = BLOCK_VALIDATORS
        .range(ctx, None, MAX_ELECTORS)?
        .into_iter()
        .collect();
    let mut updates = Vec::new();
    for (address, validator) in &present {
        if !wanted.contains_key(address) {
            BLOCK_VALIDATORS.remove(ctx, address)?;
            updates.push(ValidatorUpdate {
                key: validator.key,
                power: 0,
            });
        }
    }
    for (address, validator) in &wanted {
        if present.get(address) != Some(validator) {
            BLOCK_VALIDATORS.put(ctx, address, validator)?;
            updates.push(ValidatorUpdate {
                key: validator.key,
                power: validator.power,
            });
        }
    }
    Ok(updates)
}

/// Those who should sign blocks.
fn wanted(ctx: &Context<'_>) -> Result<BTreeMap<ConsensusAddress, BlockValidator>, LedgerError> {
    let max = PARAMS.require(ctx)?.max_block_validators as usize;
    if max == 0 {
        return Ok(BTreeMap::new());
    }
    let mut candidates = Vec::new();
    for node in active(ctx, Role::Validator)? {
        let Some(key) = node.spec.consensus_key else {
            continue;
        };
        let power = node.bonded.uremes() / UREMES_PER_REMES;
        if power > 0 && beacon::CHAINS.contains(ctx, &key.address())? {
            candidates.push((std::cmp::Reverse(power), node.address, key));
        }
    }
    candidates.sort_unstable();
    candidates.truncate(max);
    Ok(candidates
        .into_iter()
        .map(|(power, _, key)| {
            (
                key.address(),
                BlockValidator {
                    key,
                    power: power.0,
                },
            )
        })
        .collect())
}

/// Slashes and jails those who signed two blocks of one height.
pub(crate) fn punish(ctx: &mut Context<'_>, input: &BlockInput) -> Result<(), LedgerError> {
    let share = PARAMS.require(ctx)?.double_sign_slash;
    for misbehaviour in &input.misbehaviour {
        let Some(operator) = OPERATOR_OF.get(ctx, &misbehaviour.validator)? else {
            continue;
        };
        let Some(node) = get(ctx, &operator)? else {
            continue;
        };
        let unbonding = node.unbonding.iter().map(|part| part.amount);
        let stake = unbonding.fold(node.bonded, r3mes_types::Amount::saturating_add);
        let reason = format!("signed two blocks of height {}", misbehaviour.height);
        slash(ctx, &operator, stake.share(share), &reason)?;
        jail(ctx, &operator, &reason)?;
    }
    Ok(())
}

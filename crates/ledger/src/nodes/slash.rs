//! Punishment: slashing into escrow, appeals, and jail.

use r3mes_types::governance::SlashDecision;
use r3mes_types::nodes::{MAX_REASON, Node, NodeStatus, Slash, SlashStatus, Unbonding};
use r3mes_types::wire::{List, Text};
use r3mes_types::{Address, Amount, Time};

use super::events;
use super::handle::NodesError;
use super::state::{FINAL_DUE, MAX_DUE, NEXT_SLASH, PARAMS, SLASHES, SLASHES_OF, require, save};
use crate::bank::{self, Module};
use crate::error::LedgerError;
use crate::rewards;
use crate::store::{Context, View};

/// Takes up to `amount` of a node's stake, bonded first, then unbonding, then of its rewards that vest;
/// gives what was taken.
///
/// It is held until the appeal window ends. A node left with less than its roles need is jailed. A
/// reason longer than [`MAX_REASON`] is cut.
///
/// # Errors
/// [`NodesError::Unknown`].
pub fn slash(
    ctx: &mut Context<'_>,
    address: &Address,
    amount: Amount,
    reason: &str,
) -> Result<Amount, LedgerError> {
    let before = require(ctx, address)?;
    let mut node = before.clone();
    let staked = take_stake(&mut node, amount);
    let vesting = rewards::seize(ctx, address, amount.saturating_sub(staked))?;
    let taken = staked.saturating_add(vesting);
    if taken.is_zero() {
        return Ok(taken);
    }
    if !staked.is_zero() {
        bank::transfer(ctx, Module::Stake, Module::Slashed, staked)?;
    }
    let params = PARAMS.require(ctx)?;
    let id = NEXT_SLASH.next(ctx)?;
    let slash = Slash {
        id,
        node: *address,
        amount: taken,
        reason: cut(reason),
        status: SlashStatus::Held,
        at: ctx.now(),
        final_at: ctx.now().after(params.appeal_window),
        statement: Text::default(),
    };
    SLASHES.put(ctx, &id, &slash)?;
    SLASHES_OF.put(ctx, &(*address, id), &true)?;
    FINAL_DUE.put(ctx, &(slash.final_at, id), &true)?;
    save(ctx, Some(&before), &node)?;
    ctx.emit(events::slashed(&slash));
    if node.status == NodeStatus::Active && node.bonded < params.minimum_stake(node.spec.roles) {
        jail(ctx, address, reason)?;
    }
    Ok(taken)
}

/// Takes from a node's record; the caller moves the coins.
fn take_stake(node: &mut Node, amount: Amount) -> Amount {
    let bonded = node.bonded.min(amount);
    node.bonded = node.bonded.saturating_sub(bonded);
    let mut left = amount.saturating_sub(bonded);
    let mut kept: Vec<Unbonding> = Vec::new();
    for part in &node.unbonding {
        let cut = part.amount.min(left);
        left = left.saturating_sub(cut);
        let rest = part.amount.saturating_sub(cut);
        if !rest.is_zero() {
            kept.push(Unbonding {
                amount: rest,
                ..*part
            });
        }
    }
    node.unbonding = List::new(kept).expect("no more parts than there were");
    amount.saturating_sub(left)
}

/// Keeps a node from taking part until its term is over and it asks back in. Does nothing to a node
/// that left.
///
/// # Errors
/// [`NodesError::Unknown`].
pub fn jail(ctx: &mut Context<'_>, address: &Address, reason: &str) -> Result<(), LedgerError> {
    let before = require(ctx, address)?;
    if before.status == NodeStatus::Left {
        return Ok(());
    }
    let jailed_until = ctx.now().after(PARAMS.require(ctx)?.jail);
    let node = Node {
        status: NodeStatus::Jailed,
        jailed_until,
        jail_reason: cut(reason),
        ..before.clone()
    };
    save(ctx, Some(&before), &node)?;
    ctx.emit(events::jailed(address, jailed_until, reason));
    Ok(())
}

/// The longest beginning of a reason that fits.
fn cut(reason: &str) -> Text<MAX_REASON> {
    let clean: String = reason
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let mut end = clean.len().min(MAX_REASON);
    while !clean.is_char_boundary(end) {
        end -= 1;
    }
    Text::new(&clean[..end]).expect("short enough and without control characters")
}

/// Takes a node's appeal; governance decides from now on.
pub(super) fn appeal(
    ctx: &mut Context<'_>,
    address: &Address,
    id: u64,
    statement: &Text<MAX_REASON>,
) -> Result<(), LedgerError> {
    let refuse = NodesError::Appeal { slash: id };
    let mut slash = SLASHES
        .get(ctx, &id)?
        .filter(|slash| slash.node == *address);
    let slash = slash.as_mut().ok_or(refuse.clone())?;
    match slash.status {
        SlashStatus::Held => {}
        SlashStatus::Appealed if slash.statement == *statement => return Ok(()),
        _ => return Err(refuse.into()),
    }
    FINAL_DUE.remove(ctx, &(slash.final_at, id))?;
    slash.status = SlashStatus::Appealed;
    slash.statement = statement.clone();
    SLASHES.put(ctx, &id, slash)?;
    ctx.emit(events::appealed(address, id));
    Ok(())
}

/// Decides on an appeal: the amount goes back to the node's account, or to the treasury.
///
/// # Errors
/// [`NodesError::Appeal`] when nothing of that number is under appeal.
pub fn decide(ctx: &mut Context<'_>, decision: &SlashDecision) -> Result<(), LedgerError> {
    let id = decision.slash;
    let slash = SLASHES.get(ctx, &id)?;
    let slash = slash.filter(|slash| slash.status == SlashStatus::Appealed);
    let slash = slash.ok_or(NodesError::Appeal { slash: id })?;
    settle(ctx, slash, decision.revert)
}

fn settle(ctx: &mut Context<'_>, mut slash: Slash, revert: bool) -> Result<(), LedgerError> {
    let to = if revert {
        slash.node
    } else {
        Module::Treasury.address()
    };
    bank::transfer(ctx, Module::Slashed, to, slash.amount)?;
    slash.status = if revert {
        SlashStatus::Reverted
    } else {
        SlashStatus::Final
    };
    SLASHES.put(ctx, &slash.id, &slash)?;
    ctx.emit(events::settled(&slash));
    Ok(())
}

/// Ends appeal windows that are over, up to a number per block.
pub(super) fn finish_due(ctx: &mut Context<'_>) -> Result<(), LedgerError> {
    for ((at, id), _) in FINAL_DUE.range(ctx, None, MAX_DUE)? {
        if at > ctx.now() {
            break;
        }
        FINAL_DUE.remove(ctx, &(at, id))?;
        if let Some(slash) = SLASHES.get(ctx, &id)? {
            settle(ctx, slash, false)?;
        }
    }
    Ok(())
}

/// When the next appeal window ends.
pub(super) fn next_final(view: &dyn View) -> Result<Option<Time>, LedgerError> {
    Ok(FINAL_DUE
        .range(view, None, 1)?
        .first()
        .map(|((at, _), _)| *at))
}

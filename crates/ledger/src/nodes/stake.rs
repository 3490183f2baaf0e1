//! Locks on the stake, and its way back to the owner.

use r3mes_types::nodes::{Lock, Node, ObligationId, Unbonding};
use r3mes_types::wire::List;
use r3mes_types::{Address, Amount, Millis, Time};

use super::events;
use super::state::{LEAVER_SINCE, LEAVERS, LOCKS, MAX_DUE, PARAMS, RELEASE_DUE, require, save};
use crate::bank::{self, Module};
use crate::error::LedgerError;
use crate::store::{Context, View};

/// How long a release waits when an obligation or a dispute is still open.
const RETRY: Millis = Millis::seconds(10);
/// Most locks of one node that are looked at before a release; with more open it waits.
const MAX_LOCKS_SEEN: usize = 256;

/// Locks a part of a node's stake until the obligation is settled. Does nothing if it is locked for
/// this obligation already. Gives `false` when the node has too little free stake.
///
/// # Errors
/// [`NodesError::Unknown`](super::NodesError::Unknown).
pub fn lock(
    ctx: &mut Context<'_>,
    address: &Address,
    obligation: ObligationId,
    amount: Amount,
) -> Result<bool, LedgerError> {
    if LOCKS.contains(ctx, &(*address, obligation))? {
        return Ok(true);
    }
    let before = require(ctx, address)?;
    if before.free() < amount {
        return Ok(false);
    }
    let lock = Lock {
        amount,
        since: ctx.now(),
    };
    LOCKS.put(ctx, &(*address, obligation), &lock)?;
    let locked = before.locked.saturating_add(amount);
    let node = Node {
        locked,
        locks: before.locks + 1,
        ..before.clone()
    };
    save(ctx, Some(&before), &node)?;
    Ok(true)
}

/// Ends a lock. Does nothing if there is none.
///
/// # Errors
/// When the state cannot be read.
pub fn unlock(
    ctx: &mut Context<'_>,
    address: &Address,
    obligation: ObligationId,
) -> Result<(), LedgerError> {
    let Some(lock) = LOCKS.get(ctx, &(*address, obligation))? else {
        return Ok(());
    };
    LOCKS.remove(ctx, &(*address, obligation))?;
    let before = require(ctx, address)?;
    let locked = before.locked.saturating_sub(lock.amount);
    let node = Node {
        locked,
        locks: before.locks.saturating_sub(1),
        ..before.clone()
    };
    save(ctx, Some(&before), &node)
}

/// Marks a node as party of a dispute: nothing of its stake is paid out until it is closed.
///
/// # Errors
/// [`NodesError::Unknown`](super::NodesError::Unknown).
pub fn dispute_opened(ctx: &mut Context<'_>, address: &Address) -> Result<(), LedgerError> {
    let before = require(ctx, address)?;
    let node = Node {
        disputes: before.disputes + 1,
        ..before.clone()
    };
    save(ctx, Some(&before), &node)
}

/// Ends what [`dispute_opened`] began.
///
/// # Errors
/// [`NodesError::Unknown`](super::NodesError::Unknown).
pub fn dispute_closed(ctx: &mut Context<'_>, address: &Address) -> Result<(), LedgerError> {
    let before = require(ctx, address)?;
    let node = Node {
        disputes: before.disputes.saturating_sub(1),
        ..before.clone()
    };
    save(ctx, Some(&before), &node)
}

/// Nodes that have begun to take stake back, at most `limit`, those first who have waited longest.
/// Nothing is paid out to them before [`leaver_seen`].
///
/// # Errors
/// When the state cannot be read.
pub fn leavers(view: &dyn View, limit: usize) -> Result<Vec<Address>, LedgerError> {
    let found = LEAVERS.range(view, None, limit)?;
    Ok(found.into_iter().map(|((_, address), _)| address).collect())
}

/// Whether a node is on the list of [`leavers`].
///
/// # Errors
/// When the state cannot be read.
pub fn is_leaver(view: &dyn View, address: &Address) -> Result<bool, LedgerError> {
    LEAVER_SINCE.contains(view, address)
}

/// Takes a node off the list of [`leavers`]: whoever holds its stake back for a second audit has opened
/// a dispute.
///
/// # Errors
/// When the gas is used up.
pub fn leaver_seen(ctx: &mut Context<'_>, address: &Address) -> Result<(), LedgerError> {
    if let Some(height) = LEAVER_SINCE.get(ctx, address)? {
        LEAVERS.remove(ctx, &(height, *address))?;
        LEAVER_SINCE.remove(ctx, address)?;
    }
    Ok(())
}

/// Moves a node that is on the list of [`leavers`] to its end.
///
/// # Errors
/// When the gas is used up.
pub fn leaver_last(ctx: &mut Context<'_>, address: &Address) -> Result<(), LedgerError> {
    if is_leaver(ctx, address)? {
        leaver_seen(ctx, address)?;
        enlist(ctx, address)?;
    }
    Ok(())
}

/// Puts a node on the list of [`leavers`] again if it has begun to take stake back at `since` or later.
///
/// # Errors
/// [`NodesError::Unknown`](super::NodesError::Unknown).
pub fn enlist_leaver(
    ctx: &mut Context<'_>,
    address: &Address,
    since: Time,
) -> Result<(), LedgerError> {
    let node = require(ctx, address)?;
    if node.unbonding.iter().any(|part| part.started_at >= since) {
        enlist(ctx, address)?;
    }
    Ok(())
}

/// Puts a node at the end of the list of [`leavers`]; one that is on it keeps its place.
fn enlist(ctx: &mut Context<'_>, address: &Address) -> Result<(), LedgerError> {
    if is_leaver(ctx, address)? {
        return Ok(());
    }
    let height = ctx.height();
    LEAVERS.put(ctx, &(height, *address), &true)?;
    LEAVER_SINCE.put(ctx, address, &height)
}

/// Adds a part to what is unbonding; when there are too many parts, the newest takes it in.
fn add(node: &mut Node, part: Unbonding) {
    if node.unbonding.push(part).is_ok() {
        return;
    }
    if let Some(newest) = node.unbonding.last_mut() {
        *newest = Unbonding {
            amount: newest.amount.saturating_add(part.amount),
            started_at: part.started_at,
            // Unbonding may have got shorter since the newest began.
            release_at: part.release_at.max(newest.release_at),
        };
    }
}

/// Moves a part of the bonded stake into unbonding. The caller saves the node.
pub(super) fn unbond(
    ctx: &mut Context<'_>,
    node: &mut Node,
    amount: Amount,
) -> Result<(), LedgerError> {
    if amount.is_zero() {
        return Ok(());
    }
    let release_at = ctx.now().after(PARAMS.require(ctx)?.unbonding);
    node.bonded = node.bonded.saturating_sub(amount);
    let part = Unbonding {
        amount,
        started_at: ctx.now(),
        release_at,
    };
    add(node, part);
    RELEASE_DUE.put(ctx, &(release_at, node.address), &true)?;
    enlist(ctx, &node.address)?;
    ctx.emit(events::unbonding(&node.address, amount, release_at));
    Ok(())
}

/// Pays out what is due, up to a number of nodes per block.
pub(super) fn release_due(ctx: &mut Context<'_>) -> Result<(), LedgerError> {
    for ((at, address), _) in RELEASE_DUE.range(ctx, None, MAX_DUE)? {
        if at > ctx.now() {
            break;
        }
        RELEASE_DUE.remove(ctx, &(at, address))?;
        release(ctx, &address)?;
    }
    Ok(())
}

fn release(ctx: &mut Context<'_>, address: &Address) -> Result<(), LedgerError> {
    let before = require(ctx, address)?;
    let now = ctx.now();
    let oldest_lock = oldest_lock(ctx, &before)?;
    let free = before.disputes == 0 && !is_leaver(ctx, address)?;
    let releasable = |part: &Unbonding| {
        free && part.release_at <= now && oldest_lock.is_none_or(|since| since > part.started_at)
    };
    let (paid, kept): (Vec<_>, Vec<_>) = before.unbonding.iter().copied().partition(releasable);
    if kept.iter().any(|part| part.release_at <= now) {
        RELEASE_DUE.put(ctx, &(now.after(RETRY), *address), &true)?;
    }
    if paid.is_empty() {
        return Ok(());
    }
    let unbonding = List::new(kept).expect("no more parts than there were");
    let node = Node {
        unbonding,
        ..before.clone()
    };
    save(ctx, Some(&before), &node)?;
    for part in paid {
        bank::transfer(ctx, Module::Stake, *address, part.amount)?;
        ctx.emit(events::released(address, part.amount));
    }
    Ok(())
}

/// Since when the oldest open lock of a node is there. With too many to look at: since ever.
fn oldest_lock(view: &dyn View, node: &Node) -> Result<Option<Time>, LedgerError> {
    if node.locks == 0 {
        return Ok(None);
    }
    if node.locks as usize > MAX_LOCKS_SEEN {
        return Ok(Some(Time::default()));
    }
    let locks = LOCKS.range_of(view, &node.address, None, MAX_LOCKS_SEEN)?;
    Ok(locks.into_iter().map(|(_, lock)| lock.since).min())
}

/// When the next release is due.
pub(super) fn next_release(view: &dyn View) -> Result<Option<Time>, LedgerError> {
    Ok(RELEASE_DUE
        .range(view, None, 1)?
        .first()
        .map(|((at, _), _)| *at))
}

//! Vesting: a reward is held for a while before it is its owner's to spend.
//!
//! Rewards of one account that would be paid at nearly the same time are paid together: times are rounded
//! up to sixteenths of the vesting time. So an account has at most seventeen parts, however many rounds
//! there are, and each reward is held for the vesting time or up to a sixteenth longer.

use r3mes_types::{Address, Amount, Millis, Time};

use super::events;
use super::state::{PARAMS, VESTING, VESTING_DUE};
use crate::bank::{self, Module};
use crate::block::BlockInput;
use crate::error::LedgerError;
use crate::store::{Context, View};

/// Parts of the vesting time that times are rounded to.
const PARTS: u64 = 16;
/// Most due parts that one block pays.
const MAX_DUE: usize = 64;
/// Most parts of one account that are looked at when it is slashed: more than there can be, unless the
/// vesting time was changed often.
const MAX_SEIZED: usize = 256;

/// Pays a reward out of a module account: at once where nothing vests, otherwise when its time has come.
///
/// # Errors
/// When the account has too little.
pub fn pay(
    ctx: &mut Context<'_>,
    from: Module,
    to: &Address,
    amount: Amount,
) -> Result<(), LedgerError> {
    let vesting = PARAMS.require(ctx)?.vesting;
    if vesting == Millis::default() {
        return bank::transfer(ctx, from, *to, amount);
    }
    bank::transfer(ctx, from, Module::Vesting, amount)?;
    let due = due(ctx.now(), vesting);
    let held = VESTING.get(ctx, &(*to, due))?.unwrap_or(Amount::ZERO);
    VESTING.put(ctx, &(*to, due), &held.saturating_add(amount))?;
    VESTING_DUE.put(ctx, &(due, *to), &true)?;
    ctx.emit(events::vesting(to, amount, due));
    Ok(())
}

/// For how long a reward that is earned now is held at most.
///
/// # Errors
/// When the state cannot be read or the gas is used up.
pub(crate) fn longest(view: &dyn View) -> Result<Millis, LedgerError> {
    let vesting = PARAMS.require(view)?.vesting.millis();
    Ok(Millis::new(vesting.saturating_add(vesting.div_ceil(PARTS))))
}

/// When a reward earned now is paid: after the vesting time, rounded up to a sixteenth of it.
fn due(now: Time, vesting: Millis) -> Time {
    let step = vesting.millis().saturating_mul(1_000_000) / PARTS;
    let end = now.after(vesting).nanos();
    Time::from_nanos(end.div_ceil(step.max(1)).saturating_mul(step.max(1)))
}

/// Takes up to `amount` of what an account has vesting, soonest first, to where slashed coins are held.
/// Gives what was taken.
///
/// # Errors
/// When the state cannot be read or the gas is used up.
pub fn seize(
    ctx: &mut Context<'_>,
    address: &Address,
    amount: Amount,
) -> Result<Amount, LedgerError> {
    let mut left = amount;
    for ((_, due), held) in VESTING.range_of(ctx, address, None, MAX_SEIZED)? {
        if left.is_zero() {
            break;
        }
        let cut = held.min(left);
        left = left.saturating_sub(cut);
        let rest = held.saturating_sub(cut);
        if rest.is_zero() {
            forget(ctx, address, due)?;
        } else {
            VESTING.put(ctx, &(*address, due), &rest)?;
        }
    }
    let taken = amount.saturating_sub(left);
    if !taken.is_zero() {
        bank::transfer(ctx, Module::Vesting, Module::Slashed, taken)?;
    }
    Ok(taken)
}

fn forget(ctx: &mut Context<'_>, address: &Address, due: Time) -> Result<(), LedgerError> {
    VESTING.remove(ctx, &(*address, due))?;
    VESTING_DUE.remove(ctx, &(due, *address))
}

/// Pays what is due, up to a number per block.
///
/// # Errors
/// When the state cannot be read.
pub(crate) fn end_block(ctx: &mut Context<'_>, _: &BlockInput) -> Result<(), LedgerError> {
    for ((due, address), _) in VESTING_DUE.range(ctx, None, MAX_DUE)? {
        if due > ctx.now() {
            break;
        }
        let amount = VESTING.get(ctx, &(address, due))?.unwrap_or(Amount::ZERO);
        forget(ctx, &address, due)?;
        bank::transfer(ctx, Module::Vesting, address, amount)?;
        ctx.emit(events::vested(&address, amount));
    }
    Ok(())
}

/// When the next reward is paid.
///
/// # Errors
/// When the state cannot be read.
pub(crate) fn next_deadline(view: &dyn View) -> Result<Option<Time>, LedgerError> {
    Ok(VESTING_DUE
        .range(view, None, 1)?
        .first()
        .map(|((due, _), _)| *due))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rewards_of_many_rounds_have_few_times_and_none_is_early() {
        let vesting = Millis::seconds(160);
        let begin = 1_700_000_005_000_000_000;
        let mut times = std::collections::BTreeSet::new();
        for second in 0..160 {
            let now = Time::from_nanos(begin + second * 1_000_000_000);
            let due = due(now, vesting);
            assert!(due >= now.after(vesting));
            assert!(due <= now.after(vesting).after(Millis::seconds(10)));
            times.insert(due);
        }
        assert_eq!(times.len(), 17);
    }

    #[test]
    fn the_shortest_and_the_longest_vesting_have_times_too() {
        let now = Time::from_nanos(5);
        assert!(due(now, Millis::new(1)) >= now.after(Millis::new(1)));
        let year = Millis::seconds(365 * 24 * 3600);
        assert!(due(now, year) >= now.after(year));
    }
}

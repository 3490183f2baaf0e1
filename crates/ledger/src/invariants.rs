//! What must hold after every block, whatever nodes and users do.

use r3mes_state::Read;
use r3mes_types::Amount;
use r3mes_types::nodes::SlashStatus;

use crate::bank::{self, BALANCES, Module, SUPPLY};
use crate::error::LedgerError;
use crate::escrow::ESCROWS;
use crate::nodes::{NODES, SLASHES};
use crate::rewards::VESTING;
use crate::store::{Committed, Key, Map};

/// An invariant that does not hold: a mistake in the ledger.
#[derive(Debug, thiserror::Error)]
pub enum Violation {
    /// The state could not be read.
    #[error("the invariants could not be checked")]
    Unreadable(#[source] LedgerError),
    /// Two sums that must be equal are not.
    #[error("{what}: {left} is not {right}")]
    Unequal {
        /// Which sums.
        what: &'static str,
        /// One.
        left: Amount,
        /// The other.
        right: Amount,
    },
}

impl From<LedgerError> for Violation {
    fn from(error: LedgerError) -> Self {
        Self::Unreadable(error)
    }
}

/// Entries read at once.
const PAGE: usize = 1024;

/// Checks that all balances add up to the supply, that the stakes of the nodes add up to what the
/// stake account holds, slashed amounts that are held to what theirs does, rewards that vest to what
/// theirs does, and what is left of escrows to what theirs does. Reads all accounts and nodes: for tests and simulations.
///
/// # Errors
/// [`Violation`] says which sums differ.
pub fn check(state: &dyn Read) -> Result<(), Violation> {
    let view = Committed(state);
    let balances = sum(&view, &BALANCES, |amount| *amount)?;
    let supply = SUPPLY.get(&view)?.unwrap_or_default();
    equal("the balances and the supply", balances, supply)?;

    let stakes = sum(&view, &NODES, |node| {
        let parts = node.unbonding.iter().map(|part| part.amount);
        parts.fold(node.bonded, Amount::saturating_add)
    })?;
    let held = bank::balance(&view, &Module::Stake.address())?;
    equal("the stakes and the stake account", stakes, held)?;

    let slashed = sum(&view, &SLASHES, |slash| match slash.status {
        SlashStatus::Held | SlashStatus::Appealed => slash.amount,
        SlashStatus::Final | SlashStatus::Reverted => Amount::ZERO,
    })?;
    let held = bank::balance(&view, &Module::Slashed.address())?;
    equal("the slashed amounts and their account", slashed, held)?;

    let vesting = sum(&view, &VESTING, |amount| *amount)?;
    let held = bank::balance(&view, &Module::Vesting.address())?;
    equal("the rewards that vest and their account", vesting, held)?;

    let left = sum(&view, &ESCROWS, r3mes_types::escrow::Escrow::left)?;
    let held = bank::balance(&view, &Module::Escrow.address())?;
    equal("what is left of escrows and their account", left, held)
}

fn sum<K: Key, V: r3mes_types::wire::Value>(
    view: &Committed<'_>,
    map: &Map<K, V>,
    amount: impl Fn(&V) -> Amount,
) -> Result<Amount, Violation> {
    let mut total = Amount::ZERO;
    let mut after: Option<K> = None;
    loop {
        let page = map.range(view, after.as_ref(), PAGE)?;
        let whole = page.len() == PAGE;
        for (key, value) in page {
            total = total.saturating_add(amount(&value));
            after = Some(key);
        }
        if !whole {
            return Ok(total);
        }
    }
}

fn equal(what: &'static str, left: Amount, right: Amount) -> Result<(), Violation> {
    if left == right {
        Ok(())
    } else {
        Err(Violation::Unequal { what, left, right })
    }
}

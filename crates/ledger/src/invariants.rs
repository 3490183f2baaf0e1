//! What must hold after every block, whatever nodes and users do.

use std::collections::BTreeMap;

use r3mes_state::{Changes, Read};
use r3mes_types::Amount;
use r3mes_types::nodes::SlashStatus;

use crate::bank::{self, BALANCES, Module, SUPPLY};
use crate::error::{Fault, LedgerError};
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

/// Sums over all accounts, nodes, slashes, rewards that vest and escrows. Whoever has every change of the
/// state can [follow](Totals::follow) it with them, instead of adding everything up after every block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Totals {
    balances: Amount,
    stakes: Amount,
    slashed: Amount,
    vesting: Amount,
    escrows: Amount,
}

impl Totals {
    /// Reads and adds up everything.
    ///
    /// # Errors
    /// [`Violation::Unreadable`] when an entry cannot be read.
    pub fn count(state: &dyn Read) -> Result<Self, Violation> {
        let view = Committed(state);
        Ok(Self {
            balances: sum(&view, &BALANCES, |amount| *amount)?,
            stakes: sum(&view, &NODES, |node| {
                let parts = node.unbonding.iter().map(|part| part.amount);
                parts.fold(node.bonded, Amount::saturating_add)
            })?,
            slashed: sum(&view, &SLASHES, |slash| match slash.status {
                SlashStatus::Held | SlashStatus::Appealed => slash.amount,
                SlashStatus::Final | SlashStatus::Reverted => Amount::ZERO,
            })?,
            vesting: sum(&view, &VESTING, |amount| *amount)?,
            escrows: sum(&view, &ESCROWS, r3mes_types::escrow::Escrow::left)?,
        })
    }

    /// The sums after `changes`, which are about to be written to `before`. Reads only what they replace.
    ///
    /// # Errors
    /// [`Violation::Unreadable`] when an entry cannot be read.
    pub fn follow(&self, before: &dyn Read, changes: &Changes) -> Result<Self, Violation> {
        let (mut replaced, mut written) = (BTreeMap::new(), BTreeMap::new());
        for (key, value) in changes {
            if let Some(old) = before
                .get(key)
                .map_err(|error| LedgerError::from(Fault::Read(error)))?
            {
                replaced.insert(key.clone(), old);
            }
            if let Some(new) = value {
                written.insert(key.clone(), new.clone());
            }
        }
        let (gone, come) = (Self::count(&replaced)?, Self::count(&written)?);
        let moved = |sum: fn(&Self) -> Amount| {
            let all = sum(self).saturating_add(sum(&come));
            all.saturating_sub(sum(&gone))
        };
        Ok(Self {
            balances: moved(|sums| sums.balances),
            stakes: moved(|sums| sums.stakes),
            slashed: moved(|sums| sums.slashed),
            vesting: moved(|sums| sums.vesting),
            escrows: moved(|sums| sums.escrows),
        })
    }

    /// Checks these sums of a state against its supply and its module accounts.
    ///
    /// # Errors
    /// [`Violation`] says which sums differ.
    pub fn check(&self, state: &dyn Read) -> Result<(), Violation> {
        let view = Committed(state);
        let supply = SUPPLY.get(&view)?.unwrap_or_default();
        equal("the balances and the supply", self.balances, supply)?;
        let modules = [
            (
                "the stakes and the stake account",
                self.stakes,
                Module::Stake,
            ),
            (
                "the slashed amounts and their account",
                self.slashed,
                Module::Slashed,
            ),
            (
                "the rewards that vest and their account",
                self.vesting,
                Module::Vesting,
            ),
            (
                "what is left of escrows and their account",
                self.escrows,
                Module::Escrow,
            ),
        ];
        for (what, sum, module) in modules {
            equal(what, sum, bank::balance(&view, &module.address())?)?;
        }
        Ok(())
    }
}

/// Checks that all balances add up to the supply, that the stakes of the nodes add up to what the
/// stake account holds, slashed amounts that are held to what theirs does, rewards that vest to what
/// theirs does, and what is left of escrows to what theirs does. Reads all accounts and nodes: for tests and simulations.
///
/// # Errors
/// [`Violation`] says which sums differ.
pub fn check(state: &dyn Read) -> Result<(), Violation> {
    Totals::count(state)?.check(state)
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

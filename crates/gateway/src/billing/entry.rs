//! One escrow of a gateway: what it has left, and what each provider has earned out of it.

use std::collections::BTreeMap;

use r3mes_types::{
    Address, Amount, Time,
    escrow::{Escrow, MAX_PAYEES, Total},
};

use super::refusal::RefusedCharge;

/// An escrow, open or not: what was earned out of it is forgotten at its end, and not because an answer
/// left it out.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) escrow: Escrow,
    /// Whether it was in the newest answer of the ledger.
    pub(super) listed: bool,
    /// What each payee has earned since it was opened.
    pub(super) earned: BTreeMap<Address, Amount>,
    /// Prices of calls that run.
    pub(super) reserved: BTreeMap<Address, Amount>,
    /// Present while the ledger refuses to have it charged.
    pub(super) refused: Option<RefusedCharge>,
}

impl Entry {
    /// What is neither earned nor set aside.
    pub(super) fn left(&self) -> Amount {
        let taken = self.earned.values().chain(self.reserved.values()).copied();
        let taken = taken.fold(Amount::ZERO, Amount::saturating_add);
        self.escrow.deposit.saturating_sub(taken)
    }

    /// Whether it may be charged now, as far as earlier refusals go.
    pub(super) fn is_due(&self, now: Time) -> bool {
        self.refused
            .as_ref()
            .is_none_or(|refused| refused.is_due(now))
    }

    /// Whether calls that end by then can be paid out of it, if it has enough left.
    pub(super) fn pays_until(&self, until: Time) -> bool {
        self.escrow.voucher_key.is_none() && self.escrow.expires_at > until && !self.is_given_up()
    }

    /// Whether the ledger never pays what it owes.
    pub(super) fn is_given_up(&self) -> bool {
        self.refused
            .as_ref()
            .is_some_and(|refused| refused.is_final())
    }

    /// Whether a record has room for this payee beside those who have earned, or may yet.
    pub(super) fn has_room_for(&self, payee: &Address) -> bool {
        let is_new = |of: &Address| !self.earned.contains_key(of);
        let awaited = self.reserved.keys().filter(|other| is_new(other)).count();
        !is_new(payee)
            || self.reserved.contains_key(payee)
            || self.earned.len() + awaited < MAX_PAYEES
    }

    /// Ends what was set aside for a call.
    pub(super) fn free(&mut self, payee: &Address, amount: Amount) {
        if let Some(reserved) = self.reserved.get_mut(payee) {
            *reserved = reserved.saturating_sub(amount);
            if reserved.is_zero() {
                self.reserved.remove(payee);
            }
        }
    }

    /// What has been earned and not been paid yet.
    pub(super) fn owed(&self) -> impl Iterator<Item = Total> {
        let earned = self.earned.iter();
        earned
            .filter(|(payee, amount)| **amount > self.escrow.paid_to(payee))
            .map(|(payee, amount)| Total {
                payee: *payee,
                amount: *amount,
            })
    }

    /// The sum that a charge would move now.
    pub(super) fn owed_in_all(&self) -> Amount {
        let sums = self.owed();
        let sums = sums.map(|owed| owed.amount.saturating_sub(self.escrow.paid_to(&owed.payee)));
        sums.fold(Amount::ZERO, Amount::saturating_add)
    }
}

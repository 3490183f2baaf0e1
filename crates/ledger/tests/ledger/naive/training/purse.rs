//! Coins: what everybody has to spend, what vests, the treasury, and what may still be issued.

use std::collections::BTreeMap;

use r3mes_types::Address;

#[derive(Debug)]
pub(super) struct Purse {
    pub(super) balances: BTreeMap<Address, u64>,
    /// What is held of pay, by owner and by when it is paid out.
    pub(super) vesting: BTreeMap<Address, BTreeMap<u64, u64>>,
    /// For how long pay is held.
    pub(super) vests_for: u64,
    pub(super) treasury: u64,
    pub(super) supply: u64,
    pub(super) max_supply: u64,
}

impl Purse {
    pub(super) fn new(balances: BTreeMap<Address, u64>, supply: u64, max_supply: u64) -> Self {
        let vesting = balances.keys().map(|who| (*who, BTreeMap::new()));
        Self {
            vesting: vesting.collect(),
            balances,
            vests_for: 0,
            treasury: 0,
            supply,
            max_supply,
        }
    }

    /// Takes the fee of a message.
    pub(super) fn charge(&mut self, who: &Address, fee: u64) {
        assert!(self.spend(who, fee), "{who} can pay its fees");
        self.treasury += fee;
    }

    /// Takes so much, if it is there.
    pub(super) fn spend(&mut self, who: &Address, amount: u64) -> bool {
        let balance = self.balances.get_mut(who).unwrap();
        let enough = *balance >= amount;
        *balance -= if enough { amount } else { 0 };
        enough
    }

    /// Issues up to so much.
    pub(super) fn issue(&mut self, amount: u64) -> u64 {
        let issued = amount.min(self.max_supply.saturating_sub(self.supply));
        self.supply += issued;
        issued
    }

    /// Pays for work: held for the whole time, and on to the next sixteenth of it.
    pub(super) fn pay(&mut self, who: &Address, amount: u64, now: u64) {
        if amount == 0 {
            return;
        }
        if self.vests_for == 0 {
            *self.balances.get_mut(who).unwrap() += amount;
            return;
        }
        let sixteenth = self.vests_for / 16;
        let due = (now + self.vests_for).div_ceil(sixteenth) * sixteenth;
        let held = self.vesting.get_mut(who).unwrap();
        *held.entry(due).or_default() += amount;
    }

    pub(super) fn end_block(&mut self, now: u64) {
        for (who, parts) in &mut self.vesting {
            let later = parts.split_off(&(now + 1));
            let due = std::mem::replace(parts, later);
            *self.balances.get_mut(who).unwrap() += due.values().sum::<u64>();
        }
    }
}

//! What is issued, what vests, what is slashed and appealed, and trust: the model.

use std::collections::BTreeMap;

use r3mes_ledger::rewards::Deed;
use r3mes_types::Role;
use r3mes_types::nodes::SlashStatus;

use super::{APPEALS, NODES, STAKE, Step};
use crate::chain::{FEE, START};
use crate::naive::accounts::model::Naive as Accounts;
use crate::naive::accounts::steps::Step as AccountStep;

const MILLI: u64 = 1_000_000;

/// A slash; numbered from 1.
#[derive(Clone, Debug)]
pub(super) struct Slash {
    node: u8,
    pub(super) amount: u64,
    pub(super) status: SlashStatus,
    /// In nanoseconds, like all times here.
    ends: u64,
    statement: u8,
}

/// What a node has done: kept, missed, broken, and the trust that follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::naive) struct Record {
    pub(in crate::naive) counts: [u64; 3],
    pub(in crate::naive) trust: u32,
}

impl Record {
    /// Unproven, then from a quarter, a half and nine tenths of the most.
    pub(in crate::naive) fn tier(&self) -> u32 {
        match self.trust {
            0..250 => 0,
            250..500 => 1,
            500..900 => 2,
            _ => 3,
        }
    }

    /// A twentieth of what is missing is gained, a tenth of what there is lost, each rounded up;
    /// a falsehood loses everything.
    pub(in crate::naive) fn note(&mut self, deed: Deed) {
        let trust = self.trust;
        let (count, trust) = match deed {
            Deed::Kept => (0, trust + (1_000 - trust).div_ceil(20)),
            Deed::Missed => (1, trust - trust.div_ceil(10)),
            Deed::Broken => (2, 0),
        };
        self.counts[count] += 1;
        self.trust = trust;
    }
}

pub(super) struct Naive {
    /// The time of the last block.
    pub(super) now: u64,
    pub(super) accounts: Accounts,
    pub(super) supply: u64,
    pub(super) max_supply: u64,
    /// In milliseconds.
    pub(super) vesting: u64,
    /// Issued, and not paid yet.
    pub(super) issued: u64,
    /// By owner, and by when it is paid.
    pub(super) held: BTreeMap<u8, BTreeMap<u64, u64>>,
    pub(super) slashes: Vec<Slash>,
    pub(super) records: BTreeMap<u8, Record>,
}

impl Naive {
    pub(super) fn new(now: u64, supply: u64, max_supply: u64, vesting: u64) -> Self {
        let mut accounts = Accounts::new();
        accounts.balances.insert(0, START.uremes());
        for who in NODES {
            assert!(accounts.register(who, Role::Miner, STAKE.uremes()));
        }
        Self {
            now,
            accounts,
            supply,
            max_supply,
            vesting,
            issued: 0,
            held: BTreeMap::new(),
            slashes: Vec::new(),
            records: BTreeMap::new(),
        }
    }

    /// Slashed coins that may still go back.
    pub(super) fn held_slashes(&self) -> u64 {
        let open =
            |slash: &&Slash| matches!(slash.status, SlashStatus::Held | SlashStatus::Appealed);
        self.slashes
            .iter()
            .filter(open)
            .map(|slash| slash.amount)
            .sum()
    }

    pub(super) fn charge(&mut self, who: u8) {
        assert!(self.accounts.charge(who, FEE.uremes()));
    }

    /// Whether the step succeeds.
    pub(super) fn apply(&mut self, step: Step) -> bool {
        match step {
            Step::Issue { amount } => {
                // As far as the supply may grow.
                let amount = amount.min(self.max_supply.saturating_sub(self.supply));
                self.supply += amount;
                self.issued += amount;
                true
            }
            Step::Pay { who, amount } => self.pay(who, amount),
            Step::Slash { who, amount } => self.slash(who, amount),
            Step::Appeal {
                who,
                slash,
                statement,
            } => self.appeal(who, slash, statement),
            Step::Decide { slash, revert } => self.decide(slash, revert),
            Step::Note { who, deed } => {
                self.records.entry(who).or_default().note(deed);
                true
            }
            Step::Params {
                max_supply,
                vesting,
            } => {
                self.max_supply = max_supply;
                self.vesting = vesting;
                true
            }
            Step::Leave { who } => self.accounts.apply(AccountStep::Leave { who }),
            Step::Wait { .. } => true,
        }
    }

    fn pay(&mut self, who: u8, amount: u64) -> bool {
        if self.issued < amount {
            return false;
        }
        self.issued -= amount;
        if self.vesting == 0 {
            *self.accounts.balances.get_mut(&who).unwrap() += amount;
            return true;
        }
        // Held for the whole time, and on to the next sixteenth of it.
        let sixteenth = self.vesting * MILLI / 16;
        let over = self.now + self.vesting * MILLI;
        let due = over.div_ceil(sixteenth) * sixteenth;
        *self.held.entry(who).or_default().entry(due).or_default() += amount;
        true
    }

    /// From the stake first, then from what vests, soonest first.
    fn slash(&mut self, who: u8, amount: u64) -> bool {
        let Some(mut taken) = self.accounts.take_stake(who, amount) else {
            return false;
        };
        let held = self.held.entry(who).or_default();
        for part in held.values_mut() {
            let cut = (amount - taken).min(*part);
            *part -= cut;
            taken += cut;
        }
        held.retain(|_, part| *part > 0);
        if taken > 0 {
            self.slashes.push(Slash {
                node: who,
                amount: taken,
                status: SlashStatus::Held,
                ends: self.now + APPEALS.millis() * MILLI,
                statement: 0,
            });
            self.accounts.jail_if_poor(who);
        }
        true
    }

    fn find(&mut self, slash: u64) -> Option<&mut Slash> {
        self.slashes.get_mut(slash.checked_sub(1)? as usize)
    }

    fn appeal(&mut self, who: u8, slash: u64, statement: u8) -> bool {
        let Some(slash) = self.find(slash).filter(|slash| slash.node == who) else {
            return false;
        };
        if slash.status == SlashStatus::Held {
            slash.status = SlashStatus::Appealed;
            slash.statement = statement;
        }
        // The same appeal again does nothing.
        slash.status == SlashStatus::Appealed && slash.statement == statement
    }

    fn decide(&mut self, slash: u64, revert: bool) -> bool {
        let appealed = |slash: &&mut Slash| slash.status == SlashStatus::Appealed;
        let Some(slash) = self.find(slash).filter(appealed) else {
            return false;
        };
        let (node, amount) = (slash.node, slash.amount);
        if revert {
            slash.status = SlashStatus::Reverted;
            *self.accounts.balances.get_mut(&node).unwrap() += amount;
        } else {
            slash.status = SlashStatus::Final;
            self.accounts.treasury += amount;
        }
        true
    }

    pub(super) fn end_block(&mut self) {
        self.accounts.end_block();
        for slash in &mut self.slashes {
            if slash.status == SlashStatus::Held && slash.ends <= self.now {
                slash.status = SlashStatus::Final;
                self.accounts.treasury += slash.amount;
            }
        }
        for (who, parts) in &mut self.held {
            let later = parts.split_off(&(self.now + 1));
            let due: u64 = parts.values().sum();
            *parts = later;
            *self.accounts.balances.get_mut(who).unwrap() += due;
        }
    }
}

//! Nodes with what stands behind their work: stake, locks, jail, slashes.

use std::collections::{BTreeMap, BTreeSet};

use r3mes_types::nodes::{NodeStatus, SlashStatus};
use r3mes_types::{Address, Role};

use super::purse::Purse;

/// All times here are block times in nanoseconds, all amounts in uremes.
pub(super) const SECOND: u64 = 1_000_000_000;
/// How long a payment waits that was due while something held it.
const RETRY: u64 = 10 * SECOND;
/// The shortest time to appeal in.
const SHORTEST: u64 = 8 * SECOND;

/// What a lock stands behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Work {
    /// A role in a round.
    Round(u32, Role),
    /// A seat in the second audit of a miner's package of a round.
    Second(u32, Address),
}

/// Stake on its way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) amount: u64,
    pub(super) since: u64,
    until: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Node {
    roles: Vec<Role>,
    /// The stake that it has said last that it has.
    declared: u64,
    pub(super) bonded: u64,
    pub(super) unbonding: Vec<Part>,
    pub(super) status: NodeStatus,
    jailed_until: u64,
    /// How much, since when.
    pub(super) locks: BTreeMap<Work, (u64, u64)>,
    /// When what is due is looked at.
    attempts: BTreeSet<u64>,
}

impl Node {
    pub(super) fn new(roles: &[Role], bonded: u64) -> Self {
        Self {
            roles: roles.to_vec(),
            declared: bonded,
            bonded,
            unbonding: Vec::new(),
            status: NodeStatus::Active,
            jailed_until: 0,
            locks: BTreeMap::new(),
            attempts: BTreeSet::new(),
        }
    }

    pub(super) fn locked(&self) -> u64 {
        self.locks.values().map(|(amount, _)| amount).sum()
    }

    pub(super) fn free(&self) -> u64 {
        self.bonded.saturating_sub(self.locked())
    }

    pub(super) fn takes_part(&self, role: Role) -> bool {
        self.status == NodeStatus::Active && self.roles.contains(&role)
    }

    fn minimum(&self) -> u64 {
        let least = |role: &Role| match role {
            Role::Miner | Role::Serving => 1_000_000,
            Role::Proposer => 50_000_000,
            Role::Validator => 100_000_000,
        };
        self.roles.iter().map(least).max().unwrap_or(0)
    }

    fn unbond(&mut self, amount: u64, since: u64, until: u64) {
        if amount > 0 {
            self.bonded -= amount;
            self.unbonding.push(Part {
                amount,
                since,
                until,
            });
            self.attempts.insert(until);
        }
    }
}

/// What was taken from a node; numbered from 1.
#[derive(Clone, Debug)]
pub(super) struct Slash {
    node: Address,
    pub(super) amount: u64,
    ends: u64,
    pub(super) status: SlashStatus,
}

/// How long things take; an authority changes it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) unbonding: u64,
    pub(super) appeals: u64,
    pub(super) jail: u64,
}

impl Times {
    pub(super) const FIRST: Self = Self {
        unbonding: 60 * SECOND,
        appeals: 30 * SECOND,
        jail: 30 * SECOND,
    };
}

/// Everybody's stake and coins.
#[derive(Debug)]
pub(super) struct Stakes {
    pub(super) now: u64,
    pub(super) times: Times,
    pub(super) nodes: BTreeMap<Address, Node>,
    pub(super) purse: Purse,
    pub(super) slashes: Vec<Slash>,
}

impl Stakes {
    pub(super) fn new(purse: Purse) -> Self {
        Self {
            now: 0,
            times: Times::FIRST,
            nodes: BTreeMap::new(),
            purse,
            slashes: Vec::new(),
        }
    }

    /// What is held for appeals.
    pub(super) fn held_slashes(&self) -> u64 {
        let open =
            |slash: &&Slash| matches!(slash.status, SlashStatus::Held | SlashStatus::Appealed);
        let open = self.slashes.iter().filter(open);
        open.map(|slash| slash.amount).sum()
    }

    fn node(&mut self, who: &Address) -> &mut Node {
        self.nodes.get_mut(who).unwrap()
    }

    /// Whether the message succeeds.
    pub(super) fn leave(&mut self, who: &Address) -> bool {
        let (now, until) = (self.now, self.now + self.times.unbonding);
        let node = self.node(who);
        node.status = NodeStatus::Left;
        node.unbond(node.bonded, now, until);
        true
    }

    /// A node that left comes back with so much; whether the message succeeds.
    pub(super) fn come_back(&mut self, who: &Address, stake: u64) -> bool {
        let now = self.now;
        let node = self.nodes.get_mut(who).unwrap();
        if node.status != NodeStatus::Left {
            // It says what it has said before, or something else.
            return node.declared == stake;
        }
        if now < node.jailed_until || !self.purse.spend(who, stake) {
            return false;
        }
        node.status = NodeStatus::Active;
        (node.declared, node.bonded) = (stake, stake);
        node.jailed_until = 0;
        true
    }

    /// A node declares another stake; whether the message succeeds.
    pub(super) fn declare(&mut self, who: &Address, stake: u64) -> bool {
        let (now, until) = (self.now, self.now + self.times.unbonding);
        let node = self.nodes.get_mut(who).unwrap();
        if node.status == NodeStatus::Left {
            return false;
        }
        if node.declared == stake && node.bonded == stake {
            return true;
        }
        let more = stake.saturating_sub(node.bonded);
        if stake < node.minimum() || !self.purse.spend(who, more) {
            return false;
        }
        node.declared = stake;
        node.bonded += more;
        node.unbond(node.bonded - stake, now, until);
        true
    }

    /// Whether the message succeeds.
    pub(super) fn unjail(&mut self, who: &Address) -> bool {
        let now = self.now;
        let node = self.node(who);
        if node.status == NodeStatus::Jailed
            && node.jailed_until <= now
            && node.bonded >= node.minimum()
        {
            node.status = NodeStatus::Active;
        }
        node.status == NodeStatus::Active
    }

    /// Whether the times can be these.
    pub(super) fn change(&mut self, times: Times) -> bool {
        let good = times.appeals >= SHORTEST && times.unbonding >= times.appeals;
        if good {
            self.times = times;
        }
        good
    }

    pub(super) fn lock(&mut self, who: &Address, work: Work, amount: u64) {
        let now = self.now;
        let node = self.node(who);
        assert!(node.free() >= amount, "{work:?} of {who} needs {amount}");
        node.locks.insert(work, (amount, now));
    }

    pub(super) fn unlock(&mut self, who: &Address, work: Work) {
        self.node(who).locks.remove(&work);
    }

    /// Takes what stood behind a piece of work; gives what was taken.
    pub(super) fn forfeit(&mut self, who: &Address, work: Work, amount: u64) -> u64 {
        self.unlock(who, work);
        self.slash(who, amount)
    }

    /// Takes from the stake, then from what unbonds, then from what vests, and jails; gives what was
    /// taken.
    pub(super) fn slash(&mut self, who: &Address, amount: u64) -> u64 {
        let now = self.now;
        let ends = now + self.times.appeals;
        let jailed_until = now + self.times.jail;
        let node = self.nodes.get_mut(who).unwrap();
        let mut left = amount;
        let parts = node.unbonding.iter_mut().map(|part| &mut part.amount);
        let vesting = self.purse.vesting.get_mut(who).unwrap();
        let all = std::iter::once(&mut node.bonded)
            .chain(parts)
            .chain(vesting.values_mut());
        for part in all {
            let cut = left.min(*part);
            *part -= cut;
            left -= cut;
        }
        node.unbonding.retain(|part| part.amount > 0);
        vesting.retain(|_, amount| *amount > 0);
        if node.status != NodeStatus::Left {
            node.status = NodeStatus::Jailed;
            node.jailed_until = jailed_until;
        }
        let taken = amount - left;
        if taken > 0 {
            self.slashes.push(Slash {
                node: *who,
                amount: taken,
                ends,
                status: SlashStatus::Held,
            });
        }
        taken
    }

    /// Whether the message succeeds; everybody says the same.
    pub(super) fn appeal(&mut self, who: &Address, number: usize) -> bool {
        let Some(slash) = self.slashes.get_mut(number - 1) else {
            return false;
        };
        let open = matches!(slash.status, SlashStatus::Held | SlashStatus::Appealed);
        let good = slash.node == *who && open;
        if good {
            slash.status = SlashStatus::Appealed;
        }
        good
    }

    /// Whether there is an appeal to decide on.
    pub(super) fn decide(&mut self, number: usize, revert: bool) -> bool {
        let appealed = |slash: &&mut Slash| slash.status == SlashStatus::Appealed;
        let Some(slash) = self.slashes.get_mut(number - 1).filter(appealed) else {
            return false;
        };
        if revert {
            slash.status = SlashStatus::Reverted;
            *self.purse.balances.get_mut(&slash.node).unwrap() += slash.amount;
        } else {
            slash.status = SlashStatus::Final;
            self.purse.treasury += slash.amount;
        }
        true
    }

    /// Pays what is due: nothing to whom `is_held`, and nothing while a lock is open that was when the
    /// stake was taken back.
    pub(super) fn end_block(&mut self, is_held: impl Fn(&Address) -> bool) {
        let now = self.now;
        for (who, node) in &mut self.nodes {
            let later = node.attempts.split_off(&(now + 1));
            let due = !std::mem::replace(&mut node.attempts, later).is_empty();
            if !due {
                continue;
            }
            let oldest = node.locks.values().map(|(_, since)| *since).min();
            let is_paid = |part: &Part| {
                let held = is_held(who) || oldest.is_some_and(|since| since <= part.since);
                part.until <= now && !held
            };
            let (paid, kept): (Vec<Part>, Vec<Part>) =
                node.unbonding.iter().partition(|part| is_paid(part));
            if kept.iter().any(|part| part.until <= now) {
                node.attempts.insert(now + RETRY);
            }
            node.unbonding = kept;
            let paid: u64 = paid.iter().map(|part| part.amount).sum();
            *self.purse.balances.get_mut(who).unwrap() += paid;
        }
        for slash in &mut self.slashes {
            if slash.status == SlashStatus::Held && slash.ends <= now {
                slash.status = SlashStatus::Final;
                self.purse.treasury += slash.amount;
            }
        }
        self.purse.end_block(now);
    }
}

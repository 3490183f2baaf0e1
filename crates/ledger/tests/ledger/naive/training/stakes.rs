//! Nodes with what stands behind their work: stake, locks, jail, slashes; and what they have.

use std::collections::{BTreeMap, BTreeSet};

use r3mes_types::nodes::NodeStatus;
use r3mes_types::{Address, Role};

/// All times here are in milliseconds from genesis, all amounts in uremes.
pub(super) const SECOND: u64 = 1_000;
const UNBONDING: u64 = 60 * SECOND;
const JAIL: u64 = 30 * SECOND;
const APPEALS: u64 = 30 * SECOND;
/// How long a payment waits that was due while a lock held it.
const RETRY: u64 = 10 * SECOND;

/// Stake on its way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) amount: u64,
    since: u64,
    until: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Node {
    roles: Vec<Role>,
    pub(super) bonded: u64,
    pub(super) unbonding: Vec<Part>,
    pub(super) status: NodeStatus,
    jailed_until: u64,
    /// By round and role: how much, since when.
    pub(super) locks: BTreeMap<(u32, Role), (u64, u64)>,
    /// When what is due is looked at.
    attempts: BTreeSet<u64>,
}

impl Node {
    pub(super) fn new(roles: &[Role], bonded: u64) -> Self {
        Self {
            roles: roles.to_vec(),
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
}

/// Everybody's stake and coins.
#[derive(Debug, Default)]
pub(super) struct Stakes {
    pub(super) now: u64,
    pub(super) nodes: BTreeMap<Address, Node>,
    pub(super) balances: BTreeMap<Address, u64>,
    pub(super) treasury: u64,
    /// What was slashed, and until when it is held for appeals.
    slashed: Vec<(u64, u64)>,
}

impl Stakes {
    pub(super) fn slashed(&self) -> u64 {
        self.slashed.iter().map(|(amount, _)| amount).sum()
    }

    /// Takes the fee of a message.
    pub(super) fn charge(&mut self, who: &Address, fee: u64) {
        *self.balances.get_mut(who).unwrap() -= fee;
        self.treasury += fee;
    }

    pub(super) fn pay(&mut self, who: &Address, amount: u64) {
        *self.balances.get_mut(who).unwrap() += amount;
    }

    fn node(&mut self, who: &Address) -> &mut Node {
        self.nodes.get_mut(who).unwrap()
    }

    /// Whether the message succeeds.
    pub(super) fn leave(&mut self, who: &Address) -> bool {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(who) else {
            return false;
        };
        if node.status != NodeStatus::Left {
            node.status = NodeStatus::Left;
            let amount = std::mem::take(&mut node.bonded);
            if amount > 0 {
                let (since, until) = (now, now + UNBONDING);
                node.unbonding.push(Part {
                    amount,
                    since,
                    until,
                });
                node.attempts.insert(until);
            }
        }
        true
    }

    /// Whether the message succeeds.
    pub(super) fn unjail(&mut self, who: &Address) -> bool {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(who) else {
            return false;
        };
        if node.status == NodeStatus::Jailed
            && node.jailed_until <= now
            && node.bonded >= node.minimum()
        {
            node.status = NodeStatus::Active;
        }
        node.status == NodeStatus::Active
    }

    pub(super) fn lock(&mut self, who: &Address, round: u32, role: Role, amount: u64) {
        let now = self.now;
        let node = self.node(who);
        assert!(
            node.free() >= amount,
            "members have the stake that they are asked for"
        );
        node.locks.insert((round, role), (amount, now));
    }

    pub(super) fn unlock(&mut self, who: &Address, round: u32, role: Role) {
        self.node(who).locks.remove(&(round, role));
    }

    /// Takes what stood behind a piece of work, from the stake and then from what unbonds, and jails;
    /// gives what was taken.
    pub(super) fn forfeit(&mut self, who: &Address, round: u32, role: Role, amount: u64) -> u64 {
        self.unlock(who, round, role);
        let now = self.now;
        let node = self.node(who);
        let mut left = amount;
        let parts = node.unbonding.iter_mut().map(|part| &mut part.amount);
        for part in std::iter::once(&mut node.bonded).chain(parts) {
            let cut = left.min(*part);
            *part -= cut;
            left -= cut;
        }
        node.unbonding.retain(|part| part.amount > 0);
        if node.status != NodeStatus::Left {
            node.status = NodeStatus::Jailed;
            node.jailed_until = now + JAIL;
        }
        let taken = amount - left;
        if taken > 0 {
            self.slashed.push((taken, now + APPEALS));
        }
        taken
    }

    /// Pays what is due: not while a lock is open that was when the stake was taken back.
    pub(super) fn end_block(&mut self) {
        let now = self.now;
        for (who, node) in &mut self.nodes {
            let later = node.attempts.split_off(&(now + 1));
            let due = !std::mem::replace(&mut node.attempts, later).is_empty();
            if !due {
                continue;
            }
            let oldest = node.locks.values().map(|(_, since)| *since).min();
            let is_held = |part: &Part| oldest.is_some_and(|since| since <= part.since);
            let (over, running): (Vec<Part>, Vec<Part>) =
                node.unbonding.iter().partition(|part| part.until <= now);
            let (held, paid): (Vec<Part>, Vec<Part>) = over.into_iter().partition(is_held);
            if !held.is_empty() {
                node.attempts.insert(now + RETRY);
            }
            node.unbonding = held.into_iter().chain(running).collect();
            let paid: u64 = paid.iter().map(|part| part.amount).sum();
            *self.balances.get_mut(who).unwrap() += paid;
        }
        let (over, held): (Vec<_>, Vec<_>) = std::mem::take(&mut self.slashed)
            .into_iter()
            .partition(|(_, until)| *until <= now);
        self.slashed = held;
        self.treasury += over.iter().map(|(amount, _)| amount).sum::<u64>();
    }
}

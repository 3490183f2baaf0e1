//! Nodes and their stake, in the model.

use r3mes_types::Role;
use r3mes_types::nodes::NodeStatus;

use super::model::Naive;
use super::{JAIL, UNBONDING};

#[derive(Clone, Debug)]
pub(in crate::naive) struct NaiveNode {
    pub(in crate::naive) role: Role,
    pub(in crate::naive) declared: u64,
    pub(in crate::naive) bonded: u64,
    pub(in crate::naive) unbonding: Vec<(u64, u64)>,
    pub(in crate::naive) status: NodeStatus,
    pub(in crate::naive) jailed_until: u64,
}

pub(in crate::naive) fn minimum(role: Role) -> u64 {
    match role {
        Role::Miner | Role::Serving => 1_000_000,
        Role::Proposer => 50_000_000,
        Role::Validator => 100_000_000,
    }
}

impl Naive {
    pub(in crate::naive) fn register(&mut self, who: u8, role: Role, stake: u64) -> bool {
        if let Some(node) = self.nodes.get(&who)
            && node.status != NodeStatus::Left
        {
            return node.role == role && node.declared == stake;
        }
        let unbonding = self
            .nodes
            .get(&who)
            .map_or(Vec::new(), |node| node.unbonding.clone());
        let jailed_until = self.nodes.get(&who).map_or(0, |node| node.jailed_until);
        if stake < minimum(role) || jailed_until > self.now || !self.take(who, stake) {
            return false;
        }
        let status = NodeStatus::Active;
        let node = NaiveNode {
            role,
            declared: stake,
            bonded: stake,
            unbonding,
            status,
            jailed_until,
        };
        self.nodes.insert(who, node);
        true
    }

    pub(in crate::naive) fn update(&mut self, who: u8, role: Role, stake: u64) -> bool {
        let Some(node) = self.nodes.get(&who).cloned() else {
            return false;
        };
        if node.status == NodeStatus::Left {
            return false;
        }
        if node.role == role && node.declared == stake && node.bonded == stake {
            return true;
        }
        if stake < minimum(role) {
            return false;
        }
        let mut new = NaiveNode {
            role,
            declared: stake,
            ..node.clone()
        };
        if stake >= node.bonded {
            if !self.take(who, stake - node.bonded) {
                return false;
            }
            new.bonded = stake;
        } else {
            new.unbond(node.bonded - stake, self.now);
        }
        self.nodes.insert(who, new);
        true
    }

    /// Takes from the stake of a node; gives how much.
    pub(in crate::naive) fn take_stake(&mut self, who: u8, amount: u64) -> Option<u64> {
        let node = self.nodes.get_mut(&who)?;
        let mut left = amount;
        let parts = std::iter::once(&mut node.bonded)
            .chain(node.unbonding.iter_mut().map(|(amount, _)| amount));
        for part in parts {
            let cut = left.min(*part);
            *part -= cut;
            left -= cut;
        }
        node.unbonding.retain(|(amount, _)| *amount > 0);
        Some(amount - left)
    }

    /// Jails a node whose stake does not do any more.
    pub(in crate::naive) fn jail_if_poor(&mut self, who: u8) {
        let now = self.now;
        let node = self.nodes.get_mut(&who).unwrap();
        if node.status == NodeStatus::Active && node.bonded < minimum(node.role) {
            node.jail(now);
        }
    }

    pub(in crate::naive) fn slash(&mut self, who: u8, amount: u64) -> bool {
        let Some(taken) = self.take_stake(who, amount) else {
            return false;
        };
        self.treasury += taken;
        if taken > 0 {
            self.jail_if_poor(who);
        }
        true
    }

    pub(in crate::naive) fn end_block(&mut self) {
        for (who, node) in &mut self.nodes {
            let now = self.now;
            let due = |(_, release): &(u64, u64)| *release <= now;
            let paid: u64 = node
                .unbonding
                .iter()
                .filter(|part| due(part))
                .map(|part| part.0)
                .sum();
            node.unbonding.retain(|part| !due(part));
            *self.balances.get_mut(who).unwrap() += paid;
        }
    }
}

impl NaiveNode {
    pub(in crate::naive) fn unbond(&mut self, amount: u64, now: u64) {
        self.bonded -= amount;
        let full = self.unbonding.len() == 16;
        match self.unbonding.last_mut() {
            _ if amount == 0 => {}
            Some(newest) if full => *newest = (newest.0 + amount, now + UNBONDING),
            _ => self.unbonding.push((amount, now + UNBONDING)),
        }
    }

    pub(in crate::naive) fn jail(&mut self, now: u64) {
        if self.status != NodeStatus::Left {
            self.status = NodeStatus::Jailed;
            self.jailed_until = now + JAIL;
        }
    }
}

//! Balances, sequences and grants, in the model.

use std::collections::BTreeMap;

use r3mes_types::nodes::NodeStatus;

use super::ACCOUNTS;
use super::nodes::{NaiveNode, minimum};
use super::steps::{Envelope, Step};
use crate::chain::{FEE, START};

#[derive(Default)]
pub(in crate::naive) struct Naive {
    pub(in crate::naive) now: u64,
    pub(in crate::naive) balances: BTreeMap<u8, u64>,
    /// Fees and what was slashed.
    pub(in crate::naive) treasury: u64,
    pub(in crate::naive) sequences: BTreeMap<u8, u64>,
    /// By granter and grantee: which types, and until when.
    pub(in crate::naive) grants: BTreeMap<(u8, u8), (u8, u64)>,
    /// By granter and grantee: how much is left, and until when.
    pub(in crate::naive) fee_grants: BTreeMap<(u8, u8), (u64, u64)>,
    pub(in crate::naive) nodes: BTreeMap<u8, NaiveNode>,
}

impl Naive {
    pub(in crate::naive) fn new() -> Self {
        let balances = (1..=ACCOUNTS).map(|who| (who, START.uremes())).collect();
        let sequences = (1..=ACCOUNTS).map(|who| (who, 0)).collect();
        Self {
            balances,
            sequences,
            ..Self::default()
        }
    }

    pub(in crate::naive) fn take(&mut self, who: u8, amount: u64) -> bool {
        let has = self.balances[&who];
        let enough = has >= amount;
        if enough {
            self.balances.insert(who, has - amount);
        }
        enough
    }

    /// Takes a fee, if the account has it.
    pub(in crate::naive) fn charge(&mut self, who: u8, fee: u64) -> bool {
        let paid = self.take(who, fee);
        if paid {
            self.treasury += fee;
        }
        paid
    }

    /// Whether a transaction with one step may run; then its fee is paid.
    pub(in crate::naive) fn admit(&mut self, step: Step, envelope: Envelope) -> bool {
        let actor = step.actor();
        let signer = envelope.signer.unwrap_or(actor);
        let malformed = match step {
            Step::Send { amount, .. } => amount == 0,
            Step::Grant { from, to, .. } => from == to,
            Step::GrantFees {
                from, to, limit, ..
            } => from == to || limit == 0,
            _ => false,
        };
        let may = signer == actor
            || self
                .grants
                .get(&(actor, signer))
                .is_some_and(|(types, until)| self.now < *until && types & step.granted_type() > 0);
        let named = envelope.payer.is_none_or(|payer| payer == signer);
        if malformed || !may || envelope.fee < FEE.uremes() || !named {
            return false;
        }
        let payer = envelope.granter.unwrap_or(signer);
        let now = self.now;
        let left = self.fee_grants.get_mut(&(payer, signer));
        let left = left.filter(|(left, until)| now < *until && *left >= envelope.fee);
        if payer != signer && left.is_none() || self.balances[&payer] < envelope.fee {
            return false;
        }
        if let Some((left, _)) = left.filter(|_| payer != signer) {
            *left -= envelope.fee;
        }
        assert!(self.charge(payer, envelope.fee));
        *self.sequences.get_mut(&signer).unwrap() += 1;
        true
    }

    /// Whether the step succeeds.
    pub(in crate::naive) fn apply(&mut self, step: Step) -> bool {
        match step {
            Step::Send { from, to, amount } => {
                let done = self.take(from, amount);
                if done {
                    *self.balances.get_mut(&to).unwrap() += amount;
                }
                done
            }
            Step::Register { who, role, stake } => self.register(who, role, stake),
            Step::Update { who, role, stake } => self.update(who, role, stake),
            Step::Leave { who } => {
                let now = self.now;
                let Some(node) = self.nodes.get_mut(&who) else {
                    return false;
                };
                if node.status != NodeStatus::Left {
                    node.status = NodeStatus::Left;
                    node.unbond(node.bonded, now);
                }
                true
            }
            Step::Slash { who, amount } => self.slash(who, amount),
            Step::Jail { who } => {
                let now = self.now;
                let Some(node) = self.nodes.get_mut(&who) else {
                    return false;
                };
                node.jail(now);
                true
            }
            Step::Unjail { who } => {
                let now = self.now;
                let Some(node) = self.nodes.get_mut(&who) else {
                    return false;
                };
                match node.status {
                    NodeStatus::Active => true,
                    NodeStatus::Left => false,
                    NodeStatus::Jailed => {
                        let free = now >= node.jailed_until && node.bonded >= minimum(node.role);
                        if free {
                            node.status = NodeStatus::Active;
                        }
                        free
                    }
                }
            }
            // Blocks are a millisecond apart, and what ends with this one has ended.
            Step::Grant {
                from,
                to,
                types,
                millis,
            } => {
                let until = self.now - 1 + millis;
                let lasts = until > self.now;
                if lasts {
                    self.grants.insert((from, to), (types, until));
                }
                lasts
            }
            Step::GrantFees {
                from,
                to,
                limit,
                millis,
            } => {
                let until = self.now - 1 + millis;
                let lasts = until > self.now;
                if lasts {
                    self.fee_grants.insert((from, to), (limit, until));
                }
                lasts
            }
            Step::Revoke { from, to } => self.grants.remove(&(from, to)).is_some(),
            Step::RevokeFees { from, to } => self.fee_grants.remove(&(from, to)).is_some(),
            Step::Wait { .. } => true,
        }
    }
}

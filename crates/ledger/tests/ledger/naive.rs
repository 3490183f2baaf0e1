//! The ledger against a model so simple that it is obviously right: plain maps, no gas, no store.

use std::collections::BTreeMap;

use proptest::prelude::*;
use r3mes_ledger::nodes;
use r3mes_types::bank::MsgSend;
use r3mes_types::nodes::{MsgLeave, MsgUnjail, MsgUpdate, NodeStatus};
use r3mes_types::{Amount, Message, Millis, Role};

use crate::chain::{Chain, FEE, START, address, register, spec};

const ACCOUNTS: u8 = 4;
const SECOND: u64 = 1_000;
const UNBONDING: u64 = 60 * SECOND;
const JAIL: u64 = 30 * SECOND;

#[derive(Clone, Copy, Debug)]
enum Step {
    Send { from: u8, to: u8, amount: u64 },
    Register { who: u8, role: Role, stake: u64 },
    Update { who: u8, role: Role, stake: u64 },
    Leave { who: u8 },
    Slash { who: u8, amount: u64 },
    Jail { who: u8 },
    Unjail { who: u8 },
    Wait { millis: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let who = 1..=ACCOUNTS;
    let role = prop::sample::select(Role::ALL);
    let stake = prop_oneof![Just(0), Just(1_000_000), 0..150_000_000u64];
    let amount = prop_oneof![Just(0), 0..2_000_000_000u64];
    prop_oneof![
        (who.clone(), who.clone(), amount.clone()).prop_map(|(from, to, amount)| Step::Send {
            from,
            to,
            amount
        }),
        (who.clone(), role.clone(), stake.clone()).prop_map(|(who, role, stake)| Step::Register {
            who,
            role,
            stake
        }),
        (who.clone(), role, stake).prop_map(|(who, role, stake)| Step::Update { who, role, stake }),
        who.clone().prop_map(|who| Step::Leave { who }),
        (who.clone(), 0..100_000_000u64).prop_map(|(who, amount)| Step::Slash { who, amount }),
        who.clone().prop_map(|who| Step::Jail { who }),
        who.prop_map(|who| Step::Unjail { who }),
        (0..80 * SECOND).prop_map(|millis| Step::Wait { millis }),
    ]
}

#[derive(Clone, Debug)]
struct NaiveNode {
    role: Role,
    declared: u64,
    bonded: u64,
    unbonding: Vec<(u64, u64)>,
    status: NodeStatus,
    jailed_until: u64,
}

#[derive(Default)]
struct Naive {
    now: u64,
    balances: BTreeMap<u8, u64>,
    nodes: BTreeMap<u8, NaiveNode>,
}

fn minimum(role: Role) -> u64 {
    match role {
        Role::Miner | Role::Serving => 1_000_000,
        Role::Proposer => 50_000_000,
        Role::Validator => 100_000_000,
    }
}

impl Naive {
    fn new() -> Self {
        let balances = (1..=ACCOUNTS).map(|who| (who, START.uremes())).collect();
        Self {
            balances,
            ..Self::default()
        }
    }

    fn take(&mut self, who: u8, amount: u64) -> bool {
        let has = self.balances[&who];
        let enough = has >= amount;
        if enough {
            self.balances.insert(who, has - amount);
        }
        enough
    }

    /// Whether the step succeeds.
    fn apply(&mut self, step: Step) -> bool {
        match step {
            Step::Send { from, to, amount } => {
                let done = amount > 0 && self.take(from, amount);
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
            Step::Wait { .. } => true,
        }
    }

    fn register(&mut self, who: u8, role: Role, stake: u64) -> bool {
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

    fn update(&mut self, who: u8, role: Role, stake: u64) -> bool {
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

    fn slash(&mut self, who: u8, amount: u64) -> bool {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(&who) else {
            return false;
        };
        let mut left = amount;
        let mut taken = 0;
        let parts = std::iter::once(&mut node.bonded)
            .chain(node.unbonding.iter_mut().map(|(amount, _)| amount));
        for part in parts {
            let cut = left.min(*part);
            *part -= cut;
            left -= cut;
            taken += cut;
        }
        node.unbonding.retain(|(amount, _)| *amount > 0);
        if taken > 0 && node.status == NodeStatus::Active && node.bonded < minimum(node.role) {
            node.jail(now);
        }
        true
    }

    fn end_block(&mut self) {
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
    fn unbond(&mut self, amount: u64, now: u64) {
        self.bonded -= amount;
        let full = self.unbonding.len() == 16;
        match self.unbonding.last_mut() {
            _ if amount == 0 => {}
            Some(newest) if full => *newest = (newest.0 + amount, now + UNBONDING),
            _ => self.unbonding.push((amount, now + UNBONDING)),
        }
    }

    fn jail(&mut self, now: u64) {
        if self.status != NodeStatus::Left {
            self.status = NodeStatus::Jailed;
            self.jailed_until = now + JAIL;
        }
    }
}

fn message(step: Step) -> Option<(u8, Message)> {
    let uremes = Amount::new;
    Some(match step {
        Step::Send { from, to, amount } => (
            from,
            MsgSend::new(address(from), address(to), uremes(amount)).into(),
        ),
        Step::Register { who, role, stake } => (who, register(who, &[role], uremes(stake))),
        Step::Update { who, role, stake } => {
            let spec = spec(&[role], uremes(stake));
            (
                who,
                MsgUpdate {
                    address: address(who),
                    spec,
                }
                .into(),
            )
        }
        Step::Leave { who } => (
            who,
            MsgLeave {
                address: address(who),
            }
            .into(),
        ),
        Step::Unjail { who } => (
            who,
            MsgUnjail {
                address: address(who),
            }
            .into(),
        ),
        Step::Slash { .. } | Step::Jail { .. } | Step::Wait { .. } => return None,
    })
}

/// Runs one step on the ledger; whether it succeeded.
fn run(chain: &mut Chain, step: Step) -> bool {
    if let Some((sender, message)) = message(step) {
        return chain.send(sender, message).code == 0;
    }
    match step {
        Step::Slash { who, amount } => {
            let amount = Amount::new(amount);
            chain
                .act(|ctx| nodes::slash(ctx, &address(who), amount, "test"))
                .is_ok()
        }
        Step::Jail { who } => chain
            .act(|ctx| nodes::jail(ctx, &address(who), "test"))
            .is_ok(),
        _ => true,
    }
}

fn compare(chain: &Chain, naive: &Naive) {
    for who in 1..=ACCOUNTS {
        let balance = chain.balance(&address(who)).uremes();
        assert_eq!(balance, naive.balances[&who], "balance of {who}");
        let node = nodes::get(&chain.view(), &address(who)).unwrap();
        let expected = naive.nodes.get(&who);
        assert_eq!(node.is_some(), expected.is_some(), "node {who}");
        let (Some(node), Some(expected)) = (node, expected) else {
            continue;
        };
        assert_eq!(node.bonded.uremes(), expected.bonded, "stake of {who}");
        assert_eq!(node.status, expected.status, "status of {who}");
        let unbonding: Vec<u64> = node
            .unbonding
            .iter()
            .map(|part| part.amount.uremes())
            .collect();
        let parts: Vec<u64> = expected.unbonding.iter().map(|part| part.0).collect();
        assert_eq!(unbonding, parts, "unbonding of {who}");
        let listed = nodes::active(&chain.view(), expected.role).unwrap();
        let is_listed = listed.iter().any(|node| node.address == address(who));
        assert_eq!(
            is_listed,
            expected.status == NodeStatus::Active,
            "listing of {who}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_ledger_does_what_the_naive_model_does(
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut chain = Chain::new();
        let start = chain.time;
        let mut naive = Naive::new();
        for step in steps {
            if let Step::Wait { millis } = step {
                chain.wait(Millis::new(millis));
            }
            let pays = message(step).map(|(sender, _)| sender);
            // Blocks are a millisecond apart.
            if let Some(sender) = pays {
                naive.now += 1;
                // What is refused by itself costs nothing, and without the fee nothing happens.
                let empty = matches!(step, Step::Send { amount: 0, .. });
                if empty || !naive.take(sender, FEE.uremes()) {
                    prop_assert!(!run(&mut chain, step));
                    naive.end_block();
                    compare(&chain, &naive);
                    continue;
                }
            }
            let done = run(&mut chain, step);
            naive.now = chain.time.since(start).millis();
            prop_assert_eq!(done, naive.apply(step), "{:?}", step);
            if pays.is_some() || matches!(step, Step::Wait { .. }) {
                naive.end_block();
            }
            compare(&chain, &naive);
        }
    }
}

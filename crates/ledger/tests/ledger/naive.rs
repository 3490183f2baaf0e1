//! The ledger against a model so simple that it is obviously right: plain maps, no gas, no store.

use std::collections::BTreeMap;

use proptest::prelude::*;
use r3mes_ledger::bank::Module;
use r3mes_ledger::{auth, nodes};
use r3mes_types::auth::{MsgGrant, MsgGrantFees, MsgRevoke, MsgRevokeFees};
use r3mes_types::bank::MsgSend;
use r3mes_types::nodes::{MsgLeave, MsgUnjail, MsgUpdate, NodeStatus};
use r3mes_types::tx::Fee;
use r3mes_types::wire::{List, Text};
use r3mes_types::{Amount, Message, Millis, Role};

use crate::chain::{Chain, FEE, GAS, START, address, register, spec};

const ACCOUNTS: u8 = 4;
const SECOND: u64 = 1_000;
const UNBONDING: u64 = 60 * SECOND;
const JAIL: u64 = 30 * SECOND;

#[derive(Clone, Copy, Debug)]
enum Step {
    Send {
        from: u8,
        to: u8,
        amount: u64,
    },
    Register {
        who: u8,
        role: Role,
        stake: u64,
    },
    Update {
        who: u8,
        role: Role,
        stake: u64,
    },
    Leave {
        who: u8,
    },
    Slash {
        who: u8,
        amount: u64,
    },
    Jail {
        who: u8,
    },
    Unjail {
        who: u8,
    },
    Grant {
        from: u8,
        to: u8,
        types: u8,
        millis: u64,
    },
    Revoke {
        from: u8,
        to: u8,
    },
    GrantFees {
        from: u8,
        to: u8,
        limit: u64,
        millis: u64,
    },
    RevokeFees {
        from: u8,
        to: u8,
    },
    Wait {
        millis: u64,
    },
}

/// Around a message: who signs it, for whom or for itself, and who pays how much.
#[derive(Clone, Copy, Debug)]
struct Envelope {
    /// Whoever acts, if nobody else.
    signer: Option<u8>,
    fee: u64,
    payer: Option<u8>,
    granter: Option<u8>,
}

/// Message types that are granted; a set of them is the sum of their numbers.
const GRANTED: [(u8, &str); 2] = [
    (1, "/cosmos.bank.v1beta1.MsgSend"),
    (2, "/r3mes.nodes.v1.MsgLeave"),
];

/// Most steps lie in a plain envelope, or nothing would ever happen.
fn envelope() -> impl Strategy<Value = Envelope> {
    let other = || prop_oneof![3 => Just(None), 2 => (1..=ACCOUNTS).prop_map(Some)];
    let fee = FEE.uremes();
    let fee = prop_oneof![6 => Just(fee), 1 => Just(0), 1 => Just(fee - 1), 2 => fee..3 * fee];
    let payer = prop_oneof![8 => Just(None), 1 => (1..=ACCOUNTS).prop_map(Some)];
    let odd = (other(), fee, payer, other());
    let odd = odd.prop_map(|(signer, fee, payer, granter)| Envelope {
        signer,
        fee,
        payer,
        granter,
    });
    let plain = Envelope {
        signer: None,
        fee: FEE.uremes(),
        payer: None,
        granter: None,
    };
    prop_oneof![1 => Just(plain), 1 => odd]
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
        who.clone().prop_map(|who| Step::Unjail { who }),
        grant_step(who),
        (0..80 * SECOND).prop_map(|millis| Step::Wait { millis }),
    ]
}

fn grant_step(who: std::ops::RangeInclusive<u8>) -> impl Strategy<Value = Step> {
    let pair = (who.clone(), who);
    let millis = prop_oneof![0..3u64, 0..200 * SECOND];
    // A few fees' worth.
    let limit = 0..5 * FEE.uremes();
    prop_oneof![
        2 => (pair.clone(), 1..=3u8, millis.clone()).prop_map(|((from, to), types, millis)| {
            Step::Grant { from, to, types, millis }
        }),
        1 => pair.clone().prop_map(|(from, to)| Step::Revoke { from, to }),
        2 => (pair.clone(), limit, millis).prop_map(|((from, to), limit, millis)| {
            Step::GrantFees { from, to, limit, millis }
        }),
        1 => pair.prop_map(|(from, to)| Step::RevokeFees { from, to }),
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
    /// Fees and what was slashed.
    treasury: u64,
    sequences: BTreeMap<u8, u64>,
    /// By granter and grantee: which types, and until when.
    grants: BTreeMap<(u8, u8), (u8, u64)>,
    /// By granter and grantee: how much is left, and until when.
    fee_grants: BTreeMap<(u8, u8), (u64, u64)>,
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
        let sequences = (1..=ACCOUNTS).map(|who| (who, 0)).collect();
        Self {
            balances,
            sequences,
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

    /// Whether a transaction with one step may run; then its fee is paid.
    fn admit(&mut self, step: Step, envelope: Envelope) -> bool {
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
        assert!(self.take(payer, envelope.fee));
        self.treasury += envelope.fee;
        *self.sequences.get_mut(&signer).unwrap() += 1;
        true
    }

    /// Whether the step succeeds.
    fn apply(&mut self, step: Step) -> bool {
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
        self.treasury += taken;
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

impl Step {
    /// Whose step it is; the ledger's own are nobody's.
    fn actor(self) -> u8 {
        match self {
            Self::Send { from, .. }
            | Self::Grant { from, .. }
            | Self::Revoke { from, .. }
            | Self::GrantFees { from, .. }
            | Self::RevokeFees { from, .. } => from,
            Self::Register { who, .. }
            | Self::Update { who, .. }
            | Self::Leave { who }
            | Self::Unjail { who } => who,
            Self::Slash { .. } | Self::Jail { .. } | Self::Wait { .. } => 0,
        }
    }

    /// Its number in [`GRANTED`]; 0 if it is never granted.
    fn granted_type(self) -> u8 {
        match self {
            Self::Send { .. } => 1,
            Self::Leave { .. } => 2,
            _ => 0,
        }
    }
}

/// What a step looks like in a transaction, if it is sent in one.
fn message(chain: &Chain, step: Step) -> Option<Message> {
    let uremes = Amount::new;
    let until = |millis| chain.time.after(Millis::new(millis));
    Some(match step {
        Step::Send { from, to, amount } => {
            MsgSend::new(address(from), address(to), uremes(amount)).into()
        }
        Step::Register { who, role, stake } => register(who, &[role], uremes(stake)),
        Step::Update { who, role, stake } => MsgUpdate {
            address: address(who),
            spec: spec(&[role], uremes(stake)),
        }
        .into(),
        Step::Leave { who } => MsgLeave {
            address: address(who),
        }
        .into(),
        Step::Unjail { who } => MsgUnjail {
            address: address(who),
        }
        .into(),
        Step::Grant {
            from,
            to,
            types,
            millis,
        } => {
            let urls = GRANTED.iter().filter(|(number, _)| types & number > 0);
            let urls = urls.map(|(_, url)| Text::new(*url).unwrap()).collect();
            MsgGrant {
                granter: address(from),
                grantee: address(to),
                type_urls: List::new(urls).unwrap(),
                expires_at: until(millis),
            }
            .into()
        }
        Step::Revoke { from, to } => MsgRevoke {
            granter: address(from),
            grantee: address(to),
        }
        .into(),
        Step::GrantFees {
            from,
            to,
            limit,
            millis,
        } => MsgGrantFees {
            granter: address(from),
            grantee: address(to),
            limit: uremes(limit),
            expires_at: until(millis),
        }
        .into(),
        Step::RevokeFees { from, to } => MsgRevokeFees {
            granter: address(from),
            grantee: address(to),
        }
        .into(),
        Step::Slash { .. } | Step::Jail { .. } | Step::Wait { .. } => return None,
    })
}

/// Runs one step on the ledger; whether it succeeded.
fn run(chain: &mut Chain, step: Step, envelope: Envelope) -> bool {
    if let Some(message) = message(chain, step) {
        let signer = envelope.signer.unwrap_or(step.actor());
        let mut fee = match envelope.fee {
            0 => Fee::none(GAS),
            fee => Fee::of(Amount::new(fee), GAS),
        };
        fee.payer = envelope.payer.map(address);
        fee.granter = envelope.granter.map(address);
        let tx = chain.sign_with(signer, vec![message], fee);
        return chain.block(vec![tx])[0].code == 0;
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

fn compare_auth(chain: &Chain, naive: &Naive) {
    let view = chain.view();
    // What was slashed waits for appeals before it goes to the treasury.
    let [treasury, slashed] =
        [Module::Treasury, Module::Slashed].map(|module| chain.balance(&module.address()).uremes());
    assert_eq!(treasury + slashed, naive.treasury, "fees and slashes");
    for from in 1..=ACCOUNTS {
        let account = auth::ACCOUNTS.get(&view, &address(from)).unwrap().unwrap();
        assert_eq!(account.sequence, naive.sequences[&from], "{from}");
        for to in 1..=ACCOUNTS {
            let pair = (address(from), address(to));
            let grant = auth::GRANTS.get(&view, &pair).unwrap();
            let types = grant.map(|grant| {
                let is_granted = |url: &str| grant.type_urls.iter().any(|held| &**held == url);
                let held = GRANTED.iter().filter(|(_, url)| is_granted(url));
                held.map(|(number, _)| number).sum::<u8>()
            });
            let expected = naive.grants.get(&(from, to)).map(|(types, _)| *types);
            assert_eq!(types, expected, "grant of {from} to {to}");
            let left = auth::FEE_GRANTS.get(&view, &pair).unwrap();
            let left = left.map(|grant| grant.remaining.uremes());
            let expected = naive.fee_grants.get(&(from, to)).map(|(left, _)| *left);
            assert_eq!(left, expected, "fee grant of {from} to {to}");
        }
    }
}

fn compare(chain: &Chain, naive: &Naive) {
    compare_auth(chain, naive);
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
        steps in prop::collection::vec((step(), envelope()), 1..60),
    ) {
        let mut chain = Chain::new();
        let start = chain.time;
        let mut naive = Naive::new();
        for (step, envelope) in steps {
            if let Step::Wait { millis } = step {
                chain.wait(Millis::new(millis));
            }
            let is_sent = message(&chain, step).is_some();
            let done = run(&mut chain, step, envelope);
            naive.now = chain.time.since(start).millis();
            // What is not admitted costs nothing, and nothing of it happens.
            let expected = (!is_sent || naive.admit(step, envelope)) && naive.apply(step);
            prop_assert_eq!(done, expected, "{:?} in {:?}", step, envelope);
            if is_sent || matches!(step, Step::Wait { .. }) {
                naive.end_block();
            }
            compare(&chain, &naive);
        }
    }
}

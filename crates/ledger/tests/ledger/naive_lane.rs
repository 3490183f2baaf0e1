//! The lane for what nodes owe against a model so simple that it is obviously right: who has answered
//! what, who waits, and plain sums.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use r3mes_ledger::bank::Module;
use r3mes_ledger::block::{CheckResult, Lane, TxResult};
use r3mes_ledger::{Ledger, Proposal, Waiting, auth};
use r3mes_types::auth::MsgGrant;
use r3mes_types::bank::MsgSend;
use r3mes_types::nodes::MsgRegister;
use r3mes_types::training::{
    MsgCommitStates, ObligationKind, QueryObligations, QueryRound, TrainingMessage,
};
use r3mes_types::tx::{Fee, Signer, Unsigned};
use r3mes_types::wire::{List, Text};
use r3mes_types::{Amount, Hash, Message, Millis, Role};

use crate::chain::{CHAIN_ID, Chain, GAS, address, key, spec};
use crate::lane::{self, COMMIT};

/// Who owes a commitment.
const MINERS: [u8; 3] = [1, 2, 3];
/// A key without coins that may answer for the first two miners.
const HELPER: u8 = 9;
/// Everybody who signs.
const SIGNERS: [u8; 4] = [1, 2, 3, HELPER];
/// Who is sent coins.
const STRANGER: u8 = 0;
/// The most gas that travels free.
const FREE_GAS: u64 = 10_000_000;

/// A transaction: answers to what is owed, perhaps with a payment of one uremes after them.
#[derive(Clone, Debug)]
struct Ask {
    signer: u8,
    /// Miners with the number of the root that is committed to for them.
    answers: Vec<(u8, u8)>,
    sends: bool,
    fee: u64,
    gas: u64,
}

impl Ask {
    fn answers(&self, miner: u8) -> bool {
        self.answers.iter().any(|(answered, _)| *answered == miner)
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// It is checked, and waits if it is welcome.
    Wait(Ask),
    /// A block of what waits.
    Block,
    /// What waits goes first; then a proposer puts this into a block that nobody has checked.
    Smuggle(Ask),
}

fn ask() -> impl Strategy<Value = Ask> {
    let signer = prop::sample::select(SIGNERS.to_vec());
    let answer = (prop::sample::select(MINERS.to_vec()), 0..2u8);
    let own = (signer.clone(), 0..2u8).prop_map(|(signer, root)| {
        let miner = if signer == HELPER { 1 } else { signer };
        (signer, vec![(miner, root)])
    });
    let any = (signer, prop::collection::vec(answer, 0..3));
    let who_and_what = prop_oneof![2 => own, 1 => any];
    let sends = prop::bool::weighted(0.2);
    let gas = prop_oneof![6 => Just(GAS), 1 => Just(FREE_GAS), 1 => Just(FREE_GAS + 1)];
    // In thousandths of what the gas costs.
    let fee = prop_oneof![6 => Just(0), 1 => Just(999), 2 => Just(1_000), 1 => Just(2_000u64)];
    (who_and_what, sends, gas, fee).prop_map(|((signer, answers), sends, gas, fee)| Ask {
        signer,
        sends: sends || answers.is_empty(),
        answers,
        fee: price(gas) * fee / 1_000,
        gas,
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => ask().prop_map(Step::Wait),
        1 => Just(Step::Block),
        2 => ask().prop_map(Step::Smuggle),
    ]
}

/// What gas costs in the paid lane: 1,000 uremes a million.
fn price(gas: u64) -> u64 {
    gas.div_ceil(1_000)
}

/// What becomes of a transaction in a block.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Done,
    /// It has paid for its place, and its messages did nothing.
    Failed,
    /// By a code of the Cosmos SDK; nothing has changed.
    Refused(u32),
}

impl Fate {
    /// Whether the result says so; that a failure was paid for shows in the sums.
    fn is_told_by(self, result: &TxResult) -> bool {
        match self {
            Self::Done => result.code == 0,
            Self::Failed => result.code != 0,
            Self::Refused(code) => (result.codespace.as_str(), result.code) == ("sdk", code),
        }
    }
}

/// A transaction that waits.
struct Waits {
    ask: Ask,
    sequence: u64,
    free: bool,
}

#[derive(Default)]
struct Naive {
    /// What each miner has committed to.
    answers: BTreeMap<u8, u8>,
    sequences: BTreeMap<u8, u64>,
    balances: BTreeMap<u8, u64>,
    treasury: u64,
    waiting: Vec<Waits>,
}

impl Naive {
    fn of(chain: &Chain) -> Self {
        let mut naive = Self {
            treasury: chain.balance(&Module::Treasury.address()).uremes(),
            ..Self::default()
        };
        for who in SIGNERS {
            naive.sequences.insert(who, sequence(chain, who));
            let balance = chain.balance(&address(who)).uremes();
            naive.balances.insert(who, balance);
        }
        naive
    }

    fn waits_of(&self, signer: u8) -> impl Iterator<Item = &Ask> {
        let all = self.waiting.iter().map(|waits| &waits.ask);
        all.filter(move |ask| ask.signer == signer)
    }

    /// Whether it answers what is owed, and nothing else; in a block also what was answered so before.
    fn is_free(&self, ask: &Ask, in_block: bool) -> bool {
        let miners: BTreeSet<u8> = ask.answers.iter().map(|(miner, _)| *miner).collect();
        let fits = |(miner, root): &(u8, u8)| match self.answers.get(miner) {
            None => true,
            Some(answered) => in_block && answered == root,
        };
        ask.fee == 0
            && ask.gas <= FREE_GAS
            && !ask.sends
            && miners.len() == ask.answers.len()
            && ask.answers.iter().all(fits)
    }

    /// Whether it may wait, or stand in a block; if so, whether it travels free.
    fn admits(&self, ask: &Ask, in_block: bool) -> Result<bool, u32> {
        let may = |miner: u8| ask.signer == miner || (ask.signer == HELPER && miner != 3);
        if !ask.answers.iter().all(|(miner, _)| may(*miner)) {
            return Err(4);
        }
        if self.is_free(ask, in_block) {
            let same = |other: &Waits| {
                let mut theirs = other.ask.answers.iter();
                other.free && theirs.any(|(miner, _)| ask.answers(*miner))
            };
            let taken = !in_block && self.waiting.iter().any(same);
            return if taken { Err(19) } else { Ok(true) };
        }
        if ask.fee < price(ask.gas) {
            return Err(13);
        }
        let waiting: u64 = self.waits_of(ask.signer).map(|ask| ask.fee).sum();
        let promised = if in_block { 0 } else { waiting };
        if self.balances[&ask.signer] < ask.fee + promised {
            return Err(5);
        }
        Ok(false)
    }

    fn execute(&mut self, ask: &Ask, sequence: u64) -> Fate {
        if sequence != self.sequences[&ask.signer] {
            // Something of this signer's before it was refused.
            return Fate::Refused(32);
        }
        if let Err(code) = self.admits(ask, true) {
            return Fate::Refused(code);
        }
        *self.balances.get_mut(&ask.signer).unwrap() -= ask.fee;
        *self.sequences.get_mut(&ask.signer).unwrap() += 1;
        self.treasury += ask.fee;
        let mut after = self.answers.clone();
        for (miner, root) in &ask.answers {
            if after.entry(*miner).or_insert(*root) != root {
                return Fate::Failed;
            }
        }
        if ask.sends {
            let balance = self.balances.get_mut(&ask.signer).unwrap();
            if *balance == 0 {
                return Fate::Failed;
            }
            *balance -= 1;
        }
        self.answers = after;
        Fate::Done
    }

    /// What waits, as a proposer orders it: each signer's in turn, free ones first, then by price for
    /// gas, then by arrival.
    fn order(&self) -> Vec<usize> {
        let mut left: Vec<usize> = (0..self.waiting.len()).collect();
        let mut order = Vec::new();
        while !left.is_empty() {
            let signer = |index: usize| self.waiting[index].ask.signer;
            let is_first = |index: usize| {
                let earlier = left.iter().take_while(|other| **other < index);
                earlier
                    .into_iter()
                    .all(|other| signer(*other) != signer(index))
            };
            let rank = |index: &usize| {
                let ask = &self.waiting[*index].ask;
                let price = ask.fee * 1_000_000 / ask.gas;
                (!self.is_free(ask, true), Reverse(price), *index)
            };
            let heads = left.iter().copied().filter(|index| is_first(*index));
            let next = heads.min_by_key(rank).unwrap();
            left.retain(|index| *index != next);
            order.push(next);
        }
        order
    }
}

/// The ledger, with what waits for a block.
struct Network {
    chain: Chain,
    waiting: Waiting,
    txs: Vec<Vec<u8>>,
}

impl Network {
    /// In the first round all miners owe their commitments, for longer than the test lasts.
    fn owing() -> Self {
        let mut genesis = lane::genesis();
        let node = |index: u8, role, remes| MsgRegister {
            address: address(index),
            spec: spec(&[role], Amount::remes(remes)),
        };
        let miners = MINERS.map(|miner| node(miner, Role::Miner, 20));
        let others = [node(4, Role::Validator, 200), node(5, Role::Proposer, 100)];
        genesis.nodes = List::new([&miners[..], &others].concat()).unwrap();
        let mut run = lane::run_params();
        run.min_miners = MINERS.len() as u32;
        run.windows.commit = Millis::seconds(3_600);
        genesis.runs = List::new(vec![run]).unwrap();
        let mut chain = Chain::from(&genesis);
        for granter in [1, 2] {
            let grant = MsgGrant {
                granter: address(granter),
                grantee: address(HELPER),
                type_urls: List::new(vec![Text::new(COMMIT).unwrap()]).unwrap(),
                expires_at: chain.time.after(Millis::seconds(3_600)),
            };
            chain.must(granter, grant);
        }
        for _ in 0..4 {
            chain.block(Vec::new());
        }
        assert!(MINERS.iter().all(|miner| owes(&chain, *miner)));
        Self {
            chain,
            waiting: Waiting::default(),
            txs: Vec::new(),
        }
    }

    fn sign(&self, ask: &Ask, sequence: u64) -> Vec<u8> {
        let commits = ask.answers.iter().map(|(miner, number)| {
            let message = MsgCommitStates {
                miner: address(*miner),
                run: 1,
                round: 0,
                root: root(*number),
                feedback_lost: false,
            };
            TrainingMessage::from(message).into()
        });
        let mut messages: Vec<Message> = commits.collect();
        if ask.sends {
            let to = address(STRANGER);
            messages.push(MsgSend::new(address(ask.signer), to, Amount::new(1)).into());
        }
        let fee = match ask.fee {
            0 => Fee::none(ask.gas),
            fee => Fee::of(Amount::new(fee), ask.gas),
        };
        let account = account(&self.chain, ask.signer);
        let signer = Signer {
            chain_id: CHAIN_ID,
            account_number: account.number,
            sequence,
        };
        let unsigned = Unsigned::new(messages).with_fee(fee);
        unsigned.sign(&key(ask.signer), &signer).unwrap()
    }

    /// Checks a transaction, which waits if it is welcome.
    fn wait(&mut self, ask: &Ask, naive: &mut Naive) {
        let sequence = naive.sequences[&ask.signer] + naive.waits_of(ask.signer).count() as u64;
        let tx = self.sign(ask, sequence);
        let block = self.chain.next_block();
        let found: CheckResult =
            Ledger::check_tx(&self.chain.state, block, &self.waiting, &tx, &|_| None).unwrap();
        let free = found
            .admitted
            .as_ref()
            .map(|admitted| match &admitted.lane {
                Lane::Obligation(keys) => {
                    assert_eq!(keys.len(), ask.answers.len());
                    true
                }
                Lane::Paid => false,
            });
        let found_free = free.ok_or(found.result.code);
        assert_eq!(found_free, naive.admits(ask, false), "{ask:?}");
        if let Some(admitted) = found.admitted {
            self.waiting.admit(&admitted);
            self.txs.push(tx);
            naive.waiting.push(Waits {
                ask: ask.clone(),
                sequence,
                free: found_free == Ok(true),
            });
        }
    }

    /// Makes a block of all that waits.
    fn block(&mut self, naive: &mut Naive) {
        let proposal = Proposal {
            block: self.chain.next_block(),
            proposer: Chain::proposer(),
            chains: std::slice::from_ref(&self.chain.beacon),
            max_bytes: 1 << 20,
        };
        let txs = Ledger::prepare(&self.chain.state, &proposal, &self.txs, &|_| None).unwrap();
        let order = naive.order();
        let expected: Vec<&Vec<u8>> = order.iter().map(|index| &self.txs[*index]).collect();
        assert_eq!(txs[1..].iter().collect::<Vec<_>>(), expected);
        let waiting = std::mem::take(&mut naive.waiting);
        let asks = order.iter().map(|index| &waiting[*index]);
        let asks: Vec<(&Ask, u64)> = asks.map(|waits| (&waits.ask, waits.sequence)).collect();
        self.run(&asks, txs[1..].to_vec(), naive);
        self.txs.clear();
        self.waiting = Waiting::default();
    }

    /// Makes a block of one transaction that was not checked.
    fn smuggle(&mut self, ask: &Ask, naive: &mut Naive) {
        let sequence = naive.sequences[&ask.signer];
        let tx = self.sign(ask, sequence);
        self.run(&[(ask, sequence)], vec![tx], naive);
    }

    fn run(&mut self, asks: &[(&Ask, u64)], txs: Vec<Vec<u8>>, naive: &mut Naive) {
        let results = self.chain.block(txs);
        assert_eq!(results.len(), asks.len());
        for ((ask, sequence), result) in asks.iter().zip(results) {
            let fate = naive.execute(ask, *sequence);
            assert!(fate.is_told_by(&result), "{ask:?}: {fate:?}, {result:?}");
        }
        compare(&self.chain, naive);
    }
}

fn root(number: u8) -> Hash {
    Hash::of(&[number])
}

fn account(chain: &Chain, who: u8) -> r3mes_types::auth::Account {
    let account = auth::ACCOUNTS.get(&chain.view(), &address(who));
    account.unwrap().unwrap()
}

fn sequence(chain: &Chain, who: u8) -> u64 {
    account(chain, who).sequence
}

fn owes(chain: &Chain, miner: u8) -> bool {
    let question = QueryObligations {
        address: address(miner),
    };
    let owed = chain.query(&question).obligations;
    owed.iter().any(|owed| owed.kind == ObligationKind::Commit)
}

fn compare(chain: &Chain, naive: &Naive) {
    let treasury = chain.balance(&Module::Treasury.address()).uremes();
    assert_eq!(treasury, naive.treasury);
    for who in SIGNERS {
        assert_eq!(sequence(chain, who), naive.sequences[&who], "{who}");
        let balance = chain.balance(&address(who)).uremes();
        assert_eq!(balance, naive.balances[&who], "{who}");
    }
    let round = chain.query(&QueryRound { run: 1, round: 0 });
    for miner in MINERS {
        let answered = naive.answers.get(&miner).copied();
        assert_eq!(owes(chain, miner), answered.is_none(), "{miner}");
        let mut entries = round.entries.iter();
        let entry = entries.find(|entry| entry.miner == address(miner));
        assert_eq!(entry.unwrap().commitment, answered.map(root), "{miner}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_owed_travels_as_the_naive_model_says(
        steps in prop::collection::vec(step(), 1..30),
    ) {
        let mut network = Network::owing();
        let mut naive = Naive::of(&network.chain);
        for step in steps {
            match step {
                Step::Wait(ask) => network.wait(&ask, &mut naive),
                Step::Block => network.block(&mut naive),
                Step::Smuggle(ask) => {
                    network.block(&mut naive);
                    network.smuggle(&ask, &mut naive);
                }
            }
        }
        network.block(&mut naive);
    }
}

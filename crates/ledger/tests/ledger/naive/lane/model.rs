//! What waits, what travels free, and what becomes of it: the model.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use r3mes_ledger::bank::Module;
use r3mes_ledger::block::TxResult;

use super::{FREE_GAS, HELPER, MINERS, SIGNERS, sequence};
use crate::chain::{Chain, GAS, address};

/// A transaction: answers to what is owed, perhaps with a payment of one uremes after them.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) signer: u8,
    /// Miners with the number of the root that is committed to for them.
    pub(super) answers: Vec<(u8, u8)>,
    pub(super) sends: bool,
    pub(super) fee: u64,
    pub(super) gas: u64,
}

impl Ask {
    pub(super) fn answers(&self, miner: u8) -> bool {
        self.answers.iter().any(|(answered, _)| *answered == miner)
    }
}

#[derive(Clone, Debug)]
pub(super) enum Step {
    /// It is checked, and waits if it is welcome.
    Wait(Ask),
    /// A block of what waits.
    Block,
    /// What waits goes first; then a proposer puts this into a block that nobody has checked.
    Smuggle(Ask),
}

pub(super) fn ask() -> impl Strategy<Value = Ask> {
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

pub(super) fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => ask().prop_map(Step::Wait),
        1 => Just(Step::Block),
        2 => ask().prop_map(Step::Smuggle),
    ]
}

/// What gas costs in the paid lane: 1,000 uremes a million.
pub(super) fn price(gas: u64) -> u64 {
    gas.div_ceil(1_000)
}

/// What becomes of a transaction in a block.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fate {
    Done,
    /// It has paid for its place, and its messages did nothing.
    Failed,
    /// By a code of the Cosmos SDK; nothing has changed.
    Refused(u32),
}

impl Fate {
    /// Whether the result says so; that a failure was paid for shows in the sums.
    pub(super) fn is_told_by(self, result: &TxResult) -> bool {
        match self {
            Self::Done => result.code == 0,
            Self::Failed => result.code != 0,
            Self::Refused(code) => (result.codespace.as_str(), result.code) == ("sdk", code),
        }
    }
}

/// A transaction that waits.
pub(super) struct Waits {
    pub(super) ask: Ask,
    pub(super) sequence: u64,
    pub(super) free: bool,
}

#[derive(Default)]
pub(super) struct Naive {
    /// What each miner has committed to.
    pub(super) answers: BTreeMap<u8, u8>,
    pub(super) sequences: BTreeMap<u8, u64>,
    pub(super) balances: BTreeMap<u8, u64>,
    pub(super) treasury: u64,
    pub(super) waiting: Vec<Waits>,
}

impl Naive {
    pub(super) fn of(chain: &Chain) -> Self {
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

    pub(super) fn waits_of(&self, signer: u8) -> impl Iterator<Item = &Ask> {
        let all = self.waiting.iter().map(|waits| &waits.ask);
        all.filter(move |ask| ask.signer == signer)
    }

    /// Whether it answers what is owed, and nothing else; in a block also what was answered so before.
    pub(super) fn is_free(&self, ask: &Ask, in_block: bool) -> bool {
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
    pub(super) fn admits(&self, ask: &Ask, in_block: bool) -> Result<bool, u32> {
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

    pub(super) fn execute(&mut self, ask: &Ask, sequence: u64) -> Fate {
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
    pub(super) fn order(&self) -> Vec<usize> {
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

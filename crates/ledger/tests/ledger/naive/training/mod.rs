//! Training: rounds from their opening to their pay, with everything that nodes may say in them, and
//! what comes after: second audits, stake on its way back, slashes and appeals, pay that vests; while an
//! authority changes how long all that takes.

mod answers;
mod compare;
mod court;
mod judge;
mod model;
mod purse;
mod round;
mod second;
mod sent;
mod stakes;
mod steps;
mod stories;

use std::collections::BTreeMap;

use proptest::prelude::*;
use r3mes_ledger::bank::SUPPLY;
use r3mes_ledger::genesis::{self, Genesis};
use r3mes_ledger::governance;
use r3mes_types::bank::Balance;
use r3mes_types::nodes::MsgRegister;
use r3mes_types::training::{QueryRound, RunParams, TrainingMessage};
use r3mes_types::wire::List;
use r3mes_types::{Amount, Message, Millis, Ppm, Role};

use self::compare::compare;
use self::model::Naive;
use self::purse::Purse;
use self::sent::{answers, odd};
use self::stakes::{Node, Stakes};
use self::steps::{Choice, Mood, Step, scene};
use super::config;
use crate::chain::{CHAIN_ID, FEE, START, address, spec};
use crate::lane::run_params;
use crate::messages::model;
use crate::play::{Play, STEPS};
use crate::votes::dataset;

/// The only run.
pub(in crate::naive) const RUN: u64 = 1;
/// Roles and stakes, in REMES: two miners, one that is a validator too, validators of different power,
/// proposers.
const NODES: [(u8, &[Role], u64); 8] = [
    (1, &[Role::Miner], 200),
    (2, &[Role::Miner], 3),
    (3, &[Role::Miner, Role::Validator], 130),
    (4, &[Role::Validator], 200),
    (5, &[Role::Validator], 150),
    (6, &[Role::Validator], 120),
    (7, &[Role::Proposer], 100),
    (8, &[Role::Proposer], 51),
];
/// An uneven reward, so that every division leaves something.
const REWARD: u64 = 100_003;
/// What may be issued: the reward of the last round is cut.
const ROOM: u64 = 250_000;

/// What there is at genesis.
const SUPPLY_AT_FIRST: u64 = (NODES.len() as u64 + 1) * START.uremes();

/// What differs from one run to another.
#[derive(Clone, Copy, Debug)]
struct Scene {
    audited: Ppm,
    drawn: u32,
    panel: u32,
    reaudited: Ppm,
    kept_rounds: u32,
    /// For how long pay vests at first.
    vesting: Millis,
}

fn params(scene: Scene) -> RunParams {
    let mut params = run_params();
    params.steps = STEPS;
    params.reward = Amount::new(REWARD);
    params.audited_share = scene.audited;
    params.drawn_steps = scene.drawn;
    params.panel = scene.panel;
    params.reaudited_share = scene.reaudited;
    params.penalties.miner = Amount::remes(2);
    params.penalties.proposer = Amount::remes(2);
    params.min_miners = 2;
    params.min_validators = 2;
    params.proposers = 2;
    params.kept_rounds = scene.kept_rounds;
    params
}

fn founding(scene: Scene) -> Genesis {
    let balances: Vec<Balance> = (0..=NODES.len() as u8)
        .map(|index| Balance {
            address: address(index),
            amount: START,
        })
        .collect();
    let nodes = NODES.map(|(index, roles, stake)| MsgRegister {
        address: address(index),
        spec: spec(roles, Amount::remes(stake)),
    });
    let mut genesis = genesis::development(CHAIN_ID, address(0), &balances);
    genesis.params.rewards.max_supply = Amount::new(SUPPLY_AT_FIRST + ROOM);
    genesis.models = List::new(vec![model("tiny", b"model")]).unwrap();
    genesis.datasets = List::new(vec![dataset("texts")]).unwrap();
    genesis.nodes = List::new(nodes.to_vec()).unwrap();
    genesis.params.rewards.vesting = scene.vesting;
    genesis.runs = List::new(vec![params(scene)]).unwrap();
    genesis
}

/// A node's roles, and its stake at first.
fn founder(who: u8) -> (&'static [Role], Amount) {
    let (_, roles, stake) = NODES[usize::from(who) - 1];
    (roles, Amount::remes(stake))
}

/// The network, the model, and how everybody behaves.
struct Theatre {
    play: Play,
    naive: Naive,
    moods: BTreeMap<u8, Mood>,
    /// What each node sent last.
    said: BTreeMap<u8, TrainingMessage>,
}

impl Theatre {
    fn new(scene: Scene) -> Self {
        let genesis = founding(scene);
        let mut play = Play::found(&genesis);
        play.crowd = 1;
        let stakes =
            NODES.map(|(index, roles, stake)| (index, roles, Amount::remes(stake).uremes()));
        let mut balances = BTreeMap::from([(address(0), START.uremes())]);
        balances.extend(stakes.map(|(index, _, stake)| (address(index), START.uremes() - stake)));
        let supply = SUPPLY.get(&play.chain.view()).unwrap().unwrap();
        let max_supply = genesis.params.rewards.max_supply.uremes();
        let mut purse = Purse::new(balances, supply.uremes(), max_supply);
        purse.vests_for = scene.vesting.millis() * 1_000_000;
        let mut held = Stakes::new(purse);
        let nodes = stakes.map(|(index, roles, stake)| (address(index), Node::new(roles, stake)));
        held.nodes.extend(nodes);
        let naive = Naive::new(params(scene), held);
        let mut theatre = Self {
            play,
            naive,
            moods: BTreeMap::new(),
            said: BTreeMap::new(),
        };
        theatre.begin();
        theatre.end();
        theatre
    }

    /// The model sees the time of the block.
    fn begin(&mut self) {
        let chain = &self.play.chain;
        self.naive.stakes.now = chain.time.nanos();
        self.naive.height = chain.height;
    }

    fn end(&mut self) {
        let chain = &self.play.chain;
        let look = |round| chain.query(&QueryRound { run: RUN, round });
        self.naive.end_block(&look);
        compare(chain, &self.naive);
    }

    /// What a node says when it does as chosen.
    fn message(&self, index: u8, choice: Choice) -> Option<TrainingMessage> {
        let mood = self.moods.get(&index).copied().unwrap_or(Mood::Honest);
        let owed = |index| self.play.owed(index).into_iter().next();
        match choice {
            Choice::Silent => None,
            Choice::Answer => Some(answers(&self.play, index, &owed(index)?, mood)),
            Choice::Odd(how) => {
                let message = answers(&self.play, index, &owed(index)?, mood);
                Some(odd(message, how))
            }
            Choice::Unasked => {
                let round = self.naive.open()?.number;
                Some(sent::serves_nothing(index, round))
            }
            Choice::Mixed => {
                let message = answers(&self.play, index, &owed(index)?, mood);
                Some(sent::of_the_other_audit(message))
            }
            Choice::Again => self.said.get(&index).cloned(),
            Choice::Meddle(other) => {
                let message = answers(&self.play, index, &owed(other)?, mood);
                (message.actor() == address(index)).then_some(message)
            }
        }
    }

    /// A block in which these accounts send these messages; the model says which succeed.
    fn block(
        &mut self,
        sent: Vec<(u8, Message)>,
        mut expect: impl FnMut(&mut Naive, usize) -> bool,
    ) {
        let chain = &mut self.play.chain;
        let txs = sent
            .iter()
            .map(|(index, message)| chain.sign(*index, message.clone()));
        let txs = txs.collect();
        let results = chain.block(txs);
        self.begin();
        for (place, ((index, message), result)) in sent.iter().zip(results).enumerate() {
            let purse = &mut self.naive.stakes.purse;
            purse.charge(&address(*index), FEE.uremes());
            let expected = expect(&mut self.naive, place);
            let done = result.code == 0;
            assert_eq!(done, expected, "{message:?} of {index}: {}", result.log);
        }
        self.end();
    }

    /// A block with one message about stakes and coins; whether it succeeds.
    fn send(&mut self, who: u8, message: Message, done: impl Fn(&mut Stakes) -> bool) {
        self.block(vec![(who, message)], |naive, _| done(&mut naive.stakes));
    }

    fn turn(&mut self, choices: &[Choice]) {
        let mut said = Vec::new();
        for ((index, ..), choice) in NODES.iter().zip(choices) {
            if let Some(message) = self.message(*index, *choice) {
                said.push((*index, message));
            }
        }
        if said.is_empty() {
            // Nothing but a deadline can move anything.
            let next = r3mes_ledger::Ledger::next_deadline(&self.play.chain.state).unwrap();
            let next = next.unwrap_or(self.play.chain.time);
            self.play.chain.time = self.play.chain.time.max(next);
        }
        let sent = said
            .iter()
            .map(|(index, message)| (*index, message.clone().into()));
        let sent = sent.collect();
        self.block(sent, |naive, place| naive.answer(&said[place].1));
        self.said.extend(said);
    }

    /// Everybody answers until the first round is closed.
    fn close_a_round(&mut self) {
        while self.naive.next() == 0 {
            self.turn(&[Choice::Answer; NODES.len()]);
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Turn(choices) => self.turn(choices),
            Step::Lie { who, from } => match from {
                Some(from) => {
                    self.play.lies.insert(*who, *from);
                }
                None => {
                    self.play.lies.remove(who);
                }
            },
            Step::Mood { who, mood } => {
                self.moods.insert(*who, *mood);
            }
            Step::Wait { millis } => {
                self.play.chain.time = self.play.chain.time.after(Millis::new(*millis));
                self.block(Vec::new(), |_, _| true);
            }
            Step::Leave { who } => {
                self.send(*who, sent::leave(*who), |stakes| {
                    stakes.leave(&address(*who))
                });
            }
            Step::ComeBack { who } => {
                let (roles, stake) = founder(*who);
                let message = sent::come_back(*who, roles, stake);
                self.send(*who, message, |stakes| {
                    stakes.come_back(&address(*who), stake.uremes())
                });
            }
            Step::Declare { who, stake } => {
                let (roles, _) = founder(*who);
                let message = sent::declare(*who, roles, *stake);
                self.send(*who, message, |stakes| {
                    stakes.declare(&address(*who), stake.uremes())
                });
            }
            Step::Unjail { who } => {
                self.send(*who, sent::unjail(*who), |stakes| {
                    stakes.unjail(&address(*who))
                });
            }
            Step::Appeal { who, slash } => {
                let message = sent::appeal(*who, *slash);
                self.send(*who, message, |stakes| {
                    stakes.appeal(&address(*who), *slash as usize)
                });
            }
            Step::Decide { slash, revert } => {
                let message = sent::decide(*slash, *revert);
                self.send(0, message, |stakes| stakes.decide(*slash as usize, *revert));
            }
            Step::Times(times) => {
                let now = governance::params(&self.play.chain.view()).unwrap().nodes;
                let message = sent::change_times(now, *times);
                self.send(0, message, |stakes| stakes.change(*times));
            }
            Step::Rewards { room, vesting } => {
                let message = sent::change_rewards(SUPPLY_AT_FIRST + room, *vesting);
                self.send(0, message, |stakes| {
                    stakes.purse.max_supply = SUPPLY_AT_FIRST + room;
                    stakes.purse.vests_for = vesting.millis() * 1_000_000;
                    true
                });
            }
            Step::Switch { who, to } => {
                let message = sent::switch(*who, *to);
                self.block(vec![(*who, message)], |naive, _| {
                    *who == 0 && naive.switch(*to)
                });
            }
        }
    }
}

proptest! {
    #![proptest_config(config(12))]

    #[test]
    fn training_does_what_the_naive_model_does(
        scene in scene(),
        steps in prop::collection::vec(steps::step(), 1..70),
    ) {
        let mut theatre = Theatre::new(scene);
        for step in &steps {
            theatre.step(step);
        }
    }

    #[test]
    fn what_comes_after_a_round_is_what_the_naive_model_says(
        scene in scene(),
        liars in prop::collection::vec(steps::lie(), 0..3),
        steps in prop::collection::vec(steps::step_after_a_round(), 30..90),
    ) {
        let mut theatre = Theatre::new(scene);
        for lie in &liars {
            theatre.step(lie);
        }
        theatre.close_a_round();
        for step in &steps {
            theatre.step(step);
        }
    }
}

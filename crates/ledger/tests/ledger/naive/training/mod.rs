//! Training: rounds from their opening to their pay, with everything that nodes may say in them.

mod answers;
mod compare;
mod court;
mod judge;
mod model;
mod round;
mod stakes;
mod steps;

use std::collections::BTreeMap;

use proptest::prelude::*;
use r3mes_ledger::bank::SUPPLY;
use r3mes_ledger::genesis::{self, Genesis};
use r3mes_types::bank::Balance;
use r3mes_types::nodes::MsgRegister;
use r3mes_types::training::{QueryRound, RunParams, TrainingMessage};
use r3mes_types::wire::List;
use r3mes_types::{Amount, Message, Millis, Ppm, Role};

use self::compare::compare;
use self::model::Naive;
use self::stakes::{Node, Stakes};
use self::steps::{Choice, Mood, Step, answers, odd, scene};
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

/// What differs from one run to another.
#[derive(Clone, Copy, Debug)]
struct Scene {
    audited: Ppm,
    drawn: u32,
    panel: u32,
}

fn params(scene: Scene) -> RunParams {
    let mut params = run_params();
    params.steps = STEPS;
    params.reward = Amount::new(REWARD);
    params.audited_share = scene.audited;
    params.drawn_steps = scene.drawn;
    params.panel = scene.panel;
    params.penalties.miner = Amount::remes(2);
    params.penalties.proposer = Amount::remes(2);
    params.min_miners = 2;
    params.min_validators = 2;
    params.proposers = 2;
    params.kept_rounds = 1;
    params
}

fn founding(params: RunParams) -> Genesis {
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
    let supply = START.uremes() * balances.len() as u64;
    genesis.params.rewards.max_supply = Amount::new(supply + ROOM);
    genesis.models = List::new(vec![model("tiny", b"model")]).unwrap();
    genesis.datasets = List::new(vec![dataset("texts")]).unwrap();
    genesis.nodes = List::new(nodes.to_vec()).unwrap();
    genesis.runs = List::new(vec![params]).unwrap();
    genesis
}

/// The network, the model, and how everybody behaves.
struct Theatre {
    play: Play,
    naive: Naive,
    start: u64,
    moods: BTreeMap<u8, Mood>,
    /// What each node sent last.
    said: BTreeMap<u8, TrainingMessage>,
}

impl Theatre {
    fn new(scene: Scene) -> Self {
        let params = params(scene);
        let genesis = founding(params.clone());
        let mut play = Play::found(&genesis);
        play.crowd = 1;
        let mut stakes = Stakes::default();
        stakes.balances.insert(address(0), START.uremes());
        for (index, roles, stake) in NODES {
            let stake = Amount::remes(stake).uremes();
            stakes.nodes.insert(address(index), Node::new(roles, stake));
            let left = START.uremes() - stake;
            stakes.balances.insert(address(index), left);
        }
        let supply = SUPPLY.get(&play.chain.view()).unwrap().unwrap();
        let max_supply = genesis.params.rewards.max_supply.uremes();
        let naive = Naive::new(params, stakes, supply.uremes(), max_supply);
        let start = genesis.time.nanos() / 1_000_000;
        let mut theatre = Self {
            play,
            naive,
            start,
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
        self.naive.stakes.now = chain.time.nanos() / 1_000_000 - self.start;
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
                Some(steps::serves_nothing(index, round))
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
            self.naive.stakes.charge(&address(*index), FEE.uremes());
            let expected = expect(&mut self.naive, place);
            let done = result.code == 0;
            assert_eq!(done, expected, "{message:?} of {index}: {}", result.log);
        }
        self.end();
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
                let message = steps::leave(*who);
                self.block(vec![(*who, message)], |naive, _| {
                    naive.stakes.leave(&address(*who))
                });
            }
            Step::Unjail { who } => {
                let message = steps::unjail(*who);
                self.block(vec![(*who, message)], |naive, _| {
                    naive.stakes.unjail(&address(*who))
                });
            }
            Step::Switch { who, paused } => {
                let message = steps::switch(*who, *paused);
                self.block(vec![(*who, message)], |naive, _| {
                    *who == 0 && naive.switch(*paused)
                });
            }
        }
    }
}

proptest! {
    #![proptest_config(config(16))]

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
}

//! Second audits: what stands between a miner that takes its stake back and being paid.
//!
//! The rounds are played by hand: a state is a name, so that a test decides what everybody claims.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use r3mes_ledger::export::{OpenRounds, export};
use r3mes_ledger::training::{DRAW_DELAY, ENTRIES, MAX_LEAVERS, MAX_REAUDITS, RUNS, RoundId};
use r3mes_ledger::{Genesis, Ledger, genesis, nodes};
use r3mes_types::bank::Balance;
use r3mes_types::commitment::{Work, leaf_salt, package_state, state_leaf};
use r3mes_types::governance::{Change, MsgPropose, RunSwitch, Spend};
use r3mes_types::merkle;
use r3mes_types::nodes::{MsgLeave, MsgRegister, MsgUpdate, NodeStatus};
use r3mes_types::rewards::QueryVesting;
use r3mes_types::task::AdapterRef;
use r3mes_types::training::{
    Backend, Entry, MsgAttestAggregate, MsgAttestPackages, MsgCommitStates, MsgCommitVerdict,
    MsgOpenLeaves, MsgProposeAggregate, MsgRevealPackage, MsgRevealVerdict, MsgServeStates,
    MsgVoteCourt, Obligation, ObligationKind as Kind, Opening, Outcome, Package, Phase,
    QueryObligations, QueryRound, Reaudit, RunParams, Served, ServedState, StepVerdict,
    TrainingMessage, Verdict,
};
use r3mes_types::tx::Fee;
use r3mes_types::wire::{List, Text};
use r3mes_types::{Address, Amount, Cid, Hash, Message, Millis, Ppm, Role};

use crate::chain::{CHAIN_ID, Chain, GAS, address, spec};
use crate::lane::run_params;
use crate::messages::model;
use crate::votes::dataset;

/// The miner that leaves, another one, four validators, a proposer.
const LEAVER: u8 = 1;
const MINERS: [u8; 2] = [1, 2];
const VALIDATORS: [u8; 4] = [3, 4, 5, 6];
const PROPOSER: u8 = 7;
const EVERYBODY: RangeInclusive<u8> = 1..=7;
const STAKE: Amount = Amount::remes(200);
const PENALTY: Amount = Amount::remes(2);
/// H.
const STEPS: u32 = 8;

/// A run whose first audits miss nearly everything, and whose second ones miss nothing.
pub(crate) fn params() -> RunParams {
    let mut params = run_params();
    params.audited_share = Ppm::percent(1);
    params.reaudited_share = Ppm::ONE;
    params.penalties.miner = PENALTY;
    params.drawn_steps = STEPS;
    params.panel = 2;
    params.min_miners = 2;
    params.min_validators = 4;
    params.kept_rounds = 1;
    params
}

/// The same with one drawn step, so that there is something to serve.
fn one_step() -> RunParams {
    RunParams {
        drawn_steps: 1,
        ..params()
    }
}

pub(crate) fn founding(params: RunParams) -> Genesis {
    founding_with(params, 0)
}

/// With so many miners more, whose keys come after the proposer's.
fn founding_with(params: RunParams, crowd: u8) -> Genesis {
    let balances: Vec<Balance> = (0..=PROPOSER + crowd)
        .map(|index| Balance {
            address: address(index),
            amount: Amount::remes(1_000),
        })
        .collect();
    let node = |index: u8| {
        let role = match index {
            PROPOSER => Role::Proposer,
            _ if VALIDATORS.contains(&index) => Role::Validator,
            _ => Role::Miner,
        };
        MsgRegister {
            address: address(index),
            spec: spec(&[role], STAKE),
        }
    };
    let mut genesis = genesis::development(CHAIN_ID, address(0), &balances);
    genesis.models = List::new(vec![model("tiny", b"model")]).unwrap();
    genesis.datasets = List::new(vec![dataset("texts")]).unwrap();
    genesis.nodes = List::new((1..=PROPOSER + crowd).map(node).collect()).unwrap();
    genesis.runs = List::new(vec![params]).unwrap();
    genesis
}

/// The true state after so many steps of a miner's round; after H + 1 its package.
fn truth(work: &Work, leaf: u32) -> Hash {
    state(work, leaf, "true")
}

fn state(work: &Work, leaf: u32, kind: &str) -> Hash {
    if leaf == STEPS + 1 {
        let package = package(work, kind);
        return package_state(&package.hash, &package.feedback);
    }
    if leaf == 0 {
        return Hash::of(b"initial state");
    }
    Hash::of(format!("{work:?} {leaf} {kind}").as_bytes())
}

fn package(work: &Work, kind: &str) -> Package {
    let bytes = format!("{work:?} {kind}");
    Package {
        cid: Cid::raw(bytes.as_bytes()),
        hash: Hash::of(bytes.as_bytes()),
        bytes: bytes.len() as u64,
        feedback: Hash::of(format!("{bytes} feedback").as_bytes()),
    }
}

fn aggregate(round: u32) -> AdapterRef {
    let name = format!("adapter {round}");
    AdapterRef {
        cid: Some(Cid::raw(name.as_bytes())),
        adapter: Hash::of(name.as_bytes()),
        // The same start state in every round keeps leaf 0 simple.
        state: Hash::of(b"initial state"),
    }
}

/// A network whose nodes answer what they owe, each in its own way.
struct Play {
    chain: Chain,
    /// Miners and the step that each falsifies; from there on its states are others.
    lies: BTreeMap<u8, u32>,
    /// What these nodes do not answer.
    silent: BTreeSet<(u8, Kind)>,
    /// Validators that accuse everybody.
    accusers: BTreeSet<u8>,
    /// Whether second audits go unanswered.
    holds: bool,
    /// Miners beside [`MINERS`].
    crowd: u8,
}

impl Play {
    fn new(params: RunParams) -> Self {
        Self::found(&founding(params))
    }

    fn found(genesis: &Genesis) -> Self {
        let mut chain = Chain::from(genesis);
        // The first round opens.
        chain.block(Vec::new());
        Self {
            chain,
            lies: BTreeMap::new(),
            silent: BTreeSet::new(),
            accusers: BTreeSet::new(),
            holds: false,
            crowd: 0,
        }
    }

    /// With so many miners more.
    fn with_crowd(params: RunParams, crowd: u8) -> Self {
        Self {
            crowd,
            ..Self::found(&founding_with(params, crowd))
        }
    }

    fn everybody(&self) -> RangeInclusive<u8> {
        1..=PROPOSER + self.crowd
    }

    fn claim(&self, index: u8, work: &Work, leaf: u32) -> Hash {
        match self.lies.get(&index) {
            Some(step) if leaf > *step => state(work, leaf, "false"),
            _ => truth(work, leaf),
        }
    }

    fn opening(&self, index: u8, work: &Work, leaf: u32) -> Opening {
        let secret = [index; 32];
        let leaves: Vec<Hash> = (0..=STEPS + 1)
            .map(|leaf| {
                let salt = leaf_salt(&secret, work, u64::from(leaf));
                state_leaf(work, u64::from(leaf), &salt, &self.claim(index, work, leaf))
            })
            .collect();
        Opening {
            index: leaf,
            salt: leaf_salt(&secret, work, u64::from(leaf)),
            state: self.claim(index, work, leaf),
            path: List::new(merkle::proof(&leaves, leaf as usize).unwrap()).unwrap(),
        }
    }

    fn root(&self, index: u8, work: &Work) -> Hash {
        let leaves: Vec<Hash> = (0..=STEPS + 1)
            .map(|leaf| {
                let opening = self.opening(index, work, leaf);
                state_leaf(work, u64::from(leaf), &opening.salt, &opening.state)
            })
            .collect();
        merkle::root(&leaves)
    }

    /// What a validator finds: from what the miner served, or in court from the public start.
    fn verdict(&self, validator: u8, owed: &Obligation) -> Verdict {
        let work = owed.task.as_ref().unwrap().work();
        let miner = self
            .everybody()
            .find(|i| address(*i) == work.miner)
            .unwrap();
        let court = owed.kind == Kind::Court;
        let lie = self.lies.get(&miner).copied();
        let mut steps: Vec<StepVerdict> = Vec::new();
        for &step in &owed.steps {
            let from_start = court || owed.served.is_none();
            let before = match steps.last() {
                Some(last) if last.step + 1 == step => last.after,
                _ if from_start => truth(&work, step),
                _ => self.claim(miner, &work, step),
            };
            // A right step from a false state gives what the liar has too.
            let after = if before == truth(&work, step) || lie == Some(step) {
                truth(&work, step + 1)
            } else {
                self.claim(miner, &work, step + 1)
            };
            steps.push(StepVerdict {
                step,
                before,
                after,
            });
        }
        if self.accusers.contains(&validator) {
            steps.last_mut().unwrap().after = Hash::of(b"made up");
        }
        Verdict {
            backend: Backend::Avx2,
            steps: List::new(steps).unwrap(),
            feedback_withheld: false,
        }
    }

    fn answer(&self, index: u8, owed: &Obligation) -> TrainingMessage {
        let me = address(index);
        let (run, round, second) = (owed.run, owed.round, owed.second);
        let task = owed.task.as_ref();
        let miner = task.map_or(me, |task| task.miner);
        let work = Work {
            run,
            round: u64::from(round),
            miner,
        };
        let nonce = Hash::of(&[index, u8::from(second)]);
        match owed.kind {
            Kind::Commit => MsgCommitStates {
                miner,
                run,
                round,
                root: self.root(index, &work),
                feedback_lost: false,
            }
            .into(),
            Kind::Reveal => {
                let kind = if self.lies.contains_key(&index) {
                    "false"
                } else {
                    "true"
                };
                MsgRevealPackage {
                    miner,
                    run,
                    round,
                    package: package(&work, kind),
                    start: self.opening(index, &work, 0),
                    end: self.opening(index, &work, STEPS + 1),
                }
                .into()
            }
            Kind::AttestPackages => MsgAttestPackages {
                validator: me,
                run,
                round,
                held: List::new(owed.packages.iter().map(|p| p.miner).collect()).unwrap(),
            }
            .into(),
            Kind::Serve => {
                let steps = r3mes_types::training::served_steps(&owed.steps);
                let states = steps.into_iter().map(|step| ServedState {
                    step,
                    state: self.claim(index, &work, step),
                    cid: Cid::raw(b"state"),
                });
                let feedback = task.unwrap().feedback.map(|_| Cid::raw(b"feedback"));
                MsgServeStates {
                    miner,
                    run,
                    round,
                    served: Served {
                        states: List::new(states.collect()).unwrap(),
                        feedback,
                    },
                    second,
                }
                .into()
            }
            Kind::CommitVerdict => MsgCommitVerdict {
                validator: me,
                run,
                round,
                miner,
                commitment: self.verdict(index, owed).commitment(&work, &me, &nonce),
                second,
            }
            .into(),
            Kind::RevealVerdict => MsgRevealVerdict {
                validator: me,
                run,
                round,
                miner,
                nonce,
                verdict: self.verdict(index, owed),
                second,
            }
            .into(),
            Kind::Open => {
                let leaves = r3mes_types::training::opened_leaves(&owed.steps);
                let openings = leaves.iter().map(|leaf| self.opening(index, &work, *leaf));
                MsgOpenLeaves {
                    miner,
                    run,
                    round,
                    openings: List::new(openings.collect()).unwrap(),
                    second,
                }
                .into()
            }
            Kind::Court => MsgVoteCourt {
                validator: me,
                run,
                round,
                miner,
                verdict: self.verdict(index, owed),
                second,
            }
            .into(),
            Kind::Propose => MsgProposeAggregate {
                proposer: me,
                run,
                round,
                aggregate: aggregate(round),
            }
            .into(),
            Kind::AttestAggregate => MsgAttestAggregate {
                validator: me,
                run,
                round,
                aggregate: aggregate(round),
            }
            .into(),
        }
    }

    fn owed(&self, index: u8) -> Vec<Obligation> {
        let question = QueryObligations {
            address: address(index),
        };
        self.chain.query(&question).obligations.to_vec()
    }

    /// Everybody answers the first thing owed; without any, the next deadline comes.
    fn turn(&mut self) {
        let mut txs = Vec::new();
        for index in self.everybody() {
            let owed = self.owed(index);
            let answered = owed.iter().find(|owed| {
                !(self.silent.contains(&(index, owed.kind)) || self.holds && owed.second)
            });
            if let Some(owed) = answered {
                let message = self.answer(index, owed).into();
                txs.push(self.chain.sign_with(index, vec![message], Fee::none(GAS)));
            }
        }
        if txs.is_empty() {
            let next = Ledger::next_deadline(&self.chain.state).unwrap();
            let next = next.expect("something is due");
            self.chain.time = self.chain.time.max(next);
        }
        for result in self.chain.block(txs) {
            assert_eq!(result.log, "");
        }
    }

    fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        for _ in 0..500 {
            if done(self) {
                return;
            }
            self.turn();
        }
        panic!("{what} does not happen");
    }

    /// Plays until round `number` is closed, and then opens no other.
    fn close(&mut self, number: u32) {
        self.until("the round's close", |play| play.run().round > number);
    }

    fn run(&self) -> r3mes_types::training::Run {
        RUNS.get(&self.chain.view(), &1).unwrap().unwrap()
    }

    fn pause(&mut self) {
        self.switch(true);
    }

    fn switch(&mut self, paused: bool) {
        let switch = RunSwitch { run: 1, paused };
        self.propose(Change::RunSwitch(switch));
    }

    fn propose(&mut self, change: Change) {
        let message = MsgPropose {
            proposer: address(0),
            title: Text::new("test").unwrap(),
            change,
        };
        self.chain.must(0, message);
    }

    /// What lowers a node's stake by the least there is.
    fn less(&self, index: u8) -> MsgUpdate {
        let node = self.chain.node(index);
        let mut spec = node.spec;
        spec.stake = node.bonded.saturating_sub(Amount::new(1));
        MsgUpdate {
            address: address(index),
            spec,
        }
    }

    /// A block in which all of these lower their stake.
    fn all_less(&mut self, miners: &[u8]) {
        let txs = miners
            .iter()
            .map(|index| self.chain.sign(*index, self.less(*index)))
            .collect();
        for result in self.chain.block(txs) {
            assert_eq!(result.log, "");
        }
    }

    /// Whether a block is asked for at once.
    fn is_prompted(&self) -> bool {
        let next = Ledger::next_deadline(&self.chain.state).unwrap();
        next.is_some_and(|next| next <= self.chain.time)
    }

    fn told(&self, kind: &str) -> bool {
        let output = self.chain.output.as_ref().unwrap();
        output.events.iter().any(|event| event.kind == kind)
    }

    fn leave(&mut self, index: u8) {
        let address = address(index);
        self.chain.must(index, MsgLeave { address });
    }

    fn entry(&self, round: u32, index: u8) -> Option<Entry> {
        let key = (RoundId { run: 1, round }, address(index));
        ENTRIES.get(&self.chain.view(), &key).unwrap()
    }

    fn reaudit(&self, round: u32, index: u8) -> Option<Reaudit> {
        self.entry(round, index)?.reaudit
    }

    fn is_judged(&self, round: u32, index: u8) -> bool {
        self.reaudit(round, index)
            .is_some_and(|reaudit| reaudit.phase == Phase::Closed)
    }

    /// Stake that the leaver has left, bonded or on its way back.
    fn stake(&self, index: u8) -> Amount {
        let node = self.chain.node(index);
        let parts = node.unbonding.iter().map(|part| part.amount);
        parts.fold(node.bonded, Amount::saturating_add)
    }

    /// One accepted round, after which no other opens, and the first miner leaves.
    fn after_one_round(mut self) -> Self {
        self.pause();
        self.close(0);
        let entry = self.entry(0, LEAVER).unwrap();
        assert_eq!(entry.outcome, Some(Outcome::Accepted));
        self.leave(LEAVER);
        self
    }

    fn second_audit(&mut self) -> Reaudit {
        self.until("the second audit", |play| play.is_judged(0, LEAVER));
        self.reaudit(0, LEAVER).unwrap()
    }

    fn until_paid_out(&mut self) {
        self.until("the release", |play| {
            play.chain.node(LEAVER).unbonding.is_empty()
        });
    }
}

#[test]
fn who_was_honest_gets_the_stake_back_after_the_second_audit() {
    let mut play = Play::new(params());
    let treasury = r3mes_ledger::bank::Module::Treasury.address();
    play = play.after_one_round();
    // The unbonding time passes before anybody answers: the stake stays.
    play.chain.wait(Millis::seconds(100));
    for _ in 0..=DRAW_DELAY {
        play.chain.block(Vec::new());
    }
    play.chain.wait(Millis::seconds(20));
    assert_eq!(play.stake(LEAVER), STAKE);
    assert_eq!(play.chain.node(LEAVER).disputes, 1);

    let mut play = Play::new(params()).after_one_round();
    let before = (
        play.chain.balance(&address(LEAVER)),
        play.chain.balance(&treasury),
    );
    let reaudit = play.second_audit();
    assert_eq!(reaudit.outcome, Some(Outcome::Accepted));
    assert_eq!(reaudit.slashed, Amount::ZERO);
    let panel = reaudit.audit.unwrap().panel;
    assert_eq!(panel.len(), 2);
    for seat in &panel {
        let index = VALIDATORS.iter().find(|i| address(**i) == seat.validator);
        let node = play.chain.node(*index.unwrap());
        assert_eq!((node.locks, node.locked), (0, Amount::ZERO));
    }
    // 20% of 1,000 uremes over 4 * (1 + 2) duties, 4 for each verdict.
    assert_eq!(reaudit.paid, Amount::new(2 * (200 * 4 / 12)));
    assert_eq!(
        play.chain.balance(&treasury),
        before.1.saturating_sub(reaudit.paid)
    );
    play.until_paid_out();
    let paid_out = play
        .chain
        .balance(&address(LEAVER))
        .saturating_sub(before.0);
    assert_eq!(paid_out, STAKE);
    assert_eq!(play.chain.node(LEAVER).disputes, 0);
}

#[test]
fn a_liar_that_slipped_through_is_slashed_from_its_unbonding_stake() {
    let mut play = Play::new(params());
    play.lies.insert(LEAVER, 3);
    let mut play = play.after_one_round();
    let reaudit = play.second_audit();
    assert_eq!(reaudit.outcome, Some(Outcome::Fraudulent));
    assert_eq!(reaudit.slashed, PENALTY);
    assert_eq!(play.stake(LEAVER), STAKE.saturating_sub(PENALTY));
    assert_eq!(play.chain.node(LEAVER).status, NodeStatus::Left);
    let record = play.chain.query(&QueryRound { run: 1, round: 0 });
    assert_eq!((record.court.len(), record.second_court.len()), (0, 4));
    // What it was paid for the round is history; the outcome of the round stands.
    assert_eq!(
        play.entry(0, LEAVER).unwrap().outcome,
        Some(Outcome::Accepted)
    );
    play.until_paid_out();
}

#[test]
fn who_withholds_states_and_leaves_is_convicted_by_a_replay() {
    let mut play = Play::new(one_step());
    play.lies.insert(LEAVER, 0);
    play.silent
        .extend([(LEAVER, Kind::Serve), (LEAVER, Kind::Open)]);
    let mut play = play.after_one_round();
    let reaudit = play.second_audit();
    assert_eq!(reaudit.outcome, Some(Outcome::Fraudulent));
    assert_eq!(play.stake(LEAVER), STAKE.saturating_sub(PENALTY));

    // An honest miner that has gone loses the same: it opens nothing.
    let mut play = Play::new(one_step());
    play.silent
        .extend([(LEAVER, Kind::Serve), (LEAVER, Kind::Open)]);
    let mut play = play.after_one_round();
    assert_eq!(play.second_audit().outcome, Some(Outcome::Fraudulent));
}

#[test]
fn a_false_accuser_loses_its_own_stake() {
    let mut play = Play::new(params());
    play.accusers.extend(VALIDATORS);
    let mut play = play.after_one_round();
    // Only the panel accuses; the court is honest.
    play.until("the panel", |play| play.reaudit(0, LEAVER).is_some());
    play.until("the court", |play| {
        play.reaudit(0, LEAVER).unwrap().phase == Phase::Court
    });
    play.accusers.clear();
    let reaudit = play.second_audit();
    assert_eq!(reaudit.outcome, Some(Outcome::Accepted));
    assert_eq!(reaudit.slashed, Amount::remes(2));
    for seat in &reaudit.audit.unwrap().panel {
        let index = VALIDATORS.iter().find(|i| address(**i) == seat.validator);
        let node = play.chain.node(*index.unwrap());
        assert_eq!(node.bonded, STAKE.saturating_sub(Amount::remes(1)));
        assert_eq!((node.status, node.locks), (NodeStatus::Jailed, 0));
    }
    assert_eq!(play.stake(LEAVER), STAKE);
    play.until_paid_out();
}

#[test]
fn a_court_without_a_quorum_lets_the_miner_go() {
    let mut play = Play::new(params());
    play.lies.insert(LEAVER, 3);
    play.silent.extend([(3, Kind::Court), (4, Kind::Court)]);
    let mut play = play.after_one_round();
    let reaudit = play.second_audit();
    assert_eq!(reaudit.outcome, Some(Outcome::Undecided));
    assert_eq!(reaudit.slashed, Amount::ZERO);
    play.until_paid_out();
}

#[test]
fn the_first_panel_sits_again_only_when_there_are_too_few_others() {
    let mut both = params();
    both.audited_share = Ppm::ONE;
    let panels = |panel: u32| {
        let mut play = Play::new(RunParams {
            panel,
            ..both.clone()
        })
        .after_one_round();
        let second = play.second_audit().audit.unwrap().panel;
        let first = play.entry(0, LEAVER).unwrap().audit.unwrap().panel;
        let of = |panel: &[r3mes_types::training::Seat]| -> BTreeSet<Address> {
            panel.iter().map(|seat| seat.validator).collect()
        };
        (of(&first), of(&second))
    };
    let (first, second) = panels(2);
    assert_eq!((first.len(), second.len()), (2, 2));
    assert!(first.is_disjoint(&second));
    let (first, second) = panels(3);
    assert_eq!((first.len(), second.len()), (3, 3));
    assert_eq!(first.intersection(&second).count(), 2);
}

/// The name of a lock that has nothing to do with training.
fn elsewhere() -> Hash {
    Hash::of(b"elsewhere")
}

/// Locks all of a node's free stake.
fn lock(play: &mut Play, index: u8) {
    let node = address(index);
    let all = play.chain.node(index).free();
    let locked = play
        .chain
        .act(|ctx| nodes::lock(ctx, &node, elsewhere(), all));
    assert!(locked.unwrap());
}

#[test]
fn a_panel_is_as_small_as_the_free_stake_makes_it() {
    let mut play = Play::new(params()).after_one_round();
    for index in [3, 4, 5] {
        lock(&mut play, index);
    }
    let panel = play.second_audit().audit.unwrap().panel;
    assert_eq!(panel.len(), 1);
    assert_eq!(panel[0].validator, address(6));
}

#[test]
fn a_panel_that_nobody_can_sit_in_is_tried_again_until_stake_is_free() {
    let mut play = Play::new(params());
    play.lies.insert(LEAVER, 3);
    let mut play = play.after_one_round();
    for index in VALIDATORS {
        lock(&mut play, index);
    }
    for _ in 0..2 * DRAW_DELAY {
        play.chain.block(Vec::new());
    }
    let reaudit = play.reaudit(0, LEAVER).unwrap();
    assert_eq!(reaudit.phase, Phase::Draw);
    assert_eq!(reaudit.audit.unwrap().panel.len(), 0);
    assert!(!play.is_prompted());
    assert_eq!(play.owed(LEAVER), []);
    let free = address(5);
    play.chain
        .act(|ctx| nodes::unlock(ctx, &free, elsewhere()))
        .unwrap();
    let reaudit = play.second_audit();
    assert_eq!(reaudit.outcome, Some(Outcome::Fraudulent));
    let panel = reaudit.audit.unwrap().panel;
    assert_eq!((panel.len(), panel[0].validator), (1, free));
}

#[test]
fn a_panel_that_nobody_can_sit_in_for_a_whole_round_is_given_up_and_told() {
    let mut play = Play::new(params()).after_one_round();
    let begun = play.chain.time;
    for index in VALIDATORS {
        lock(&mut play, index);
    }
    play.until("the end", |play| play.told("training.reaudit_unseated"));
    // Nine windows of 60 seconds.
    assert!(play.chain.time >= begun.after(Millis::seconds(9 * 60)));
    let reaudit = play.reaudit(0, LEAVER).unwrap();
    assert_eq!(
        (reaudit.phase, reaudit.audit, reaudit.outcome),
        (Phase::Closed, None, None)
    );
    play.until_paid_out();
}

#[test]
fn the_stake_that_a_round_sets_free_stands_behind_a_second_audit_before_the_next_round() {
    let mut play = Play::new(params());
    play.close(0);
    // Nobody has more free than what round 1 holds.
    for index in VALIDATORS {
        lock(&mut play, index);
    }
    play.all_less(&[LEAVER]);
    play.until("the draw", |play| play.reaudit(0, LEAVER).is_some());
    assert_eq!(play.reaudit(0, LEAVER).unwrap().phase, Phase::Draw);
    play.close(1);
    let reaudit = play.reaudit(0, LEAVER).unwrap();
    assert_eq!(reaudit.phase, Phase::Verify);
    assert_eq!(reaudit.audit.unwrap().panel.len(), 2);
    assert!(!play.run().open, "two validators are too few for a round");
    assert_eq!(play.second_audit().outcome, Some(Outcome::Accepted));
    play.close(2);
}

/// What an honest miner and one that lies come to when no panel says anything.
const WITHOUT_A_PANEL: [(Option<u32>, Outcome); 2] =
    [(None, Outcome::Accepted), (Some(3), Outcome::Fraudulent)];

#[test]
fn a_first_panel_that_says_nothing_leaves_the_package_to_the_court() {
    for kind in [Kind::CommitVerdict, Kind::RevealVerdict] {
        for (lie, outcome) in WITHOUT_A_PANEL {
            let mut play = Play::new(RunParams {
                audited_share: Ppm::ONE,
                ..params()
            });
            play.lies.extend(lie.map(|step| (LEAVER, step)));
            play.silent.extend(VALIDATORS.map(|index| (index, kind)));
            play.pause();
            play.close(0);
            let entry = play.entry(0, LEAVER).unwrap();
            assert!(entry.audit.unwrap().disputed);
            assert_eq!(entry.outcome, Some(outcome));
        }
    }
}

#[test]
fn a_second_panel_that_says_nothing_leaves_the_package_to_the_court() {
    for kind in [Kind::CommitVerdict, Kind::RevealVerdict] {
        for (lie, outcome) in WITHOUT_A_PANEL {
            let mut play = Play::new(params());
            play.lies.extend(lie.map(|step| (LEAVER, step)));
            let mut play = play.after_one_round();
            play.silent.extend(VALIDATORS.map(|index| (index, kind)));
            assert_eq!(play.second_audit().outcome, Some(outcome));
            play.until_paid_out();
        }
    }
    // One verdict is enough.
    let mut play = Play::new(params()).after_one_round();
    play.until("the panel", |play| {
        play.reaudit(0, LEAVER)
            .is_some_and(|reaudit| reaudit.phase == Phase::Verify)
    });
    let panel = play.reaudit(0, LEAVER).unwrap().audit.unwrap().panel;
    let first = VALIDATORS
        .into_iter()
        .find(|index| address(*index) == panel[0].validator)
        .unwrap();
    play.silent.insert((first, Kind::CommitVerdict));
    assert_eq!(play.second_audit().outcome, Some(Outcome::Accepted));
}

#[test]
fn a_second_audit_begins_anew_on_a_chain_that_goes_on_long_after_its_deadlines() {
    for phase in [Phase::Serve, Phase::Verdict, Phase::Open, Phase::Court] {
        let mut play = Play::new(one_step());
        // With a false accuser on the panel there is a court, and the miner has said what it can.
        play.accusers.extend(VALIDATORS);
        let mut play = play.after_one_round();
        play.until("the phase", |play| {
            play.reaudit(0, LEAVER)
                .is_some_and(|reaudit| reaudit.phase == phase)
        });
        play.accusers.clear();
        if phase == Phase::Court {
            let voter = play.owed(VALIDATORS[0]);
            let vote = play.answer(VALIDATORS[0], &voter[0]).into();
            let vote = play
                .chain
                .sign_with(VALIDATORS[0], vec![vote], Fee::none(GAS));
            assert_eq!(play.chain.block(vec![vote])[0].log, "");
        }

        let mut plan = crate::export::plan(&play.chain, OpenRounds::Refuse);
        plan.time = play.chain.time.after(Millis::seconds(3 * 3600));
        let genesis = export(&play.chain.state, &plan).unwrap();
        play.chain = crate::export::begin(&genesis);
        let reaudit = play.reaudit(0, LEAVER).unwrap();
        assert_eq!(reaudit.phase, Phase::Draw, "{phase}");
        for index in VALIDATORS {
            assert_eq!(play.chain.node(index).locks, 0, "{phase}");
        }
        // It begins an hour later still.
        play.chain.wait(Millis::seconds(3600));
        let reaudit = play.second_audit();
        assert_eq!(reaudit.outcome, Some(Outcome::Accepted), "{phase}");
        assert_eq!(reaudit.slashed, Amount::ZERO, "{phase}");
        assert_eq!(play.stake(LEAVER), STAKE, "{phase}");
        play.until_paid_out();
    }
}

/// Second audits are possible, but none is drawn.
fn none_drawn() -> RunParams {
    RunParams {
        reaudited_share: Ppm::new(1).unwrap(),
        ..params()
    }
}

#[test]
fn whoever_lowers_its_stake_again_and_again_stops_neither_pruning_nor_others() {
    let mut play = Play::new(none_drawn());
    let mut drawn = BTreeSet::new();
    let mut left = false;
    for _ in 0..500 {
        if play.run().round == 3 {
            break;
        }
        play.turn();
        play.all_less(&[LEAVER]);
        drawn.extend((0..3).filter(|round| play.is_judged(*round, LEAVER)));
        if play.run().round == 2 && !left {
            left = true;
            play.leave(MINERS[1]);
        }
        // The miner that lowers its stake is done with its packages up to the round before.
        let (open, oldest) = (play.run().round, play.run().oldest_kept);
        assert!(open <= oldest + 2, "round {oldest} stays in round {open}");
    }
    assert_eq!(play.run().round, 3);
    for _ in 0..=2 * DRAW_DELAY {
        play.all_less(&[LEAVER]);
    }
    drawn.extend((0..3).filter(|round| play.is_judged(*round, LEAVER)));
    assert_eq!(drawn, BTreeSet::from([0, 1, 2]));
    assert_eq!(play.run().oldest_kept, 2);
    // Nothing is left to be drawn: it is let go in the same block.
    play.all_less(&[LEAVER]);
    assert!(!play.is_prompted());
    assert_eq!(play.chain.node(LEAVER).disputes, 0);
    play.until("the other's release", |play| {
        play.chain.node(MINERS[1]).unbonding.is_empty()
    });
}

#[test]
fn blocks_are_asked_for_while_a_draw_needs_them_and_no_longer() {
    let mut play = Play::new(none_drawn()).after_one_round();
    for _ in 0..DRAW_DELAY {
        assert!(play.is_prompted());
        assert!(!play.is_judged(0, LEAVER));
        play.chain.block(Vec::new());
    }
    assert!(play.is_judged(0, LEAVER));
    assert!(!play.is_prompted());
}

/// As many second audits as can be open are, so that the draw for the leaver's package of round 0 goes on
/// until its package of round 1 is accepted. `again`: it takes more back in round 1.
fn long_draw(again: bool) -> Play {
    let params = RunParams {
        max_miners: 64,
        ..params()
    };
    let crowd = MAX_REAUDITS as u8;
    let mut play = Play::with_crowd(params, crowd);
    play.pause();
    play.close(0);
    play.holds = true;
    let crowd: Vec<u8> = (8..8 + crowd).collect();
    play.all_less(&crowd);
    for _ in 0..=DRAW_DELAY {
        play.chain.block(Vec::new());
    }
    play.all_less(&[LEAVER]);
    for _ in 0..=DRAW_DELAY {
        play.chain.block(Vec::new());
    }
    assert!(!play.is_prompted());
    play.switch(false);
    play.until("round 1", |play| play.run().open);
    play.pause();
    if again {
        play.all_less(&[LEAVER]);
    }
    play.close(1);
    assert_eq!(play.reaudit(0, LEAVER), None);
    play.holds = false;
    let reaudit = play.second_audit();
    assert_eq!(reaudit.outcome, Some(Outcome::Accepted));
    play
}

#[test]
fn a_package_that_came_after_the_mix_was_known_is_not_drawn_by_it() {
    let mut play = long_draw(false);
    // Its stake is not what was being taken back when round 1 opened.
    let entry = play.entry(1, LEAVER).unwrap();
    assert_eq!(
        (entry.outcome, entry.reaudit),
        (Some(Outcome::Accepted), None)
    );
    play.leave(LEAVER);
    play.until("the second audit of round 1", |play| {
        play.is_judged(1, LEAVER)
    });
}

#[test]
fn who_takes_more_back_during_its_draw_has_another_turn_after_it() {
    let mut play = long_draw(true);
    play.until("the second audit of round 1", |play| {
        play.is_judged(1, LEAVER)
    });
    assert_eq!(play.chain.node(LEAVER).disputes, 0);
}

#[test]
fn a_round_is_kept_until_its_packages_are_drawn_for() {
    let mut play = Play::new(none_drawn());
    play.close(0);
    play.pause();
    play.until("the aggregate", |play| {
        play.owed(3)
            .iter()
            .any(|owed| owed.kind == Kind::AttestAggregate)
    });
    play.all_less(&[LEAVER]);
    play.turn();
    assert_eq!((play.run().round, play.run().open), (2, false));
    assert_eq!(play.run().oldest_kept, 0);
    play.chain.block(Vec::new());
    assert!(play.is_judged(0, LEAVER));
    // The package of round 1 still waits, but that round is kept anyway.
    play.chain.block(Vec::new());
    assert_eq!(play.run().oldest_kept, 1);
    assert_eq!(play.entry(0, LEAVER), None);
}

#[test]
fn who_came_first_is_drawn_for_first_whatever_the_addresses() {
    let slots = MAX_LEAVERS;
    let params = RunParams {
        max_miners: 64,
        ..none_drawn()
    };
    let mut play = Play::with_crowd(params, 2 * slots as u8);
    play.pause();
    play.close(0);
    let mut miners: Vec<u8> = MINERS.into_iter().chain(8..=7 + 2 * slots as u8).collect();
    miners.sort_by_key(|index| address(*index));
    let late = miners.pop().unwrap();
    let (first, second) = miners.split_at(slots);
    play.all_less(first);
    // No slot is free, and those who have one ask again.
    play.all_less(&[first, &[late]].concat());
    assert_eq!(play.chain.node(late).disputes, 0);
    // The slots get free, and more than there are want them.
    play.all_less(second);
    let judged = |play: &Play, of: &[u8]| of.iter().filter(|i| play.is_judged(0, **i)).count();
    assert_eq!(judged(&play, first), slots);
    assert_eq!(play.chain.node(late).disputes, 1);
    for _ in 0..DRAW_DELAY {
        play.all_less(first);
    }
    assert!(play.is_judged(0, late));
    assert_eq!(judged(&play, second), slots - 1);
    for _ in 0..DRAW_DELAY {
        play.all_less(first);
    }
    assert_eq!(judged(&play, second), second.len());
    assert!(!play.is_prompted());
}

#[test]
fn every_kept_round_of_a_node_is_audited_again_once_and_pruning_waits() {
    let mut play = Play::new(params());
    play.close(0);
    play.pause();
    // In round 1 it takes back a part first, and the rest while the second audit is open.
    let part = MsgUpdate {
        address: address(LEAVER),
        spec: spec(&[Role::Miner], Amount::remes(150)),
    };
    play.chain.must(LEAVER, part);
    play.holds = true;
    play.until("the second audit of round 0", |play| {
        play.reaudit(0, LEAVER).is_some()
    });
    play.leave(LEAVER);
    play.close(1);
    // One round is kept, which is round 1; but round 0 is not done with.
    play.chain.block(Vec::new());
    assert_eq!(play.run().oldest_kept, 0);
    assert_ne!(play.reaudit(0, LEAVER).unwrap().phase, Phase::Closed);
    play.holds = false;
    play.until("pruning", |play| play.entry(0, LEAVER).is_none());
    assert_eq!(play.run().oldest_kept, 1);
    play.until("the end of round 1", |play| play.is_judged(1, LEAVER));
    let judged = play.reaudit(1, LEAVER).unwrap();
    assert_eq!(judged.outcome, Some(Outcome::Accepted));
    play.until_paid_out();
    assert_eq!(play.reaudit(1, LEAVER).unwrap(), judged, "never twice");
    assert_eq!(play.stake(LEAVER), Amount::ZERO);
}

#[test]
fn the_package_of_a_round_that_was_open_when_its_miner_left_is_audited_again_too() {
    let mut play = Play::new(params());
    play.lies.insert(LEAVER, 3);
    play.pause();
    play.until("availability", |play| {
        play.owed(3)
            .iter()
            .any(|owed| owed.kind == Kind::AttestPackages)
    });
    play.leave(LEAVER);
    play.close(0);
    assert_eq!(play.second_audit().outcome, Some(Outcome::Fraudulent));
    assert_eq!(play.stake(LEAVER), STAKE.saturating_sub(PENALTY));
}

#[test]
fn the_share_decides_and_what_is_not_drawn_is_passed_over() {
    let mut play = Play::new(RunParams {
        reaudited_share: Ppm::new(1).unwrap(),
        ..params()
    })
    .after_one_round();
    let reaudit = play.second_audit();
    assert_eq!((reaudit.audit, reaudit.outcome), (None, None));
    play.until_paid_out();

    let mut none = Play::new(RunParams {
        reaudited_share: Ppm::ZERO,
        ..params()
    })
    .after_one_round();
    assert_eq!(none.chain.node(LEAVER).disputes, 0);
    none.until_paid_out();
    assert_eq!(none.reaudit(0, LEAVER), None);
}

#[test]
fn an_answer_to_a_second_audit_is_free_once_and_its_repeat_changes_nothing() {
    let mut play = Play::new(one_step()).after_one_round();
    play.until("the second audit", |play| {
        play.owed(LEAVER).iter().any(|owed| owed.second)
    });
    let owed = play.owed(LEAVER).remove(0);
    assert_eq!(owed.kind, Kind::Serve);
    let message: Message = play.answer(LEAVER, &owed).into();
    let send = |play: &mut Play, message: &Message| {
        let tx = play
            .chain
            .sign_with(LEAVER, vec![message.clone()], Fee::none(GAS));
        play.chain.block(vec![tx]).remove(0)
    };
    let before = play.chain.balance(&address(LEAVER));
    assert_eq!(send(&mut play, &message).log, "");
    let served = play.reaudit(0, LEAVER).unwrap();
    assert_eq!(send(&mut play, &message).log, "");
    assert_eq!(play.reaudit(0, LEAVER).unwrap(), served);
    assert_eq!(play.chain.balance(&address(LEAVER)), before);
    // The same as an answer to the first audit is owed by nobody.
    let TrainingMessage::ServeStates(mut first) = play.answer(LEAVER, &owed) else {
        panic!("states are served");
    };
    first.second = false;
    let refused = play.chain.send(LEAVER, TrainingMessage::from(first));
    assert_eq!((refused.codespace.as_str(), refused.code), ("training", 4));
}

#[test]
fn without_money_in_the_treasury_a_second_audit_is_done_all_the_same() {
    let mut play = Play::new(params()).after_one_round();
    let amount = play
        .chain
        .balance(&r3mes_ledger::bank::Module::Treasury.address());
    let spend = Spend {
        to: address(0),
        amount,
    };
    // Its fee is paid first and stays.
    play.propose(Change::Spend(spend));
    let reaudit = play.second_audit();
    assert_eq!(reaudit.outcome, Some(Outcome::Accepted));
    play.until_paid_out();
}

#[test]
fn what_a_round_and_a_second_audit_pay_vests() {
    let mut genesis = founding(params());
    genesis.params.rewards.vesting = Millis::seconds(600);
    let mut play = Play::found(&genesis).after_one_round();
    let vesting = |play: &Play, index: u8| {
        let question = QueryVesting {
            address: address(index),
        };
        play.chain.query(&question).total
    };
    let paid = play.entry(0, LEAVER).unwrap().paid;
    assert!(!paid.is_zero());
    assert_eq!(vesting(&play, LEAVER), paid);
    let of_all = |play: &Play| -> u64 {
        let all = EVERYBODY.map(|index| vesting(play, index).uremes());
        all.sum()
    };
    let record = play.chain.query(&QueryRound { run: 1, round: 0 });
    assert_eq!(of_all(&play), record.head.unwrap().paid.uremes());
    let before = of_all(&play);
    let reaudit = play.second_audit();
    assert_eq!(of_all(&play) - before, reaudit.paid.uremes());
    play.until("the end of vesting", |play| of_all(play) == 0);
}

#[test]
fn a_vote_about_a_miner_that_was_never_there_is_refused() {
    let mut play = Play::new(RunParams {
        audited_share: Ppm::ONE,
        ..params()
    });
    play.lies.insert(LEAVER, 3);
    play.until("the court", |play| {
        play.owed(3).iter().any(|owed| owed.kind == Kind::Court)
    });
    let owed = play.owed(3).remove(0);
    let TrainingMessage::VoteCourt(mut vote) = play.answer(3, &owed) else {
        panic!("a vote is owed");
    };
    for second in [false, true] {
        vote.miner = address(0);
        vote.second = second;
        let refused = play.chain.send(3, TrainingMessage::from(vote.clone()));
        assert_eq!((refused.codespace.as_str(), refused.code), ("training", 4));
    }
}

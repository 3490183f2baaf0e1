//! A training network played by hand: a state is a name, so that a test decides what everybody claims.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use r3mes_ledger::training::{ENTRIES, RUNS, RoundId};
use r3mes_ledger::{Genesis, Ledger, genesis};
use r3mes_types::bank::Balance;
use r3mes_types::commitment::{Work, leaf_salt, package_state, state_leaf};
use r3mes_types::governance::{Change, MsgPropose, RunSwitch};
use r3mes_types::merkle;
use r3mes_types::nodes::{MsgLeave, MsgRegister, MsgUpdate};
use r3mes_types::task::AdapterRef;
use r3mes_types::training::{
    Backend, Entry, MsgAttestAggregate, MsgAttestPackages, MsgCommitStates, MsgCommitVerdict,
    MsgOpenLeaves, MsgProposeAggregate, MsgRevealPackage, MsgRevealVerdict, MsgServeStates,
    MsgVoteCourt, Obligation, ObligationKind as Kind, Opening, Outcome, Package, Phase,
    QueryObligations, Reaudit, RunParams, Served, ServedState, StepVerdict, TrainingMessage,
    Verdict,
};
use r3mes_types::tx::Fee;
use r3mes_types::wire::{List, Text};
use r3mes_types::{Amount, Cid, Hash, Ppm, Role};

use crate::chain::{CHAIN_ID, Chain, GAS, address, spec};
use crate::lane::run_params;
use crate::messages::model;
use crate::votes::dataset;

/// The miner that leaves, another one, four validators, a proposer.
pub(crate) const LEAVER: u8 = 1;
pub(crate) const MINERS: [u8; 2] = [1, 2];
pub(crate) const VALIDATORS: [u8; 4] = [3, 4, 5, 6];
pub(crate) const PROPOSER: u8 = 7;
pub(crate) const EVERYBODY: RangeInclusive<u8> = 1..=7;
pub(crate) const STAKE: Amount = Amount::remes(200);
pub(crate) const PENALTY: Amount = Amount::remes(2);
/// H.
pub(crate) const STEPS: u32 = 8;

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
pub(crate) fn one_step() -> RunParams {
    RunParams {
        drawn_steps: 1,
        ..params()
    }
}

pub(crate) fn founding(params: RunParams) -> Genesis {
    founding_with(params, 0)
}

/// With so many miners more, whose keys come after the proposer's.
pub(crate) fn founding_with(params: RunParams, crowd: u8) -> Genesis {
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
pub(crate) fn truth(work: &Work, leaf: u32) -> Hash {
    state(work, leaf, "true")
}

pub(crate) fn state(work: &Work, leaf: u32, kind: &str) -> Hash {
    if leaf == STEPS + 1 {
        let package = package(work, kind);
        return package_state(&package.hash, &package.feedback);
    }
    if leaf == 0 {
        return Hash::of(b"initial state");
    }
    Hash::of(format!("{work:?} {leaf} {kind}").as_bytes())
}

pub(crate) fn package(work: &Work, kind: &str) -> Package {
    let bytes = format!("{work:?} {kind}");
    Package {
        cid: Cid::raw(bytes.as_bytes()),
        hash: Hash::of(bytes.as_bytes()),
        bytes: bytes.len() as u64,
        feedback: Hash::of(format!("{bytes} feedback").as_bytes()),
    }
}

pub(crate) fn aggregate(round: u32) -> AdapterRef {
    let name = format!("adapter {round}");
    AdapterRef {
        cid: Some(Cid::raw(name.as_bytes())),
        adapter: Hash::of(name.as_bytes()),
        // The same start state in every round keeps leaf 0 simple.
        state: Hash::of(b"initial state"),
    }
}

/// A network whose nodes answer what they owe, each in its own way.
pub(crate) struct Play {
    pub(crate) chain: Chain,
    /// Miners and the step that each falsifies; from there on its states are others.
    pub(crate) lies: BTreeMap<u8, u32>,
    /// What these nodes do not answer.
    pub(crate) silent: BTreeSet<(u8, Kind)>,
    /// Validators that accuse everybody.
    pub(crate) accusers: BTreeSet<u8>,
    /// Whether second audits go unanswered.
    pub(crate) holds: bool,
    /// Miners beside [`MINERS`].
    pub(crate) crowd: u8,
}

impl Play {
    pub(crate) fn new(params: RunParams) -> Self {
        Self::found(&founding(params))
    }

    pub(crate) fn found(genesis: &Genesis) -> Self {
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
    pub(crate) fn with_crowd(params: RunParams, crowd: u8) -> Self {
        Self {
            crowd,
            ..Self::found(&founding_with(params, crowd))
        }
    }

    pub(crate) fn everybody(&self) -> RangeInclusive<u8> {
        1..=PROPOSER + self.crowd
    }

    pub(crate) fn claim(&self, index: u8, work: &Work, leaf: u32) -> Hash {
        match self.lies.get(&index) {
            Some(step) if leaf > *step => state(work, leaf, "false"),
            _ => truth(work, leaf),
        }
    }

    pub(crate) fn opening(&self, index: u8, work: &Work, leaf: u32) -> Opening {
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

    pub(crate) fn root(&self, index: u8, work: &Work) -> Hash {
        let leaves: Vec<Hash> = (0..=STEPS + 1)
            .map(|leaf| {
                let opening = self.opening(index, work, leaf);
                state_leaf(work, u64::from(leaf), &opening.salt, &opening.state)
            })
            .collect();
        merkle::root(&leaves)
    }

    /// What a validator finds: from what the miner served, or in court from the public start.
    pub(crate) fn verdict(&self, validator: u8, owed: &Obligation) -> Verdict {
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

    pub(crate) fn answer(&self, index: u8, owed: &Obligation) -> TrainingMessage {
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

    pub(crate) fn owed(&self, index: u8) -> Vec<Obligation> {
        let question = QueryObligations {
            address: address(index),
        };
        self.chain.query(&question).obligations.to_vec()
    }

    /// Everybody answers the first thing owed; without any, the next deadline comes.
    pub(crate) fn turn(&mut self) {
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

    pub(crate) fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        for _ in 0..500 {
            if done(self) {
                return;
            }
            self.turn();
        }
        panic!("{what} does not happen");
    }

    /// Plays until round `number` is closed, and then opens no other.
    pub(crate) fn close(&mut self, number: u32) {
        self.until("the round's close", |play| play.run().round > number);
    }

    pub(crate) fn run(&self) -> r3mes_types::training::Run {
        RUNS.get(&self.chain.view(), &1).unwrap().unwrap()
    }

    pub(crate) fn pause(&mut self) {
        self.switch(true);
    }

    pub(crate) fn switch(&mut self, paused: bool) {
        let switch = RunSwitch { run: 1, paused };
        self.propose(Change::RunSwitch(switch));
    }

    pub(crate) fn propose(&mut self, change: Change) {
        let message = MsgPropose {
            proposer: address(0),
            title: Text::new("test").unwrap(),
            change,
        };
        self.chain.must(0, message);
    }

    /// What lowers a node's stake by the least there is.
    pub(crate) fn less(&self, index: u8) -> MsgUpdate {
        let node = self.chain.node(index);
        let mut spec = node.spec;
        spec.stake = node.bonded.saturating_sub(Amount::new(1));
        MsgUpdate {
            address: address(index),
            spec,
        }
    }

    /// A block in which all of these lower their stake.
    pub(crate) fn all_less(&mut self, miners: &[u8]) {
        let txs = miners
            .iter()
            .map(|index| self.chain.sign(*index, self.less(*index)))
            .collect();
        for result in self.chain.block(txs) {
            assert_eq!(result.log, "");
        }
    }

    /// Whether a block is asked for at once.
    pub(crate) fn is_prompted(&self) -> bool {
        let next = Ledger::next_deadline(&self.chain.state).unwrap();
        next.is_some_and(|next| next <= self.chain.time)
    }

    pub(crate) fn told(&self, kind: &str) -> bool {
        let output = self.chain.output.as_ref().unwrap();
        output.events.iter().any(|event| event.kind == kind)
    }

    pub(crate) fn leave(&mut self, index: u8) {
        let address = address(index);
        self.chain.must(index, MsgLeave { address });
    }

    pub(crate) fn entry(&self, round: u32, index: u8) -> Option<Entry> {
        let key = (RoundId { run: 1, round }, address(index));
        ENTRIES.get(&self.chain.view(), &key).unwrap()
    }

    pub(crate) fn reaudit(&self, round: u32, index: u8) -> Option<Reaudit> {
        self.entry(round, index)?.reaudit
    }

    pub(crate) fn is_judged(&self, round: u32, index: u8) -> bool {
        self.reaudit(round, index)
            .is_some_and(|reaudit| reaudit.phase == Phase::Closed)
    }

    /// Stake that the leaver has left, bonded or on its way back.
    pub(crate) fn stake(&self, index: u8) -> Amount {
        let node = self.chain.node(index);
        let parts = node.unbonding.iter().map(|part| part.amount);
        parts.fold(node.bonded, Amount::saturating_add)
    }

    /// One accepted round, after which no other opens, and the first miner leaves.
    pub(crate) fn after_one_round(mut self) -> Self {
        self.pause();
        self.close(0);
        let entry = self.entry(0, LEAVER).unwrap();
        assert_eq!(entry.outcome, Some(Outcome::Accepted));
        self.leave(LEAVER);
        self
    }

    pub(crate) fn second_audit(&mut self) -> Reaudit {
        self.until("the second audit", |play| play.is_judged(0, LEAVER));
        self.reaudit(0, LEAVER).unwrap()
    }

    pub(crate) fn until_paid_out(&mut self) {
        self.until("the release", |play| {
            play.chain.node(LEAVER).unbonding.is_empty()
        });
    }
}

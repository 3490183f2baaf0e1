//! The run: how rounds open, go from phase to phase, and are paid.

use std::collections::BTreeMap;

use r3mes_ledger::rewards::Deed;
use r3mes_types::task::AdapterRef;
use r3mes_types::training::{Outcome, Phase, RoundRecord, RunParams, RunStatus};
use r3mes_types::{Address, Hash, Millis, Ppm, Role};

use super::court::is_quorum;
use super::round::{Duty, Entry, Round};
use super::stakes::Stakes;
use crate::naive::rewards::model::Record;

/// What other duties of a validator weigh.
const HOLDING: u64 = 1;
const AGGREGATE: u64 = 2;

/// Where a closed or open round stands on the ledger: draws are taken from there.
pub(super) type Look<'a> = &'a dyn Fn(u32) -> RoundRecord;

pub(super) struct Naive {
    pub(super) params: RunParams,
    pub(super) height: u64,
    pub(super) stakes: Stakes,
    pub(super) supply: u64,
    pub(super) max_supply: u64,
    pub(super) status: RunStatus,
    /// By number; the last may be open.
    pub(super) rounds: Vec<Round>,
    pub(super) oldest_kept: u32,
    pub(super) adapter: AdapterRef,
    pub(super) versions: u32,
    pub(super) records: BTreeMap<Address, Record>,
    /// What each miner's newest accepted package left, and in which round.
    feedback: BTreeMap<Address, (u32, Hash)>,
}

/// A part of a whole, rounded down.
fn share(amount: u64, part: Ppm) -> u64 {
    (u128::from(amount) * u128::from(part.millionths()) / 1_000_000) as u64
}

impl Naive {
    pub(super) fn new(params: RunParams, stakes: Stakes, supply: u64, max_supply: u64) -> Self {
        Self {
            adapter: params.initial.clone(),
            params,
            height: 0,
            stakes,
            supply,
            max_supply,
            status: RunStatus::Active,
            rounds: Vec::new(),
            oldest_kept: 0,
            versions: 0,
            records: BTreeMap::new(),
            feedback: BTreeMap::new(),
        }
    }

    pub(super) fn open(&self) -> Option<&Round> {
        self.rounds
            .last()
            .filter(|round| round.phase != Phase::Closed)
    }

    /// The number of the round that is open, or opens next.
    pub(super) fn next(&self) -> u32 {
        self.rounds.len() as u32 - u32::from(self.open().is_some())
    }

    fn note(&mut self, who: &Address, deed: Deed) {
        self.records.entry(*who).or_default().note(deed);
    }

    pub(super) fn broken(&mut self, who: &Address) {
        self.note(who, Deed::Broken);
    }

    /// Keeps the run from opening rounds, or lets it again; whether that can be done.
    pub(super) fn switch(&mut self, paused: bool) -> bool {
        match (self.status, paused) {
            (RunStatus::Finished, false) => return false,
            (RunStatus::Finished, true) => {}
            (_, true) => self.status = RunStatus::Paused,
            (_, false) => self.status = RunStatus::Active,
        }
        true
    }

    /// Everything goes as far as it can.
    pub(super) fn end_block(&mut self, look: Look<'_>) {
        self.stakes.end_block();
        loop {
            if self.open().is_none() {
                let old = self.next().saturating_sub(self.params.kept_rounds);
                self.oldest_kept = self.oldest_kept.max(old);
                if self.status != RunStatus::Active || !self.open_round() {
                    return;
                }
            }
            let round = self.rounds.last().unwrap();
            let over = match round.phase {
                Phase::Assign | Phase::Pay => true,
                Phase::Draw => round.standing() == 0 || self.height >= round.draw_height,
                _ => round.is_answered() || self.stakes.now >= round.deadline,
            };
            if !over {
                return;
            }
            self.settle(look);
        }
    }

    /// Members are active, and have free stake for each of their roles.
    fn open_round(&mut self) -> bool {
        let penalties = &self.params.penalties;
        let mut free: BTreeMap<Address, u64> = BTreeMap::new();
        for (who, node) in &self.stakes.nodes {
            free.insert(*who, node.free());
        }
        let mut able = |role: Role, penalty: u64| -> Vec<Address> {
            let mut members = Vec::new();
            for (who, node) in &self.stakes.nodes {
                let left = free.get_mut(who).unwrap();
                if node.takes_part(role) && *left >= penalty {
                    *left -= penalty;
                    members.push(*who);
                }
            }
            members
        };
        let validators = able(Role::Validator, penalties.validator.uremes());
        let proposers = able(Role::Proposer, penalties.proposer.uremes());
        let miners = able(Role::Miner, penalties.miner.uremes());
        if validators.len() < self.params.min_validators as usize
            || proposers.is_empty()
            || miners.len() < self.params.min_miners as usize
        {
            return false;
        }
        let number = self.rounds.len() as u32;
        let feedback = |miner: &Address| {
            let (round, hash) = self.feedback.get(miner)?;
            (round + 1 == number).then_some(*hash)
        };
        let entry = |miner: &Address| Entry {
            feedback: feedback(miner),
            ..Entry::default()
        };
        let duty = |who: &Address| Duty {
            power: self.stakes.nodes[who].bonded,
            ..Duty::default()
        };
        self.rounds.push(Round {
            number,
            phase: Phase::Assign,
            deadline: self.stakes.now,
            start: self.adapter.clone(),
            entries: miners.iter().map(|who| (*who, entry(who))).collect(),
            duties: validators.iter().map(|who| (*who, duty(who))).collect(),
            owed: 0,
            draw_height: 0,
            proposers,
            attempt: 0,
            proposal: None,
            wrong: Vec::new(),
            aggregate: None,
            paid: 0,
            slashed: 0,
        });
        true
    }

    /// What the end of the phase means for everybody, and the next phase.
    fn settle(&mut self, look: Look<'_>) {
        let mut round = self.rounds.pop().unwrap();
        let next = match round.phase {
            Phase::Assign => {
                self.assign(&mut round);
                Phase::Commit
            }
            Phase::Commit => {
                self.drop_without(&mut round, Outcome::Absent, |entry| {
                    entry.commitment.is_some()
                });
                Phase::Reveal
            }
            Phase::Reveal => {
                self.drop_without(&mut round, Outcome::Unrevealed, |entry| {
                    entry.package.is_some()
                });
                Phase::Availability
            }
            Phase::Availability => {
                let all = round.all_power();
                self.drop_without(&mut round, Outcome::Unavailable, |entry| {
                    is_quorum(entry.held, all)
                });
                round.draw_height = self.height + 2;
                Phase::Draw
            }
            Phase::Draw => {
                self.draw(&mut round, look);
                Phase::Serve
            }
            Phase::Serve => Phase::Verify,
            Phase::Verify => Phase::Verdict,
            Phase::Verdict => Phase::Open,
            Phase::Open => {
                self.compare(&mut round);
                Phase::Court
            }
            Phase::Court => {
                self.rule(&mut round);
                Phase::Aggregate
            }
            Phase::Aggregate => {
                if round.aggregate.is_none() && round.standing() > 0 {
                    round.proposal = None;
                    round.attempt += 1;
                }
                let goes_on = round.aggregate.is_none() && round.standing() > 0;
                if goes_on && round.attempt < round.proposers.len() {
                    Phase::Aggregate
                } else {
                    Phase::Pay
                }
            }
            Phase::Pay | Phase::Closed => {
                self.close(&mut round);
                Phase::Closed
            }
        };
        if next != Phase::Closed {
            round.deadline = self.stakes.now + self.window(next).millis();
        }
        round.phase = next;
        self.rounds.push(round);
    }

    fn window(&self, phase: Phase) -> Millis {
        let windows = &self.params.windows;
        match phase {
            Phase::Commit => windows.commit,
            Phase::Reveal => windows.reveal,
            Phase::Availability => windows.availability,
            Phase::Serve => windows.serve,
            Phase::Verify => windows.verify,
            Phase::Verdict => windows.verdict,
            Phase::Open => windows.open,
            Phase::Court => windows.court,
            Phase::Aggregate => windows.aggregate,
            Phase::Assign | Phase::Draw | Phase::Pay | Phase::Closed => Millis::default(),
        }
    }

    fn assign(&mut self, round: &mut Round) {
        let penalties = self.params.penalties.clone();
        for who in round.entries.keys() {
            let penalty = penalties.miner.uremes();
            self.stakes.lock(who, round.number, Role::Miner, penalty);
        }
        for who in round.duties.keys() {
            let penalty = penalties.validator.uremes();
            self.stakes
                .lock(who, round.number, Role::Validator, penalty);
            round.owed += HOLDING + AGGREGATE;
        }
    }

    fn drop_without(&mut self, round: &mut Round, end: Outcome, has: impl Fn(&Entry) -> bool) {
        for (miner, entry) in &mut round.entries {
            if entry.outcome.is_none() && !has(entry) {
                entry.outcome = Some(end);
                self.note(miner, Deed::Missed);
            }
        }
    }

    /// Pays, once, and ends the locks.
    pub(super) fn close(&mut self, round: &mut Round) {
        let reward = self.params.reward.uremes();
        let split = self.params.split.clone();
        let issued = reward.min(self.max_supply.saturating_sub(self.supply));
        self.supply += issued;
        let mut left = issued;
        let mut part = |pool: Ppm, count: u64, of: u64| {
            let pool = u128::from(share(reward, pool));
            let part = (pool * u128::from(count) / u128::from(of)) as u64;
            let part = part.min(left);
            left -= part;
            part
        };
        let number = round.number;
        let assigned = round.entries.len() as u64;
        for (miner, entry) in &mut round.entries {
            if entry.outcome.is_none() {
                entry.outcome = Some(Outcome::Accepted);
                entry.paid = part(split.miners, 1, assigned);
                self.stakes.pay(miner, entry.paid);
                round.paid += entry.paid;
                let package = entry.package.as_ref().unwrap();
                self.feedback.insert(*miner, (number, package.feedback));
                self.records.entry(*miner).or_default().note(Deed::Kept);
            }
            self.stakes.unlock(miner, number, Role::Miner);
        }
        for (who, duty) in &mut round.duties {
            if !duty.refuted {
                if duty.aggregate.is_some() && duty.aggregate == round.aggregate {
                    duty.done += AGGREGATE;
                }
                duty.paid = part(split.validators, duty.done, round.owed);
                self.stakes.pay(who, duty.paid);
                round.paid += duty.paid;
                let deed = if duty.done > 0 {
                    Deed::Kept
                } else {
                    Deed::Missed
                };
                self.records.entry(*who).or_default().note(deed);
            }
            self.stakes.unlock(who, number, Role::Validator);
        }
        if let Some((proposer, _)) = round.proposal.clone().filter(|_| round.aggregate.is_some()) {
            let paid = part(split.proposer, 1, 1);
            self.stakes.pay(&proposer, paid);
            round.paid += paid;
            self.note(&proposer, Deed::Kept);
        }
        for who in &round.proposers {
            self.stakes.unlock(who, number, Role::Proposer);
        }
        self.stakes.treasury += left;
        if let Some(aggregate) = &round.aggregate {
            self.adapter = aggregate.clone();
            self.versions += 1;
        }
        if number + 1 >= self.params.rounds {
            self.status = RunStatus::Finished;
        }
    }
}

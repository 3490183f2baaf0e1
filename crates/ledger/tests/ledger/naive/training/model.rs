//! The run: how rounds open, go from phase to phase, and are paid.

use std::collections::BTreeMap;

use r3mes_ledger::rewards::Deed;
use r3mes_types::task::AdapterRef;
use r3mes_types::training::{Outcome, Phase, RoundRecord, RunParams, RunStatus};
use r3mes_types::{Address, Hash, Millis, Ppm, Role};

use super::court::is_quorum;
use super::round::{Duty, Entry, Round};
use super::second::Drawing;
use super::stakes::{Stakes, Work};
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
    pub(super) status: RunStatus,
    /// By number; the last may be open.
    pub(super) rounds: Vec<Round>,
    pub(super) oldest_kept: u32,
    pub(super) adapter: AdapterRef,
    pub(super) versions: u32,
    pub(super) records: BTreeMap<Address, Record>,
    /// What each miner's newest accepted package left, and in which round.
    pub(super) feedback: BTreeMap<Address, (u32, Hash)>,
    /// Nodes that have begun to take stake back and wait to be looked at, with the height since which
    /// they do.
    pub(super) waiting: BTreeMap<Address, u64>,
    /// Miners whose second audits are to be drawn.
    pub(super) drawing: BTreeMap<Address, Drawing>,
}

/// A part of a whole, rounded down.
pub(super) fn share(amount: u64, part: Ppm) -> u64 {
    (u128::from(amount) * u128::from(part.millionths()) / 1_000_000) as u64
}

/// `count / of` of an amount, rounded down.
pub(super) fn proportion(amount: u64, count: u64, of: u64) -> u64 {
    let part = u128::from(amount) * u128::from(count);
    part.checked_div(u128::from(of)).unwrap_or(0) as u64
}

impl Naive {
    pub(super) fn new(params: RunParams, stakes: Stakes) -> Self {
        Self {
            adapter: params.initial.clone(),
            params,
            height: 0,
            stakes,
            status: RunStatus::Active,
            rounds: Vec::new(),
            oldest_kept: 0,
            versions: 0,
            records: BTreeMap::new(),
            feedback: BTreeMap::new(),
            waiting: BTreeMap::new(),
            drawing: BTreeMap::new(),
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

    pub(super) fn note(&mut self, who: &Address, deed: Deed) {
        self.records.entry(*who).or_default().note(deed);
    }

    pub(super) fn broken(&mut self, who: &Address) {
        self.note(who, Deed::Broken);
    }

    /// Keeps the run from opening rounds, for a while or for good, or lets it again; whether that can be
    /// done.
    pub(super) fn switch(&mut self, to: RunStatus) -> bool {
        match (self.status, to) {
            (RunStatus::Finished, RunStatus::Paused) => {}
            (RunStatus::Finished, _) => return false,
            (_, to) => self.status = to,
        }
        true
    }

    /// Everything goes as far as it can.
    pub(super) fn end_block(&mut self, look: Look<'_>) {
        self.wait_for_draws();
        let held = self.held();
        self.stakes.end_block(|who| held.contains(who));
        self.play_rounds(look);
        self.audit_again(look);
    }

    fn play_rounds(&mut self, look: Look<'_>) {
        loop {
            if self.open().is_none() {
                self.prune();
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
            if self.open().is_none() {
                // The stake that stood behind the round is free, and not behind the next one yet.
                self.seat_panels(look);
            }
        }
    }

    /// Lets rounds go that nobody needs in full.
    fn prune(&mut self) {
        while self.oldest_kept < self.next()
            && self.is_old(self.oldest_kept)
            && !self.is_audited_again(self.oldest_kept)
        {
            self.oldest_kept += 1;
        }
    }

    /// Whether enough rounds have come after a closed one; or, in a run that is finished, could have, its
    /// stake could be paid out and its pay has vested.
    fn is_old(&self, number: u32) -> bool {
        let kept = self.params.kept_rounds;
        let windows = u64::from(kept) * self.all_windows();
        let vesting = self.stakes.purse.vests_for / 1_000_000;
        let vesting = (vesting + vesting.div_ceil(16)) * 1_000_000;
        let times = [windows, self.stakes.times.unbonding, vesting];
        let gone = self.stakes.now - self.rounds[number as usize].closed;
        let finished = self.status == RunStatus::Finished;
        number + kept < self.next() || finished && times.iter().all(|time| *time <= gone)
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
            opened: self.stakes.now,
            closed: 0,
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
            round.deadline = self.stakes.now + self.window(next);
        }
        round.phase = next;
        self.rounds.push(round);
    }

    pub(super) fn window(&self, phase: Phase) -> u64 {
        let windows = &self.params.windows;
        let window = match phase {
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
        };
        window.millis() * 1_000_000
    }

    /// All windows of a round together.
    pub(super) fn all_windows(&self) -> u64 {
        let windows = Phase::ALL.iter().map(|phase| self.window(*phase));
        windows.sum()
    }

    fn assign(&mut self, round: &mut Round) {
        let penalties = self.params.penalties.clone();
        for who in round.entries.keys() {
            let penalty = penalties.miner.uremes();
            let work = Work::Round(round.number, Role::Miner);
            self.stakes.lock(who, work, penalty);
        }
        for who in round.duties.keys() {
            let penalty = penalties.validator.uremes();
            let work = Work::Round(round.number, Role::Validator);
            self.stakes.lock(who, work, penalty);
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
    fn close(&mut self, round: &mut Round) {
        let (number, height, now) = (round.number, self.height, self.stakes.now);
        round.closed = now;
        let reward = self.params.reward.uremes();
        let split = self.params.split.clone();
        let mut left = self.stakes.purse.issue(reward);
        let mut part = |pool: Ppm, count: u64, of: u64| {
            let part = proportion(share(reward, pool), count, of).min(left);
            left -= part;
            part
        };
        let assigned = round.entries.len() as u64;
        for (miner, entry) in &mut round.entries {
            if entry.outcome.is_none() {
                entry.outcome = Some(Outcome::Accepted);
                entry.accepted = Some(height);
                entry.paid = part(split.miners, 1, assigned);
                self.stakes.purse.pay(miner, entry.paid, now);
                round.paid += entry.paid;
                let package = entry.package.as_ref().unwrap();
                self.feedback.insert(*miner, (number, package.feedback));
                self.records.entry(*miner).or_default().note(Deed::Kept);
                let parts = &self.stakes.nodes[miner].unbonding;
                if parts.iter().any(|part| part.since >= round.opened) {
                    // The stake that stood behind this work is on its way back.
                    self.waiting.entry(*miner).or_insert(height);
                }
            }
            self.stakes.unlock(miner, Work::Round(number, Role::Miner));
        }
        for (who, duty) in &mut round.duties {
            if !duty.refuted {
                if duty.aggregate.is_some() && duty.aggregate == round.aggregate {
                    duty.done += AGGREGATE;
                }
                duty.paid = part(split.validators, duty.done, round.owed);
                self.stakes.purse.pay(who, duty.paid, now);
                round.paid += duty.paid;
                let deed = if duty.done > 0 {
                    Deed::Kept
                } else {
                    Deed::Missed
                };
                self.records.entry(*who).or_default().note(deed);
            }
            self.stakes
                .unlock(who, Work::Round(number, Role::Validator));
        }
        if let Some((proposer, _)) = round.proposal.clone().filter(|_| round.aggregate.is_some()) {
            let paid = part(split.proposer, 1, 1);
            self.stakes.purse.pay(&proposer, paid, now);
            round.paid += paid;
            self.note(&proposer, Deed::Kept);
        }
        for who in &round.proposers {
            self.stakes.unlock(who, Work::Round(number, Role::Proposer));
        }
        self.stakes.purse.treasury += left;
        if let Some(aggregate) = &round.aggregate {
            self.adapter = aggregate.clone();
            self.versions += 1;
        }
        if number + 1 >= self.params.rounds {
            self.status = RunStatus::Finished;
        }
    }
}

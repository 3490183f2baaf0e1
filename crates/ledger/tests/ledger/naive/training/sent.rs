//! What nodes and the authority send to the ledger.

use r3mes_types::governance::{Change, MsgPropose, SlashDecision};
use r3mes_types::nodes::{MsgAppeal, MsgLeave, MsgRegister, MsgUnjail, MsgUpdate, NodesParams};
use r3mes_types::rewards::RewardsParams;
use r3mes_types::training::{
    Backend, MsgEndRun, MsgPauseRun, MsgResumeRun, MsgServeStates, Obligation, RunStatus, Served,
    TrainingMessage, Verdict,
};
use r3mes_types::wire::{List, Text, Value};
use r3mes_types::{Amount, Cid, Hash, Message, Millis, Role};

use super::RUN;
use super::stakes::Times;
use super::steps::Mood;
use crate::chain::{address, spec};
use crate::play::Play;

pub(super) fn leave(who: u8) -> Message {
    let address = address(who);
    MsgLeave { address }.into()
}

pub(super) fn unjail(who: u8) -> Message {
    let address = address(who);
    MsgUnjail { address }.into()
}

pub(super) fn come_back(who: u8, roles: &[Role], stake: Amount) -> Message {
    let (address, spec) = (address(who), spec(roles, stake));
    MsgRegister { address, spec }.into()
}

pub(super) fn declare(who: u8, roles: &[Role], stake: Amount) -> Message {
    let (address, spec) = (address(who), spec(roles, stake));
    MsgUpdate { address, spec }.into()
}

pub(super) fn appeal(who: u8, slash: u64) -> Message {
    let (address, statement) = (address(who), Text::new("no").unwrap());
    MsgAppeal {
        address,
        slash,
        statement,
    }
    .into()
}

fn by_authority(change: Change) -> Message {
    MsgPropose {
        proposer: address(0),
        title: Text::new("decided").unwrap(),
        change,
    }
    .into()
}

pub(super) fn decide(slash: u64, revert: bool) -> Message {
    by_authority(Change::Slash(SlashDecision { slash, revert }))
}

/// The parameters as they are `now`, with other times.
pub(super) fn change_times(now: NodesParams, times: Times) -> Message {
    by_authority(Change::Nodes(NodesParams {
        unbonding: Millis::new(times.unbonding / 1_000_000),
        appeal_window: Millis::new(times.appeals / 1_000_000),
        jail: Millis::new(times.jail / 1_000_000),
        ..now
    }))
}

pub(super) fn change_rewards(max_supply: u64, vesting: Millis) -> Message {
    by_authority(Change::Rewards(RewardsParams {
        max_supply: Amount::new(max_supply),
        vesting,
    }))
}

/// The same about the other audit.
pub(super) fn of_the_other_audit(mut message: TrainingMessage) -> TrainingMessage {
    match &mut message {
        TrainingMessage::ServeStates(m) => m.second ^= true,
        TrainingMessage::CommitVerdict(m) => m.second ^= true,
        TrainingMessage::RevealVerdict(m) => m.second ^= true,
        TrainingMessage::OpenLeaves(m) => m.second ^= true,
        TrainingMessage::VoteCourt(m) => m.second ^= true,
        _ => {}
    }
    message
}

/// Serves nothing.
pub(super) fn serves_nothing(who: u8, round: u32) -> TrainingMessage {
    MsgServeStates {
        miner: address(who),
        run: RUN,
        round,
        served: Served {
            states: List::default(),
            feedback: None,
        },
        second: false,
    }
    .into()
}

pub(super) fn switch(who: u8, to: RunStatus) -> Message {
    let (authority, run) = (address(who), RUN);
    let message: TrainingMessage = match to {
        RunStatus::Paused => {
            let reason = Text::new("test").unwrap();
            MsgPauseRun {
                authority,
                run,
                reason,
            }
            .into()
        }
        RunStatus::Active => MsgResumeRun { authority, run }.into(),
        RunStatus::Finished => MsgEndRun { authority, run }.into(),
    };
    message.into()
}

fn coloured(mut verdict: Verdict, owed: &Obligation, mood: Mood) -> Verdict {
    let mut steps = verdict.steps.to_vec();
    let last = steps.last_mut().unwrap();
    let has_feedback = owed.task.as_ref().unwrap().feedback.is_some();
    match mood {
        Mood::Misses if has_feedback => {
            verdict.feedback_withheld = true;
            last.after = Hash::ZERO;
        }
        Mood::Honest | Mood::Misses => {}
        Mood::Accuses => last.after = Hash::of(b"another"),
        Mood::Buggy => {
            verdict.backend = Backend::Neon;
            last.after = Hash::of(b"bug");
        }
    }
    verdict.steps = List::new(steps).unwrap();
    verdict
}

/// What a node answers to what it, or another, owes.
pub(super) fn answers(play: &Play, index: u8, owed: &Obligation, mood: Mood) -> TrainingMessage {
    let verdict = || coloured(play.verdict(index, owed), owed, mood);
    let mut message = play.answer(index, owed);
    match &mut message {
        TrainingMessage::CommitVerdict(m) => {
            let nonce = Hash::of(&[index, u8::from(owed.second)]);
            let work = owed.task.as_ref().unwrap().work();
            m.commitment = verdict().commitment(&work, &m.validator, &nonce);
        }
        TrainingMessage::RevealVerdict(m) => m.verdict = verdict(),
        TrainingMessage::VoteCourt(m) => m.verdict = verdict(),
        _ => {}
    }
    message
}

fn without_last<T: Clone + Value, const MAX: usize>(list: &List<T, MAX>) -> List<T, MAX> {
    let mut items = list.to_vec();
    items.pop();
    List::new(items).unwrap()
}

/// The same, a little wrong, in one of four ways.
pub(super) fn odd(mut message: TrainingMessage, how: u8) -> TrainingMessage {
    use TrainingMessage as Said;
    let other = Hash::of(&[how]);
    match (&mut message, how) {
        (Said::CommitStates(m), 0) => m.round += 1,
        (Said::CommitStates(m), 1) => m.feedback_lost = true,
        (Said::CommitStates(m), _) => m.root = other,
        (Said::RevealPackage(m), 0) => m.package.bytes = 0,
        (Said::RevealPackage(m), 1) => m.package.hash = other,
        (Said::RevealPackage(m), 2) => m.end.index -= 1,
        (Said::RevealPackage(m), _) => m.start.salt = other,
        (Said::AttestPackages(m), 0) => m.held = List::default(),
        (Said::AttestPackages(m), 1) => m.held = without_last(&m.held),
        (Said::AttestPackages(m), _) => {
            let mut held = m.held.to_vec();
            held.push(if how == 2 { address(7) } else { address(1) });
            m.held = List::new(held).unwrap();
        }
        (Said::ServeStates(m), 0) => m.served.states = without_last(&m.served.states),
        (Said::ServeStates(m), 1) => {
            let known = m.served.feedback.take();
            m.served.feedback = known.is_none().then(|| Cid::raw(b"feedback"));
        }
        (Said::ServeStates(m), _) => {
            let mut states = m.served.states.to_vec();
            if let Some(last) = states.last_mut() {
                last.state = other;
            }
            m.served.states = List::new(states).unwrap();
        }
        (Said::CommitVerdict(m), 0) => m.round += 1,
        (Said::CommitVerdict(m), 1) => m.miner = address(7),
        (Said::CommitVerdict(m), _) => m.commitment = other,
        (Said::RevealVerdict(m), 0) => m.nonce = other,
        (Said::RevealVerdict(m), _) => wrong(&mut m.verdict, how),
        (Said::OpenLeaves(m), 0) => m.openings = without_last(&m.openings),
        (Said::OpenLeaves(m), _) => {
            let mut openings = m.openings.to_vec();
            openings[0].state = other;
            m.openings = List::new(openings).unwrap();
        }
        (Said::VoteCourt(m), _) => wrong(&mut m.verdict, how),
        (Said::ProposeAggregate(m), 0) => m.aggregate.cid = None,
        (Said::ProposeAggregate(m), _) => m.aggregate.adapter = Hash::of(b"other"),
        (Said::AttestAggregate(m), 0) => m.aggregate.cid = None,
        (Said::AttestAggregate(m), _) => m.aggregate.adapter = Hash::of(b"other"),
        _ => {}
    }
    message
}

fn wrong(verdict: &mut Verdict, how: u8) {
    let mut steps = verdict.steps.to_vec();
    match how {
        0 => verdict.backend = Backend::Scalar,
        1 => {
            steps.remove(0);
        }
        2 => verdict.feedback_withheld = true,
        _ => steps[0].before = Hash::of(b"elsewhere"),
    }
    verdict.steps = List::new(steps).unwrap();
}

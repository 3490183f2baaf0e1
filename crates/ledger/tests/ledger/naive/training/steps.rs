//! What nodes do, as the test generates it and as the ledger is sent it.

use proptest::prelude::*;
use r3mes_types::nodes::{MsgLeave, MsgUnjail};
use r3mes_types::training::{
    Backend, MsgPauseRun, MsgResumeRun, MsgServeStates, Obligation, Served, TrainingMessage,
    Verdict,
};
use r3mes_types::wire::{List, Text, Value};
use r3mes_types::{Cid, Hash, Message, Ppm};

use super::{NODES, RUN, Scene};
use crate::chain::address;
use crate::play::{Play, STEPS};

/// What a node does with what it owes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Choice {
    Answer,
    Silent,
    /// It answers something a little wrong.
    Odd(u8),
    /// It says what it said last.
    Again,
    /// It answers what another owes.
    Meddle(u8),
    /// It serves nothing, whether it owes something or not.
    Unasked,
}

/// What a validator finds.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mood {
    Honest,
    /// That the last state is another.
    Accuses,
    /// That old feedback cannot be fetched.
    Misses,
    /// With a back end that computes the last state wrong.
    Buggy,
}

#[derive(Clone, Debug)]
pub(super) enum Step {
    /// A block with what everybody chooses to say.
    Turn(Vec<Choice>),
    /// From this step on the miner's states are false from now on.
    Lie {
        who: u8,
        from: Option<u32>,
    },
    Mood {
        who: u8,
        mood: Mood,
    },
    Wait {
        millis: u64,
    },
    Leave {
        who: u8,
    },
    Unjail {
        who: u8,
    },
    /// Somebody pauses the run, or resumes it.
    Switch {
        who: u8,
        paused: bool,
    },
}

pub(super) fn scene() -> impl Strategy<Value = Scene> {
    let audited = prop_oneof![3 => Just(Ppm::ONE), 1 => Just(Ppm::percent(50))];
    let drawn = prop_oneof![2 => 1..=3u32, 1 => Just(STEPS)];
    (audited, drawn, 1..=3u32).prop_map(|(audited, drawn, panel)| Scene {
        audited,
        drawn,
        panel,
    })
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let who = || 1..=NODES.len() as u8;
    let choice = prop_oneof![
        30 => Just(Choice::Answer),
        2 => Just(Choice::Silent),
        2 => (0..4u8).prop_map(Choice::Odd),
        1 => Just(Choice::Again),
        1 => who().prop_map(Choice::Meddle),
        1 => Just(Choice::Unasked),
    ];
    let turn = prop::collection::vec(choice, NODES.len());
    let honest = vec![Choice::Answer; NODES.len()];
    let from = prop_oneof![1 => Just(None), 2 => (0..STEPS).prop_map(Some)];
    let mood = prop_oneof![
        2 => Just(Mood::Honest),
        1 => Just(Mood::Accuses),
        1 => Just(Mood::Misses),
        1 => Just(Mood::Buggy),
    ];
    prop_oneof![
        20 => turn.prop_map(Step::Turn),
        12 => Just(Step::Turn(honest)),
        2 => (1..=3u8, from).prop_map(|(who, from)| Step::Lie { who, from }),
        2 => (3..=6u8, mood).prop_map(|(who, mood)| Step::Mood { who, mood }),
        2 => (0..70_000u64).prop_map(|millis| Step::Wait { millis }),
        1 => who().prop_map(|who| Step::Leave { who }),
        2 => who().prop_map(|who| Step::Unjail { who }),
        1 => (0..2u8, any::<bool>()).prop_map(|(who, paused)| Step::Switch { who, paused }),
    ]
}

pub(super) fn leave(who: u8) -> Message {
    let address = address(who);
    MsgLeave { address }.into()
}

pub(super) fn unjail(who: u8) -> Message {
    let address = address(who);
    MsgUnjail { address }.into()
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

pub(super) fn switch(who: u8, paused: bool) -> Message {
    let authority = address(who);
    let message: TrainingMessage = if paused {
        let reason = Text::new("test").unwrap();
        MsgPauseRun {
            authority,
            run: RUN,
            reason,
        }
        .into()
    } else {
        let run = RUN;
        MsgResumeRun { authority, run }.into()
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
            let nonce = Hash::of(&[index, 0]);
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

//! What nodes and the authority do, as the test generates it.

use proptest::prelude::*;
use r3mes_types::training::RunStatus;
use r3mes_types::{Amount, Millis, Ppm};

use super::stakes::{SECOND, Times};
use super::{NODES, Scene};
use crate::play::STEPS;

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
    /// It answers as if its package were audited for the other time.
    Mixed,
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
    /// A node that has left, or has not, registers with the stake of the beginning.
    ComeBack {
        who: u8,
    },
    Declare {
        who: u8,
        stake: Amount,
    },
    Unjail {
        who: u8,
    },
    Appeal {
        who: u8,
        slash: u64,
    },
    /// The authority decides on an appeal.
    Decide {
        slash: u64,
        revert: bool,
    },
    /// The authority changes how long things take.
    Times(Times),
    /// The authority changes how much may be issued, and for how long pay vests.
    Rewards {
        room: u64,
        vesting: Millis,
    },
    /// Somebody pauses the run, resumes it, or ends it for good.
    Switch {
        who: u8,
        to: RunStatus,
    },
}

fn vesting() -> impl Strategy<Value = Millis> {
    let vesting = prop_oneof![2 => Just(0), 1 => 1..5u64, 3 => 1..400_000u64];
    vesting.prop_map(Millis::new)
}

pub(super) fn scene() -> impl Strategy<Value = Scene> {
    let audited = prop_oneof![2 => Just(Ppm::ONE), 2 => Just(Ppm::percent(30))];
    let drawn = prop_oneof![2 => 1..=3u32, 1 => Just(STEPS)];
    let reaudited = prop_oneof![
        3 => Just(Ppm::ONE),
        2 => Just(Ppm::percent(50)),
        1 => Just(Ppm::ZERO),
    ];
    (audited, drawn, 1..=3u32, reaudited, 1..=2u32, vesting()).prop_map(
        |(audited, drawn, panel, reaudited, kept_rounds, vesting)| Scene {
            audited,
            drawn,
            panel,
            reaudited,
            kept_rounds,
            vesting,
        },
    )
}

fn who() -> impl Strategy<Value = u8> {
    1..=NODES.len() as u8
}

/// A block with what everybody chooses to say.
fn turn() -> impl Strategy<Value = Step> {
    let choice = prop_oneof![
        30 => Just(Choice::Answer),
        2 => Just(Choice::Silent),
        2 => (0..4u8).prop_map(Choice::Odd),
        1 => Just(Choice::Again),
        1 => who().prop_map(Choice::Meddle),
        1 => Just(Choice::Unasked),
        1 => Just(Choice::Mixed),
    ];
    prop::collection::vec(choice, NODES.len()).prop_map(Step::Turn)
}

/// A block in which everybody answers.
fn honest() -> impl Strategy<Value = Step> {
    Just(Step::Turn(vec![Choice::Answer; NODES.len()]))
}

pub(super) fn lie() -> impl Strategy<Value = Step> {
    let from = prop_oneof![1 => Just(None), 2 => (0..STEPS).prop_map(Some)];
    (1..=3u8, from).prop_map(|(who, from)| Step::Lie { who, from })
}

fn mood() -> impl Strategy<Value = Step> {
    let mood = prop_oneof![
        2 => Just(Mood::Honest),
        1 => Just(Mood::Accuses),
        1 => Just(Mood::Misses),
        1 => Just(Mood::Buggy),
    ];
    (3..=6u8, mood).prop_map(|(who, mood)| Step::Mood { who, mood })
}

fn switch_run() -> impl Strategy<Value = Step> {
    let to = prop_oneof![
        4 => Just(RunStatus::Paused),
        4 => Just(RunStatus::Active),
        1 => Just(RunStatus::Finished),
    ];
    (0..2u8, to).prop_map(|(who, to)| Step::Switch { who, to })
}

/// A node's own stake, more or less of it, or nearly nothing.
fn declaration() -> impl Strategy<Value = Step> {
    let percent = prop_oneof![1 => Just(1), 1 => Just(100), 4 => 60..130u64];
    (who(), percent).prop_map(|(who, percent)| {
        let (_, _, stake) = NODES[usize::from(who) - 1];
        let stake = Amount::new(Amount::remes(stake).uremes() / 100 * percent);
        Step::Declare { who, stake }
    })
}

fn times() -> impl Strategy<Value = Step> {
    let times = (5..400u64, 5..200u64, 0..200u64);
    times.prop_map(|(unbonding, appeals, jail)| {
        Step::Times(Times {
            unbonding: unbonding * SECOND,
            appeals: appeals * SECOND,
            jail: jail * SECOND,
        })
    })
}

/// What authority and slashed nodes do.
fn affairs() -> impl Strategy<Value = Step> {
    let slash = || 1..6u64;
    prop_oneof![
        2 => (who(), slash()).prop_map(|(who, slash)| Step::Appeal { who, slash }),
        2 => (slash(), any::<bool>()).prop_map(|(slash, revert)| Step::Decide { slash, revert }),
        2 => times(),
        1 => (0..600_000u64, vesting()).prop_map(|(room, vesting)| Step::Rewards { room, vesting }),
    ]
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => turn(),
        12 => honest(),
        2 => lie(),
        2 => mood(),
        2 => (0..70_000u64).prop_map(|millis| Step::Wait { millis }),
        1 => who().prop_map(|who| Step::Leave { who }),
        1 => declaration(),
        2 => who().prop_map(|who| Step::Unjail { who }),
        1 => affairs(),
        1 => switch_run(),
    ]
}

/// Miners take stake back more often.
pub(super) fn step_after_a_round() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => turn(),
        24 => honest(),
        1 => lie(),
        2 => mood(),
        2 => (0..70_000u64).prop_map(|millis| Step::Wait { millis }),
        2 => (1..=3u8).prop_map(|who| Step::Leave { who }),
        1 => who().prop_map(|who| Step::ComeBack { who }),
        3 => declaration(),
        2 => who().prop_map(|who| Step::Unjail { who }),
        4 => affairs(),
        1 => switch_run(),
    ]
}

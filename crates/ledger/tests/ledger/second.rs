//! Second audits: what stands between a miner that takes its stake back and being paid.

use std::collections::BTreeSet;

use r3mes_ledger::export::{OpenRounds, export};
use r3mes_ledger::nodes;
use r3mes_ledger::training::DRAW_DELAY;
use r3mes_types::nodes::NodeStatus;
use r3mes_types::training::{ObligationKind as Kind, Outcome, Phase, QueryRound, RunParams};
use r3mes_types::tx::Fee;
use r3mes_types::{Address, Amount, Hash, Millis, Ppm};

use crate::chain::{GAS, address};
use crate::play::*;

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

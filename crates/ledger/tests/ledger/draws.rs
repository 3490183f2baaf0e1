//! Which packages of a miner that takes its stake back are audited again, and in which order.

use std::collections::BTreeSet;

use r3mes_ledger::training::{DRAW_DELAY, MAX_LEAVERS, MAX_REAUDITS};
use r3mes_types::governance::{Change, Spend};
use r3mes_types::nodes::MsgUpdate;
use r3mes_types::rewards::QueryVesting;
use r3mes_types::training::{
    ObligationKind as Kind, Outcome, Phase, QueryRound, RunParams, TrainingMessage,
};
use r3mes_types::tx::Fee;
use r3mes_types::{Amount, Message, Millis, Ppm, Role};

use crate::chain::{GAS, address, spec};
use crate::play::*;

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

//! What the ledger keeps of what is over, and for how long.

use r3mes_ledger::training::{self, RUNS};
use r3mes_ledger::{Genesis, Ledger, governance};
use r3mes_types::governance::{Change, RunEnd};
use r3mes_types::nodes::NodesParams;
use r3mes_types::rewards::QueryVesting;
use r3mes_types::training::{
    MsgEndRun, MsgResumeRun, ObligationKind as Kind, Phase, QueryObligations, QueryRound,
    RunParams, RunStatus,
};
use r3mes_types::wire::List;
use r3mes_types::{Amount, Millis, Time};

use crate::chain::address;
use crate::play::*;

/// All windows of a round of [`params`].
const WINDOWS: Millis = Millis::seconds(9 * 60);

/// A run of two rounds, of which it keeps one.
fn two_rounds() -> Genesis {
    founding(RunParams {
        rounds: 2,
        ..params()
    })
}

/// Both rounds are closed, and the run is finished.
fn finished(genesis: &Genesis) -> Play {
    let mut play = Play::found(genesis);
    play.close(1);
    assert_eq!(play.run().status, RunStatus::Finished);
    play
}

/// The tables of training with how many entries each has.
fn records(play: &Play) -> Vec<(String, usize)> {
    let keys = play.chain.state.keys();
    let keys = keys.map(|key| String::from_utf8_lossy(key).into_owned());
    let mut records: Vec<(String, usize)> = Vec::new();
    for key in keys.filter(|key| key.starts_with("training/")) {
        let table = key.split('/').nth(1).unwrap().to_owned();
        match records.last_mut().filter(|(last, _)| *last == table) {
            Some((_, count)) => *count += 1,
            None => records.push((table, 1)),
        }
    }
    records
}

fn tables(play: &Play) -> Vec<String> {
    let records = records(play).into_iter();
    records.map(|(table, _)| table).collect()
}

/// When the last round was closed.
fn closed_at(play: &Play) -> Time {
    let record = play.chain.query(&QueryRound { run: 1, round: 1 });
    record.summary.unwrap().closed_at
}

/// A block at this time.
fn block_at(play: &mut Play, time: Time) {
    // A block is a millisecond after the one before.
    play.chain.time = Time::from_nanos(time.nanos() - 1_000_000);
    play.chain.block(Vec::new());
}

#[test]
fn a_finished_run_keeps_its_summaries_alone_when_all_windows_are_over() {
    let mut play = finished(&two_rounds());
    let end = closed_at(&play).after(WINDOWS);
    block_at(&mut play, Time::from_nanos(end.nanos() - 1));
    assert_eq!(play.run().oldest_kept, 1);
    assert!(tables(&play).contains(&"entry".to_owned()));
    // A block is asked for when the round may go, and not before.
    let next = Ledger::next_deadline(&play.chain.state).unwrap();
    assert_eq!(next, Some(end));

    block_at(&mut play, end);
    assert_eq!(play.run().oldest_kept, 2);
    let kept = [("next_run", 1), ("run", 1), ("summary", 2)];
    let kept = kept.map(|(table, count)| (table.to_owned(), count));
    assert_eq!(records(&play), kept);
    let next = Ledger::next_deadline(&play.chain.state).unwrap();
    assert_eq!(next, None);

    // What is asked about it is answered.
    let record = play.chain.query(&QueryRound { run: 1, round: 1 });
    assert_eq!(record.head, None);
    assert_eq!(record.summary.unwrap().accepted, 2);
    assert_eq!(play.run().adapter, aggregate(1));
    for index in EVERYBODY {
        let address = address(index);
        let owed = play.chain.query(&QueryObligations { address });
        assert_eq!(owed.obligations.to_vec(), []);
    }
}

#[test]
fn what_a_package_left_goes_with_its_round() {
    let mut play = Play::new(params());
    play.close(0);
    // A miner that comes no more.
    play.silent.insert((LEAVER, Kind::Commit));
    play.close(2);
    play.chain.block(Vec::new());
    assert_eq!(play.run().oldest_kept, 2);
    let feedback = records(&play)
        .into_iter()
        .find(|(table, _)| table == "feedback");
    assert_eq!(feedback, Some(("feedback".to_owned(), 1)));
}

#[test]
fn a_second_audit_keeps_the_round_of_a_finished_run() {
    let mut play = finished(&two_rounds());
    let end = closed_at(&play).after(WINDOWS);
    block_at(&mut play, Time::from_nanos(end.nanos() - 1));
    play.leave(LEAVER);
    play.holds = true;
    play.until("the second audit", |play| {
        play.reaudit(1, LEAVER)
            .is_some_and(|reaudit| reaudit.phase == Phase::Verify)
    });
    assert!(play.chain.time > end);
    assert_eq!(play.run().oldest_kept, 1);
    play.holds = false;
    play.until("the end", |play| play.run().oldest_kept == 2);
    assert!(!tables(&play).contains(&"reaudit".to_owned()));
    assert!(!tables(&play).contains(&"judges".to_owned()));
    play.until_paid_out();
}

#[test]
fn a_round_of_a_finished_run_is_kept_until_its_pay_has_vested_and_its_stake_could_be_paid_out() {
    let mut vests = two_rounds();
    vests.params.rewards.vesting = Millis::seconds(3 * 3600);
    let mut unbonds = two_rounds();
    unbonds.params.nodes.unbonding = Millis::seconds(3 * 3600);
    for genesis in [vests, unbonds] {
        let mut play = finished(&genesis);
        let closed = closed_at(&play);
        play.until("pruning", |play| play.run().oldest_kept == 2);
        assert!(play.chain.time >= closed.after(Millis::seconds(3 * 3600)));
        for index in EVERYBODY {
            let address = address(index);
            let vesting = play.chain.query(&QueryVesting { address });
            assert_eq!(vesting.parts, List::default());
        }
    }
}

#[test]
fn runs_that_are_done_with_make_room_for_others() {
    let mut play = Play::found(&two_rounds());
    let start = |play: &mut Play, min_miners: u32| {
        let params = RunParams {
            min_miners,
            ..params()
        };
        play.chain.act(|ctx| training::start(ctx, params))
    };
    // They wait for miners that never come.
    for number in 2..=64 {
        assert_eq!(start(&mut play, 4).unwrap(), number);
    }
    let refused = start(&mut play, 2).unwrap_err();
    assert_eq!(refused.code(), Some(("training", 15)));

    play.close(1);
    play.until("pruning", |play| play.run().oldest_kept == 2);
    assert_eq!(start(&mut play, 2).unwrap(), 65);
    play.chain.block(Vec::new());
    let last = RUNS.get(&play.chain.view(), &65).unwrap().unwrap();
    assert!(last.open, "the run after 64 others trains");
    let owed = play.owed(MINERS[0]);
    assert_eq!(owed.first().map(|owed| owed.run), Some(65));
}

#[test]
fn a_paused_run_holds_its_place_until_it_is_ended_and_its_open_round_closes_as_usual() {
    let mut play = Play::new(RunParams {
        rounds: 9,
        ..params()
    });
    play.until("the first round", |play| play.run().open);
    play.pause();
    // The others wait for miners that never come.
    let start = |play: &mut Play| {
        let params = RunParams {
            min_miners: 4,
            ..params()
        };
        play.chain.act(|ctx| training::start(ctx, params))
    };
    for number in 2..=64 {
        assert_eq!(start(&mut play).unwrap(), number);
    }
    // Paused for long, it is still there.
    play.close(0);
    play.chain.wait(WINDOWS);
    assert_eq!(start(&mut play).unwrap_err().code(), Some(("training", 15)));
    let end = |play: &mut Play, run: u64| {
        let authority = address(0);
        play.chain.send(0, MsgEndRun { authority, run })
    };
    assert_eq!(end(&mut play, 1).log, "");
    assert_eq!(play.run().status, RunStatus::Finished);
    assert_eq!(play.run().round, 1, "eight more rounds are left");
    play.until("pruning", |play| play.run().oldest_kept == 1);
    assert_eq!(start(&mut play).unwrap(), 65);
    // For good: it neither ends twice nor goes on.
    let again = end(&mut play, 1);
    assert_eq!((again.codespace.as_str(), again.code), ("training", 14));
    let resumed = MsgResumeRun {
        authority: address(0),
        run: 1,
    };
    assert_eq!(play.chain.send(0, resumed).code, 14);
    assert_eq!(end(&mut play, 99).code, 1, "there is no such run");
    let by_a_miner = MsgEndRun {
        authority: address(MINERS[0]),
        run: 2,
    };
    assert_eq!(play.chain.send(MINERS[0], by_a_miner).code, 12);
}

#[test]
fn the_open_round_of_a_run_that_is_ended_closes_and_pays() {
    let mut play = Play::new(params());
    play.until("the first round", |play| play.run().open);
    play.propose(Change::RunEnd(RunEnd { run: 1 }));
    let run = play.run();
    assert_eq!((run.status, run.open), (RunStatus::Finished, true));
    play.close(0);
    let record = play.chain.query(&QueryRound { run: 1, round: 0 });
    assert_eq!(record.summary.unwrap().accepted, 2);
    assert_eq!(play.run().adapter, aggregate(0));
    play.until("pruning", |play| play.run().oldest_kept == 1);
    assert!(!play.run().open);
    assert!(!tables(&play).contains(&"live".to_owned()));
}

#[test]
fn stake_taken_back_never_comes_sooner_for_what_is_taken_back_after_unbonding_got_shorter() {
    let mut play = Play::found(&two_rounds());
    for _ in 0..16 {
        play.all_less(&[LEAVER]);
    }
    let newest = |play: &Play| *play.chain.node(LEAVER).unbonding.last().unwrap();
    let due = newest(&play).release_at;
    let params = governance::params(&play.chain.view()).unwrap().nodes;
    play.propose(Change::Nodes(NodesParams {
        unbonding: Millis::seconds(10),
        appeal_window: Millis::seconds(10),
        ..params
    }));
    // There is no room for another part: the newest takes it in.
    play.all_less(&[LEAVER]);
    assert_eq!(newest(&play).amount, Amount::new(2));
    assert_eq!(newest(&play).release_at, due);
}

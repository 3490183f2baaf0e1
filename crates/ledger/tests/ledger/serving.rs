//! What audited miners serve, and what they do not owe.

use r3mes_types::Ppm;
use r3mes_types::training::{
    MsgServeStates, ObligationKind as Kind, RunParams, Served, TrainingMessage,
};
use r3mes_types::wire::List;

use crate::chain::address;
use crate::play::{MINERS, Play, params};

#[test]
fn who_has_nothing_to_serve_does_not_answer_for_who_has() {
    // All steps are drawn, so that nothing but old feedback is served.
    let mut play = Play::new(RunParams {
        audited_share: Ppm::ONE,
        ..params()
    });
    let [without, with] = MINERS;
    play.silent.insert((without, Kind::Commit));
    play.close(0);
    play.silent = [(with, Kind::Serve)].into();
    let owes = |play: &Play| {
        let owed = play.owed(with);
        owed.iter().any(|owed| owed.kind == Kind::Serve)
    };
    play.until("the serving", owes);
    let message = MsgServeStates {
        miner: address(without),
        run: 1,
        round: 1,
        served: Served {
            states: List::default(),
            feedback: None,
        },
        second: false,
    };
    let result = play.chain.send(without, TrainingMessage::from(message));
    assert_eq!(
        (result.codespace.as_str(), result.code != 0),
        ("training", true)
    );
    assert!(owes(&play), "the phase goes on");
}

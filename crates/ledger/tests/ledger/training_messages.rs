//! The snapshots of training's messages: they answer each other, so a round with a liar is played.

use r3mes_types::training::{MsgCreateRun, MsgPauseRun, MsgResumeRun, TrainingMessage};
use r3mes_types::tx::Fee;
use r3mes_types::wire::Text;
use r3mes_types::{Message, Ppm};

use crate::chain::{GAS, address};
use crate::messages::{Snapshots, must_be};
use crate::play::{LEAVER, Play, params};

pub(crate) const PINNED: &[(&str, &str)] = &[
    (
        "/r3mes.training.v1.MsgPauseRun",
        "b36de7f7e290beeb77510d2e6b1b6c47318cb0cffeaafd2233b186af2f42dd55",
    ),
    (
        "/r3mes.training.v1.MsgResumeRun",
        "c2cd167daa93a1a27e984c4300b2565c948eaa9c38fa061d28a3867685cd8816",
    ),
    (
        "/r3mes.training.v1.MsgCommitStates",
        "30699892400816017cf411a1a6b11871d7047fc2f5947d6eaee9d11430736dc8",
    ),
    (
        "/r3mes.training.v1.MsgRevealPackage",
        "fca5270a71d54e88c87cf95d57835fee236fb52d0137f87c7c3cd9e555fa6dbd",
    ),
    (
        "/r3mes.training.v1.MsgAttestPackages",
        "8293347875dd909f9d0831715e22504de2b8dc04164d0d0c93fbbcde165fe849",
    ),
    (
        "/r3mes.training.v1.MsgServeStates",
        "d54ba0b189ec1f9ff0d3d924a27d6020c28b94507fb44cb9f28d659b8eb8f0cc",
    ),
    (
        "/r3mes.training.v1.MsgCommitVerdict",
        "5fcd3b36b7098d86ceed39410f914a22b221ffeb909c099b03462e3ccd9d4604",
    ),
    (
        "/r3mes.training.v1.MsgRevealVerdict",
        "a4fb0b46890f29d5ec11ec5deedfec41067a7040e17ffb86228a28294e10a74a",
    ),
    (
        "/r3mes.training.v1.MsgOpenLeaves",
        "4abf3f175f939909385361374a249eef61f572eb61c62b3ba207e3fae2f0c9e0",
    ),
    (
        "/r3mes.training.v1.MsgVoteCourt",
        "5259d11d6b27db981b669b4af7e208de3e014b7281b3db229d0672764e1d0524",
    ),
    (
        "/r3mes.training.v1.MsgProposeAggregate",
        "cbfab9f335258f179a312c73ef1df1e72b89fb7e87ab7fda2bd7d1fede18d2ea",
    ),
    (
        "/r3mes.training.v1.MsgAttestAggregate",
        "e1b6d03328bf7188d6dd620385112f12abb6c21c83371c1adbc3ad2e200627b3",
    ),
    (
        "/r3mes.training.v1.MsgCreateRun",
        "c64f81a3edd34823c6b357685db51489c413a2192a5637ab4cd1d95f496d3d08",
    ),
];

/// Everybody answers what it owes, each in a block of its own, until the first round is closed.
fn play_a_round(play: &mut Play, found: &mut Snapshots) {
    while play.run().round == 0 {
        let first = play
            .everybody()
            .find_map(|index| Some((index, play.owed(index).into_iter().next()?)));
        let Some((index, owed)) = first else {
            play.turn();
            continue;
        };
        let message: Message = play.answer(index, &owed).into();
        let type_url = message.type_url();
        let tx = play.chain.sign_with(index, vec![message], Fee::none(GAS));
        assert_eq!(play.chain.block(vec![tx])[0].log, "", "{type_url}");
        found.add(type_url, &play.chain);
    }
}

#[test]
fn every_training_message_gives_the_pinned_state() {
    let mut round = params();
    round.audited_share = Ppm::ONE;
    // All but two, so that there are states to serve.
    round.drawn_steps = 6;
    let mut play = Play::new(round.clone());
    play.lies.insert(LEAVER, 3);
    let mut found = Snapshots::default();
    let (authority, run) = (address(0), 1);
    let reason = Text::new("a look at it").unwrap();
    let by_authority: [TrainingMessage; 3] = [
        MsgPauseRun {
            authority,
            run,
            reason,
        }
        .into(),
        MsgResumeRun { authority, run }.into(),
        MsgCreateRun {
            authority,
            params: round,
        }
        .into(),
    ];
    let [pause, resume, create] = by_authority.map(Message::from);
    for message in [pause, resume] {
        found.send(&mut play.chain, 0, message);
    }
    play_a_round(&mut play, &mut found);
    found.send(&mut play.chain, 0, create);
    must_be(&found, PINNED);
}

//! The snapshots of training's messages: they answer each other, so a round with a liar is played.

use r3mes_types::training::{MsgCreateRun, MsgEndRun, MsgPauseRun, MsgResumeRun, TrainingMessage};
use r3mes_types::tx::Fee;
use r3mes_types::wire::Text;
use r3mes_types::{Message, Ppm};

use crate::chain::{GAS, address};
use crate::messages::{Snapshots, must_be};
use crate::play::{LEAVER, Play, params};

pub(crate) const PINNED: &[(&str, &str)] = &[
    (
        "/r3mes.training.v1.MsgPauseRun",
        "82357cabaa2e2786946be094ffedd90ef41326ec7684f56ec30c2ab1b26f9c29",
    ),
    (
        "/r3mes.training.v1.MsgResumeRun",
        "b2c6c68d92772d70b0c64df416ccaa783c5ebf3bb938c5252d7c108f0438463b",
    ),
    (
        "/r3mes.training.v1.MsgCommitStates",
        "cce9fe68713405a4a1f09e4e3286d271309f1aabed07af499e3b5c4899016bad",
    ),
    (
        "/r3mes.training.v1.MsgRevealPackage",
        "a6eabe53009772222267059df9e6dfe38af536c94a4228a842d2f5b744d5e15d",
    ),
    (
        "/r3mes.training.v1.MsgAttestPackages",
        "b3a8938985619bc64a20344d4dd0f1603baea1c47a54df5c04ef8f60de2d1738",
    ),
    (
        "/r3mes.training.v1.MsgServeStates",
        "44f9335e553cf0484ab3f282c37bfce041031aa006e3f4527343e6de6b32d0a3",
    ),
    (
        "/r3mes.training.v1.MsgCommitVerdict",
        "64bca549d9a1dabbcb713fc1aaa44c4dcbc83f143fd3b5a56c0d83ee43259e2b",
    ),
    (
        "/r3mes.training.v1.MsgRevealVerdict",
        "8007e309065a1f4296639c8ecc35f1ed54c970c0faa4bac14629b3c7b69dd46b",
    ),
    (
        "/r3mes.training.v1.MsgOpenLeaves",
        "c7d104aa4c2aabfe2bb8f8e0b4928df9eb11f063d7edf0ab895c3cccda4da8b2",
    ),
    (
        "/r3mes.training.v1.MsgVoteCourt",
        "e40fc72074d97c6bec6988bd0560ccf6738d6e4bb9822d87d43e75fca3ad9d82",
    ),
    (
        "/r3mes.training.v1.MsgProposeAggregate",
        "36538c2efd7e3863e3364b03bc382df8c8b7c32665ad55cf55ed5e6f80f06435",
    ),
    (
        "/r3mes.training.v1.MsgAttestAggregate",
        "92f140afb30d78d36113188e8edb0e95e048949b965c4dc9b9494abd9dfb2525",
    ),
    (
        "/r3mes.training.v1.MsgCreateRun",
        "4657ac1a2f2d84108c1e46b67e517874c93744f62526e14ed59e4c8490554164",
    ),
    (
        "/r3mes.training.v1.MsgEndRun",
        "c04a6820fbd423486bafb4dfd07120f6aaca84e6c8a0421f8a20fc014f241f24",
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
    let end: TrainingMessage = MsgEndRun { authority, run: 2 }.into();
    found.send(&mut play.chain, 0, end.into());
    must_be(&found, PINNED);
}

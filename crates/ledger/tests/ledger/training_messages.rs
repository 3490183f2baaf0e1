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
        "dba5c37b54ee070ec99047ef3a83ffe5c63eb6f8b0f09c78195ddc665d52b09d",
    ),
    (
        "/r3mes.training.v1.MsgResumeRun",
        "cce4e4bf70eec5106201b922c559038457c5776a45e53ede35692015b74269c8",
    ),
    (
        "/r3mes.training.v1.MsgCommitStates",
        "e82f3572b096bda97bf9b4b8b9eeed4371da74aced7a083dceffb6918aafa350",
    ),
    (
        "/r3mes.training.v1.MsgRevealPackage",
        "e378e1196ab5e7287b9a5b484b4774997d417742b848bd636f7a59c2a97d3097",
    ),
    (
        "/r3mes.training.v1.MsgAttestPackages",
        "546027b28ca21263621657fc3a84d7a70bec4ea609fd3a31e347830cff607d0f",
    ),
    (
        "/r3mes.training.v1.MsgServeStates",
        "1290e64535aa55e10687f5ea4819c17f429c27c78834ed1761f9f4f5f8744353",
    ),
    (
        "/r3mes.training.v1.MsgCommitVerdict",
        "694a57f0c144bfe3005cb6901e0ba0ec20775095fa5c5cc0d75f00253e9435e1",
    ),
    (
        "/r3mes.training.v1.MsgRevealVerdict",
        "7dfc8f6daf0a6acd392ea78b76a0634ae88bb75c6978446b14c2bb9fb4d97c38",
    ),
    (
        "/r3mes.training.v1.MsgOpenLeaves",
        "4820d4b5074043bcbb657d0d61b9d2dae79663cbe4e75c75ebbced2508b20399",
    ),
    (
        "/r3mes.training.v1.MsgVoteCourt",
        "0c8fc7dc2851084b6e5bc7e4332d541666dbe7f6c88cb7d03b9b0dbd3ffd9123",
    ),
    (
        "/r3mes.training.v1.MsgProposeAggregate",
        "f745f8e81c94145679ab27625be8340f58ed496f816fb6b79c723cf708ab7dd3",
    ),
    (
        "/r3mes.training.v1.MsgAttestAggregate",
        "d7c8840d3f0d355767d553ee6b0c22c671e4956066e20a198e80a25dd8536167",
    ),
    (
        "/r3mes.training.v1.MsgCreateRun",
        "0c04dfc4e3c35df045cc34c3ed0985a57b43c32c2e0db27a25de8779b61e0484",
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

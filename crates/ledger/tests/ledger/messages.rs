//! One app-hash snapshot per message: whoever changes what a message does, or how state is encoded,
//! has to change a hash here, and knows that it needs an upgrade of the network.

use std::collections::BTreeSet;

use r3mes_ledger::nodes;
use r3mes_types::auth::{MsgGrant, MsgGrantFees, MsgRevoke, MsgRevokeFees};
use r3mes_types::bank::{MsgFaucet, MsgSend};
use r3mes_types::beacon::MsgRegisterChain;
use r3mes_types::data::{MsgProposeDataset, MsgVoteDataset};
use r3mes_types::governance::{Change, MsgPropose, MsgVote, Spend};
use r3mes_types::models::{ModelSpec, MsgRegisterModel};
use r3mes_types::nodes::{MsgAppeal, MsgLeave, MsgUnjail, MsgUpdate};
use r3mes_types::wire::{List, Text};
use r3mes_types::{Amount, Cid, Hash, Message, Millis, Role};

use crate::chain::{Chain, address, register, spec};
use crate::training_messages;
use crate::votes::dataset;

pub(crate) fn send() -> Message {
    MsgSend::new(address(1), address(2), Amount::new(5)).into()
}

pub(crate) fn model(name: &str, id: &[u8]) -> ModelSpec {
    ModelSpec {
        id: Hash::of(id),
        name: Text::new(name).unwrap(),
        base: Cid::raw(id),
        base_bytes: 11_000_000,
        tokenizer: Cid::raw(b"tokenizer"),
        tokenizer_hash: Hash::of(b"tokenizer"),
        exact_version: 1,
        memory_mib: 64,
        price_per_million_tokens: Amount::new(100),
        licence: Text::new("MIT").unwrap(),
    }
}

fn grant(chain: &Chain) -> MsgGrant {
    MsgGrant {
        granter: address(1),
        grantee: address(9),
        type_urls: List::new(vec![Text::new("/cosmos.bank.v1beta1.MsgSend").unwrap()]).unwrap(),
        expires_at: chain.time.after(Millis::seconds(60)),
    }
}

fn fees(chain: &Chain) -> MsgGrantFees {
    MsgGrantFees {
        granter: address(1),
        grantee: address(9),
        limit: Amount::new(7),
        expires_at: chain.time.after(Millis::seconds(60)),
    }
}

fn treasury_spend() -> MsgPropose {
    MsgPropose {
        proposer: address(1),
        title: Text::new("spend").unwrap(),
        change: Change::Spend(Spend {
            to: address(5),
            amount: Amount::new(1),
        }),
    }
}

/// A message with what must have happened before it; who sends it is its actor.
fn scenarios(chain: &mut Chain) -> Vec<Message> {
    for index in 1..=3 {
        chain.must(
            index,
            register(index, &[Role::Validator], Amount::remes(150)),
        );
    }
    let update = MsgUpdate {
        address: address(3),
        spec: spec(&[Role::Validator, Role::Proposer], Amount::remes(120)),
    };
    let chain_end = Hash::of(b"end");
    let slashed = address(2);
    chain
        .act(|ctx| nodes::slash(ctx, &slashed, Amount::remes(1), "test"))
        .unwrap();
    chain.act(|ctx| nodes::jail(ctx, &slashed, "test")).unwrap();
    chain.wait(Millis::seconds(25));
    let appeal = MsgAppeal {
        address: slashed,
        slash: 1,
        statement: Text::new("no").unwrap(),
    };
    vec![
        send(),
        MsgFaucet {
            to: address(4),
            amount: Amount::new(9),
        }
        .into(),
        grant(chain).into(),
        MsgRevoke {
            granter: address(1),
            grantee: address(9),
        }
        .into(),
        fees(chain).into(),
        MsgRevokeFees {
            granter: address(1),
            grantee: address(9),
        }
        .into(),
        MsgRegisterChain {
            operator: address(0),
            end: chain_end,
            length: 100,
        }
        .into(),
        register(4, &[Role::Miner, Role::Serving], Amount::remes(2)),
        update.into(),
        appeal.into(),
        MsgUnjail { address: slashed }.into(),
        MsgRegisterModel {
            authority: address(0),
            spec: model("tiny", b"model"),
        }
        .into(),
        MsgProposeDataset {
            proposer: address(1),
            spec: dataset("texts"),
        }
        .into(),
        MsgVoteDataset {
            voter: address(3),
            dataset: 1,
            approve: false,
        }
        .into(),
        treasury_spend().into(),
        MsgVote {
            voter: address(3),
            proposal: 1,
            approve: true,
        }
        .into(),
        MsgLeave {
            address: address(4),
        }
        .into(),
    ]
}

const PINNED: &[(&str, &str)] = &[
    (
        "genesis",
        "ee1454204a5b20980482a3d49c83f440e6b108fd3d483147db4be6b1e687df35",
    ),
    (
        "/cosmos.bank.v1beta1.MsgSend",
        "31715b5aad4ae26b42f1259bf46f41c480dab86c86610854696ac12d8550878d",
    ),
    (
        "/r3mes.bank.v1.MsgFaucet",
        "6ec6773364528cec76b419832188468df2bac8498fc61a74327a9b845cb0f9b7",
    ),
    (
        "/r3mes.auth.v1.MsgGrant",
        "8718b1e2610afed8048cbddb83f8f9846d4d8fc677557d99f3128844cac34ff8",
    ),
    (
        "/r3mes.auth.v1.MsgRevoke",
        "a5213afb96a86ceb9cea661dabec8cace9e8b665de19db045a7e96de681f084b",
    ),
    (
        "/r3mes.auth.v1.MsgGrantFees",
        "820933db147c6aca5fa72e1dc351d9913ae20ba0161878d4d5bf9b22a27a55dc",
    ),
    (
        "/r3mes.auth.v1.MsgRevokeFees",
        "dfb96ac1f08bf295f8bf8a4eb06df7e9ad07fabf3e2f7ab12bea1a42c43c8d5c",
    ),
    (
        "/r3mes.beacon.v1.MsgRegisterChain",
        "8b8832b4552afb383fe777d023352a4fa2ce35c5678d563fd3955023a25a911c",
    ),
    (
        "/r3mes.nodes.v1.MsgRegister",
        "f63d7f79e3696684de0df51b79f1cce4ff914b4cbc93e1c41a3876b85ee3bd8d",
    ),
    (
        "/r3mes.nodes.v1.MsgUpdate",
        "b3cb9b673d34e2c723fb469507bd588542a9e9b289dca9bf866d365502f21360",
    ),
    (
        "/r3mes.nodes.v1.MsgAppeal",
        "912121b8b80da120d4baffc84f9a366944e076097ebc2001c3aaa469ac56a731",
    ),
    (
        "/r3mes.nodes.v1.MsgUnjail",
        "8e7d18e893b94a2c68c8422b5ee3315573af6c457b77ef5526f59611edf340a6",
    ),
    (
        "/r3mes.models.v1.MsgRegisterModel",
        "90feaff4d1bf8d32e7d9ea46673eb756d4498b5d294ca311f0841e0026ca5c9e",
    ),
    (
        "/r3mes.data.v1.MsgProposeDataset",
        "d92c5e5cb4ebef321a4ebab80498a19726b052eb5761363b1b5f05eb704a5669",
    ),
    (
        "/r3mes.data.v1.MsgVoteDataset",
        "3eba19dce472c09640b3bdbe43d365676a5ac20d49e83ee8f28847212d39bf38",
    ),
    (
        "/r3mes.governance.v1.MsgPropose",
        "9874f42c3b66a5ec9ca94c2d137845a5b081679bbf1d642de91f96f4edfdc8de",
    ),
    (
        "/r3mes.governance.v1.MsgVote",
        "fd7d52af933ef1995141ad048f56aaa0e7912aec4add7cca7d1d25e5c7beac2a",
    ),
    (
        "/r3mes.nodes.v1.MsgLeave",
        "9f83b7300bc12c8e1e2fb815a81afc720a941f5c371f74eed77d66ffd63cdf6f",
    ),
];

/// The state after the first message of each type, in order.
#[derive(Default)]
pub(crate) struct Snapshots(Vec<(String, String)>);

impl Snapshots {
    /// Keeps the state after a message, unless it is not the first of its type.
    pub(crate) fn add(&mut self, type_url: &str, chain: &Chain) {
        if self.0.iter().all(|(url, _)| url != type_url) {
            let hash = chain.state_hash().to_string();
            self.0.push((type_url.to_owned(), hash));
        }
    }

    /// Sends a message that must succeed, and keeps the state after it.
    pub(crate) fn send(&mut self, chain: &mut Chain, sender: u8, message: Message) {
        let type_url = message.type_url();
        let result = chain.send(sender, message);
        assert_eq!(result.log, "", "{type_url}");
        self.add(type_url, chain);
    }
}

/// Fails with the snapshots as they are now, unless they are these.
pub(crate) fn must_be(found: &Snapshots, pinned: &[(&str, &str)]) {
    let found = found.0.iter();
    let found: Vec<(&str, &str)> = found.map(|(url, hash)| (&**url, &**hash)).collect();
    let listing: Vec<String> = found
        .iter()
        .map(|(url, hash)| format!("    (\"{url}\", \"{hash}\"),"))
        .collect();
    assert!(
        found == pinned,
        "the snapshots are now:\n{}",
        listing.join("\n")
    );
}

#[test]
fn every_message_gives_the_pinned_state() {
    let mut chain = Chain::new();
    let mut found = Snapshots::default();
    found.add("genesis", &chain);
    for message in scenarios(&mut chain) {
        if message.type_url() == "/r3mes.nodes.v1.MsgUnjail" {
            chain.time = chain.time.after(Millis::seconds(30));
        }
        let sender = (0..6)
            .find(|index| address(*index) == message.actor())
            .unwrap();
        found.send(&mut chain, sender, message);
    }
    must_be(&found, PINNED);
}

#[test]
fn no_message_is_without_a_pinned_state() {
    let pinned = PINNED.iter().chain(training_messages::PINNED);
    let covered: BTreeSet<&str> = pinned.map(|(url, _)| *url).collect();
    let missing: Vec<&str> = Message::type_urls()
        .filter(|url| !covered.contains(url))
        .collect();
    assert!(missing.is_empty(), "no snapshot of {missing:?}");
}

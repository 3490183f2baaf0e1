//! One app-hash snapshot per message: whoever changes what a message does, or how state is encoded,
//! has to change a hash here, and knows that it needs an upgrade of the network.

use std::collections::BTreeSet;

use r3mes_ledger::nodes;
use r3mes_types::auth::{MsgGrant, MsgGrantFees, MsgRevoke, MsgRevokeFees};
use r3mes_types::bank::{MsgFaucet, MsgSend};
use r3mes_types::beacon::MsgRegisterChain;
use r3mes_types::data::{MsgProposeDataset, MsgVoteDataset};
use r3mes_types::escrow::{MsgCharge, MsgClose, MsgOpen, Total};
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
        MsgOpen {
            payer: address(1),
            gateway: address(2),
            user: Text::new("alice").unwrap(),
            deposit: Amount::remes(1),
            expires_at: chain.time.after(Millis::seconds(3_600)),
            voucher_key: None,
        }
        .into(),
        MsgCharge {
            gateway: address(2),
            escrow: 1,
            totals: List::new(vec![Total {
                payee: address(5),
                amount: Amount::new(7),
            }])
            .unwrap(),
            voucher: None,
        }
        .into(),
        MsgClose {
            gateway: address(2),
            escrow: 1,
        }
        .into(),
    ]
}

const PINNED: &[(&str, &str)] = &[
    (
        "genesis",
        "a723a83276bf2227357e7786d0da55a1c15d6d1f345fba453bcbadb5f5f0a2e7",
    ),
    (
        "/cosmos.bank.v1beta1.MsgSend",
        "969745a7a027be125631eed79f33a008bed6b469c6ca61b3a07549c771883d81",
    ),
    (
        "/r3mes.bank.v1.MsgFaucet",
        "c0b53802425e5603f3f80ab221792d9e357b85d248c6d883e2abbbb9625a7b5d",
    ),
    (
        "/r3mes.auth.v1.MsgGrant",
        "926731b8b2a49c0b011837e389b6f53e733dede9fb66c92e2e4ec21664693241",
    ),
    (
        "/r3mes.auth.v1.MsgRevoke",
        "13adea5adda915ba5521f820f28d0def615f82f310a2dc41d7c0f04b813a30b7",
    ),
    (
        "/r3mes.auth.v1.MsgGrantFees",
        "351ed6215be1797732fd160d2e77d29f2421f3e6b4244a42b36fbc4091198dd6",
    ),
    (
        "/r3mes.auth.v1.MsgRevokeFees",
        "0b331fea27483640790e702d719522f7df23bea1d92380569b0b4cf38bc60c8e",
    ),
    (
        "/r3mes.beacon.v1.MsgRegisterChain",
        "f6f89685ed26ce16789257e099f82eedbeb919c6fe4e3188420c7b72f0dd493b",
    ),
    (
        "/r3mes.nodes.v1.MsgRegister",
        "8cb7a93f8b66083ff9aa42b1377fb8a6c9c73a5b1ccc96936e2eac47afa4a8b8",
    ),
    (
        "/r3mes.nodes.v1.MsgUpdate",
        "baeeca5b20d048e6f1cee867d94dd9c656fddf221011dc17405d6abf03bef2ef",
    ),
    (
        "/r3mes.nodes.v1.MsgAppeal",
        "7a836b4f323c81279fb963c17a36ce50352915dd6e40f30a086076bc22c9ab0e",
    ),
    (
        "/r3mes.nodes.v1.MsgUnjail",
        "e5fa69a38f0aeeaf4ecdc817c62a0046cb475d6925f9633f94e408cddde5d235",
    ),
    (
        "/r3mes.models.v1.MsgRegisterModel",
        "3a57660ba0470e8fe7dd4399cfeb6fc18bc93150fc8a5326abed9f6f2f7f79a1",
    ),
    (
        "/r3mes.data.v1.MsgProposeDataset",
        "2c078dfe078c2a6405aebcfa564391d2f2b141a9ee75d84ef6775a599ed99f29",
    ),
    (
        "/r3mes.data.v1.MsgVoteDataset",
        "9e5c76f25a9960b6ab6e75770af615817b4016ed778b652772e9b6847fed37ef",
    ),
    (
        "/r3mes.governance.v1.MsgPropose",
        "ee8be2ed89075cc42f97cbf41421636fb745e7beb47c130c692ff0b56d4e569d",
    ),
    (
        "/r3mes.governance.v1.MsgVote",
        "153b210dc016905b2e66c3d864fe5cd3174a4698a39488dacc177fa669235c63",
    ),
    (
        "/r3mes.nodes.v1.MsgLeave",
        "a7812fa5d1a9e0f1029eebf900bd851ec0a82812bcb6f4f0364d1681ce77b3ee",
    ),
    (
        "/r3mes.escrow.v1.MsgOpen",
        "25a7420c57ec97d5a399a9e5dde82f867026b5d7874de090f0786ca8cd48da26",
    ),
    (
        "/r3mes.escrow.v1.MsgCharge",
        "90915256f3d806f06c57aa79439b46e2569ca567769f8d912146d2d732919269",
    ),
    (
        "/r3mes.escrow.v1.MsgClose",
        "9894fd1fd90f7ea190add49b24375e3bc0513195e5e9da067bcd10a638da31df",
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

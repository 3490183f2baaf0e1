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
        "f158c1da21fcd6811837722ec3568abf6055facbe4ace2508efae301a417a12f",
    ),
    (
        "/cosmos.bank.v1beta1.MsgSend",
        "0351e125be83d2f7da4a5e59a8d623c293221283583d24809dfe29fa03691619",
    ),
    (
        "/r3mes.bank.v1.MsgFaucet",
        "36c7958f835eb726345fc2595785a66933386a3d058061ec974d9493ca5e8b88",
    ),
    (
        "/r3mes.auth.v1.MsgGrant",
        "ddad46fa1456225a2dcf5eaf48b59e9783f8170c2c2cdd90ea39efe53d6cbc62",
    ),
    (
        "/r3mes.auth.v1.MsgRevoke",
        "dbceb3e6570ce1ae015d563ec1bf6260bf31a3ad8f57f4ccbed2a4327f43fc9c",
    ),
    (
        "/r3mes.auth.v1.MsgGrantFees",
        "a99110b96924594d772b4760fa5780d03f049b7bcb2d917a67debbaa17610b26",
    ),
    (
        "/r3mes.auth.v1.MsgRevokeFees",
        "8de7fe7df27021b6e9528e3c71ff177e22bd0fcf8af88fdcd2d65f44ceac0017",
    ),
    (
        "/r3mes.beacon.v1.MsgRegisterChain",
        "eb358cf76f9a5270cbab8f59848f1fd41b102e818d8297e003480f4a0c93d47f",
    ),
    (
        "/r3mes.nodes.v1.MsgRegister",
        "f49ad997fdbf01f60d372f4396a17b257501eaf478d4c25897a970303552d01a",
    ),
    (
        "/r3mes.nodes.v1.MsgUpdate",
        "ab47307e50113363f17dcd3de173f0b5ed3c7cf53379b84f0bd4084d764fce36",
    ),
    (
        "/r3mes.nodes.v1.MsgAppeal",
        "843854ba3e831650ca4bd52560668140eeed0ff8256c851d08011b54fe16ca9a",
    ),
    (
        "/r3mes.nodes.v1.MsgUnjail",
        "1efa16857f134fdfb9056c5bc595ab492f9d7400301f15388a8a39753c94ff33",
    ),
    (
        "/r3mes.models.v1.MsgRegisterModel",
        "4e7f3b2b1da7cb031a334affdcda1784b7eba513a34938d8e6b45f76f36784f9",
    ),
    (
        "/r3mes.data.v1.MsgProposeDataset",
        "b34a81a176e337f93193286c4b75e375d470428ee0f4ca83891a316be176891b",
    ),
    (
        "/r3mes.data.v1.MsgVoteDataset",
        "8bac30e5c70e354c3d1852635bb854ac32344c6c29ffaf15c2d06cc0a3635b32",
    ),
    (
        "/r3mes.governance.v1.MsgPropose",
        "8cb19b103f8b118d053f1b8741ca51a73e5aac0e14d0f2c680814cdb39540c97",
    ),
    (
        "/r3mes.governance.v1.MsgVote",
        "f174d76ba120c6a58ea5bf4d967829534df5c969b1d584823d1008cda409ebf0",
    ),
    (
        "/r3mes.nodes.v1.MsgLeave",
        "5112de1ec9b8e288c5c4af337676d9e00413cd169f43416ce2809f350ef5feab",
    ),
];

#[test]
fn every_message_gives_the_pinned_state() {
    let mut chain = Chain::new();
    let genesis = chain.state_hash().to_string();
    let mut found = vec![("genesis".to_owned(), genesis)];
    for message in scenarios(&mut chain) {
        if message.type_url() == "/r3mes.nodes.v1.MsgUnjail" {
            chain.time = chain.time.after(Millis::seconds(30));
        }
        let sender = (0..6)
            .find(|index| address(*index) == message.actor())
            .unwrap();
        let type_url = message.type_url().to_owned();
        let result = chain.send(sender, message);
        assert_eq!(result.log, "", "{type_url}");
        found.push((type_url, chain.state_hash().to_string()));
    }
    let pinned: Vec<(String, String)> = PINNED
        .iter()
        .map(|(url, hash)| (url.to_string(), hash.to_string()))
        .collect();
    let listing: Vec<String> = found
        .iter()
        .map(|(url, hash)| format!("    (\"{url}\", \"{hash}\"),"))
        .collect();
    assert!(
        found == pinned,
        "the snapshots are now:\n{}",
        listing.join("\n")
    );

    let covered: BTreeSet<&str> = PINNED.iter().map(|(url, _)| *url).collect();
    let missing: Vec<&str> = Message::type_urls()
        .filter(|url| !url.starts_with("/r3mes.training.") && !covered.contains(url))
        .collect();
    assert!(missing.is_empty(), "no snapshot of {missing:?}");
}

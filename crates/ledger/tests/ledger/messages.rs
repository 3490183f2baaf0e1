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
        "be02a00a2ead5ff5df3fa7781695990f03069d82ec4bc52e683c2843472afe4d",
    ),
    (
        "/cosmos.bank.v1beta1.MsgSend",
        "c9c4a9f663ce0cf749b97853d424ffa4b79ac8b4be1772f61dfe2751c09d3a3e",
    ),
    (
        "/r3mes.bank.v1.MsgFaucet",
        "b3355eddf6da43d40d359423c590cce5e8d932a0304a5bcb5acdd18248c41056",
    ),
    (
        "/r3mes.auth.v1.MsgGrant",
        "87a208c1ca460b78e5cbb8165078f30aeaabc7589c773d215995769813f9204c",
    ),
    (
        "/r3mes.auth.v1.MsgRevoke",
        "ed74629218132a8afb4bc48244608b723143e2915d367e051a7cb21f6eae7723",
    ),
    (
        "/r3mes.auth.v1.MsgGrantFees",
        "471cc56bb3b038be01814913f5fe5589dabcae81353a1605dba9d4f9969498b2",
    ),
    (
        "/r3mes.auth.v1.MsgRevokeFees",
        "c95d1bb0b5043aaada63eb5c4ead5296957829e8c98169f5de88e47b8af900c5",
    ),
    (
        "/r3mes.beacon.v1.MsgRegisterChain",
        "bb78af44ba264fd77786a25e06e9f89e0a6bbae73313752c8bcf8b4fab7f26fb",
    ),
    (
        "/r3mes.nodes.v1.MsgRegister",
        "34e24352f61bab0f574a16817a5f939fe72cefc3b6edf6fa1cbe5cd90583c5e1",
    ),
    (
        "/r3mes.nodes.v1.MsgUpdate",
        "834538ee8f491725f8dd28a28b50c8ea3b69b321dfff4702902f88a243f0ee0e",
    ),
    (
        "/r3mes.nodes.v1.MsgAppeal",
        "4c46b0bed84fbe7fc15c36108e93023da5294975e2bfc419bed89e01491e8747",
    ),
    (
        "/r3mes.nodes.v1.MsgUnjail",
        "a16b074189babcaac3a2618429fed7783ba9248e994c6731cbf658b0bd513083",
    ),
    (
        "/r3mes.models.v1.MsgRegisterModel",
        "6dbd5ccd62392d291976104f8d56dfdc13af2fd20c85c8f4896cfc227aa2760a",
    ),
    (
        "/r3mes.data.v1.MsgProposeDataset",
        "c6aeff3412559d28f43b0e148ff55c2b923ccfe0c349ff8abb0634d546e7a81b",
    ),
    (
        "/r3mes.data.v1.MsgVoteDataset",
        "9e5d59fec215640206ea17c248fd18b8a961ac6352bc07d60558831dbd1e5c00",
    ),
    (
        "/r3mes.governance.v1.MsgPropose",
        "2e7215d05dcc0febe327d73e7cd2668b24b17a837e32c1b13398d7e96eb70093",
    ),
    (
        "/r3mes.governance.v1.MsgVote",
        "82a3b559986602b6555a5493afad6c2b9ddea7b0441251a07232c195cf0ef789",
    ),
    (
        "/r3mes.nodes.v1.MsgLeave",
        "16503a65b8cd41c211a61d63bc3861f5f4e184c258c293d5019d74ff081ec134",
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

use r3mes_ledger::block::{Misbehaviour, ValidatorUpdate};
use r3mes_ledger::{Ledger, bank, nodes};
use r3mes_types::beacon::{HashChain, MsgRegisterChain};
use r3mes_types::governance::{Change, MsgPropose, SlashDecision};
use r3mes_types::nodes::{
    Endpoint, MsgAppeal, MsgLeave, MsgRegister, MsgUnjail, MsgUpdate, NodeStatus, QueryNode,
    QueryNodes, QuerySlashes, SlashStatus,
};
use r3mes_types::wire::{List, Text};
use r3mes_types::{Allocation, Amount, ConsensusKey, Hash, Millis, Ppm, Resources, Role, Time};

use crate::chain::{Chain, FEE, START, address, development, register, spec};

const ONE: Amount = Amount::remes(1);

fn update(index: u8, roles: &[Role], stake: Amount) -> MsgUpdate {
    MsgUpdate {
        address: address(index),
        spec: spec(roles, stake),
    }
}

#[test]
fn the_minimum_stake_is_the_largest_over_the_roles_not_the_sum() {
    let cases: [(&[Role], u64); 6] = [
        (&[Role::Miner], 1),
        (&[Role::Miner, Role::Serving], 1),
        (&[Role::Proposer], 50),
        (&[Role::Miner, Role::Proposer], 50),
        (&[Role::Validator, Role::Proposer], 100),
        (
            &[Role::Miner, Role::Serving, Role::Validator, Role::Proposer],
            100,
        ),
    ];
    for (roles, remes) in cases {
        let mut chain = Chain::new();
        let below = Amount::new(Amount::remes(remes).uremes() - 1);
        let refused = chain.send(1, register(1, roles, below));
        assert_eq!(
            (refused.codespace.as_str(), refused.code),
            ("nodes", 4),
            "{roles:?}"
        );
        chain.must(1, register(1, roles, Amount::remes(remes)));
        assert_eq!(chain.node(1).bonded, Amount::remes(remes));
    }
}

#[test]
fn registering_again_is_a_no_op_if_identical_and_refused_if_not() {
    let mut chain = Chain::new();
    chain.must(1, register(1, &[Role::Miner], ONE));
    let before = chain.balance(&address(1));
    chain.must(1, register(1, &[Role::Miner], ONE));
    assert_eq!(
        chain.balance(&address(1)).uremes(),
        before.uremes() - FEE.uremes()
    );
    let other = chain.send(1, register(1, &[Role::Serving], ONE));
    assert_eq!((other.codespace.as_str(), other.code), ("nodes", 2));
    let listed = chain
        .query(&QueryNodes {
            role: Some(Role::Miner),
            page: None,
        })
        .nodes;
    assert_eq!(listed.len(), 1);
}

#[test]
fn what_a_node_declares_must_not_contradict_itself() {
    let endpoint = |role, blobs: &str| Endpoint {
        role,
        blobs: Text::new(blobs).unwrap(),
        api: Text::default(),
    };
    let allocation = |role, cpu_cores| Allocation {
        role,
        cpu_cores,
        memory_gb: 0,
        gpu_usage: Ppm::percent(60),
        network_usage: Ppm::ZERO,
    };
    let good = spec(&[Role::Miner, Role::Serving], ONE);
    let resources = Resources {
        cpu_cores: 4,
        ..Resources::default()
    };
    let list = |allocations: &[Allocation]| List::new(allocations.to_vec()).unwrap();
    let wrong = [
        spec(&[], ONE),
        r3mes_types::nodes::NodeSpec {
            primary_role: Some(Role::Proposer),
            ..good.clone()
        },
        r3mes_types::nodes::NodeSpec {
            consensus_key: Some(ConsensusKey::from([5; 32])),
            ..good.clone()
        },
        r3mes_types::nodes::NodeSpec {
            endpoints: List::new(vec![endpoint(Role::Miner, "ftp://x")]).unwrap(),
            ..good.clone()
        },
        r3mes_types::nodes::NodeSpec {
            endpoints: List::new(vec![endpoint(Role::Validator, "http://x:1")]).unwrap(),
            ..good.clone()
        },
        r3mes_types::nodes::NodeSpec {
            resources,
            allocations: list(&[allocation(Role::Miner, 5)]),
            ..good.clone()
        },
        r3mes_types::nodes::NodeSpec {
            resources,
            allocations: list(&[allocation(Role::Miner, 1), allocation(Role::Serving, 1)]),
            ..good.clone()
        },
        r3mes_types::nodes::NodeSpec {
            resources,
            allocations: list(&[allocation(Role::Miner, 1), allocation(Role::Miner, 1)]),
            ..good.clone()
        },
    ];
    let addresses = [
        "flight://10.0.0.1",
        "flight://10.0.0.1:65536",
        "flight://10.0.0.1:+80",
        "flight://10.0.0.1:8815/blobs",
        "flight://t@10.0.0.1:8815",
        "flight://:8815",
    ];
    let badly_placed = addresses.map(|blobs| r3mes_types::nodes::NodeSpec {
        endpoints: List::new(vec![endpoint(Role::Miner, blobs)]).unwrap(),
        ..good.clone()
    });
    let mut over_flight = endpoint(Role::Miner, "http://10.0.0.1:8090");
    over_flight.api = Text::new("flight://10.0.0.1:8815").unwrap();
    let api = r3mes_types::nodes::NodeSpec {
        endpoints: List::new(vec![over_flight]).unwrap(),
        ..good.clone()
    };
    let mut chain = Chain::new();
    let wrong = wrong.into_iter().chain(badly_placed).chain([api]);
    for (index, spec) in wrong.enumerate() {
        let result = chain.send(
            1,
            MsgRegister {
                address: address(1),
                spec,
            },
        );
        assert_eq!(
            (result.codespace.as_str(), result.code),
            ("nodes", 3),
            "case {index}"
        );
    }
    for (number, blobs) in [
        (1, "http://10.0.0.1:8090"),
        (2, "flight://10.0.0.1:8815"),
        (3, "flight://[2001:db8::1]:8815"),
    ] {
        let spec = r3mes_types::nodes::NodeSpec {
            endpoints: List::new(vec![endpoint(Role::Miner, blobs)]).unwrap(),
            ..good.clone()
        };
        let address = address(number);
        chain.must(number, MsgRegister { address, spec });
        assert!(chain.node(number).endpoint(Role::Miner).is_some());
    }
}

#[test]
fn stake_that_is_taken_back_is_paid_out_after_unbonding() {
    let mut chain = Chain::new();
    chain.must(1, register(1, &[Role::Miner], Amount::remes(10)));
    chain.must(1, update(1, &[Role::Miner], Amount::remes(4)));
    let node = chain.node(1);
    assert_eq!((node.bonded, node.unbonding.len()), (Amount::remes(4), 1));
    chain.must(1, update(1, &[Role::Miner], Amount::remes(4)));
    assert_eq!(
        chain.node(1).unbonding.len(),
        1,
        "an identical repeat changes nothing"
    );
    let before = chain.balance(&address(1));
    let due = Ledger::next_deadline(&chain.state).unwrap().unwrap();
    assert_eq!(due, node.unbonding[0].release_at);
    chain.wait(Millis::seconds(59));
    assert_eq!(chain.balance(&address(1)), before);
    chain.wait(Millis::seconds(1));
    assert_eq!(
        chain.balance(&address(1)),
        before.saturating_add(Amount::remes(6))
    );
    assert_eq!(Ledger::next_deadline(&chain.state).unwrap(), None);
}

#[test]
fn open_locks_and_disputes_hold_a_release_back() {
    let mut chain = Chain::new();
    chain.must(1, register(1, &[Role::Miner], Amount::remes(10)));
    let obligation = Hash::of(b"round 1");
    let node = address(1);
    assert!(
        chain
            .act(|ctx| nodes::lock(ctx, &node, obligation, Amount::remes(3)))
            .unwrap()
    );
    assert!(
        chain
            .act(|ctx| nodes::lock(ctx, &node, obligation, Amount::remes(3)))
            .unwrap()
    );
    assert_eq!(
        chain.node(1).free(),
        Amount::remes(7),
        "a repeat locks nothing more"
    );
    let other = Hash::of(b"round 2");
    assert!(
        !chain
            .act(|ctx| nodes::lock(ctx, &node, other, Amount::remes(8)))
            .unwrap()
    );
    chain.must(1, MsgLeave { address: node });
    chain.act(|ctx| nodes::dispute_opened(ctx, &node)).unwrap();
    chain.wait(Millis::seconds(61));
    assert_eq!(
        chain.node(1).unbonding.len(),
        1,
        "a lock and a dispute are open"
    );
    chain
        .act(|ctx| nodes::unlock(ctx, &node, obligation))
        .unwrap();
    chain.wait(Millis::seconds(11));
    assert_eq!(chain.node(1).unbonding.len(), 1, "a dispute is open");
    chain.act(|ctx| nodes::dispute_closed(ctx, &node)).unwrap();
    chain.wait(Millis::seconds(11));
    assert!(chain.node(1).unbonding.is_empty());
    assert_eq!(
        chain.balance(&node).uremes(),
        START.uremes() - 2 * FEE.uremes()
    );
}

#[test]
fn slashing_takes_bonded_then_unbonding_stake_and_jails_below_the_minimum() {
    let mut chain = Chain::new();
    let node = address(1);
    chain.must(1, register(1, &[Role::Proposer], Amount::remes(60)));
    chain.must(1, update(1, &[Role::Proposer], Amount::remes(50)));
    let taken = chain.act(|ctx| nodes::slash(ctx, &node, Amount::remes(55), "wrong aggregate"));
    assert_eq!(taken.unwrap(), Amount::remes(55));
    let record = chain.node(1);
    assert_eq!(
        (record.bonded, record.status),
        (Amount::ZERO, NodeStatus::Jailed)
    );
    assert_eq!(record.unbonding[0].amount, Amount::remes(5));
    assert_eq!(&*record.jail_reason, "wrong aggregate");
    assert_eq!(
        chain.balance(&bank::Module::Slashed.address()),
        Amount::remes(55)
    );
    assert!(
        chain
            .query(&QueryNodes {
                role: Some(Role::Proposer),
                page: None
            })
            .nodes
            .is_empty()
    );

    let early = chain.send(1, MsgUnjail { address: node });
    assert_eq!((early.codespace.as_str(), early.code), ("nodes", 5));
    chain.time = chain.time.after(Millis::seconds(30));
    let poor = chain.send(1, MsgUnjail { address: node });
    assert_eq!((poor.codespace.as_str(), poor.code), ("nodes", 4));
    chain.must(1, update(1, &[Role::Proposer], Amount::remes(50)));
    chain.must(1, MsgUnjail { address: node });
    chain.must(1, MsgUnjail { address: node });
    assert!(chain.node(1).is_active(Role::Proposer));
    let rest = chain
        .act(|ctx| nodes::slash(ctx, &node, Amount::remes(1_000), "again"))
        .unwrap();
    assert_eq!(rest, Amount::remes(55), "no more than there is");
}

#[test]
fn a_slash_goes_to_the_treasury_after_the_appeal_window() {
    let mut chain = Chain::new();
    let node = address(1);
    chain.must(1, register(1, &[Role::Miner], Amount::remes(10)));
    chain
        .act(|ctx| nodes::slash(ctx, &node, ONE, "forged step"))
        .unwrap();
    let treasury = bank::Module::Treasury.address();
    let before = chain.balance(&treasury);
    chain.wait(Millis::seconds(30));
    assert_eq!(chain.balance(&treasury), before.saturating_add(ONE));
    let slashes = chain
        .query(&QuerySlashes {
            node: Some(node),
            page: None,
        })
        .slashes;
    assert_eq!(slashes[0].status, SlashStatus::Final);
    let late = MsgAppeal {
        address: node,
        slash: 1,
        statement: Text::new("too late").unwrap(),
    };
    assert_eq!(chain.send(1, late).code, 6);
}

#[test]
fn an_appeal_keeps_a_slash_until_governance_decides() {
    for revert in [true, false] {
        let mut chain = Chain::new();
        let node = address(1);
        chain.must(1, register(1, &[Role::Miner], Amount::remes(10)));
        chain
            .act(|ctx| nodes::slash(ctx, &node, ONE, "forged step"))
            .unwrap();
        let appeal = MsgAppeal {
            address: node,
            slash: 1,
            statement: Text::new("bug").unwrap(),
        };
        assert_eq!(
            chain
                .send(
                    2,
                    MsgAppeal {
                        address: address(2),
                        ..appeal.clone()
                    }
                )
                .code,
            6
        );
        chain.must(1, appeal.clone());
        chain.must(1, appeal);
        chain.wait(Millis::seconds(3_600));
        assert_eq!(chain.balance(&bank::Module::Slashed.address()), ONE);
        let before = chain.balance(&node);
        let decision = MsgPropose {
            proposer: address(0),
            title: Text::new("decide").unwrap(),
            change: Change::Slash(SlashDecision { slash: 1, revert }),
        };
        chain.must(0, decision.clone());
        assert_eq!(chain.send(0, decision).code, 6, "decided once");
        let back = if revert { ONE } else { Amount::ZERO };
        assert_eq!(chain.balance(&node), before.saturating_add(back));
        assert_eq!(
            chain.balance(&bank::Module::Slashed.address()),
            Amount::ZERO
        );
    }
}

#[test]
fn a_node_that_left_can_come_back_with_new_stake() {
    let mut chain = Chain::new();
    let node = address(1);
    chain.must(1, register(1, &[Role::Miner], ONE));
    chain.must(1, MsgLeave { address: node });
    chain.must(1, MsgLeave { address: node });
    assert_eq!(chain.node(1).status, NodeStatus::Left);
    assert_eq!(chain.send(1, update(1, &[Role::Miner], ONE)).code, 1);
    chain.must(1, register(1, &[Role::Miner], Amount::remes(2)));
    let record = chain.query(&QueryNode { address: node }).node.unwrap();
    assert_eq!(
        (record.bonded, record.unbonding.len()),
        (Amount::remes(2), 1)
    );
    chain.wait(Millis::seconds(60));
    assert!(chain.node(1).unbonding.is_empty());
}

/// A chain whose block validators follow stake, with node 1 registered as one.
fn staked_chain() -> (Chain, ConsensusKey) {
    let mut genesis = development();
    genesis.params.nodes.max_block_validators = 2;
    let mut chain = Chain::from(&genesis);
    let key = ConsensusKey::from([8; 32]);
    let mut spec = spec(&[Role::Validator], Amount::remes(200));
    spec.consensus_key = Some(key);
    chain.must(
        1,
        MsgRegister {
            address: address(1),
            spec,
        },
    );
    (chain, key)
}

#[test]
fn block_validators_follow_stake_once_they_have_a_beacon_chain() {
    let (mut chain, key) = staked_chain();
    let updates = &chain.output.as_ref().unwrap().validator_updates;
    assert!(
        updates.is_empty(),
        "without a chain a validator could make no block"
    );
    let beacon = HashChain::new(&[3; 32], 16);
    let operator = address(1);
    chain.must(
        1,
        MsgRegisterChain {
            operator,
            end: beacon.end(),
            length: 16,
        },
    );
    let updates = chain.output.as_ref().unwrap().validator_updates.clone();
    let removed = ValidatorUpdate {
        key: ConsensusKey::from([1; 32]),
        power: 0,
    };
    assert_eq!(updates, [removed, ValidatorUpdate { key, power: 200 }]);
    chain.block(Vec::new());
    assert!(chain.output.as_ref().unwrap().validator_updates.is_empty());
}

#[test]
fn a_consensus_key_belongs_to_one_node() {
    let (mut chain, key) = staked_chain();
    let mut stolen = spec(&[Role::Validator], Amount::remes(100));
    stolen.consensus_key = Some(key);
    let result = chain.send(
        2,
        MsgRegister {
            address: address(2),
            spec: stolen,
        },
    );
    assert_eq!((result.codespace.as_str(), result.code), ("nodes", 7));
}

#[test]
fn signing_two_blocks_of_one_height_is_slashed_and_jailed() {
    let (mut chain, key) = staked_chain();
    let mut input = chain.input(Vec::new());
    input.misbehaviour.push(Misbehaviour {
        validator: key.address(),
        power: 200,
        height: 1,
        time: Time::default(),
    });
    chain.run(&input);
    let node = chain.node(1);
    assert_eq!(
        (node.status, node.bonded),
        (NodeStatus::Jailed, Amount::remes(190))
    );
}

#[test]
fn a_node_can_always_leave_however_often_it_cut_its_stake() {
    let mut chain = Chain::new();
    chain.must(1, register(1, &[Role::Miner], Amount::remes(100)));
    for stake in (60..100).rev() {
        chain.must(1, update(1, &[Role::Miner], Amount::remes(stake)));
    }
    chain.must(
        1,
        MsgLeave {
            address: address(1),
        },
    );
    let node = chain.node(1);
    assert_eq!((node.unbonding.len(), node.bonded), (16, Amount::ZERO));
    let newest = node.unbonding.last().unwrap();
    assert_eq!(
        newest.release_at,
        chain.time.after(Millis::seconds(60)),
        "nothing comes early"
    );
    chain.wait(Millis::seconds(60));
    let fees = Amount::new(42 * FEE.uremes());
    assert_eq!(chain.balance(&address(1)), START.saturating_sub(fees));
}

use r3mes_ledger::{Fault, Ledger, beacon};
use r3mes_types::beacon::{
    HashChain, MAX_CHAIN, MsgRegisterChain, MsgReveal, NextChain, QueryBeacon, mix,
};
use r3mes_types::tx::{parse_reveal, reveal_tx};
use r3mes_types::{ConsensusAddress, Hash};

use crate::chain::{Chain, address, development};

fn refused(chain: &Chain, txs: Vec<Vec<u8>>) -> String {
    let mut input = chain.input(Vec::new());
    input.txs = txs;
    let voted = Ledger::process(&chain.state, &input, &|_| None).unwrap_err();
    let decided = Ledger::finalize_block(&chain.state, &input, &|_| None).unwrap_err();
    assert!(matches!(voted, Fault::InvalidBlock { .. }));
    assert_eq!(voted.to_string(), decided.to_string());
    voted.to_string()
}

#[test]
fn a_block_without_the_next_element_is_refused() {
    let chain = Chain::new();
    let validator = Chain::proposer();
    assert!(refused(&chain, Vec::new()).contains("reveals no beacon element"));
    assert!(refused(&chain, vec![chain.sign(0, crate::messages::send())]).contains("reveals no"));
    let wrong = MsgReveal {
        validator,
        preimage: Hash::of(b"guess"),
        next: None,
    };
    assert!(refused(&chain, vec![reveal_tx(&wrong)]).contains("not the next of the chain"));
    let skipped = MsgReveal {
        validator,
        preimage: chain.beacon.preimage(5).unwrap(),
        next: None,
    };
    assert!(refused(&chain, vec![reveal_tx(&skipped)]).contains("not the next of the chain"));
    let another = ConsensusAddress::from([3; 20]);
    let own = parse_reveal(&chain.reveal()).unwrap();
    let foreign = MsgReveal {
        validator: another,
        ..own
    };
    assert!(refused(&chain, vec![reveal_tx(&foreign)]).contains("reveals for"));
}

#[test]
fn an_element_cannot_be_revealed_twice() {
    let mut chain = Chain::new();
    let first = chain.reveal();
    chain.block(Vec::new());
    assert!(refused(&chain, vec![first]).contains("not the next of the chain"));
}

#[test]
fn the_mix_binds_every_element_and_stands_under_its_height() {
    let mut chain = Chain::new();
    let mut expected = development().hash();
    for _ in 0..3 {
        let reveal = parse_reveal(&chain.reveal()).unwrap();
        expected = mix(&expected, &reveal.preimage);
        chain.block(Vec::new());
        assert_eq!(
            beacon::mix_at(&chain.view(), chain.height).unwrap(),
            Some(expected)
        );
    }
    let mixes = chain
        .query(&QueryBeacon {
            height: 0,
            limit: 10,
        })
        .mixes;
    let heights: Vec<u64> = mixes.iter().map(|mix| mix.height).collect();
    assert_eq!(heights, [3, 2, 1, 0]);
    assert_eq!(mixes[0].mix, expected);
    assert_eq!(beacon::mix_at(&chain.view(), 4).unwrap(), None);
}

#[test]
fn a_used_up_chain_goes_on_with_the_next_one() {
    let mut genesis = development();
    let first = HashChain::new(&[1; 32], 3);
    let mut validators = genesis.validators.clone().into_inner();
    validators[0].chain_end = first.end();
    validators[0].chain_length = first.len();
    genesis.validators = validators.try_into().unwrap();
    let mut chain = Chain::from(&genesis);
    chain.beacon = first;
    let next = HashChain::new(&[2; 32], 4);
    let message = MsgRegisterChain {
        operator: address(0),
        end: next.end(),
        length: next.len(),
    };
    chain.must(0, message);
    chain.must(0, message);
    let exchanged = MsgRegisterChain {
        end: Hash::of(b"other"),
        ..message
    };
    assert_eq!(chain.send(0, exchanged).codespace, "beacon");
    // The first chain is used up: `prepare` finds the element in the second.
    let proposal = r3mes_ledger::Proposal {
        block: chain.next_block(),
        proposer: Chain::proposer(),
        chains: &[chain.beacon.clone(), next.clone()],
        max_bytes: 1 << 20,
    };
    let txs = Ledger::prepare(&chain.state, &proposal, &[], &|_| None).unwrap();
    let mut input = chain.input_with(txs);
    chain.run(&input);
    chain.beacon = next;
    for _ in 0..3 {
        input = chain.input(Vec::new());
        chain.run(&input);
    }
    let spent = Ledger::prepare(
        &chain.state,
        &r3mes_ledger::Proposal {
            block: chain.next_block(),
            proposer: Chain::proposer(),
            chains: &[chain.beacon.clone()],
            max_bytes: 1 << 20,
        },
        &[],
        &|_| None,
    );
    assert!(
        spent
            .unwrap_err()
            .to_string()
            .contains("register the next one in time")
    );
}

#[test]
fn a_reveal_registers_the_chain_to_go_on_with_once() {
    let mut chain = Chain::new();
    let own = parse_reveal(&chain.reveal()).unwrap();
    let next = HashChain::new(&[2; 32], 4);
    let with = |reveal: MsgReveal, length| {
        let end = next.end();
        let next = Some(NextChain { end, length });
        reveal_tx(&MsgReveal { next, ..reveal })
    };
    for length in [0, MAX_CHAIN + 1] {
        assert!(refused(&chain, vec![with(own, length)]).contains("no allowed length"));
    }
    // The proposer that keeps the next chain registers it by itself, in the first block.
    let proposal = r3mes_ledger::Proposal {
        block: chain.next_block(),
        proposer: Chain::proposer(),
        chains: &[chain.beacon.clone(), next.clone()],
        max_bytes: 1 << 20,
    };
    let txs = Ledger::prepare(&chain.state, &proposal, &[], &|_| None).unwrap();
    assert_eq!(txs, [with(own, 4)]);
    let input = chain.input_with(txs);
    chain.run(&input);
    let registered = beacon::CHAINS.get(&chain.view(), &Chain::proposer());
    let registered = registered.unwrap().unwrap();
    assert_eq!(registered.next_end, Some(next.end()));
    assert_eq!(registered.next_length, 4);
    // From then on nothing more is registered, and nothing may be exchanged.
    let proposal = r3mes_ledger::Proposal {
        block: chain.next_block(),
        ..proposal
    };
    let txs = Ledger::prepare(&chain.state, &proposal, &[], &|_| None).unwrap();
    assert_eq!(txs, [chain.reveal()]);
    let second = parse_reveal(&chain.reveal()).unwrap();
    assert!(refused(&chain, vec![with(second, 4)]).contains("registered already"));
}

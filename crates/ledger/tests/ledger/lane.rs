//! The lane for what nodes owe: free, first, one per obligation.

use r3mes_ledger::block::{CheckResult, Lane};
use r3mes_ledger::{Genesis, Ledger, Proposal, Waiting, auth};
use r3mes_types::auth::MsgGrant;
use r3mes_types::bank::MsgSend;
use r3mes_types::nodes::MsgRegister;
use r3mes_types::task::{AdapterRef, F32Bits, HyperParameters, Targets};
use r3mes_types::training::{
    MsgCommitStates, ObligationKind, Penalties, Preset, QueryObligations, RunParams, Split,
    TrainingMessage, Windows,
};
use r3mes_types::tx::{Fee, Signer, Tx, Unsigned};
use r3mes_types::wire::{List, Text};
use r3mes_types::{Amount, Hash, Message, Millis, Ppm, Role};

use crate::chain::{CHAIN_ID, Chain, FEE, GAS, address, development, key, spec};
use crate::messages::model;
use crate::votes::dataset;

pub(crate) const COMMIT: &str = "/r3mes.training.v1.MsgCommitStates";

fn hyper() -> HyperParameters {
    HyperParameters {
        batch: 4,
        sequence: 128,
        rank: 8,
        alpha: F32Bits(0x4180_0000),
        targets: Targets::ALL,
        learning_rate: F32Bits(0x3a83_126f),
        beta1: F32Bits(0x3f66_6666),
        beta2: F32Bits(0x3f7f_be77),
        c1: F32Bits(0x3dcc_cccd),
        c2: F32Bits(0x3a83_126f),
        epsilon: F32Bits(0x322b_cc77),
        weight_decay: F32Bits::ZERO,
        chunk: 4_096,
        top_k: 512,
        decay: F32Bits(0x3f73_3333),
    }
}

/// One run with windows of a minute, that opens with one miner and one validator.
pub(crate) fn run_params() -> RunParams {
    let window = Millis::seconds(60);
    RunParams {
        name: Text::new("test").unwrap(),
        model: Hash::of(b"model"),
        exact_version: 1,
        dataset: 1,
        steps: 8,
        hyper: hyper(),
        learning_rates: List::default(),
        initial: AdapterRef {
            cid: None,
            adapter: Hash::of(b"initial adapter"),
            state: Hash::of(b"initial state"),
        },
        rounds: 3,
        reward: Amount::new(1_000),
        split: Split {
            miners: Ppm::percent(70),
            validators: Ppm::percent(20),
            proposer: Ppm::percent(5),
            treasury: Ppm::percent(5),
        },
        panel: 1,
        drawn_steps: 1,
        audited_share: Ppm::percent(100),
        min_miners: 1,
        max_miners: 4,
        min_validators: 1,
        proposers: 1,
        windows: Windows {
            commit: window,
            reveal: window,
            availability: window,
            serve: window,
            verify: window,
            verdict: window,
            open: window,
            court: window,
            aggregate: window,
        },
        penalties: Penalties {
            miner: Amount::remes(1),
            validator: Amount::remes(1),
            proposer: Amount::remes(1),
        },
        kept_rounds: 2,
        preset: Preset::Demonstration,
        adapter_seed: Hash::of(b"seed"),
        reaudited_share: Ppm::ZERO,
    }
}

pub(crate) fn genesis() -> Genesis {
    let node = |index: u8, role, remes| MsgRegister {
        address: address(index),
        spec: spec(&[role], Amount::remes(remes)),
    };
    let mut genesis = development();
    genesis.models = List::new(vec![model("tiny", b"model")]).unwrap();
    genesis.datasets = List::new(vec![dataset("texts")]).unwrap();
    genesis.nodes = List::new(vec![
        node(1, Role::Miner, 20),
        node(2, Role::Validator, 200),
        node(3, Role::Proposer, 100),
    ])
    .unwrap();
    genesis.runs = List::new(vec![run_params()]).unwrap();
    genesis
}

/// A chain in whose first round the miner, node 1, owes its commitment; key 9 acts for it.
fn owing() -> Chain {
    owing_from(&genesis())
}

fn owing_from(genesis: &Genesis) -> Chain {
    let mut chain = Chain::from(genesis);
    let grant = MsgGrant {
        granter: address(1),
        grantee: address(9),
        type_urls: List::new(vec![Text::new(COMMIT).unwrap()]).unwrap(),
        expires_at: chain.time.after(Millis::seconds(3_600)),
    };
    chain.must(1, grant);
    for _ in 0..4 {
        if owes_commit(&chain) {
            return chain;
        }
        chain.block(Vec::new());
    }
    panic!("no round has opened");
}

fn owes_commit(chain: &Chain) -> bool {
    let obligations = chain
        .query(&QueryObligations {
            address: address(1),
        })
        .obligations;
    obligations
        .iter()
        .any(|owed| owed.kind == ObligationKind::Commit)
}

fn commit(root: &[u8]) -> Message {
    let message = MsgCommitStates {
        miner: address(1),
        run: 1,
        round: 0,
        root: Hash::of(root),
        feedback_lost: false,
    };
    TrainingMessage::from(message).into()
}

fn free(chain: &Chain, message: Message, skip: u64) -> Vec<u8> {
    let account = auth::ACCOUNTS
        .get(&chain.view(), &address(9))
        .unwrap()
        .unwrap();
    let signer = Signer {
        chain_id: CHAIN_ID,
        account_number: account.number,
        sequence: account.sequence + skip,
    };
    Unsigned::new(vec![message])
        .with_fee(Fee::none(GAS))
        .sign(&key(9), &signer)
        .unwrap()
}

fn check(chain: &Chain, waiting: &Waiting, tx: &[u8]) -> CheckResult {
    Ledger::check_tx(&chain.state, chain.next_block(), waiting, tx, &|_| None).unwrap()
}

#[test]
fn what_a_node_owes_is_free_and_its_repeat_changes_nothing() {
    let mut chain = owing();
    let tx = free(&chain, commit(b"root"), 0);
    let admitted = check(&chain, &Waiting::default(), &tx).admitted.unwrap();
    assert!(matches!(admitted.lane, Lane::Obligation(ref keys) if keys.len() == 1));
    let before = chain.balance(&address(1));
    assert_eq!(chain.block(vec![tx]).remove(0).log, "");
    assert_eq!(chain.balance(&address(1)), before);
    assert!(!owes_commit(&chain));
    let repeat = free(&chain, commit(b"root"), 0);
    assert_eq!(
        check(&chain, &Waiting::default(), &repeat).result.code,
        13,
        "no longer owed"
    );
    assert_eq!(
        chain.block(vec![repeat]).remove(0).code,
        0,
        "an identical repeat is a no-op"
    );
    let conflict = free(&chain, commit(b"another root"), 0);
    assert_ne!(
        chain.block(vec![conflict]).remove(0).code,
        0,
        "a conflicting one is refused"
    );
}

#[test]
fn at_most_one_answer_per_obligation_waits() {
    let chain = owing();
    let mut waiting = Waiting::default();
    let first = check(&chain, &waiting, &free(&chain, commit(b"root"), 0));
    waiting.admit(&first.admitted.unwrap());
    let second = check(&chain, &waiting, &free(&chain, commit(b"other root"), 1));
    assert_eq!(
        (second.result.codespace.as_str(), second.result.code),
        ("sdk", 19)
    );
}

#[test]
fn nothing_else_is_free() {
    let mut chain = owing();
    let send: Message = MsgSend::new(address(9), address(2), Amount::new(1)).into();
    assert_eq!(
        check(&chain, &Waiting::default(), &free(&chain, send.clone(), 0))
            .result
            .code,
        13
    );
    let both = vec![commit(b"root"), send];
    let tx = chain.sign_with(9, both, Fee::none(GAS));
    assert_eq!(
        chain.block(vec![tx]).remove(0).code,
        13,
        "not in company either"
    );
    let not_mine = MsgCommitStates {
        miner: address(9),
        run: 1,
        round: 0,
        root: Hash::of(b"root"),
        feedback_lost: false,
    };
    let not_mine = free(&chain, TrainingMessage::from(not_mine).into(), 0);
    assert_eq!(
        check(&chain, &Waiting::default(), &not_mine).result.code,
        13,
        "who owes nothing"
    );
}

#[test]
fn obligations_come_first_in_a_block_however_much_spam_pays() {
    let chain = owing();
    let account = auth::ACCOUNTS
        .get(&chain.view(), &address(4))
        .unwrap()
        .unwrap();
    let mut candidates: Vec<Vec<u8>> = (0..40)
        .map(|sequence| {
            let signer = Signer {
                chain_id: CHAIN_ID,
                account_number: account.number,
                sequence,
            };
            let send = MsgSend::new(address(4), address(5), Amount::new(1));
            let fee = Fee::of(Amount::new(FEE.uremes() * 1_000), GAS);
            Unsigned::new(vec![send.into()])
                .with_fee(fee)
                .sign(&key(4), &signer)
                .unwrap()
        })
        .collect();
    candidates.push(free(&chain, commit(b"root"), 0));
    let proposal = Proposal {
        block: chain.next_block(),
        proposer: Chain::proposer(),
        chains: std::slice::from_ref(&chain.beacon),
        max_bytes: 2_000,
    };
    let txs = Ledger::prepare(&chain.state, &proposal, &candidates, &|_| None).unwrap();
    let first = Tx::parse(&txs[1]).unwrap();
    assert_eq!(first.messages[0].type_url(), COMMIT);
    assert!(
        txs.len() < candidates.len(),
        "the block is full of spam, and yet the answer is in"
    );
}

#[test]
fn an_expired_grant_answers_no_obligation() {
    let mut chain = owing();
    chain.time = chain.time.after(Millis::seconds(3_600));
    let late = free(&chain, commit(b"root"), 0);
    assert_eq!(check(&chain, &Waiting::default(), &late).result.code, 4);
}

#[test]
fn stake_locked_by_a_round_is_paid_out_only_when_the_round_has_let_go_of_it() {
    let mut hasty = genesis();
    hasty.params.nodes.unbonding = Millis::seconds(31);
    let mut chain = owing_from(&hasty);
    assert!(chain.node(1).locked > Amount::ZERO);
    chain.must(
        1,
        r3mes_types::nodes::MsgLeave {
            address: address(1),
        },
    );
    let unbonded_at = chain.node(1).unbonding[0].release_at;
    let mut held_back = false;
    for _ in 0..200 {
        chain.wait(Millis::seconds(5));
        let node = chain.node(1);
        if node.unbonding.is_empty() {
            assert!(chain.time >= unbonded_at);
            assert_eq!(node.locked, Amount::ZERO);
            assert!(held_back, "the round lasts longer than unbonding");
            return;
        }
        held_back |= chain.time > unbonded_at && node.locked > Amount::ZERO;
    }
    panic!("the stake was never paid out");
}

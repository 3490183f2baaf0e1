//! The lane for what nodes owe against a model so simple that it is obviously right: who has answered
//! what, who waits, and plain sums.

mod model;

use proptest::prelude::*;
use r3mes_ledger::bank::Module;
use r3mes_ledger::block::{CheckResult, Lane};
use r3mes_ledger::{Ledger, Proposal, Waiting, auth};
use r3mes_types::auth::MsgGrant;
use r3mes_types::bank::MsgSend;
use r3mes_types::nodes::MsgRegister;
use r3mes_types::training::{
    MsgCommitStates, ObligationKind, QueryObligations, QueryRound, TrainingMessage,
};
use r3mes_types::tx::{Fee, Signer, Unsigned};
use r3mes_types::wire::{List, Text};
use r3mes_types::{Amount, Hash, Message, Millis, Role};

use self::model::{Ask, Naive, Step, Waits, step};
use super::config;
use crate::chain::{CHAIN_ID, Chain, address, key, spec};
use crate::lane::{self, COMMIT};

/// Who owes a commitment.
const MINERS: [u8; 3] = [1, 2, 3];
/// A key without coins that may answer for the first two miners.
const HELPER: u8 = 9;
/// Everybody who signs.
const SIGNERS: [u8; 4] = [1, 2, 3, HELPER];
/// Who is sent coins.
const STRANGER: u8 = 0;
/// The most gas that travels free.
const FREE_GAS: u64 = 10_000_000;

/// The ledger, with what waits for a block.
struct Network {
    chain: Chain,
    waiting: Waiting,
    txs: Vec<Vec<u8>>,
}

impl Network {
    /// In the first round all miners owe their commitments, for longer than the test lasts.
    fn owing() -> Self {
        let mut genesis = lane::genesis();
        let node = |index: u8, role, remes| MsgRegister {
            address: address(index),
            spec: spec(&[role], Amount::remes(remes)),
        };
        let miners = MINERS.map(|miner| node(miner, Role::Miner, 20));
        let others = [node(4, Role::Validator, 200), node(5, Role::Proposer, 100)];
        genesis.nodes = List::new([&miners[..], &others].concat()).unwrap();
        let mut run = lane::run_params();
        run.min_miners = MINERS.len() as u32;
        run.windows.commit = Millis::seconds(3_600);
        genesis.runs = List::new(vec![run]).unwrap();
        let mut chain = Chain::from(&genesis);
        for granter in [1, 2] {
            let grant = MsgGrant {
                granter: address(granter),
                grantee: address(HELPER),
                type_urls: List::new(vec![Text::new(COMMIT).unwrap()]).unwrap(),
                expires_at: chain.time.after(Millis::seconds(3_600)),
            };
            chain.must(granter, grant);
        }
        for _ in 0..4 {
            chain.block(Vec::new());
        }
        assert!(MINERS.iter().all(|miner| owes(&chain, *miner)));
        Self {
            chain,
            waiting: Waiting::default(),
            txs: Vec::new(),
        }
    }

    fn sign(&self, ask: &Ask, sequence: u64) -> Vec<u8> {
        let commits = ask.answers.iter().map(|(miner, number)| {
            let message = MsgCommitStates {
                miner: address(*miner),
                run: 1,
                round: 0,
                root: root(*number),
                feedback_lost: false,
            };
            TrainingMessage::from(message).into()
        });
        let mut messages: Vec<Message> = commits.collect();
        if ask.sends {
            let to = address(STRANGER);
            messages.push(MsgSend::new(address(ask.signer), to, Amount::new(1)).into());
        }
        let fee = match ask.fee {
            0 => Fee::none(ask.gas),
            fee => Fee::of(Amount::new(fee), ask.gas),
        };
        let account = account(&self.chain, ask.signer);
        let signer = Signer {
            chain_id: CHAIN_ID,
            account_number: account.number,
            sequence,
        };
        let unsigned = Unsigned::new(messages).with_fee(fee);
        unsigned.sign(&key(ask.signer), &signer).unwrap()
    }

    /// Checks a transaction, which waits if it is welcome.
    fn wait(&mut self, ask: &Ask, naive: &mut Naive) {
        let sequence = naive.sequences[&ask.signer] + naive.waits_of(ask.signer).count() as u64;
        let tx = self.sign(ask, sequence);
        let block = self.chain.next_block();
        let found: CheckResult =
            Ledger::check_tx(&self.chain.state, block, &self.waiting, &tx, &|_| None).unwrap();
        let free = found
            .admitted
            .as_ref()
            .map(|admitted| match &admitted.lane {
                Lane::Obligation(keys) => {
                    assert_eq!(keys.len(), ask.answers.len());
                    true
                }
                Lane::Paid => false,
            });
        let found_free = free.ok_or(found.result.code);
        assert_eq!(found_free, naive.admits(ask, false), "{ask:?}");
        if let Some(admitted) = found.admitted {
            self.waiting.admit(&admitted);
            self.txs.push(tx);
            naive.waiting.push(Waits {
                ask: ask.clone(),
                sequence,
                free: found_free == Ok(true),
            });
        }
    }

    /// Makes a block of all that waits.
    fn block(&mut self, naive: &mut Naive) {
        let proposal = Proposal {
            block: self.chain.next_block(),
            proposer: Chain::proposer(),
            chains: std::slice::from_ref(&self.chain.beacon),
            max_bytes: 1 << 20,
        };
        let txs = Ledger::prepare(&self.chain.state, &proposal, &self.txs, &|_| None).unwrap();
        let order = naive.order();
        let expected: Vec<&Vec<u8>> = order.iter().map(|index| &self.txs[*index]).collect();
        assert_eq!(txs[1..].iter().collect::<Vec<_>>(), expected);
        let waiting = std::mem::take(&mut naive.waiting);
        let asks = order.iter().map(|index| &waiting[*index]);
        let asks: Vec<(&Ask, u64)> = asks.map(|waits| (&waits.ask, waits.sequence)).collect();
        self.run(&asks, txs[1..].to_vec(), naive);
        self.txs.clear();
        self.waiting = Waiting::default();
    }

    /// Makes a block of one transaction that was not checked.
    fn smuggle(&mut self, ask: &Ask, naive: &mut Naive) {
        let sequence = naive.sequences[&ask.signer];
        let tx = self.sign(ask, sequence);
        self.run(&[(ask, sequence)], vec![tx], naive);
    }

    fn run(&mut self, asks: &[(&Ask, u64)], txs: Vec<Vec<u8>>, naive: &mut Naive) {
        let results = self.chain.block(txs);
        assert_eq!(results.len(), asks.len());
        for ((ask, sequence), result) in asks.iter().zip(results) {
            let fate = naive.execute(ask, *sequence);
            assert!(fate.is_told_by(&result), "{ask:?}: {fate:?}, {result:?}");
        }
        compare(&self.chain, naive);
    }
}

fn root(number: u8) -> Hash {
    Hash::of(&[number])
}

fn account(chain: &Chain, who: u8) -> r3mes_types::auth::Account {
    let account = auth::ACCOUNTS.get(&chain.view(), &address(who));
    account.unwrap().unwrap()
}

fn sequence(chain: &Chain, who: u8) -> u64 {
    account(chain, who).sequence
}

fn owes(chain: &Chain, miner: u8) -> bool {
    let question = QueryObligations {
        address: address(miner),
    };
    let owed = chain.query(&question).obligations;
    owed.iter().any(|owed| owed.kind == ObligationKind::Commit)
}

fn compare(chain: &Chain, naive: &Naive) {
    let treasury = chain.balance(&Module::Treasury.address()).uremes();
    assert_eq!(treasury, naive.treasury);
    for who in SIGNERS {
        assert_eq!(sequence(chain, who), naive.sequences[&who], "{who}");
        let balance = chain.balance(&address(who)).uremes();
        assert_eq!(balance, naive.balances[&who], "{who}");
    }
    let round = chain.query(&QueryRound { run: 1, round: 0 });
    for miner in MINERS {
        let answered = naive.answers.get(&miner).copied();
        assert_eq!(owes(chain, miner), answered.is_none(), "{miner}");
        let mut entries = round.entries.iter();
        let entry = entries.find(|entry| entry.miner == address(miner));
        assert_eq!(entry.unwrap().commitment, answered.map(root), "{miner}");
    }
}

proptest! {
    #![proptest_config(config(32))]

    #[test]
    fn what_is_owed_travels_as_the_naive_model_says(
        steps in prop::collection::vec(step(), 1..30),
    ) {
        let mut network = Network::owing();
        let mut naive = Naive::of(&network.chain);
        for step in steps {
            match step {
                Step::Wait(ask) => network.wait(&ask, &mut naive),
                Step::Block => network.block(&mut naive),
                Step::Smuggle(ask) => {
                    network.block(&mut naive);
                    network.smuggle(&ask, &mut naive);
                }
            }
        }
        network.block(&mut naive);
    }
}

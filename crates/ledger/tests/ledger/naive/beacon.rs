//! The beacon: hash chains, what a block may reveal, and the mix.

use std::collections::BTreeMap;

use proptest::prelude::*;
use r3mes_ledger::block::BlockInput;
use r3mes_ledger::genesis::{Genesis, GenesisValidator};
use r3mes_ledger::{Ledger, beacon};
use r3mes_types::beacon::{
    HashChain, MAX_CHAIN, MsgRegisterChain, MsgReveal, NextChain, QueryChain, chain_step, mix,
};
use r3mes_types::nodes::MsgRegister;
use r3mes_types::tx::reveal_tx;
use r3mes_types::wire::List;
use r3mes_types::{Amount, ConsensusAddress, ConsensusKey, Hash, Role};

use super::config;
use crate::chain::{Chain, address, development, spec};

/// Accounts that operate a block validator: two from genesis, and a node with a key and no chain.
const OPERATORS: [u8; 3] = [0, 1, 2];
/// An account that operates none.
const STRANGER: u8 = 3;
/// Chains that an operator may come with; the first is that of genesis.
const SECRETS: u8 = 4;
/// The longest of them.
const LONGEST: u64 = 3;

#[derive(Clone, Copy, Debug)]
struct Next {
    secret: u8,
    length: u64,
}

#[derive(Clone, Copy, Debug)]
enum Shown {
    /// The element before the last one that was revealed.
    Due,
    /// The one before that.
    Skipped,
    /// What was revealed last.
    Again,
    MadeUp,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// A message, in a block of the first validator that can make one.
    Register { operator: u8, next: Next },
    Block {
        proposer: u8,
        shown: Shown,
        /// Who the reveal says it is of.
        named: u8,
        next: Option<Next>,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let length = prop_oneof![12 => 1..=LONGEST, 1 => Just(0), 1 => Just(MAX_CHAIN + 1)];
    let next = (0..SECRETS, length).prop_map(|(secret, length)| Next { secret, length });
    let operator = prop_oneof![6 => prop::sample::select(&OPERATORS[..]), 1 => Just(STRANGER)];
    let shown = prop_oneof![
        8 => Just(Shown::Due),
        1 => Just(Shown::Skipped),
        1 => Just(Shown::Again),
        1 => Just(Shown::MadeUp),
    ];
    let named =
        prop_oneof![9 => Just(None), 1 => prop::sample::select(&OPERATORS[..]).prop_map(Some)];
    let proposer = prop::sample::select(&OPERATORS[..]);
    let also = prop_oneof![2 => Just(None), 1 => next.clone().prop_map(Some)];
    prop_oneof![
        2 => (operator, next).prop_map(|(operator, next)| Step::Register { operator, next }),
        5 => (proposer, shown, named, also).prop_map(|(proposer, shown, named, next)| Step::Block {
            proposer, shown, named: named.unwrap_or(proposer), next,
        }),
    ]
}

/// A registered chain: what was revealed last, at first its end, and how many elements are left.
type Registered = (Hash, u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct NaiveChain {
    now: Registered,
    further: Option<Registered>,
}

#[derive(Debug)]
struct Naive {
    chains: BTreeMap<u8, NaiveChain>,
    /// By height, from that of genesis.
    mixes: Vec<Hash>,
}

fn good(length: u64) -> bool {
    (1..=MAX_CHAIN).contains(&length)
}

impl Naive {
    /// Whether the message succeeds.
    fn register(&mut self, operator: u8, end: Hash, length: u64) -> bool {
        if operator == STRANGER || !good(length) {
            return false;
        }
        let new = (end, length);
        let Some(chain) = self.chains.get_mut(&operator) else {
            let chain = NaiveChain {
                now: new,
                further: None,
            };
            self.chains.insert(operator, chain);
            return true;
        };
        // The same again does nothing.
        if chain.now == new || chain.further == Some(new) {
            return true;
        }
        let free = chain.further.is_none();
        if free {
            chain.further = Some(new);
        }
        free
    }

    /// Whether a block may begin so.
    fn reveal(&mut self, proposer: u8, named: u8, shown: Hash, next: Option<Registered>) -> bool {
        let Some(mut chain) = self.chains.get(&proposer).copied() else {
            return false;
        };
        if chain.now.1 == 0
            && let Some(further) = chain.further.take()
        {
            chain.now = further;
        }
        let (last, left) = chain.now;
        if named != proposer || left == 0 || chain_step(&shown) != last {
            return false;
        }
        chain.now = (shown, left - 1);
        if let Some(next) = next {
            if chain.further.is_some() || !good(next.1) {
                return false;
            }
            chain.further = Some(next);
        }
        self.chains.insert(proposer, chain);
        let before = self.mixes.last().copied().unwrap();
        self.mixes.push(mix(&before, &shown));
        true
    }
}

/// The ledger, the model, and every element that there is.
struct Play {
    chain: Chain,
    naive: Naive,
    /// By each element the one before it.
    before: BTreeMap<Hash, Hash>,
}

fn key(operator: u8) -> ConsensusKey {
    ConsensusKey::from([operator + 1; ConsensusKey::LEN])
}

fn validator(operator: u8) -> ConsensusAddress {
    key(operator).address()
}

fn hashes(operator: u8, next: Next) -> HashChain {
    // Nobody computes a chain that is too long to be registered.
    HashChain::new(
        &[operator * SECRETS + next.secret; 32],
        next.length.min(LONGEST),
    )
}

fn founding() -> Genesis {
    let mut genesis = development();
    let validators = [0, 1].map(|operator| {
        let first = Next {
            secret: 0,
            length: LONGEST,
        };
        let chain = hashes(operator, first);
        GenesisValidator {
            operator: address(operator),
            key: key(operator),
            power: 1,
            chain_end: chain.end(),
            chain_length: chain.len(),
        }
    });
    genesis.validators = List::new(validators.to_vec()).unwrap();
    let mut spec = spec(&[Role::Validator], Amount::remes(100));
    spec.consensus_key = Some(key(2));
    let node = MsgRegister {
        address: address(2),
        spec,
    };
    genesis.nodes = List::new(vec![node]).unwrap();
    genesis
}

impl Play {
    fn new() -> Self {
        let genesis = founding();
        let mut before = BTreeMap::new();
        for operator in OPERATORS {
            for secret in 0..SECRETS {
                for length in 1..=LONGEST {
                    let hashes = hashes(operator, Next { secret, length });
                    let shown = (1..=length).filter_map(|left| hashes.preimage(left));
                    before.extend(shown.map(|element| (chain_step(&element), element)));
                }
            }
        }
        let chains = genesis
            .validators
            .iter()
            .zip(OPERATORS)
            .map(|(validator, operator)| {
                let chain = NaiveChain {
                    now: (validator.chain_end, validator.chain_length),
                    further: None,
                };
                (operator, chain)
            });
        let naive = Naive {
            chains: chains.collect(),
            mixes: vec![genesis.hash()],
        };
        Self {
            chain: Chain::from(&genesis),
            naive,
            before,
        }
    }

    /// The element that was revealed last, as many elements back.
    fn back(&self, operator: u8, steps: usize) -> Hash {
        let made_up = Hash::of(b"made up");
        let Some(chain) = self.naive.chains.get(&operator) else {
            return made_up;
        };
        let used_up = chain.further.filter(|_| chain.now.1 == 0);
        let (last, _) = used_up.unwrap_or(chain.now);
        (0..steps).fold(last, |element, _| {
            self.before.get(&element).copied().unwrap_or(made_up)
        })
    }

    fn input(&self, proposer: u8, reveal: &MsgReveal, txs: Vec<Vec<u8>>) -> BlockInput {
        let mut all = vec![reveal_tx(reveal)];
        all.extend(txs);
        BlockInput {
            proposer: validator(proposer),
            ..self.chain.input_with(all)
        }
    }

    fn register(&mut self, operator: u8, next: Next) {
        let makes = |proposer: &u8| {
            let mut naive = Naive {
                chains: self.naive.chains.clone(),
                mixes: self.naive.mixes.clone(),
            };
            naive.reveal(*proposer, *proposer, self.back(*proposer, 1), None)
        };
        let Some(proposer) = OPERATORS.into_iter().find(makes) else {
            return;
        };
        let end = hashes(operator, next).end();
        let message = MsgRegisterChain {
            operator: address(operator),
            end,
            length: next.length,
        };
        let tx = self.chain.sign(operator, message);
        let reveal = MsgReveal {
            validator: validator(proposer),
            preimage: self.back(proposer, 1),
            next: None,
        };
        let input = self.input(proposer, &reveal, vec![tx]);
        let result = self.chain.run(&input).remove(0);
        assert!(self.naive.reveal(proposer, proposer, reveal.preimage, None));
        let expected = self.naive.register(operator, end, next.length);
        assert_eq!(result.code == 0, expected, "{}", result.log);
    }

    fn block(&mut self, proposer: u8, shown: Shown, named: u8, next: Option<Next>) {
        let preimage = match shown {
            Shown::Again => self.back(proposer, 0),
            Shown::Due => self.back(proposer, 1),
            Shown::Skipped => self.back(proposer, 2),
            Shown::MadeUp => Hash::of(b"guess"),
        };
        let next = next.map(|next| (hashes(proposer, next).end(), next.length));
        let reveal = MsgReveal {
            validator: validator(named),
            preimage,
            next: next.map(|(end, length)| NextChain { end, length }),
        };
        let input = self.input(proposer, &reveal, Vec::new());
        let good = Ledger::process(&self.chain.state, &input, &|_| None).is_ok();
        let expected = self.naive.reveal(proposer, named, preimage, next);
        assert_eq!(good, expected, "{reveal:?} by {proposer}");
        if good {
            self.chain.run(&input);
        } else {
            assert!(Ledger::finalize_block(&self.chain.state, &input, &|_| None).is_err());
        }
    }

    fn compare(&self) {
        let last = beacon::last_mix(&self.chain.view()).unwrap();
        assert_eq!(Some(&last), self.naive.mixes.last());
        assert_eq!(self.chain.height + 1, self.naive.mixes.len() as u64);
        for (height, expected) in (0..).zip(&self.naive.mixes) {
            let found = beacon::mix_at(&self.chain.view(), height).unwrap();
            assert_eq!(found, Some(*expected), "mix of height {height}");
        }
        for operator in OPERATORS {
            let validator = validator(operator);
            let found = self.chain.query(&QueryChain { validator }).chain;
            let found = found.map(|chain| NaiveChain {
                now: (chain.last, chain.remaining),
                further: chain.next_end.map(|end| (end, chain.next_length)),
            });
            let expected = self.naive.chains.get(&operator).copied();
            assert_eq!(found, expected, "chain of {operator}");
        }
    }
}

proptest! {
    #![proptest_config(config(64))]

    #[test]
    fn the_beacon_does_what_the_naive_model_does(steps in prop::collection::vec(step(), 1..60)) {
        let mut play = Play::new();
        for step in steps {
            match step {
                Step::Register { operator, next } => play.register(operator, next),
                Step::Block { proposer, shown, named, next } => {
                    play.block(proposer, shown, named, next);
                }
            }
            play.compare();
        }
    }
}

//! A chain in memory, for tests: it makes blocks, checks the invariants after each, and keeps keys.

use std::collections::BTreeMap;

use r3mes_ledger::block::{BlockInput, BlockOutput, TxResult};
use r3mes_ledger::genesis::{self, DEVELOPMENT_CHAIN, DEVELOPMENT_SECRET, Genesis};
use r3mes_ledger::store::{Block, Committed, Context};
use r3mes_ledger::{Ledger, LedgerError, auth, bank, beacon, hooks, invariants};
use r3mes_state::Changes;
use r3mes_types::bank::Balance;
use r3mes_types::beacon::HashChain;
use r3mes_types::nodes::{MsgRegister, Node, NodeSpec};
use r3mes_types::query::Query;
use r3mes_types::tx::{Fee, Signer, Unsigned, reveal_tx};
use r3mes_types::wire::{List, Text, Wire};
use r3mes_types::{
    Address, Amount, ConsensusAddress, ConsensusKey, Hash, Message, Millis, Resources, Role,
    RoleSet, SecretKey, Time,
};

pub(crate) const CHAIN_ID: &str = "r3mes-test";
/// Gas limit and fee of the transactions that [`Chain::send`] makes.
pub(crate) const GAS: u64 = 2_000_000;
pub(crate) const FEE: Amount = Amount::new(2_000);
/// What each of the first accounts begins with.
pub(crate) const START: Amount = Amount::remes(1_000);

/// Key number `index`; number 0 is the authority's.
pub(crate) fn key(index: u8) -> SecretKey {
    SecretKey::from_bytes(&[index + 1; 32]).unwrap()
}

pub(crate) fn address(index: u8) -> Address {
    key(index).address()
}

pub(crate) fn spec(roles: &[Role], stake: Amount) -> NodeSpec {
    NodeSpec {
        moniker: Text::new("node").unwrap(),
        roles: RoleSet::of(roles),
        primary_role: None,
        stake,
        resources: Resources::default(),
        allocations: List::default(),
        endpoints: List::default(),
        consensus_key: None,
    }
}

pub(crate) fn register(index: u8, roles: &[Role], stake: Amount) -> Message {
    MsgRegister {
        address: address(index),
        spec: spec(roles, stake),
    }
    .into()
}

pub(crate) struct Chain {
    pub(crate) state: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) height: u64,
    pub(crate) time: Time,
    pub(crate) beacon: HashChain,
    pub(crate) output: Option<BlockOutput>,
}

pub(crate) fn development() -> Genesis {
    let balances: Vec<Balance> = (0..6)
        .map(|index| Balance {
            address: address(index),
            amount: START,
        })
        .collect();
    genesis::development(CHAIN_ID, address(0), &balances)
}

pub(crate) fn apply(state: &mut BTreeMap<Vec<u8>, Vec<u8>>, changes: Changes) {
    for (key, value) in changes {
        match value {
            Some(value) => state.insert(key, value),
            None => state.remove(&key),
        };
    }
}

impl Chain {
    pub(crate) fn new() -> Self {
        Self::from(&development())
    }

    pub(crate) fn from(genesis: &Genesis) -> Self {
        let (changes, _) = Ledger::init_chain(genesis).unwrap();
        let mut state = BTreeMap::new();
        apply(&mut state, changes);
        invariants::check(&state).unwrap();
        let beacon = HashChain::new(&DEVELOPMENT_SECRET, DEVELOPMENT_CHAIN);
        Self {
            state,
            height: genesis.initial_height() - 1,
            time: genesis.time,
            beacon,
            output: None,
        }
    }

    pub(crate) fn proposer() -> ConsensusAddress {
        ConsensusKey::from([1; 32]).address()
    }

    pub(crate) fn next_block(&self) -> Block {
        Block {
            height: self.height + 1,
            time: self.time.after(Millis::new(1)),
        }
    }

    pub(crate) fn reveal(&self) -> Vec<u8> {
        let registered = beacon::CHAINS
            .get(&self.view(), &Self::proposer())
            .unwrap()
            .unwrap();
        let preimage = self.beacon.preimage(registered.remaining).unwrap();
        reveal_tx(&r3mes_types::beacon::MsgReveal {
            validator: Self::proposer(),
            preimage,
            next: None,
        })
    }

    /// The next block with the reveal and `txs`.
    pub(crate) fn input(&self, txs: Vec<Vec<u8>>) -> BlockInput {
        let mut all = vec![self.reveal()];
        all.extend(txs);
        self.input_with(all)
    }

    /// The next block with exactly these transactions.
    pub(crate) fn input_with(&self, txs: Vec<Vec<u8>>) -> BlockInput {
        let Block { height, time } = self.next_block();
        BlockInput {
            height,
            time,
            proposer: Self::proposer(),
            last_commit: Vec::new(),
            misbehaviour: Vec::new(),
            txs,
        }
    }

    /// Makes a block; the results are those of `txs`, without the reveal's.
    pub(crate) fn block(&mut self, txs: Vec<Vec<u8>>) -> Vec<TxResult> {
        let input = self.input(txs);
        self.run(&input)
    }

    pub(crate) fn run(&mut self, input: &BlockInput) -> Vec<TxResult> {
        Ledger::process(&self.state, input, &|_| None).unwrap();
        let mut output = Ledger::finalize_block(&self.state, input, &|_| None).unwrap();
        self.height = input.height;
        self.time = input.time;
        apply(&mut self.state, std::mem::take(&mut output.changes));
        invariants::check(&self.state).unwrap();
        let refused = output
            .events
            .iter()
            .find(|event| event.kind == hooks::HOOK_REFUSED);
        assert_eq!(refused, None);
        let results = output.tx_results[1..].to_vec();
        self.output = Some(output);
        results
    }

    /// Makes an empty block so much later.
    pub(crate) fn wait(&mut self, span: Millis) {
        self.time = self.time.after(span);
        self.block(Vec::new());
    }

    pub(crate) fn sign_with(&self, index: u8, messages: Vec<Message>, fee: Fee) -> Vec<u8> {
        let key = key(index);
        let account = auth::ACCOUNTS.get(&self.view(), &key.address()).unwrap();
        let (account_number, sequence) = account.map_or((0, 0), |a| (a.number, a.sequence));
        let chain_id = r3mes_ledger::CHAIN_ID.require(&self.view()).unwrap();
        let signer = Signer {
            chain_id: &chain_id,
            account_number,
            sequence,
        };
        Unsigned::new(messages)
            .with_fee(fee)
            .sign(&key, &signer)
            .unwrap()
    }

    pub(crate) fn sign(&self, index: u8, message: impl Into<Message>) -> Vec<u8> {
        self.sign_with(index, vec![message.into()], Fee::of(FEE, GAS))
    }

    /// Sends one message in a block of its own.
    pub(crate) fn send(&mut self, index: u8, message: impl Into<Message>) -> TxResult {
        let tx = self.sign(index, message);
        self.block(vec![tx]).remove(0)
    }

    /// Sends one message that must succeed.
    pub(crate) fn must(&mut self, index: u8, message: impl Into<Message>) -> TxResult {
        let result = self.send(index, message);
        assert_eq!((result.code, result.log.as_str()), (0, ""));
        result
    }

    pub(crate) fn view(&self) -> Committed<'_> {
        Committed(&self.state)
    }

    pub(crate) fn balance(&self, address: &Address) -> Amount {
        bank::balance(&self.view(), address).unwrap()
    }

    pub(crate) fn node(&self, index: u8) -> Node {
        r3mes_ledger::nodes::get(&self.view(), &address(index))
            .unwrap()
            .unwrap()
    }

    pub(crate) fn query<Q: Query>(&self, question: &Q) -> Q::Answer {
        let result = Ledger::query(&self.state, Q::PATH, &question.encode()).unwrap();
        assert_eq!(result.log, "");
        Q::Answer::decode(&result.value).unwrap()
    }

    /// Does something that other domains do, outside any transaction.
    pub(crate) fn act<T>(
        &mut self,
        step: impl FnOnce(&mut Context<'_>) -> Result<T, LedgerError>,
    ) -> Result<T, LedgerError> {
        let (result, changes) = {
            let mut ctx = Context::new(
                &self.state,
                Block {
                    height: self.height,
                    time: self.time,
                },
            );
            let result = step(&mut ctx);
            (result, ctx.finish().0)
        };
        if result.is_ok() {
            apply(&mut self.state, changes);
        }
        invariants::check(&self.state).unwrap();
        result
    }

    /// A hash over the whole state: it changes whenever a single byte of it does.
    pub(crate) fn state_hash(&self) -> Hash {
        let mut bytes = Vec::new();
        for (key, value) in &self.state {
            for part in [key, value] {
                bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
                bytes.extend_from_slice(part);
            }
        }
        Hash::of(&bytes)
    }
}

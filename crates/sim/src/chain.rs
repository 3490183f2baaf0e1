//! The real ledger over an in-memory state, with a block validator that makes blocks when asked to.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use r3mes_ledger::block::TxResult;
use r3mes_ledger::invariants::Totals;
use r3mes_ledger::{BlockInput, Genesis, Ledger};
use r3mes_types::auth::QueryAccount;
use r3mes_types::beacon::{HashChain, MsgReveal};
use r3mes_types::query::Query;
use r3mes_types::tx::{Fee, Signer, Tx, Unsigned, reveal_tx};
use r3mes_types::wire::Wire;
use r3mes_types::{
    Address, Amount, ConsensusAddress, ConsensusKey, Event, Message, PublicKey, Signature, Time,
};

/// Blocks that one simulation can make: the length of its beacon chain.
pub const MAX_BLOCKS: u64 = 1 << 20;
/// Gas of a transaction that answers obligations.
const GAS: u64 = 10_000_000;
/// Gas and fee of other transactions.
const PAID_GAS: u64 = 1_000_000;
const PAID_FEE: Amount = Amount::new(1_000);

/// A ledger and the state it has come to.
pub struct Chain {
    state: BTreeMap<Vec<u8>, Vec<u8>>,
    totals: Totals,
    beacon: HashChain,
    proposer: ConsensusAddress,
    chain_id: String,
    keys: BTreeMap<Address, PublicKey>,
    height: u64,
    time: Time,
    next_deadline: Option<Time>,
}

/// What a node owes travels free; the rest pays.
fn fee(message: &Message) -> Fee {
    match message {
        Message::Training(_) => Fee::none(GAS),
        _ => Fee::of(PAID_FEE, PAID_GAS),
    }
}

/// What a block did.
pub struct Made {
    /// Events of its transactions and hooks, in order.
    pub events: Vec<Event>,
    /// Results of its messages, in order.
    pub results: Vec<TxResult>,
}

impl Chain {
    /// Begins a chain. `secret` makes the beacon; the genesis gets its end.
    ///
    /// # Errors
    /// When the genesis is not valid.
    pub fn start(
        mut genesis: Genesis,
        secret: &[u8; 32],
        keys: BTreeMap<Address, PublicKey>,
    ) -> Result<Self> {
        let beacon = HashChain::new(secret, MAX_BLOCKS);
        let validator = genesis
            .validators
            .first_mut()
            .context("the genesis names no block validator")?;
        validator.chain_end = beacon.end();
        validator.chain_length = beacon.len();
        let key: ConsensusKey = validator.key;
        let (changes, _) = Ledger::init_chain(&genesis)?;
        let mut chain = Self {
            totals: Totals::count(&BTreeMap::new())?,
            state: BTreeMap::new(),
            beacon,
            proposer: key.address(),
            chain_id: genesis.chain_id.to_string(),
            keys,
            height: 0,
            time: genesis.time,
            next_deadline: None,
        };
        chain.write(changes)?;
        Ok(chain)
    }

    /// Makes the next block at `time` with one transaction per message.
    ///
    /// # Errors
    /// When the ledger has a fault: its state is damaged or the block is not valid.
    pub fn block(&mut self, time: Time, messages: &[Message]) -> Result<Made> {
        ensure!(time > self.time, "time must increase");
        ensure!(self.height < MAX_BLOCKS, "the beacon chain is used up");
        let preimage = self
            .beacon
            .preimage(MAX_BLOCKS - self.height)
            .context("the beacon chain is long enough")?;
        let validator = self.proposer;
        let mut txs = vec![reveal_tx(&MsgReveal {
            validator,
            preimage,
            next: None,
        })];
        let mut sequences: BTreeMap<Address, (u64, u64)> = BTreeMap::new();
        for message in messages {
            txs.push(self.sign(message, &mut sequences)?);
        }
        self.height += 1;
        self.time = time;
        let input = BlockInput {
            height: self.height,
            time,
            proposer: self.proposer,
            last_commit: Vec::new(),
            misbehaviour: Vec::new(),
            txs,
        };
        // Signatures are the transaction layer's affair and tested there; here none is made.
        let known = |tx: &[u8]| Tx::parse(tx).ok().map(Arc::new);
        let output = Ledger::finalize_block(&self.state, &input, &known)?;
        self.write(output.changes)?;
        self.next_deadline = output.next_deadline;
        let results: Vec<TxResult> = output.tx_results.into_iter().skip(1).collect();
        let events = results
            .iter()
            .flat_map(|result| result.events.clone())
            .chain(output.events)
            .collect();
        Ok(Made { events, results })
    }

    /// Asks the ledger.
    ///
    /// # Errors
    /// When the ledger refuses the question.
    pub fn ask<Q: Query>(&self, question: &Q) -> Result<Q::Answer> {
        let answer = Ledger::query(&self.state, Q::PATH, &question.encode())?;
        ensure!(answer.code == 0, "{}: {}", Q::PATH, answer.log);
        Ok(Q::Answer::decode(&answer.value)?)
    }

    /// Sums over the state, which have followed every change of it.
    #[must_use]
    pub const fn totals(&self) -> &Totals {
        &self.totals
    }

    /// The state, for invariants.
    #[must_use]
    pub const fn state(&self) -> &BTreeMap<Vec<u8>, Vec<u8>> {
        &self.state
    }

    /// Time of the last block.
    #[must_use]
    pub const fn time(&self) -> Time {
        self.time
    }

    /// Height of the last block.
    #[must_use]
    pub const fn height(&self) -> u64 {
        self.height
    }

    /// When something happens by itself.
    #[must_use]
    pub const fn next_deadline(&self) -> Option<Time> {
        self.next_deadline
    }

    fn sign(
        &self,
        message: &Message,
        sequences: &mut BTreeMap<Address, (u64, u64)>,
    ) -> Result<Vec<u8>> {
        let address = message.actor();
        let key = self.keys.get(&address).context("the sender has a key")?;
        let (account_number, sequence) = match sequences.get(&address) {
            Some(known) => *known,
            None => {
                let account = self.ask(&QueryAccount { address })?.account;
                let account = account.context("the sender has an account")?;
                (account.number, account.sequence)
            }
        };
        sequences.insert(address, (account_number, sequence + 1));
        let signer = Signer {
            chain_id: &self.chain_id,
            account_number,
            sequence,
        };
        let unsigned = Unsigned::new(vec![message.clone()]).with_fee(fee(message));
        let document = unsigned.sign_doc(key, &signer)?;
        Ok(document.with_signature(Signature::from([1; Signature::LEN])))
    }

    fn write(&mut self, changes: r3mes_state::Changes) -> Result<()> {
        self.totals = self.totals.follow(&self.state, &changes)?;
        for (key, value) in changes {
            match value {
                Some(value) => self.state.insert(key, value),
                None => self.state.remove(&key),
            };
        }
        Ok(())
    }
}

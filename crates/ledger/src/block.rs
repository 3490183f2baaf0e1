//! What goes into the ledger with a block, and what comes out.

use r3mes_state::Changes;
use r3mes_types::{Address, ConsensusAddress, ConsensusKey, Event, Hash, Time};

use crate::error::LedgerError;

/// Everything a block brings to the ledger; the same under every engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockInput {
    /// Its height.
    pub height: u64,
    /// Its time, after that of the block before.
    pub time: Time,
    /// Who proposed it.
    pub proposer: ConsensusAddress,
    /// Who signed the block before.
    pub last_commit: Vec<CommitVote>,
    /// Proven misbehaviour of block validators.
    pub misbehaviour: Vec<Misbehaviour>,
    /// The transactions; the first is the proposer's reveal.
    pub txs: Vec<Vec<u8>>,
}

/// A block validator's part in the commit of the block before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitVote {
    /// Who.
    pub validator: ConsensusAddress,
    /// Its voting power.
    pub power: u64,
    /// Whether it signed.
    pub signed: bool,
}

/// Evidence that a block validator signed two blocks of one height.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misbehaviour {
    /// Who.
    pub validator: ConsensusAddress,
    /// Its voting power then.
    pub power: u64,
    /// At which height.
    pub height: u64,
    /// When.
    pub time: Time,
}

/// What a block does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockOutput {
    /// What to write.
    pub changes: Changes,
    /// One result per transaction.
    pub tx_results: Vec<TxResult>,
    /// What happened outside transactions.
    pub events: Vec<Event>,
    /// Block validators whose power changed; power 0 removes one.
    pub validator_updates: Vec<ValidatorUpdate>,
    /// The next time at which something happens by itself.
    pub next_deadline: Option<Time>,
}

/// What a transaction did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxResult {
    /// 0 for success.
    pub code: u32,
    /// Which domain the code belongs to; empty for success.
    pub codespace: String,
    /// What went wrong, for people. Not part of the results' hash.
    pub log: String,
    /// Nothing as yet; part of the results' hash.
    pub data: Vec<u8>,
    /// The transaction's gas limit.
    pub gas_wanted: u64,
    /// The gas it used.
    pub gas_used: u64,
    /// What happened; nothing if it failed.
    pub events: Vec<Event>,
}

impl TxResult {
    /// Success.
    pub fn ok(gas_wanted: u64, gas_used: u64, events: Vec<Event>) -> Self {
        let (code, codespace, log) = Default::default();
        Self {
            code,
            codespace,
            log,
            data: Vec::new(),
            gas_wanted,
            gas_used,
            events,
        }
    }

    /// Refusal, by an error that is not a fault.
    pub fn refused(gas_wanted: u64, gas_used: u64, error: &LedgerError) -> Self {
        let (codespace, code) = error.code().unwrap_or(("", u32::MAX));
        Self {
            code,
            codespace: codespace.to_owned(),
            log: chain(error),
            ..Self::ok(gas_wanted, gas_used, Vec::new())
        }
    }
}

/// An error with all its sources in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

/// A block validator's new power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValidatorUpdate {
    /// The key it signs blocks with.
    pub key: ConsensusKey,
    /// Its power; 0 removes it.
    pub power: u64,
}

/// Which lane a transaction travels in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lane {
    /// What a node owes: free, and first in a block. At most one transaction per obligation waits.
    Obligation(Vec<Hash>),
    /// Everything else: by fee.
    Paid,
}

/// What a check found about a transaction that wants to wait for a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckResult {
    /// The result so far; code 0 lets it wait.
    pub result: TxResult,
    /// What is known of it when it may wait.
    pub admitted: Option<Admitted>,
}

/// A transaction that may wait for a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// Whose key signed.
    pub sender: Address,
    /// The sequence it uses.
    pub sequence: u64,
    /// Who pays the fee.
    pub payer: Address,
    /// The fee in `uremes`.
    pub fee: u64,
    /// Fee per million gas: the order among paid transactions, highest first.
    pub priority: u64,
    /// The gas it may use.
    pub gas_wanted: u64,
    /// Its lane.
    pub lane: Lane,
}

/// The answer to a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryResult {
    /// 0 for success.
    pub code: u32,
    /// Which domain the code belongs to; empty for success.
    pub codespace: String,
    /// What went wrong, for people.
    pub log: String,
    /// The encoded answer.
    pub value: Vec<u8>,
    /// The state key the answer stands under, when it is a single entry: for proofs.
    pub key: Option<Vec<u8>>,
}

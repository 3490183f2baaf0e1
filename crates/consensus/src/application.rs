//! The seam between an engine and what it drives.
//!
//! An engine orders transactions into blocks; an [`Application`] says what they mean. Both engines
//! (`local` here, CometBFT over ABCI) drive the same application through these calls, and the same
//! [`BlockInput`]s give the same hashes under both.

use r3mes_state::{Changes, Read};
use r3mes_types::{ConsensusAddress, Time};

pub use r3mes_ledger::Waiting;
pub use r3mes_ledger::block::{
    Admitted, BlockInput, CommitVote, Lane, Misbehaviour, ValidatorUpdate,
};

/// A transaction's SHA-256, by which CometBFT and its clients name it.
pub type TxHash = [u8; 32];

/// What a replicated state machine does for an engine. Synchronous: an engine calls it from a thread
/// that may block.
///
/// Nothing is durable before [`sync`](Application::sync): after a crash the application is back at some
/// earlier height as a whole, and the engine gives it the blocks since then again.
pub trait Application: Send + Sync + 'static {
    /// The newest committed block, or `None` before [`init_chain`](Application::init_chain).
    fn committed(&self) -> Result<Option<Committed>, ApplicationError>;

    /// Builds the state before the first block and commits it as height `initial_height - 1`. Called
    /// again after a crash in between, it gives the same answer.
    fn init_chain(&self) -> Result<InitChain, ApplicationError>;

    /// Does ahead what of transactions' checks depends on no other transaction, so that the checks
    /// themselves are short. Whether of each there is anything to remember: what is plainly wrong is left to
    /// the check.
    fn verify(&self, txs: &[&[u8]]) -> Result<Vec<bool>, ApplicationError> {
        Ok(vec![true; txs.len()])
    }

    /// Whether a transaction may wait for a block.
    fn check(&self, tx: &[u8], context: &Check<'_>) -> Result<CheckResult, ApplicationError>;

    /// Orders candidate transactions into the next block's, adds the proposer's own, and leaves out
    /// what no longer fits.
    fn prepare(&self, proposal: Proposal<'_>) -> Result<Vec<Vec<u8>>, ApplicationError>;

    /// Whether a block that somebody proposed may be voted for; if not, why.
    fn process(&self, block: &BlockInput) -> Result<Result<(), String>, ApplicationError>;

    /// Executes a block on the state of the height before, and holds the outcome. The newest committed
    /// block may be executed once more, for its results; that outcome is not committed.
    fn finalize(&self, block: &BlockInput) -> Result<BlockOutput, ApplicationError>;

    /// Makes the outcome of the last [`finalize`](Application::finalize) the newest state.
    fn commit(&self) -> Result<(), ApplicationError>;

    /// Waits until everything committed is on disk.
    fn sync(&self) -> Result<(), ApplicationError>;

    /// When the next block is due although no transaction waits.
    fn next_deadline(&self) -> Result<Option<Time>, ApplicationError>;

    /// Reads committed state.
    fn query(&self, query: &Query) -> Result<QueryResult, ApplicationError>;

    /// All of the state after a block, for a snapshot; none if it is not kept, or never given away.
    fn state_at(&self, height: u64) -> Result<Option<Box<dyn Read + Send>>, ApplicationError> {
        let _ = height;
        Ok(None)
    }

    /// Takes over the whole state after a block from elsewhere, in the place of none or of an earlier
    /// one, and commits it if its root is `app_hash`; whether that is the newest state now.
    fn restore(
        &self,
        height: u64,
        state: Changes,
        app_hash: [u8; 32],
    ) -> Result<bool, ApplicationError> {
        let _ = (height, state, app_hash);
        Ok(false)
    }
}

/// The application cannot go on: its database or its own invariants failed. The engine stops.
#[derive(Debug, thiserror::Error)]
#[error("{doing} failed")]
pub struct ApplicationError {
    /// What was being done, as in "reading the state".
    pub doing: &'static str,
    /// Why it failed.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// A committed block as the application knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Its height.
    pub height: u64,
    /// The state's root after it.
    pub app_hash: [u8; 32],
}

/// What a chain begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitChain {
    /// The state's root before the first block.
    pub app_hash: [u8; 32],
    /// Who signs the first blocks.
    pub validators: Vec<ValidatorUpdate>,
}

/// What executing a block gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockOutput {
    /// The state's root after the block.
    pub app_hash: [u8; 32],
    /// One result per transaction, in order.
    pub tx_results: Vec<TxResult>,
    /// What happened outside of transactions.
    pub events: Vec<Event>,
    /// Changes to who signs, in force two heights later.
    pub validator_updates: Vec<ValidatorUpdate>,
}

/// What a transaction did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TxResult {
    /// 0, or the error's code within `codespace`.
    pub code: u32,
    /// Which list of errors `code` belongs to.
    pub codespace: String,
    /// What went wrong, for people; not part of any hash.
    pub log: String,
    /// What the messages answered.
    pub data: Vec<u8>,
    /// The gas it allowed.
    pub gas_wanted: u64,
    /// The gas it took.
    pub gas_used: u64,
    /// What happened.
    pub events: Vec<Event>,
}

/// Something that happened, for those who follow the chain. Not part of any hash.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// Its kind, as in `transfer`.
    pub kind: String,
    /// Keys with values, in order.
    pub attributes: Vec<(String, String)>,
}

/// Under what circumstances a transaction is checked.
#[derive(Clone, Copy, Debug)]
pub struct Check<'a> {
    /// What waits already.
    pub waiting: &'a Waiting,
    /// The time now.
    pub time: Time,
}

/// Whether a transaction is welcome, and what the mempool has to know of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckResult {
    /// Code, log and gas.
    pub result: TxResult,
    /// What is known of it if it is welcome.
    pub admitted: Option<Admitted>,
}

/// What to make the next block of.
#[derive(Clone, Copy, Debug)]
pub struct Proposal<'a> {
    /// Height of the block.
    pub height: u64,
    /// Its time.
    pub time: Time,
    /// Who proposes it.
    pub proposer: ConsensusAddress,
    /// Candidates, in the mempool's order.
    pub txs: &'a [Vec<u8>],
    /// How many bytes of transactions fit.
    pub max_bytes: usize,
}

/// A read of committed state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// What is asked, as in `/r3mes.bank.v1.Query/Balance`; `/store` reads one key of the state.
    pub path: String,
    /// The request, encoded.
    pub data: Vec<u8>,
    /// The version asked, or the newest.
    pub height: Option<u64>,
    /// Whether proofs of everything that the answer was made of are wanted.
    pub prove: bool,
}

/// The answer to a [`Query`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QueryResult {
    /// 0, or the error's code within `codespace`.
    pub code: u32,
    /// Which list of errors `code` belongs to.
    pub codespace: String,
    /// What went wrong.
    pub log: String,
    /// The key of the state that was read, if it was one.
    pub key: Vec<u8>,
    /// The answer, encoded.
    pub value: Vec<u8>,
    /// If they are wanted: every key that was read, with its ICS-23 proof against the app hash in the
    /// header of `height + 1`. `key` comes first, the others ascend.
    pub proofs: Vec<(Vec<u8>, ics23::CommitmentProof)>,
    /// The version that was read.
    pub height: u64,
}

impl QueryResult {
    /// The refusal of a height below zero, which a [`Query`] cannot even ask for, in the Cosmos SDK's
    /// words.
    pub fn below_zero() -> Self {
        Self {
            code: 18,
            codespace: "sdk".into(),
            log: "cannot query with height < 0; please provide a valid height: invalid request"
                .into(),
            ..Self::default()
        }
    }
}

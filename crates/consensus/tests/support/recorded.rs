//! A ledger that writes down what CometBFT asks of it, and the same executed without CometBFT.

use std::collections::BTreeMap;
use std::sync::Mutex;

use r3mes_consensus::app::{LedgerApp, storage_options};
use r3mes_consensus::application::{
    Application, ApplicationError, BlockInput, BlockOutput, Check, CheckResult, Committed,
    InitChain, Proposal, Query, QueryResult,
};
use r3mes_consensus::block::{results_hash, to_tendermint_time};
use r3mes_ledger::Genesis;
use r3mes_state::{Changes, Read, Storage};
use r3mes_types::Time;

use super::comet::Comet;

/// Blocks by height, and what each did.
pub(crate) type Past = BTreeMap<u64, (BlockInput, BlockOutput)>;

/// How far a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The block is executed and nothing of it is kept yet.
    Executed,
    /// The block is committed and on disk, and CometBFT does not know.
    Committed,
}

/// The ledger, with everything that goes in and out of it written down.
pub(crate) struct Recorded {
    app: LedgerApp,
    blocks: Mutex<Past>,
    executed: Mutex<u64>,
    /// Called at each step of each block.
    passed: Box<dyn Fn(Step, u64) + Send + Sync>,
}

impl Recorded {
    pub(crate) fn new(app: LedgerApp, passed: impl Fn(Step, u64) + Send + Sync + 'static) -> Self {
        Self {
            app,
            blocks: Mutex::default(),
            executed: Mutex::default(),
            passed: Box::new(passed),
        }
    }

    /// What was written down so far.
    pub(crate) fn blocks(&self) -> Past {
        self.blocks.lock().unwrap().clone()
    }
}

impl Application for Recorded {
    fn committed(&self) -> Result<Option<Committed>, ApplicationError> {
        self.app.committed()
    }

    fn init_chain(&self) -> Result<InitChain, ApplicationError> {
        self.app.init_chain()
    }

    fn check(&self, tx: &[u8], context: &Check<'_>) -> Result<CheckResult, ApplicationError> {
        self.app.check(tx, context)
    }

    fn prepare(&self, proposal: Proposal<'_>) -> Result<Vec<Vec<u8>>, ApplicationError> {
        self.app.prepare(proposal)
    }

    fn process(&self, block: &BlockInput) -> Result<Result<(), String>, ApplicationError> {
        self.app.process(block)
    }

    fn finalize(&self, block: &BlockInput) -> Result<BlockOutput, ApplicationError> {
        let output = self.app.finalize(block)?;
        println!("executed {} {:?}", block.height, output.app_hash);
        let written = (block.clone(), output.clone());
        let before = self.blocks.lock().unwrap().insert(block.height, written);
        if let Some(before) = before {
            assert_eq!(before, (block.clone(), output.clone()), "executed again");
        }
        *self.executed.lock().unwrap() = block.height;
        (self.passed)(Step::Executed, block.height);
        Ok(output)
    }

    fn commit(&self) -> Result<(), ApplicationError> {
        self.app.commit()
    }

    fn sync(&self) -> Result<(), ApplicationError> {
        self.app.sync()?;
        let height = *self.executed.lock().unwrap();
        (self.passed)(Step::Committed, height);
        Ok(())
    }

    fn next_deadline(&self) -> Result<Option<Time>, ApplicationError> {
        self.app.next_deadline()
    }

    fn query(&self, query: &Query) -> Result<QueryResult, ApplicationError> {
        self.app.query(query)
    }

    fn state_at(&self, height: u64) -> Result<Option<Box<dyn Read + Send>>, ApplicationError> {
        self.app.state_at(height)
    }

    fn restore(
        &self,
        height: u64,
        state: Changes,
        app_hash: [u8; 32],
    ) -> Result<bool, ApplicationError> {
        self.app.restore(height, state, app_hash)
    }
}

/// Executes what was written down up to a height on a ledger of its own, as engine `local` does, and
/// compares block by block with what CometBFT's headers say.
pub(crate) fn replay(genesis: Genesis, past: &Past, comet: &Comet, newest: u64) {
    let storage = Storage::memory(storage_options()).unwrap();
    let replayed = LedgerApp::new(genesis, storage, None);
    replayed.init_chain().unwrap();
    for height in 1..=newest {
        let (input, output) = &past[&height];
        let again = replayed.finalize(input).unwrap();
        replayed.commit().unwrap();
        assert_eq!(&again, output, "block {height}");
        let next = comet.header(height + 1);
        assert_eq!(next["app_hash"], hex::encode_upper(output.app_hash));
        let results = results_hash(&output.tx_results);
        assert_eq!(next["last_results_hash"], hex::encode_upper(results));
        let header = comet.header(height);
        assert_eq!(header["proposer_address"], input.proposer.to_string());
        let time = to_tendermint_time(input.time).to_rfc3339();
        assert_eq!(header["time"], time);
    }
}

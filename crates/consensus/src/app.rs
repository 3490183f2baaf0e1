//! The ledger over its state, as an [`Application`].

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockWriteGuard};

use r3mes_ledger::store::{Block, Committed as View};
use r3mes_ledger::{Fault, Genesis, Ledger, beacon};
use r3mes_state::{Changes, Options, Read, Recorder, Snapshot, Staged, Storage};
use r3mes_types::beacon::HashChains;
use r3mes_types::tx::Tx;
use r3mes_types::{ConsensusAddress, Time};

use crate::application::{
    Application, ApplicationError, BlockInput, BlockOutput, Check, CheckResult, Committed, Event,
    InitChain, Proposal, Query, QueryResult, TxHash, TxResult,
};
use crate::block::tx_hash;
use crate::verified::Verified;

/// Path of a query that reads one key of the state, named by the query's data.
pub const STORE_PATH: &str = "/store";
/// Code of a query for a height that is pruned or not there yet, in codespace `sdk`: invalid height.
const INVALID_HEIGHT: u32 = 26;
/// Code of an answer with too many entries to prove: invalid request.
const INVALID_REQUEST: u32 = 18;
/// Code of a key that is not there, when only `/store` is asked: key not found.
const KEY_NOT_FOUND: u32 = 30;
/// Most entries that one answer proves.
const MAX_PROVED_ENTRIES: usize = 4096;

/// How a ledger's storage is opened: the engine says when the disk is waited for.
pub fn storage_options() -> Options {
    Options {
        sync_every: u64::MAX,
        ..Options::default()
    }
}

/// The ledger, its state, and the hash chains with which this process proposes blocks.
pub struct LedgerApp {
    genesis: Genesis,
    initial_height: u64,
    storage: Storage,
    chains: Option<Mutex<HashChains>>,
    /// The newest version, taken once per block.
    latest: RwLock<Option<Arc<Snapshot>>>,
    pending: Mutex<Option<Finalized>>,
    verified: RwLock<Verified<Tx>>,
}

/// What the block that was executed last leaves to be written.
enum Finalized {
    Staged(Box<Staged>),
    /// Its state is there already: an engine that was started again gives its newest block once more.
    Written,
}

impl LedgerApp {
    /// The ledger that begins with `genesis`, kept in `storage` (opened with [`storage_options`]).
    /// `chains` are the proposer's; without them it can follow blocks but propose none.
    pub fn new(genesis: Genesis, storage: Storage, chains: Option<HashChains>) -> Self {
        Self {
            initial_height: genesis.initial_height(),
            genesis,
            storage,
            chains: chains.map(Mutex::new),
            latest: RwLock::new(None),
            pending: Mutex::new(None),
            verified: RwLock::default(),
        }
    }

    fn latest(&self) -> Result<Arc<Snapshot>, ApplicationError> {
        let cached = self.latest.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(snapshot) = cached.as_ref() {
            return Ok(snapshot.clone());
        }
        drop(cached);
        // Read under the lock, so that an older version never replaces a newer one.
        let mut cached = self.latest.write().unwrap_or_else(PoisonError::into_inner);
        let snapshot = self.storage.latest().map_err(failed("reading the state"))?;
        let snapshot = Arc::new(snapshot);
        *cached = Some(snapshot.clone());
        Ok(snapshot)
    }

    fn forget_latest(&self) {
        let mut cached = self.latest.write().unwrap_or_else(PoisonError::into_inner);
        *cached = None;
    }

    /// The chains that this process proposes with, gone on to the registered one. One that is
    /// registered but of another secret is found out when no element of ours is the next.
    fn chains_at(
        &self,
        state: &Snapshot,
        proposer: &ConsensusAddress,
    ) -> Result<Option<MutexGuard<'_, HashChains>>, ApplicationError> {
        let Some(chains) = &self.chains else {
            return Ok(None);
        };
        let registered = beacon::CHAINS.get(&View(state), proposer);
        let registered = registered.map_err(failed("reading the beacon chain"))?;
        let mut chains = chains.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(registered) = registered {
            chains.follow(&registered);
        }
        Ok(Some(chains))
    }

    fn known(&self, tx: &[u8]) -> Option<Arc<Tx>> {
        let verified = self.verified.read();
        let verified = verified.unwrap_or_else(PoisonError::into_inner);
        verified.get(&tx_hash(tx))
    }

    fn verified(&self) -> RwLockWriteGuard<'_, Verified<Tx>> {
        self.verified
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn pending(&self) -> MutexGuard<'_, Option<Finalized>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn proved(
        snapshot: &Snapshot,
        read: BTreeSet<Vec<u8>>,
        mut answer: QueryResult,
    ) -> Result<QueryResult, ApplicationError> {
        if read.len() > MAX_PROVED_ENTRIES {
            return Ok(refused(
                INVALID_REQUEST,
                "this answer is made of too many entries to prove: ask for a smaller page",
            ));
        }
        let first = read.get(&answer.key).cloned();
        let others = read.into_iter().filter(|key| *key != answer.key);
        for key in first.into_iter().chain(others) {
            let proof = snapshot.prove(&key).map_err(failed("proving a key"))?;
            answer.proofs.push((key, proof));
        }
        Ok(answer)
    }
}

impl Application for LedgerApp {
    fn committed(&self) -> Result<Option<Committed>, ApplicationError> {
        let version = self
            .storage
            .version()
            .map_err(failed("reading the state"))?;
        let Some(height) = version else {
            return Ok(None);
        };
        let app_hash = self.latest()?.root();
        Ok(Some(Committed { height, app_hash }))
    }

    fn init_chain(&self) -> Result<InitChain, ApplicationError> {
        let (changes, validators) =
            Ledger::init_chain(&self.genesis).map_err(stopped("the genesis"))?;
        let app_hash = match self.committed()? {
            Some(committed) => committed.app_hash,
            None => self
                .storage
                .commit(self.initial_height - 1, changes)
                .map_err(failed("writing the genesis state"))?,
        };
        self.forget_latest();
        Ok(InitChain {
            app_hash,
            validators,
        })
    }

    fn verify(&self, txs: &[&[u8]]) -> Result<Vec<bool>, ApplicationError> {
        let hashes: Vec<TxHash> = txs.iter().map(|tx| tx_hash(tx)).collect();
        let mut known: Vec<bool> = {
            let verified = self.verified.read();
            let verified = verified.unwrap_or_else(PoisonError::into_inner);
            hashes
                .iter()
                .map(|hash| verified.get(hash).is_some())
                .collect()
        };
        let places: Vec<usize> = (0..txs.len()).filter(|place| !known[*place]).collect();
        let unknown: Vec<&[u8]> = places.iter().map(|place| txs[*place]).collect();
        let parsed = Ledger::verify_txs(&*self.latest()?, &unknown);
        let parsed = parsed.map_err(stopped("verifying transactions"))?;
        let mut verified = self.verified();
        for (place, parsed) in places.into_iter().zip(parsed) {
            if let Some(parsed) = parsed {
                verified.remember(hashes[place], Arc::new(parsed), txs[place].len());
                known[place] = true;
            }
        }
        Ok(known)
    }

    fn check(&self, tx: &[u8], context: &Check<'_>) -> Result<CheckResult, ApplicationError> {
        let state = self.latest()?;
        let block = Block {
            height: state.version() + 1,
            time: context.time,
        };
        let known = |tx: &[u8]| self.known(tx);
        let check = Ledger::check_tx(&*state, block, context.waiting, tx, &known)
            .map_err(stopped("checking a transaction"))?;
        Ok(CheckResult {
            result: to_result(check.result),
            admitted: check.admitted,
        })
    }

    fn prepare(&self, proposal: Proposal<'_>) -> Result<Vec<Vec<u8>>, ApplicationError> {
        let state = self.latest()?;
        let chains = self.chains_at(&state, &proposal.proposer)?;
        let ledger_proposal = r3mes_ledger::Proposal {
            block: Block {
                height: proposal.height,
                time: proposal.time,
            },
            proposer: proposal.proposer,
            chains: chains.as_ref().map_or(&[], |chains| chains.kept()),
            max_bytes: proposal.max_bytes as u64,
        };
        Ledger::prepare(&*state, &ledger_proposal, proposal.txs, &|tx| {
            self.known(tx)
        })
        .map_err(stopped("preparing a block"))
    }

    fn process(&self, block: &BlockInput) -> Result<Result<(), String>, ApplicationError> {
        match Ledger::process(&*self.latest()?, block, &|tx| self.known(tx)) {
            Ok(()) => Ok(Ok(())),
            Err(Fault::InvalidBlock { why, .. }) => Ok(Err(why)),
            Err(fault) => Err(stopped("examining a block")(fault)),
        }
    }

    fn finalize(&self, block: &BlockInput) -> Result<BlockOutput, ApplicationError> {
        let latest = self.latest()?;
        let again = latest.version() == block.height;
        let before = if again {
            let kept = self.storage.snapshot(block.height - 1);
            let kept = kept.map_err(failed("reading the state"))?;
            Arc::new(kept.ok_or_else(|| missing(block.height - 1))?)
        } else {
            latest.clone()
        };
        let output = Ledger::finalize_block(&*before, block, &|tx| self.known(tx))
            .map_err(stopped("executing a block"))?;
        let app_hash = if again {
            *self.pending() = Some(Finalized::Written);
            latest.root()
        } else {
            let staged = self.storage.stage(block.height, output.changes);
            let staged = staged.map_err(failed("working out the state's root"))?;
            let root = staged.root();
            *self.pending() = Some(Finalized::Staged(Box::new(staged)));
            root
        };
        let mut verified = self.verified();
        block
            .txs
            .iter()
            .for_each(|tx| verified.forget(&tx_hash(tx)));
        drop(verified);
        Ok(BlockOutput {
            app_hash,
            tx_results: output.tx_results.into_iter().map(to_result).collect(),
            events: output.events.into_iter().map(to_event).collect(),
            validator_updates: output.validator_updates,
        })
    }

    fn commit(&self) -> Result<(), ApplicationError> {
        let finalized = self.pending().take();
        match finalized.expect("engines commit only what they have finalized") {
            Finalized::Staged(staged) => {
                let written = self.storage.write(*staged);
                written.map_err(failed("writing the state"))?;
                self.forget_latest();
            }
            Finalized::Written => (),
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), ApplicationError> {
        self.storage.sync().map_err(failed("writing the state"))
    }

    fn next_deadline(&self) -> Result<Option<Time>, ApplicationError> {
        Ledger::next_deadline(&*self.latest()?).map_err(stopped("reading the next deadline"))
    }

    fn query(&self, query: &Query) -> Result<QueryResult, ApplicationError> {
        let snapshot = match query.height {
            None => Some(self.latest()?),
            Some(height) => self
                .storage
                .snapshot(height)
                .map_err(failed("reading the state"))?
                .map(Arc::new),
        };
        let Some(snapshot) = snapshot else {
            return Ok(refused(
                INVALID_HEIGHT,
                "the state of this height is pruned or not there yet: ask for a newer one, or none",
            ));
        };
        let state = Recorder::new(&*snapshot);
        let mut answer = if query.path == STORE_PATH {
            let value = state
                .get(&query.data)
                .map_err(failed("reading the state"))?;
            let mut answer = QueryResult::default();
            match value {
                Some(value) => answer.value = value,
                None if query.prove => (),
                None => answer = refused(KEY_NOT_FOUND, "the state has no such key"),
            }
            answer.key = query.data.clone();
            answer
        } else {
            let answer = Ledger::query(&state, &query.path, &query.data)
                .map_err(stopped("answering a query"))?;
            QueryResult {
                code: answer.code,
                codespace: answer.codespace,
                log: answer.log,
                value: answer.value,
                key: answer.key.unwrap_or_default(),
                ..QueryResult::default()
            }
        };
        let read = state.into_keys();
        if query.prove {
            answer = Self::proved(&snapshot, read, answer)?;
        } else {
            answer.key.clear();
        }
        answer.height = snapshot.version();
        Ok(answer)
    }

    fn state_at(&self, height: u64) -> Result<Option<Box<dyn Read + Send>>, ApplicationError> {
        let kept = self.storage.snapshot(height);
        let kept = kept.map_err(failed("reading the state"))?;
        Ok(kept.map(|snapshot| Box::new(snapshot) as Box<dyn Read + Send>))
    }

    fn restore(
        &self,
        height: u64,
        state: Changes,
        app_hash: [u8; 32],
    ) -> Result<bool, ApplicationError> {
        match self.committed()? {
            Some(ours) if ours.height == height => return Ok(ours.app_hash == app_hash),
            Some(ours) if ours.height > height => return Ok(false),
            _ => {}
        }
        let staged = self.storage.stage_whole(height, state);
        let staged = staged.map_err(failed("working out the root of a snapshot"))?;
        if staged.root() != app_hash {
            return Ok(false);
        }
        let written = self
            .storage
            .write(staged)
            .and_then(|()| self.storage.sync());
        written.map_err(failed("writing the state of a snapshot"))?;
        self.forget_latest();
        Ok(true)
    }
}

fn to_result(result: r3mes_ledger::block::TxResult) -> TxResult {
    TxResult {
        code: result.code,
        codespace: result.codespace,
        log: result.log,
        data: result.data,
        gas_wanted: result.gas_wanted,
        gas_used: result.gas_used,
        events: result.events.into_iter().map(to_event).collect(),
    }
}

fn to_event(event: r3mes_types::Event) -> Event {
    let attributes = event.attributes.into_iter();
    Event {
        kind: event.kind.to_owned(),
        attributes: attributes
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
    }
}

fn refused(code: u32, log: &str) -> QueryResult {
    QueryResult {
        code,
        codespace: "sdk".into(),
        log: log.into(),
        ..QueryResult::default()
    }
}

fn stopped(doing: &'static str) -> impl Fn(Fault) -> ApplicationError {
    move |fault| failed(doing)(fault)
}

fn failed<E>(doing: &'static str) -> impl Fn(E) -> ApplicationError
where
    E: std::error::Error + Send + Sync + 'static,
{
    move |error| ApplicationError {
        doing,
        source: Box::new(error),
    }
}

/// A state that should be kept is not there.
#[derive(Debug, thiserror::Error)]
#[error("the state of height {height} is not kept any more: restore the state from a copy")]
struct Missing {
    height: u64,
}

fn missing(height: u64) -> ApplicationError {
    failed("reading the state")(Missing { height })
}

impl std::fmt::Debug for LedgerApp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LedgerApp")
            .field("chain_id", &self.genesis.chain_id)
            .finish_non_exhaustive()
    }
}

//! The smallest application with everything an engine has to respect: sequences, a transaction of the
//! proposer's own, obligations, deadlines, and state that a crash takes away.
//!
//! A transaction reads `sender/sequence/key=value`. The sender `node` owes: its transactions are
//! obligations. The key `deadline` sets the next deadline in milliseconds; a block at that time removes
//! it. The key `refuse` fails in the block. The proposer's transaction reads `proposer/height`.

use std::sync::Mutex;

use r3mes_consensus::application::{
    Admitted, Application, ApplicationError, BlockInput, BlockOutput, Check, CheckResult,
    Committed, Event, InitChain, Lane, Proposal, Query, QueryResult, TxResult,
};
use r3mes_state::{Delta, Options, Read, Snapshot, Staged, Storage};
use r3mes_types::{Address, Hash, Millis, Time};

pub(crate) struct Kv {
    storage: Storage,
    staged: Mutex<Option<Staged>>,
}

/// State is waited for only when the engine asks.
pub(crate) fn options() -> Options {
    Options {
        sync_every: u64::MAX,
        ..Options::default()
    }
}

struct Tx<'a> {
    sender: &'a str,
    sequence: u64,
    key: &'a str,
    value: &'a str,
}

fn parse(tx: &[u8]) -> Option<Tx<'_>> {
    let mut parts = std::str::from_utf8(tx).ok()?.splitn(3, '/');
    let (sender, sequence) = (parts.next()?, parts.next()?.parse().ok()?);
    let (key, value) = parts.next()?.split_once('=')?;
    Some(Tx {
        sender,
        sequence,
        key,
        value,
    })
}

pub(crate) fn tx(sender: &str, sequence: u64, key: &str, value: &str) -> Vec<u8> {
    format!("{sender}/{sequence}/{key}={value}").into_bytes()
}

fn address(sender: &str) -> Address {
    let mut bytes = [0; 20];
    bytes[..sender.len()].copy_from_slice(sender.as_bytes());
    bytes.into()
}

fn failed<E: std::error::Error + Send + Sync + 'static>(error: E) -> ApplicationError {
    ApplicationError {
        doing: "the key-value store",
        source: Box::new(error),
    }
}

fn refused(log: &str) -> TxResult {
    TxResult {
        code: 1,
        codespace: "kv".into(),
        log: log.into(),
        ..TxResult::default()
    }
}

impl Kv {
    pub(crate) fn new(storage: Storage) -> Self {
        Self {
            storage,
            staged: Mutex::new(None),
        }
    }

    fn latest(&self) -> Result<Snapshot, ApplicationError> {
        self.storage.latest().map_err(failed)
    }

    fn sequence(state: &dyn Read, sender: &str) -> Result<u64, ApplicationError> {
        let stored = state
            .get(format!("sequence/{sender}").as_bytes())
            .map_err(failed)?;
        let stored = stored.and_then(|bytes| String::from_utf8(bytes).ok());
        Ok(stored.map_or(0, |text| text.parse().expect("a number was stored")))
    }

    fn execute(state: &mut Delta<'_>, bytes: &[u8]) -> Result<TxResult, ApplicationError> {
        let Some(tx) = parse(bytes) else {
            let own = bytes.starts_with(b"proposer/");
            return Ok(if own {
                TxResult::default()
            } else {
                refused("not a transaction")
            });
        };
        if tx.sequence != Self::sequence(state, tx.sender)? {
            return Ok(refused("wrong sequence"));
        }
        state.put(
            format!("sequence/{}", tx.sender),
            (tx.sequence + 1).to_string(),
        );
        if tx.key == "refuse" {
            return Ok(refused("asked to refuse"));
        }
        state.put(format!("kv/{}", tx.key), tx.value);
        Ok(TxResult {
            data: tx.value.into(),
            gas_used: 1,
            events: vec![Event {
                kind: "put".into(),
                attributes: vec![("key".into(), tx.key.into())],
            }],
            ..TxResult::default()
        })
    }

    fn deadline(state: &dyn Read) -> Result<Option<Time>, ApplicationError> {
        let stored = state.get(b"kv/deadline").map_err(failed)?;
        let millis = stored.and_then(|bytes| String::from_utf8(bytes).ok()?.parse().ok());
        Ok(millis.map(|millis| Time::from_nanos(0).after(Millis::new(millis))))
    }
}

impl Application for Kv {
    fn committed(&self) -> Result<Option<Committed>, ApplicationError> {
        if self.storage.version().map_err(failed)?.is_none() {
            return Ok(None);
        }
        let latest = self.latest()?;
        Ok(Some(Committed {
            height: latest.version(),
            app_hash: latest.root(),
        }))
    }

    fn init_chain(&self) -> Result<InitChain, ApplicationError> {
        let genesis = [(b"kv/genesis".to_vec(), Some(b"1".to_vec()))];
        let app_hash = self.storage.commit(0, genesis.into()).map_err(failed)?;
        Ok(InitChain {
            app_hash,
            validators: Vec::new(),
        })
    }

    fn check(&self, tx: &[u8], context: &Check<'_>) -> Result<CheckResult, ApplicationError> {
        let Some(parsed) = parse(tx) else {
            return Ok(CheckResult {
                result: refused("not a transaction"),
                admitted: None,
            });
        };
        let committed = Self::sequence(&self.latest()?, parsed.sender)?;
        let sender = address(parsed.sender);
        let expected = context.waiting.sequence(&sender).unwrap_or(committed);
        if parsed.sequence != expected {
            let log = format!("expected sequence {expected}, got {}", parsed.sequence);
            return Ok(CheckResult {
                result: refused(&log),
                admitted: None,
            });
        }
        let lane = match parsed.sender {
            "node" => Lane::Obligation(vec![Hash::of(tx)]),
            _ => Lane::Paid,
        };
        Ok(CheckResult {
            result: TxResult::default(),
            admitted: Some(Admitted {
                sender,
                sequence: parsed.sequence,
                payer: sender,
                fee: 0,
                priority: 0,
                gas_wanted: 0,
                lane,
            }),
        })
    }

    fn prepare(&self, proposal: Proposal<'_>) -> Result<Vec<Vec<u8>>, ApplicationError> {
        let mut txs = vec![format!("proposer/{}", proposal.height).into_bytes()];
        let mut left = proposal.max_bytes.saturating_sub(64);
        for tx in proposal.txs {
            if tx.ends_with(b"=unfit") || tx.len() + 8 > left {
                continue;
            }
            left -= tx.len() + 8;
            txs.push(tx.clone());
        }
        Ok(txs)
    }

    fn process(&self, block: &BlockInput) -> Result<Result<(), String>, ApplicationError> {
        let own = format!("proposer/{}", block.height).into_bytes();
        Ok(match block.txs.first() {
            Some(first) if *first == own => Ok(()),
            _ => Err("the proposer's transaction is missing".into()),
        })
    }

    fn finalize(&self, block: &BlockInput) -> Result<BlockOutput, ApplicationError> {
        let before = self.storage.snapshot(block.height - 1).map_err(failed)?;
        let before = before.expect("the state before the block is kept");
        let mut state = Delta::new(&before);
        let mut tx_results = Vec::new();
        for tx in &block.txs {
            tx_results.push(Self::execute(&mut state, tx)?);
        }
        if Self::deadline(&state)?.is_some_and(|deadline| deadline <= block.time) {
            state.delete(*b"kv/deadline");
            state.put(*b"kv/deadline-met", block.time.nanos().to_string());
        }
        // A beacon, so that every block changes the state.
        state.put(*b"time", block.time.nanos().to_string());
        let changes = state.into_changes();
        let app_hash = if self.latest()?.version() < block.height {
            let staged = self.storage.stage(block.height, changes).map_err(failed)?;
            let root = staged.root();
            *self.staged.lock().expect("no panic under the lock") = Some(staged);
            root
        } else {
            self.latest()?.root()
        };
        Ok(BlockOutput {
            app_hash,
            tx_results,
            ..BlockOutput::default()
        })
    }

    fn commit(&self) -> Result<(), ApplicationError> {
        let staged = self.staged.lock().expect("no panic under the lock").take();
        self.storage
            .write(staged.expect("a block was finalized"))
            .map_err(failed)
    }

    fn sync(&self) -> Result<(), ApplicationError> {
        self.storage.sync().map_err(failed)
    }

    fn next_deadline(&self) -> Result<Option<Time>, ApplicationError> {
        Self::deadline(&self.latest()?)
    }

    fn query(&self, query: &Query) -> Result<QueryResult, ApplicationError> {
        let snapshot = match query.height {
            Some(height) => self.storage.snapshot(height).map_err(failed)?,
            None => Some(self.latest()?),
        };
        let Some(snapshot) = snapshot else {
            return Ok(QueryResult {
                code: 2,
                log: "height is not kept".into(),
                ..QueryResult::default()
            });
        };
        Ok(QueryResult {
            key: query.data.clone(),
            value: snapshot
                .get(&query.data)
                .map_err(failed)?
                .unwrap_or_default(),
            proofs: match query.prove {
                true => vec![(
                    query.data.clone(),
                    snapshot.prove(&query.data).map_err(failed)?,
                )],
                false => Vec::new(),
            },
            height: snapshot.version(),
            ..QueryResult::default()
        })
    }
}

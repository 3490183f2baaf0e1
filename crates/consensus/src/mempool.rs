//! Transactions that wait for a block.
//!
//! What a registered node owes goes first, after whatever the same sender has to have executed before
//! it; everything else goes in the order it came. Every bound has a number in [`Limits`], so that no
//! sender can push another out.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::application::{Application, ApplicationError, CheckResult, Pending, TxHash, TxResult};
use crate::block::tx_hash;

/// How many transactions that were dropped after they had been accepted are remembered, so that who
/// waits for one learns why.
const REMEMBERED_DROPS: usize = 4_096;
/// How often a check is repeated because its sender's other transactions changed meanwhile.
const MAX_CHECK_ATTEMPTS: usize = 16;

/// How much may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Transactions in all.
    pub txs: usize,
    /// Bytes in all.
    pub bytes: usize,
    /// Transactions of one sender.
    pub txs_per_sender: usize,
    /// Bytes of one transaction.
    pub tx_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            txs: 20_000,
            bytes: 64 << 20,
            txs_per_sender: 512,
            tx_bytes: 1 << 20,
        }
    }
}

/// The mempool did not take a transaction. (A transaction that the ledger refuses is no error here:
/// see [`Added::check`].)
#[derive(Debug, thiserror::Error)]
pub enum AddError {
    /// It is longer than any block takes.
    #[error("tx too large: {bytes} bytes, at most {limit} are taken")]
    TooLarge {
        /// Its length.
        bytes: usize,
        /// The bound.
        limit: usize,
    },
    /// The same bytes wait already.
    #[error("tx already exists in cache: it waits for a block")]
    Duplicate,
    /// No room is left.
    #[error(
        "mempool is full: {txs} transactions, {bytes} bytes wait; try again after the next block"
    )]
    Full {
        /// How many wait.
        txs: usize,
        /// How many bytes they have.
        bytes: usize,
    },
    /// The sender has enough of them waiting.
    #[error(
        "mempool is full for this sender: {limit} of its transactions wait; try again after the next block"
    )]
    SenderFull {
        /// The bound.
        limit: usize,
    },
    /// Transactions of the same sender kept coming in between.
    #[error(
        "the sender's other transactions kept changing while this one was checked: send one after another"
    )]
    Contended,
    /// The application failed.
    #[error("the transaction could not be checked")]
    Application {
        /// Why.
        #[source]
        source: ApplicationError,
    },
}

/// What came of a transaction that was offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Added {
    /// Its hash.
    pub hash: TxHash,
    /// Code 0 if it waits now; else why it was refused.
    pub check: TxResult,
}

/// The waiting transactions. Checks run on the callers' threads and beside each other.
#[derive(Debug)]
pub(crate) struct Mempool {
    limits: Limits,
    waiting: Mutex<Waiting>,
    /// Woken when a transaction begins to wait.
    pub(crate) added: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    /// By arrival.
    txs: BTreeMap<Arrival, Tx>,
    obligations: BTreeSet<Arrival>,
    hashes: HashSet<TxHash>,
    /// Sender -> sequence -> arrival. No sender without transactions.
    senders: HashMap<Vec<u8>, BTreeMap<u64, Arrival>>,
    bytes: usize,
    arrivals: Arrival,
    dropped: VecDeque<(TxHash, TxResult)>,
}

/// Counts transactions as they come.
type Arrival = u64;

#[derive(Clone, Debug)]
struct Tx {
    bytes: Vec<u8>,
    hash: TxHash,
    sender: Vec<u8>,
    sequence: u64,
}

impl Mempool {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            waiting: Mutex::default(),
            added: Notify::new(),
        }
    }

    /// How many wait, and their bytes.
    pub(crate) fn size(&self) -> (usize, usize) {
        let waiting = self.lock();
        (waiting.txs.len(), waiting.bytes)
    }

    pub(crate) fn contains(&self, hash: &TxHash) -> bool {
        self.lock().hashes.contains(hash)
    }

    /// Why a transaction that had been accepted was dropped again.
    pub(crate) fn dropped(&self, hash: &TxHash) -> Option<TxResult> {
        let waiting = self.lock();
        let newest_first = waiting.dropped.iter().rev();
        let mut found = newest_first.filter(|(dropped, _)| dropped == hash);
        found.next().map(|(_, why)| why.clone())
    }

    /// Checks a transaction and lets it wait if the application welcomes it.
    pub(crate) fn add(&self, app: &dyn Application, tx: Vec<u8>) -> Result<Added, AddError> {
        let hash = tx_hash(&tx);
        if tx.len() > self.limits.tx_bytes {
            return Err(AddError::TooLarge {
                bytes: tx.len(),
                limit: self.limits.tx_bytes,
            });
        }
        self.lock().has_room(&self.limits, &hash, tx.len())?;
        for _ in 0..MAX_CHECK_ATTEMPTS {
            let view = View::new(self);
            let check = app
                .check(&tx, &view, false)
                .map_err(|source| AddError::Application { source })?;
            if check.result.code != 0 {
                let check = check.result;
                return Ok(Added { hash, check });
            }
            let mut waiting = self.lock();
            waiting.has_room(&self.limits, &hash, tx.len())?;
            if waiting.next_sequence(&check.sender) != view.seen.get() {
                continue;
            }
            let of_sender = waiting.senders.get(&check.sender).map_or(0, BTreeMap::len);
            if of_sender >= self.limits.txs_per_sender {
                return Err(AddError::SenderFull {
                    limit: self.limits.txs_per_sender,
                });
            }
            waiting.insert(tx, hash, &check);
            drop(waiting);
            self.added.notify_one();
            return Ok(Added {
                hash,
                check: check.result,
            });
        }
        Err(AddError::Contended)
    }

    /// Candidates for a block of at most `max_bytes`, in order.
    pub(crate) fn candidates(&self, max_bytes: usize) -> Vec<Vec<u8>> {
        let waiting = self.lock();
        let mut left = max_bytes;
        let mut candidates = Vec::new();
        for tx in waiting.ordered() {
            match left.checked_sub(tx.bytes.len()) {
                Some(rest) => left = rest,
                None => break,
            }
            candidates.push(tx.bytes.clone());
        }
        candidates
    }

    /// Takes out what a block contains, and checks the rest against the state after it.
    pub(crate) fn committed(
        &self,
        app: &dyn Application,
        txs: &[Vec<u8>],
    ) -> Result<(), ApplicationError> {
        let hashes: HashSet<TxHash> = txs.iter().map(|tx| tx_hash(tx)).collect();
        let rest: Vec<Tx> = {
            let mut waiting = self.lock();
            waiting.remove(|tx| hashes.contains(&tx.hash));
            waiting.ordered().into_iter().cloned().collect()
        };
        let mut overlay = Overlay::default();
        let mut refused = HashMap::new();
        for tx in rest {
            let check = app.check(&tx.bytes, &overlay, true)?;
            if check.result.code == 0 {
                overlay.0.insert(check.sender, check.sequence + 1);
            } else {
                refused.insert(tx.hash, check.result);
            }
        }
        self.lock().drop_refused(refused);
        Ok(())
    }

    /// Drops a transaction that no block takes although it passes its check.
    pub(crate) fn drop_unfit(&self, tx: &[u8]) {
        let why = TxResult {
            code: 1,
            codespace: "mempool".into(),
            log: "no block takes this transaction: it is too large or asks for too much gas".into(),
            ..TxResult::default()
        };
        self.lock()
            .drop_refused(HashMap::from([(tx_hash(tx), why)]));
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Every method leaves the lists in order before anything that could panic.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn has_room(&self, limits: &Limits, hash: &TxHash, bytes: usize) -> Result<(), AddError> {
        if self.hashes.contains(hash) {
            return Err(AddError::Duplicate);
        }
        if self.txs.len() >= limits.txs || self.bytes + bytes > limits.bytes {
            return Err(AddError::Full {
                txs: self.txs.len(),
                bytes: self.bytes,
            });
        }
        Ok(())
    }

    /// The sequence after the sender's last waiting transaction.
    fn next_sequence(&self, sender: &[u8]) -> Option<u64> {
        let (last, _) = self.senders.get(sender)?.last_key_value()?;
        Some(last + 1)
    }

    /// All that wait, in the order in which they should be executed.
    fn ordered(&self) -> Vec<&Tx> {
        let mut order = Vec::with_capacity(self.txs.len());
        let mut taken = HashSet::new();
        for obligation in &self.obligations {
            let owed = &self.txs[obligation];
            for arrival in self.senders[&owed.sender].range(..=owed.sequence) {
                if taken.insert(arrival.1) {
                    order.push(&self.txs[arrival.1]);
                }
            }
        }
        let paid = self.txs.iter();
        order.extend(
            paid.filter(|(arrival, _)| !taken.contains(arrival))
                .map(|(_, tx)| tx),
        );
        order
    }

    fn insert(&mut self, bytes: Vec<u8>, hash: TxHash, check: &CheckResult) {
        self.arrivals += 1;
        if check.obligation {
            self.obligations.insert(self.arrivals);
        }
        self.bytes += bytes.len();
        self.hashes.insert(hash);
        let sequences = self.senders.entry(check.sender.clone()).or_default();
        sequences.insert(check.sequence, self.arrivals);
        let tx = Tx {
            bytes,
            hash,
            sender: check.sender.clone(),
            sequence: check.sequence,
        };
        self.txs.insert(self.arrivals, tx);
    }

    fn remove(&mut self, unwanted: impl Fn(&Tx) -> bool) {
        let Self {
            txs,
            obligations,
            hashes,
            senders,
            bytes,
            ..
        } = self;
        txs.retain(|arrival, tx| {
            let out = unwanted(tx);
            if out {
                *bytes -= tx.bytes.len();
                obligations.remove(arrival);
                hashes.remove(&tx.hash);
                if let Some(sequences) = senders.get_mut(&tx.sender) {
                    sequences.remove(&tx.sequence);
                }
            }
            !out
        });
        senders.retain(|_, sequences| !sequences.is_empty());
    }

    fn drop_refused(&mut self, refused: HashMap<TxHash, TxResult>) {
        if refused.is_empty() {
            return;
        }
        self.remove(|tx| refused.contains_key(&tx.hash));
        self.dropped.extend(refused);
        let surplus = self.dropped.len().saturating_sub(REMEMBERED_DROPS);
        self.dropped.drain(..surplus);
    }
}

/// The mempool as one check sees it; remembers what it told, so that it can be told again.
struct View<'a> {
    mempool: &'a Mempool,
    seen: Cell<Option<u64>>,
}

impl<'a> View<'a> {
    fn new(mempool: &'a Mempool) -> Self {
        Self {
            mempool,
            seen: Cell::new(None),
        }
    }
}

impl Pending for View<'_> {
    fn sequence(&self, account: &[u8]) -> Option<u64> {
        let waiting = self.mempool.lock();
        let sequence = waiting.next_sequence(account);
        self.seen.set(sequence);
        sequence
    }
}

/// What the transactions rechecked so far leave behind.
#[derive(Default)]
struct Overlay(HashMap<Vec<u8>, u64>);

impl Pending for Overlay {
    fn sequence(&self, account: &[u8]) -> Option<u64> {
        self.0.get(account).copied()
    }
}

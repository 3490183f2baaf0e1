//! Transactions that wait for a block.
//!
//! What a registered node owes goes first, after whatever the same sender has to have executed before
//! it; everything else goes in the order it came. Every bound has a number in [`Limits`], so that no
//! sender can push another out.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use r3mes_types::{Address, Time};
use tokio::sync::Notify;

use crate::application::{
    Admitted, Application, ApplicationError, Check, CheckResult, Lane, TxHash, TxResult, Waiting,
};
use crate::block::tx_hash;

/// How many transactions that were dropped after they had been accepted are remembered, so that who
/// waits for one learns why.
const REMEMBERED_DROPS: usize = 4_096;
/// How many waiting transactions are checked again after a block, in turn. Those whose turn has not
/// come may be stale; the application leaves such ones out of blocks.
const MAX_RECHECKED: usize = 1_024;

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
    /// Transactions offered for one block, so that no block takes long to make.
    pub block_txs: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            txs: 20_000,
            bytes: 64 << 20,
            txs_per_sender: 512,
            tx_bytes: 1 << 20,
            block_txs: 4_096,
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
    /// The application failed.
    #[error("the transaction could not be checked")]
    Application {
        /// Why.
        #[from]
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
    queue: RwLock<Queue>,
    /// Woken when a transaction begins to wait.
    pub(crate) added: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    /// By arrival.
    txs: BTreeMap<Arrival, Arc<Tx>>,
    obligations: BTreeSet<Arrival>,
    hashes: HashSet<TxHash>,
    /// Sender -> sequence -> arrival. No sender without transactions.
    senders: HashMap<Address, BTreeMap<u64, Arrival>>,
    bytes: usize,
    arrivals: Arrival,
    /// What the application knows of all that.
    waiting: Waiting,
    /// Where rechecking goes on.
    rechecked: Arrival,
    dropped: VecDeque<(TxHash, TxResult)>,
}

/// A transaction on its way into the mempool.
struct Offered {
    tx: Vec<u8>,
    hash: TxHash,
    /// Whether the application did ahead what it can of the check.
    verified: bool,
}

/// Counts transactions as they come.
type Arrival = u64;

#[derive(Debug)]
struct Tx {
    arrival: Arrival,
    bytes: Vec<u8>,
    hash: TxHash,
    admitted: Admitted,
}

impl Mempool {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            queue: RwLock::default(),
            added: Notify::new(),
        }
    }

    /// How many wait, and their bytes.
    pub(crate) fn size(&self) -> (usize, usize) {
        let queue = self.read();
        (queue.txs.len(), queue.bytes)
    }

    pub(crate) fn contains(&self, hash: &TxHash) -> bool {
        self.read().hashes.contains(hash)
    }

    /// Why a transaction that had been accepted was dropped again.
    pub(crate) fn dropped(&self, hash: &TxHash) -> Option<TxResult> {
        let queue = self.read();
        let newest_first = queue.dropped.iter().rev();
        let mut found = newest_first.filter(|(dropped, _)| dropped == hash);
        found.next().map(|(_, why)| why.clone())
    }

    /// Checks a transaction and lets it wait if the application welcomes it.
    pub(crate) fn add(
        &self,
        app: &dyn Application,
        time: Time,
        tx: Vec<u8>,
    ) -> Result<Added, AddError> {
        let mut added = self.add_all(app, time, vec![tx]);
        added.swap_remove(0)
    }

    /// Checks transactions one after another and lets those wait that the application welcomes. What came
    /// of each is in its place.
    pub(crate) fn add_all(
        &self,
        app: &dyn Application,
        time: Time,
        txs: Vec<Vec<u8>>,
    ) -> Vec<Result<Added, AddError>> {
        let mut offered = self.offered(txs);
        // The expensive part runs beside other checks and holds nobody up.
        let good: Vec<&[u8]> = offered.iter().flatten().map(|o| o.tx.as_slice()).collect();
        // What fails here fails in the check as well, which says so.
        let verified = app.verify(&good).unwrap_or_default();
        for (offered, verified) in offered.iter_mut().flatten().zip(verified) {
            offered.verified = verified;
        }
        let mut queue = None;
        let mut any = false;
        let mut add = |offered: Result<Offered, AddError>| {
            let offered = offered?;
            let hash = offered.hash;
            let _checking =
                tracing::debug_span!("consensus.tx.check", hash = hex::encode_upper(hash))
                    .entered();
            if !offered.verified {
                // Whoever reads the queue does not wait for this check either.
                queue = None;
                let checked = self.read().check(app, time, &offered.tx)?;
                if checked.admitted.is_none() {
                    tracing::debug!(code = checked.result.code, "consensus.tx.refused");
                    return Ok(Added {
                        hash: offered.hash,
                        check: checked.result,
                    });
                }
            }
            let queue = queue.get_or_insert_with(|| self.write());
            let added = queue.add(&self.limits, app, time, offered)?;
            any |= added.check.code == 0;
            Ok(added)
        };
        let added = offered.into_iter().map(&mut add).collect();
        drop(queue);
        if any {
            self.added.notify_one();
        }
        added
    }

    /// The transactions that there is room for now, and what is wrong with the others.
    fn offered(&self, txs: Vec<Vec<u8>>) -> Vec<Result<Offered, AddError>> {
        let hashed: Vec<_> = txs.into_iter().map(|tx| (tx_hash(&tx), tx)).collect();
        let queue = self.read();
        let offer = |(hash, tx): (TxHash, Vec<u8>)| {
            if tx.len() > self.limits.tx_bytes {
                return Err(AddError::TooLarge {
                    bytes: tx.len(),
                    limit: self.limits.tx_bytes,
                });
            }
            queue.has_room(&self.limits, &hash, tx.len())?;
            let verified = false;
            Ok(Offered { tx, hash, verified })
        };
        hashed.into_iter().map(offer).collect()
    }

    /// Candidates for a block of at most `max_bytes`, in order.
    pub(crate) fn candidates(&self, max_bytes: usize) -> Vec<Vec<u8>> {
        let queue = self.read();
        let mut left = max_bytes;
        let mut candidates = Vec::new();
        for tx in queue.ordered().into_iter().take(self.limits.block_txs) {
            match left.checked_sub(tx.bytes.len()) {
                Some(rest) => left = rest,
                None => break,
            }
            candidates.push(tx.bytes.clone());
        }
        candidates
    }

    /// Takes out what a block contains, and checks some of the rest against the state after it.
    pub(crate) fn committed(
        &self,
        app: &dyn Application,
        time: Time,
        txs: &[Vec<u8>],
    ) -> Result<(), ApplicationError> {
        let hashes: HashSet<TxHash> = txs.iter().map(|tx| tx_hash(tx)).collect();
        let (rest, mut rechecked): (Vec<Arc<Tx>>, Arrival) = {
            let mut queue = self.write();
            queue.remove(|tx| hashes.contains(&tx.hash));
            let rest = queue.ordered().into_iter().cloned().collect();
            (rest, queue.rechecked)
        };
        if rest.iter().all(|tx| tx.arrival <= rechecked) {
            rechecked = 0;
        }
        let mut waiting = Waiting::default();
        let mut refused = HashMap::new();
        let mut left = MAX_RECHECKED;
        for tx in rest {
            let turn = tx.arrival > rechecked && left > 0;
            if !turn {
                waiting.admit(&tx.admitted);
                continue;
            }
            left -= 1;
            let context = Check {
                waiting: &waiting,
                time,
            };
            let check = app.check(&tx.bytes, &context)?;
            match check.admitted {
                Some(admitted) => waiting.admit(&admitted),
                None => {
                    refused.insert(tx.hash, check.result);
                }
            }
            rechecked = rechecked.max(tx.arrival);
        }
        let mut queue = self.write();
        queue.rechecked = rechecked;
        queue.drop_refused(refused);
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
        let refused = HashMap::from([(tx_hash(tx), why)]);
        self.write().drop_refused(refused);
    }

    fn read(&self) -> RwLockReadGuard<'_, Queue> {
        // Every method leaves the lists in order before anything that could panic.
        self.queue.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Queue> {
        self.queue.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
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

    /// Checks a transaction against those that wait, and lets it wait too if it is welcome.
    fn add(
        &mut self,
        limits: &Limits,
        app: &dyn Application,
        time: Time,
        Offered { tx, hash, .. }: Offered,
    ) -> Result<Added, AddError> {
        self.has_room(limits, &hash, tx.len())?;
        let checked = self.check(app, time, &tx)?;
        if let Some(admitted) = checked.admitted {
            let of_sender = self.senders.get(&admitted.sender).map_or(0, BTreeMap::len);
            if of_sender >= limits.txs_per_sender {
                return Err(AddError::SenderFull {
                    limit: limits.txs_per_sender,
                });
            }
            self.insert(tx, hash, admitted);
        }
        Ok(Added {
            hash,
            check: checked.result,
        })
    }

    /// Checks a transaction against those that wait.
    fn check(
        &self,
        app: &dyn Application,
        time: Time,
        tx: &[u8],
    ) -> Result<CheckResult, ApplicationError> {
        let context = Check {
            waiting: &self.waiting,
            time,
        };
        app.check(tx, &context)
    }

    /// All that wait, in the order in which they should be executed.
    fn ordered(&self) -> Vec<&Arc<Tx>> {
        let mut order = Vec::with_capacity(self.txs.len());
        let mut taken = HashSet::new();
        for obligation in &self.obligations {
            let owed = &self.txs[obligation].admitted;
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

    fn insert(&mut self, bytes: Vec<u8>, hash: TxHash, admitted: Admitted) {
        self.arrivals += 1;
        self.waiting.admit(&admitted);
        if matches!(admitted.lane, Lane::Obligation(_)) {
            self.obligations.insert(self.arrivals);
        }
        self.bytes += bytes.len();
        self.hashes.insert(hash);
        let sequences = self.senders.entry(admitted.sender).or_default();
        sequences.insert(admitted.sequence, self.arrivals);
        let tx = Tx {
            arrival: self.arrivals,
            bytes,
            hash,
            admitted,
        };
        self.txs.insert(self.arrivals, Arc::new(tx));
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
                if let Some(sequences) = senders.get_mut(&tx.admitted.sender) {
                    sequences.remove(&tx.admitted.sequence);
                }
            }
            !out
        });
        senders.retain(|_, sequences| !sequences.is_empty());
        // Begun anew after a commit, with what still waits, in order.
        let mut waiting = Waiting::default();
        for tx in self.ordered() {
            waiting.admit(&tx.admitted);
        }
        self.waiting = waiting;
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

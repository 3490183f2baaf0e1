//! What others see of the engine. Blocks and their history are CometBFT's to tell.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use crate::application::{Application, Query, QueryResult, TxHash, TxResult};
use crate::block::tx_hash;
use crate::clock::Clock;
use crate::genesis::Genesis;
use crate::local::{ReadError, TxInfo, TxState, WaitError};
use crate::mempool::Mempool;

/// How many transactions that were included are remembered, so that who waits for one learns of it
/// at once; of older ones CometBFT's index tells.
const REMEMBERED_TXS: usize = 8_192;
/// How many bytes these may have.
const REMEMBERED_BYTES: usize = 32 << 20;

/// What the engine and its handles have in common.
pub(super) struct Shared {
    pub(super) genesis: Genesis,
    pub(super) app: Arc<dyn Application>,
    pub(super) mempool: Mempool,
    pub(super) clock: Arc<dyn Clock>,
    /// The newest committed height.
    pub(super) latest: watch::Sender<u64>,
    /// The height up to which the mempool has been sorted out.
    pub(super) settled: watch::Sender<u64>,
    pub(super) recent: Mutex<Recent>,
    /// Bounds the threads that reads take.
    pub(super) permits: Arc<Semaphore>,
}

/// Transactions of the newest blocks.
#[derive(Default)]
pub(super) struct Recent {
    by_hash: HashMap<TxHash, TxInfo>,
    oldest_first: VecDeque<TxHash>,
    bytes: usize,
}

impl Shared {
    /// Remembers what became of a block's transactions.
    pub(super) fn included(&self, height: u64, txs: &[Vec<u8>], results: Vec<TxResult>) {
        let mut recent = self.recent();
        for ((index, tx), result) in (0u32..).zip(txs).zip(results) {
            recent.remember(TxInfo {
                hash: tx_hash(tx),
                height,
                index,
                tx: tx.clone(),
                result,
            });
        }
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recent {
    fn remember(&mut self, info: TxInfo) {
        let (hash, bytes) = (info.hash, info.tx.len());
        if self.by_hash.insert(hash, info).is_none() {
            self.oldest_first.push_back(hash);
            self.bytes += bytes;
        }
        while self.oldest_first.len() > REMEMBERED_TXS || self.bytes > REMEMBERED_BYTES {
            let oldest = self.oldest_first.pop_front();
            let Some(gone) = oldest.and_then(|oldest| self.by_hash.remove(&oldest)) else {
                return;
            };
            self.bytes -= gone.tx.len();
        }
    }
}

/// Talks to a running engine. Cheap to clone.
#[derive(Clone)]
pub struct CometHandle {
    shared: Arc<Shared>,
}

impl CometHandle {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The chain's genesis, as far as engines know it.
    pub fn genesis(&self) -> &Genesis {
        &self.shared.genesis
    }

    /// The newest committed height; one below the initial height before the first block.
    pub fn height(&self) -> u64 {
        *self.shared.latest.borrow()
    }

    /// Waits at most `timeout` for a block higher than `after`, and gives the newest height.
    ///
    /// # Errors
    /// [`WaitError`] if none came.
    pub async fn wait_for_height(&self, after: u64, timeout: Duration) -> Result<u64, WaitError> {
        let mut latest = self.shared.latest.subscribe();
        let reached = latest.wait_for(|height| *height > after);
        match tokio::time::timeout(timeout, reached).await {
            Ok(Ok(height)) => Ok(*height),
            Ok(Err(_)) => Err(WaitError::Stopped),
            Err(_) => Err(WaitError::TimedOut {
                after,
                waited: timeout,
            }),
        }
    }

    /// Reads committed state: what CometBFT's `abci_query` answers, also while CometBFT is away.
    ///
    /// # Errors
    /// [`ReadError`] if the state cannot be read. What the ledger refuses to answer is a
    /// [`QueryResult`] with a code.
    pub async fn query(&self, query: Query) -> Result<QueryResult, ReadError> {
        let permit = self.shared.permits.clone().acquire_owned().await;
        let permit = permit.map_err(|_| ReadError::Stopped)?;
        let shared = self.shared.clone();
        let read = tokio::task::spawn_blocking(move || {
            let answer = shared.app.query(&query);
            drop(permit);
            answer
        });
        let answer = read.await.map_err(|_| ReadError::Stopped)?;
        answer.map_err(|source| ReadError::Application { source })
    }

    /// Where a transaction is; while it waits for a block, this waits with it for at most `timeout`.
    /// One that was included long ago is unknown here, and CometBFT's index knows it.
    ///
    /// # Errors
    /// [`ReadError::Stopped`] if the engine has stopped.
    pub async fn wait_for_tx(&self, hash: TxHash, timeout: Duration) -> Result<TxState, ReadError> {
        let mut settled = self.shared.settled.subscribe();
        let deadline = Instant::now() + timeout;
        loop {
            settled.borrow_and_update();
            // In this order: a transaction leaves the mempool only after its block can be seen.
            let waits = self.shared.mempool.contains(&hash);
            if let Some(info) = self.shared.recent().by_hash.get(&hash) {
                return Ok(TxState::Included(info.clone()));
            }
            if let Some(why) = self.shared.mempool.dropped(&hash) {
                return Ok(TxState::Dropped(why));
            }
            if !waits {
                return Ok(TxState::Unknown);
            }
            match tokio::time::timeout_at(deadline, settled.changed()).await {
                Ok(Ok(())) => (),
                Ok(Err(_)) => return Err(ReadError::Stopped),
                Err(_) => return Ok(TxState::Waiting),
            }
        }
    }
}

impl std::fmt::Debug for CometHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CometHandle")
            .field("height", &self.height())
            .finish_non_exhaustive()
    }
}

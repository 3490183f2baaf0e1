//! What others see of the engine.

use std::sync::Arc;
use std::time::Duration;

use r3mes_types::Time;
use tendermint::{Hash, validator};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use crate::application::{
    Application, ApplicationError, BlockOutput, Query, QueryResult, TxHash, TxResult,
};
use crate::block::SignedBlock;
use crate::clock::Clock;
use crate::genesis::Genesis;
use crate::mempool::{AddError, Added, Mempool};
use crate::store::{BlockStore, StoreError};

/// How many commands may wait for the engine.
pub(crate) const MAX_COMMANDS: usize = 16;

/// What the engine and its handles have in common.
pub(crate) struct Shared {
    pub(crate) genesis: Arc<Genesis>,
    pub(crate) validators: validator::Set,
    pub(crate) app: Arc<dyn Application>,
    pub(crate) store: BlockStore,
    pub(crate) mempool: Mempool,
    pub(crate) clock: Arc<dyn Clock>,
    /// Bounds the threads that checks and reads take.
    pub(crate) permits: Arc<Semaphore>,
}

pub(crate) enum Command {
    MakeBlock { reply: oneshot::Sender<Latest> },
}

/// The newest block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latest {
    /// Its height; one below the initial height before the first block.
    pub height: u64,
    /// Its time.
    pub time: Time,
    /// Its header's hash; none before the first block.
    pub block_hash: Option<Hash>,
    /// The state's root after it.
    pub app_hash: [u8; 32],
}

/// How the chain stands.
#[derive(Clone, Debug)]
pub struct Status {
    /// The chain.
    pub genesis: Arc<Genesis>,
    /// The newest block.
    pub latest: Latest,
    /// Height of the oldest stored block, if there is a block.
    pub earliest: Option<u64>,
    /// Who signs.
    pub validator: validator::Info,
    /// How many transactions wait, and their bytes.
    pub waiting: (usize, usize),
}

/// A transaction in a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxInfo {
    /// Its hash.
    pub hash: TxHash,
    /// Height of the block.
    pub height: u64,
    /// Its place in the block.
    pub index: u32,
    /// Its bytes.
    pub tx: Vec<u8>,
    /// What it did.
    pub result: TxResult,
}

/// What came of a transaction that somebody waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inclusion {
    /// The application refused it before it waited.
    Refused(Added),
    /// It stands in a block; its own result may still be an error.
    Included(TxInfo),
    /// It waited and was dropped, because the state changed under it.
    Dropped(Added),
    /// It still waited when the time was over, and may still be included.
    StillWaiting(Added),
}

/// Where a transaction is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TxState {
    /// In a block; its own result may still be an error.
    Included(TxInfo),
    /// It waited and was dropped, because the state changed under it.
    Dropped(TxResult),
    /// It waits for a block.
    Waiting,
    /// Nothing is known of it: it was never sent, or it waited in a process that has ended.
    Unknown,
}

/// A transaction was not taken.
#[derive(Debug, thiserror::Error)]
pub enum BroadcastError {
    /// The mempool has no room for it, or has it.
    #[error(transparent)]
    Mempool(#[from] AddError),
    /// Blocks or results could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Something could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The engine has stopped.
    #[error("the engine has stopped: start the node again")]
    Stopped,
    /// The block store failed.
    #[error("the block store could not be read")]
    Store {
        /// Why.
        #[source]
        source: StoreError,
    },
    /// The application failed.
    #[error("the state could not be read")]
    Application {
        /// Why.
        #[source]
        source: ApplicationError,
    },
}

/// A height was not reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WaitError {
    /// No such block came in time.
    #[error("no block after {after} within {} ms", waited.as_millis())]
    TimedOut {
        /// The height to be passed.
        after: u64,
        /// How long it was waited.
        waited: Duration,
    },
    /// The engine has stopped.
    #[error("the engine has stopped: start the node again")]
    Stopped,
}

/// Talks to a running engine. Cheap to clone.
#[derive(Clone)]
pub struct ConsensusHandle {
    shared: Arc<Shared>,
    latest: watch::Receiver<Latest>,
    settled: watch::Receiver<u64>,
    commands: mpsc::Sender<Command>,
}

impl ConsensusHandle {
    pub(crate) fn new(
        shared: Arc<Shared>,
        latest: watch::Receiver<Latest>,
        settled: watch::Receiver<u64>,
        commands: mpsc::Sender<Command>,
    ) -> Self {
        Self {
            shared,
            latest,
            settled,
            commands,
        }
    }

    /// Offers a transaction: checks it, and lets it wait for a block if it is welcome.
    ///
    /// # Errors
    /// [`BroadcastError`] if there is no room for it. A transaction that the ledger refuses is
    /// [`Added`] with a code.
    pub async fn broadcast(&self, tx: Vec<u8>) -> Result<Added, BroadcastError> {
        let mut added = self.broadcast_all(vec![tx]).await?;
        Ok(added.swap_remove(0)?)
    }

    /// Offers transactions one after another, which costs less than offering each by itself.
    ///
    /// # Errors
    /// [`ReadError::Stopped`] if the engine has stopped. What came of each transaction is in its place.
    pub async fn broadcast_all(
        &self,
        txs: Vec<Vec<u8>>,
    ) -> Result<Vec<Result<Added, AddError>>, ReadError> {
        self.blocking(move |shared| {
            let now = shared.clock.now();
            shared.mempool.add_all(shared.app.as_ref(), now, txs)
        })
        .await
    }

    /// Offers a transaction and waits at most `timeout` until it stands in a block.
    ///
    /// # Errors
    /// As [`ConsensusHandle::broadcast`].
    pub async fn broadcast_and_wait(
        &self,
        tx: Vec<u8>,
        timeout: Duration,
    ) -> Result<Inclusion, BroadcastError> {
        let added = self.broadcast(tx).await?;
        if added.check.code != 0 {
            return Ok(Inclusion::Refused(added));
        }
        Ok(match self.wait_for_tx(added.hash, timeout).await? {
            TxState::Included(info) => Inclusion::Included(info),
            TxState::Dropped(check) => Inclusion::Dropped(Added { check, ..added }),
            TxState::Waiting | TxState::Unknown => Inclusion::StillWaiting(added),
        })
    }

    /// Where a transaction is; while it waits for a block, this waits with it for at most `timeout`.
    ///
    /// # Errors
    /// [`ReadError`] if blocks cannot be read or the engine has stopped.
    pub async fn wait_for_tx(&self, hash: TxHash, timeout: Duration) -> Result<TxState, ReadError> {
        let mut settled = self.settled.clone();
        let deadline = tokio::time::Instant::now() + timeout;
        loop {
            settled.borrow_and_update();
            // In this order: a transaction leaves the mempool only after its block can be seen.
            let waits = self.shared.mempool.contains(&hash);
            if let Some(info) = self.tx(hash).await? {
                return Ok(TxState::Included(info));
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

    /// Reads committed state.
    ///
    /// # Errors
    /// [`ReadError`] if the state cannot be read. What the ledger refuses to answer is a
    /// [`QueryResult`] with a code.
    pub async fn query(&self, query: Query) -> Result<QueryResult, ReadError> {
        self.blocking(move |shared| shared.app.query(&query))
            .await?
            .map_err(|source| ReadError::Application { source })
    }

    /// How the chain stands.
    ///
    /// # Errors
    /// [`ReadError`] if the block store cannot be read, here and below.
    pub async fn status(&self) -> Result<Status, ReadError> {
        let earliest = self.read(|store| store.base()).await?;
        let validators = self.shared.validators.validators();
        Ok(Status {
            genesis: self.shared.genesis.clone(),
            latest: self.latest(),
            earliest,
            validator: validators[0].clone(),
            waiting: self.shared.mempool.size(),
        })
    }

    /// The chain's genesis, as far as engines know it.
    pub fn genesis(&self) -> &Genesis {
        &self.shared.genesis
    }

    /// The newest block.
    pub fn latest(&self) -> Latest {
        *self.latest.borrow()
    }

    /// Shows the newest block whenever there is one. Several blocks may pass between two looks: who
    /// must see all asks for their heights.
    pub fn subscribe(&self) -> watch::Receiver<Latest> {
        self.latest.clone()
    }

    /// Waits at most `timeout` for a block higher than `after`, and gives the newest.
    ///
    /// # Errors
    /// [`WaitError`] if none came or the engine stopped.
    pub async fn wait_for_height(
        &self,
        after: u64,
        timeout: Duration,
    ) -> Result<Latest, WaitError> {
        let mut latest = self.latest.clone();
        let reached = latest.wait_for(|latest| latest.height > after);
        match tokio::time::timeout(timeout, reached).await {
            Ok(Ok(latest)) => Ok(*latest),
            Ok(Err(_)) => Err(WaitError::Stopped),
            Err(_) => Err(WaitError::TimedOut {
                after,
                waited: timeout,
            }),
        }
    }

    /// The block at `height` with its commit; none if it is not there (yet).
    ///
    /// # Errors
    /// As [`ConsensusHandle::status`].
    pub async fn block(&self, height: u64) -> Result<Option<SignedBlock>, ReadError> {
        if height > self.latest().height {
            return Ok(None);
        }
        self.read(move |store| store.block(height)).await
    }

    /// The block whose header has the hash `hash`.
    ///
    /// # Errors
    /// As [`ConsensusHandle::status`].
    pub async fn block_by_hash(&self, hash: [u8; 32]) -> Result<Option<SignedBlock>, ReadError> {
        match self.read(move |store| store.height_of(&hash)).await? {
            Some(height) => self.block(height).await,
            None => Ok(None),
        }
    }

    /// What the block at `height` did.
    ///
    /// # Errors
    /// As [`ConsensusHandle::status`].
    pub async fn block_results(&self, height: u64) -> Result<Option<BlockOutput>, ReadError> {
        if height > self.latest().height {
            return Ok(None);
        }
        self.read(move |store| store.results(height)).await
    }

    /// The transaction with the hash `hash`, once it stands in a block.
    ///
    /// # Errors
    /// As [`ConsensusHandle::status`].
    pub async fn tx(&self, hash: TxHash) -> Result<Option<TxInfo>, ReadError> {
        let newest = self.latest().height;
        self.read(move |store| {
            let Some((height, index)) = store.tx(&hash)? else {
                return Ok(None);
            };
            if height > newest {
                return Ok(None);
            }
            let place = index as usize;
            let tx = store
                .block(height)?
                .and_then(|b| b.block.data.into_iter().nth(place));
            let result = store
                .results(height)?
                .and_then(|r| r.tx_results.into_iter().nth(place));
            Ok(tx.zip(result).map(|(tx, result)| TxInfo {
                hash,
                height,
                index,
                tx,
                result,
            }))
        })
        .await
    }

    /// Who signs the block at `height`; none if the height is not of this chain (yet).
    pub fn validators(&self, height: u64) -> Option<&validator::Set> {
        let known = self.shared.genesis.initial_height..=self.latest().height + 1;
        known.contains(&height).then_some(&self.shared.validators)
    }

    /// Makes a block now, whether or not something waits.
    ///
    /// # Errors
    /// [`ReadError::Stopped`] if the engine has stopped.
    pub async fn make_block(&self) -> Result<Latest, ReadError> {
        let (reply, made) = oneshot::channel();
        self.commands
            .send(Command::MakeBlock { reply })
            .await
            .map_err(|_| ReadError::Stopped)?;
        made.await.map_err(|_| ReadError::Stopped)
    }

    /// Whether a transaction waits for a block.
    pub fn is_waiting(&self, hash: &TxHash) -> bool {
        self.shared.mempool.contains(hash)
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&BlockStore) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, ReadError> {
        self.blocking(move |shared| read(&shared.store))
            .await?
            .map_err(|source| ReadError::Store { source })
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> T + Send + 'static,
    ) -> Result<T, ReadError> {
        let permits = self.shared.permits.clone();
        let permit = permits
            .acquire_owned()
            .await
            .map_err(|_| ReadError::Stopped)?;
        let (shared, span) = (self.shared.clone(), tracing::Span::current());
        tokio::task::spawn_blocking(move || {
            let done = span.in_scope(|| work(&shared));
            drop(permit);
            done
        })
        .await
        .map_err(|_| ReadError::Stopped)
    }
}

impl std::fmt::Debug for ConsensusHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConsensusHandle")
            .field("latest", &self.latest())
            .finish_non_exhaustive()
    }
}

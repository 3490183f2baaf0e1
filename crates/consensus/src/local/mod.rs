//! Engine `local`: one validator in this process.
//!
//! A block is made as soon as a transaction waits, or when the application's next deadline comes.
//! Headers, commits and hashes have CometBFT's shape, and light clients accept them. With one
//! validator there is nobody to agree with: whoever holds the key decides the order of transactions,
//! and times are this machine's.
//!
//! Validator updates of the application are recorded with the block's results and otherwise ignored:
//! the only one who can sign here is the holder of the key.

use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, watch};

use crate::application::{Application, ApplicationError};
use crate::block::{self, from_tendermint_time};
use crate::clock::{Clock, SystemClock};
use crate::genesis::Genesis;
use crate::key::ValidatorKey;
use crate::mempool::{Limits, Mempool};
use crate::store::{BlockStore, StoreError};

mod actor;
mod mailbox;
mod state;
#[cfg(test)]
mod tests;

pub use actor::Engine;
use actor::Watches;
pub use mailbox::{
    BroadcastError, ConsensusHandle, Inclusion, Latest, ReadError, Status, TxInfo, TxState,
    WaitError,
};

use mailbox::{MAX_COMMANDS, Shared};
use state::Chain;

/// Checks and reads at once for each core: some of them wait for the disk or for each other.
const PARALLEL_PER_CORE: usize = 4;

/// How the engine works; what it works on is [`Parts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// The least time between two blocks. Transactions that come meanwhile share the next one.
    pub interval: Duration,
    /// When a block with transactions, or one at a deadline, was the last for so long, an empty one
    /// follows, whose header carries the state after it: proofs of that state can be verified then. `None`: no such block.
    pub proof_block_after: Option<Duration>,
    /// Every how many blocks the state is waited for on disk; a restart after a crash executes at most
    /// so many blocks again.
    pub sync_every: u64,
    /// Bounds of the mempool.
    pub mempool: Limits,
    /// How many transactions are checked, and how many reads done, at once.
    pub parallel: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            interval: Duration::from_millis(25),
            proof_block_after: Some(Duration::from_millis(500)),
            sync_every: 16,
            mempool: Limits::default(),
            parallel: PARALLEL_PER_CORE * available_parallelism().map_or(1, usize::from),
        }
    }
}

/// What the engine works on.
pub struct Parts {
    /// The chain.
    pub genesis: Genesis,
    /// The key that signs blocks.
    pub key: ValidatorKey,
    /// What the blocks mean.
    pub app: Arc<dyn Application>,
    /// Where the blocks are kept.
    pub store: BlockStore,
    /// Where the time comes from.
    pub clock: Arc<dyn Clock>,
}

impl Parts {
    /// The usual parts, with the machine's clock.
    pub fn new(
        genesis: Genesis,
        key: ValidatorKey,
        app: Arc<dyn Application>,
        store: BlockStore,
    ) -> Self {
        Self {
            genesis,
            key,
            app,
            store,
            clock: Arc::new(SystemClock),
        }
    }
}

/// The engine cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The application failed.
    #[error("the application failed")]
    Application(#[from] ApplicationError),
    /// The block store failed.
    #[error("the chain could not be kept")]
    Store(#[from] StoreError),
    /// The store belongs to another chain.
    #[error(
        "the block store belongs to a chain with another genesis: use its own genesis, or an empty home directory"
    )]
    Genesis,
    /// The blocks were signed with another key.
    #[error("block {height} was signed by another validator key: put the chain's own key back")]
    Key {
        /// The newest block.
        height: u64,
    },
    /// The state is from a later block than the newest one stored.
    #[error(
        "the state is at height {state}, but the newest block is {blocks}: the two files are not from the same chain or copy"
    )]
    StateAhead {
        /// Height of the state.
        state: u64,
        /// Height of the newest block.
        blocks: u64,
    },
    /// A block is not there.
    #[error(
        "block {height} is missing from the block store: restore both the store and the state from one copy"
    )]
    MissingBlock {
        /// Its height.
        height: u64,
    },
    /// Executing the blocks gives another state than they say.
    #[error(
        "the state at block {height} is not the one that the chain recorded: the program or its files changed since; restore the state from a copy and use the program that made these blocks"
    )]
    Diverged {
        /// The block at which it shows.
        height: u64,
    },
    /// The application rejects the block that it prepared itself.
    #[error("the application rejects its own block {height}: {reason}")]
    OwnBlockRejected {
        /// Height of the block.
        height: u64,
        /// What it says.
        reason: String,
    },
    /// A thread of the engine panicked.
    #[error("the engine's worker thread ended: see the panic above")]
    Worker,
}

/// Opens the chain, executing again what a crash took away, and gives the engine to
/// [run](Engine::run) and the handle to use it by. Blocks the thread.
///
/// # Errors
/// [`EngineError`] if the parts do not fit together or cannot be read.
pub fn open(parts: Parts, config: Config) -> Result<(Engine, ConsensusHandle), EngineError> {
    let validators = block::validators(&parts.genesis, &parts.key);
    let genesis = Arc::new(parts.genesis);
    let chain = Chain::open(
        genesis.clone(),
        parts.key,
        parts.app.clone(),
        parts.store.clone(),
        config.sync_every.max(1),
    )?;
    let latest = latest(&chain)?;
    let (latest_sender, latest) = watch::channel(latest);
    let (command_sender, commands) = mpsc::channel(MAX_COMMANDS);
    let shared = Arc::new(Shared {
        genesis,
        validators,
        app: parts.app,
        store: parts.store,
        mempool: Mempool::new(config.mempool),
        clock: parts.clock.clone(),
        permits: Arc::new(Semaphore::new(config.parallel.max(1))),
    });
    let (settled_sender, settled) = watch::channel(chain.tip.height);
    let watches = Watches {
        latest: latest_sender,
        settled: settled_sender,
    };
    let handle = ConsensusHandle::new(shared.clone(), latest, settled, command_sender);
    let engine = Engine::new(chain, shared, parts.clock, config, watches, commands);
    Ok((engine, handle))
}

/// What the newest block is, for those who follow the chain.
fn latest(chain: &Chain) -> Result<Latest, EngineError> {
    let tip = &chain.tip;
    let block_time = match chain.store.block(tip.height)? {
        Some(signed) => from_tendermint_time(signed.block.header.time),
        None => chain.genesis.time,
    };
    Ok(Latest {
        height: tip.height,
        time: block_time,
        block_hash: tip.signed.as_ref().map(|(id, _)| id.hash),
        app_hash: tip.app_hash,
    })
}

//! Engine `cometbft`: the program CometBFT 0.38 orders and agrees; the application answers it over
//! ABCI 2.0.
//!
//! [`open`] gives an engine that listens for CometBFT's connections, and a handle by which others
//! follow what is committed. [`home`] writes the files that CometBFT starts from. Blocks, votes, peers
//! and evidence are CometBFT's; what a block means is the [`Application`]'s, the same as under engine
//! [`local`](crate::local).

use std::io;
use std::sync::Arc;

use tokio::sync::{Semaphore, watch};

use crate::application::{Application, ApplicationError};
use crate::clock::{Clock, SystemClock};
use crate::genesis::Genesis;
use crate::mempool::{Limits, Mempool};

mod actor;
mod convert;
pub mod home;
mod mailbox;
mod signed;
pub mod signer;
mod snapshots;
mod state;
mod wire;

pub use actor::{Engine, Listener, remove_socket};
pub use convert::Malformed;
pub use mailbox::CometHandle;
pub use snapshots::SnapshotOptions;

use mailbox::{Recent, Shared};
use state::Driver;

/// What the application calls itself.
const NAME: &str = "r3mes";
/// How many reads of the state are done at once.
const MAX_READS: usize = 64;
/// Type of the proof operation in answers to queries.
pub const PROOF_TYPE: &str = "ics23:jmt";

/// What the engine works on.
pub struct Parts {
    /// The chain.
    pub genesis: Genesis,
    /// What the blocks mean.
    pub app: Arc<dyn Application>,
    /// Where the time comes from, for checks of waiting transactions; blocks bring their own.
    pub clock: Arc<dyn Clock>,
    /// Bounds of the mempool; [`home`] gives CometBFT the same.
    pub mempool: Limits,
    /// Snapshots for who joins; none are made without.
    pub snapshots: Option<SnapshotOptions>,
    /// How many of the newest blocks CometBFT keeps; all of them without. What evidence may still be
    /// about it keeps in any case.
    pub keep_blocks: Option<u64>,
}

impl Parts {
    /// The usual parts, with the machine's clock.
    pub fn new(genesis: Genesis, app: Arc<dyn Application>) -> Self {
        Self {
            genesis,
            app,
            clock: Arc::new(SystemClock),
            mempool: Limits::default(),
            snapshots: None,
            keep_blocks: None,
        }
    }
}

/// The engine cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The application failed.
    #[error("the application failed")]
    Application(#[from] ApplicationError),
    /// CometBFT asked what it never asks.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// CometBFT was started with another genesis.
    #[error(
        "CometBFT begins the chain {theirs:?}, but the ledger's genesis is of {ours:?}, or their times or initial heights differ: give CometBFT the genesis that this node wrote"
    )]
    Genesis {
        /// CometBFT's chain.
        theirs: String,
        /// The ledger's.
        ours: String,
    },
    /// CometBFT's genesis names other validators than the ledger's.
    #[error(
        "the validators of CometBFT's genesis are not those of the ledger's: give CometBFT the genesis that this node wrote"
    )]
    Validators,
    /// The address CometBFT connects to failed.
    #[error("CometBFT cannot be listened for")]
    Listen(#[source] io::Error),
    /// A thread of the engine panicked.
    #[error("the engine's worker thread ended: see the panic above")]
    Worker,
}

/// Opens the application for CometBFT, and gives the engine to [run](Engine::run) and the handle to
/// use it by. Blocks the thread.
///
/// # Errors
/// [`EngineError::Application`] if the state cannot be read.
pub fn open(parts: Parts) -> Result<(Engine, CometHandle), EngineError> {
    let before_first = parts.genesis.initial_height - 1;
    let committed = parts.app.committed()?;
    let height = committed.map_or(before_first, |committed| committed.height);
    let shared = Arc::new(Shared {
        genesis: parts.genesis,
        app: parts.app,
        mempool: Mempool::new(parts.mempool),
        clock: parts.clock,
        latest: watch::Sender::new(height),
        settled: watch::Sender::new(height),
        recent: Recent::default().into(),
        permits: Arc::new(Semaphore::new(MAX_READS)),
    });
    let handle = CometHandle::new(shared.clone());
    let driver = Driver::new(shared, parts.snapshots, parts.keep_blocks);
    Ok((Engine::new(driver), handle))
}

//! The loop that makes blocks.

use std::collections::HashSet;
use std::sync::Arc;

use r3mes_types::Time;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::block::SignedBlock;
use crate::clock::Clock;
use crate::local::mailbox::{Command, Latest, Shared};
use crate::local::state::Chain;
use crate::local::{Config, EngineError, latest};

/// Makes blocks until it is told to stop.
pub struct Engine {
    /// Away while a block is made on another thread.
    chain: Option<Chain>,
    shared: Arc<Shared>,
    schedule: Schedule,
    latest: Arc<watch::Sender<Latest>>,
    /// The height up to which the mempool has been sorted out.
    settled: watch::Sender<u64>,
    commands: mpsc::Receiver<Command>,
}

/// When the next block is due.
struct Schedule {
    shared: Arc<Shared>,
    clock: Arc<dyn Clock>,
    config: Config,
    /// When the next block is due although no transaction waits.
    deadline: Option<Time>,
    /// When the last block was made.
    last: Option<Instant>,
    /// Whether the last block had transactions other than the proposer's own, or came at a deadline.
    proof_pending: bool,
}

/// What the engine tells its handles.
pub(crate) struct Watches {
    pub(crate) latest: watch::Sender<Latest>,
    pub(crate) settled: watch::Sender<u64>,
}

/// What came of making one block.
struct Made {
    chain: Chain,
    latest: Latest,
    deadline: Option<Time>,
    /// How many of the mempool's transactions are in it.
    included: usize,
}

impl Engine {
    pub(crate) fn new(
        chain: Chain,
        shared: Arc<Shared>,
        clock: Arc<dyn Clock>,
        config: Config,
        watches: Watches,
        commands: mpsc::Receiver<Command>,
    ) -> Self {
        Self {
            chain: Some(chain),
            schedule: Schedule {
                shared: shared.clone(),
                clock,
                config,
                deadline: None,
                last: None,
                proof_pending: false,
            },
            shared,
            latest: Arc::new(watches.latest),
            settled: watches.settled,
            commands,
        }
    }

    /// Makes blocks until `shutdown`, then waits until everything is on disk.
    ///
    /// # Errors
    /// [`EngineError`] if the application or a file fails; the engine can be opened again on the same
    /// files then.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), EngineError> {
        self.schedule.deadline = self.shared.app.next_deadline()?;
        loop {
            let reply = tokio::select! {
                () = shutdown.cancelled() => break,
                Some(Command::MakeBlock { reply }) = self.commands.recv() => Some(reply),
                () = self.schedule.next_block_due() => None,
            };
            let latest = self.make_block().await?;
            if let Some(reply) = reply {
                // Whoever asked may have gone.
                let _ = reply.send(latest);
            }
        }
        let chain = self.chain.take().ok_or(EngineError::Worker)?;
        blocking(move || chain.sync()).await?
    }

    async fn make_block(&mut self) -> Result<Latest, EngineError> {
        let mut chain = self.chain.take().ok_or(EngineError::Worker)?;
        let shared = self.shared.clone();
        let published = self.latest.clone();
        let now = self.schedule.clock.now();
        let due = self
            .schedule
            .deadline
            .is_some_and(|deadline| deadline <= now);
        let made = blocking(move || {
            let _making =
                tracing::info_span!("consensus.block.make", height = chain.tip.height + 1)
                    .entered();
            let (signed, included) = make_block(&mut chain, &shared, now)?;
            let newest = latest(&chain)?;
            published.send_replace(newest);
            settle(&chain, &shared, now, &signed)?;
            let deadline = shared.app.next_deadline()?;
            Ok::<_, EngineError>(Made {
                chain,
                latest: newest,
                deadline,
                included,
            })
        })
        .await??;
        self.chain = Some(made.chain);
        self.schedule.deadline = made.deadline;
        self.schedule.proof_pending = made.included > 0 || due;
        self.schedule.last = Some(Instant::now());
        self.settled.send_replace(made.latest.height);
        Ok(made.latest)
    }
}

impl Schedule {
    /// Done when it is time for the next block.
    async fn next_block_due(&self) {
        let now = Instant::now();
        let spaced = self.last.map_or(now, |last| last + self.config.interval);
        let deadline = async {
            match self.deadline {
                Some(deadline) => self.clock.sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        let proof = async {
            match (self.config.proof_block_after, self.last) {
                (Some(after), Some(last)) if self.proof_pending => {
                    tokio::time::sleep_until(last + after).await;
                }
                _ => std::future::pending().await,
            }
        };
        let tx = async {
            // A permit is left behind by every addition, also by one whose transaction is gone again.
            while self.shared.mempool.size().0 == 0 {
                self.shared.mempool.added.notified().await;
            }
        };
        tokio::select! {
            () = tx => (),
            () = deadline => (),
            () = proof => (),
        }
        tokio::time::sleep_until(spaced).await;
    }
}

/// Makes one block of what waits; the block, and how many of the waiting transactions are in it.
fn make_block(
    chain: &mut Chain,
    shared: &Shared,
    now: Time,
) -> Result<(SignedBlock, usize), EngineError> {
    let started = std::time::Instant::now();
    let candidates = shared.mempool.candidates(chain.genesis.max_block_bytes);
    let signed = chain.propose(now, &candidates)?;
    chain.save(&signed)?;
    let output = chain.execute(&signed)?;
    chain.record(&signed, &output)?;
    chain.commit(&signed, &output)?;

    let txs: HashSet<&[u8]> = signed.block.data.iter().map(Vec::as_slice).collect();
    let offered = candidates.iter().filter(|tx| txs.contains(tx.as_slice()));
    let included = offered.count();
    if let (0, Some(first)) = (included, candidates.first()) {
        // It had a whole block to itself and was left out; it would make empty blocks for ever.
        shared.mempool.drop_unfit(first);
    }
    tracing::debug!(
        height = signed.height(),
        txs = signed.block.data.len(),
        bytes = signed.size,
        micros = started.elapsed().as_micros() as u64,
        "consensus.block.made"
    );
    Ok((signed, included))
}

/// Sorts out the mempool after a block that everybody can see by now.
fn settle(
    chain: &Chain,
    shared: &Shared,
    now: Time,
    signed: &SignedBlock,
) -> Result<(), EngineError> {
    let txs = &signed.block.data;
    Ok(shared.mempool.committed(chain.app.as_ref(), now, txs)?)
}

/// Runs what may block on a thread for that.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, EngineError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| EngineError::Worker)
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let latest = *self.latest.borrow();
        f.debug_struct("Engine")
            .field("latest", &latest)
            .finish_non_exhaustive()
    }
}

//! Does what the plan says: the one place where a training role's actions meet model, disk and network.

use std::path::PathBuf;

use anyhow::Context as _;
use r3mes_exact::Isa;
use r3mes_gateway::rpc::TxClient;
use r3mes_training::{
    agent::{Action, Facts, Fetched, RoundKey},
    state::StepState,
};
use r3mes_types::{
    Message,
    training::{Backend, MinerPackage},
};
use zeroize::Zeroizing;

use super::{aggregation, bench::Bench, context::Context, method::Method};

/// A training role's tools.
pub(super) struct Workshop {
    /// Identity, ledger, blobs.
    pub(super) agent: Context,
    /// Model, shards and memory.
    pub(super) bench: Bench,
    /// Where work is kept between restarts.
    pub(super) root: PathBuf,
    /// Whether work is flushed to the disk before it counts as kept.
    pub(super) durable: bool,
    /// What commitment salts derive from.
    pub(super) secret: Zeroizing<[u8; 32]>,
    /// How a miner comes by its states.
    pub(super) method: Method,
    /// What the kernels run on.
    pub(super) isa: Isa,
    /// Signs and sends.
    pub(super) sender: TxClient,
}

impl Workshop {
    /// Does one action and keeps its outcome in `facts`. Nothing is kept when the process is shutting
    /// down in the middle.
    ///
    /// # Errors
    /// When something cannot be fetched, computed, stored or sent; planned again, it goes on.
    pub(super) async fn execute(
        &mut self,
        facts: &mut Facts,
        action: Action,
    ) -> anyhow::Result<()> {
        match action {
            Action::Send(message) => {
                let message = Message::from(*message);
                let kind = message.type_url();
                let sent = self.sender.send(vec![message]).await?;
                tracing::info!(kind, height = sent.height, "answered");
            }
            Action::Train(task) => {
                if let Some(trained) = self.train(&task).await? {
                    facts.trained.insert(
                        RoundKey {
                            run: task.run,
                            round: task.round,
                        },
                        trained,
                    );
                }
                facts.forget_before(task.run, task.round.saturating_sub(1));
                self.release_before(task.run, task.round).await?;
            }
            Action::Publish {
                round,
                steps,
                feedback,
            } => {
                let trained = facts
                    .trained
                    .get_mut(&round)
                    .context("the round is not trained here")?;
                self.publish(round, trained, &steps, feedback).await?;
            }
            Action::Fetch { round, packages } => {
                let fetched = facts.fetched.entry(round).or_default();
                self.fetch(round, &packages, fetched).await;
            }
            Action::Audit(owed) => {
                let task = owed
                    .task
                    .as_ref()
                    .context("the ledger named no task to verify")?;
                let verdict = self
                    .judge(task, &owed.steps, owed.served.as_ref(), true)
                    .await?;
                facts
                    .verdicts
                    .insert((RoundKey::of(&owed), task.miner), verdict);
            }
            Action::Replay(owed) => {
                let task = owed
                    .task
                    .as_ref()
                    .context("the ledger named no task to replay")?;
                let verdict = self
                    .judge(task, &owed.steps, owed.served.as_ref(), false)
                    .await?;
                facts
                    .replays
                    .insert((RoundKey::of(&owed), task.miner), verdict);
            }
            Action::Aggregate(owed) => {
                let aggregate = aggregation::compute(&self.agent, &mut self.bench, &owed).await?;
                let round = RoundKey::of(&owed);
                facts.aggregates.insert(round, aggregate);
                facts.forget_before(round.run, round.round);
                self.release_before(round.run, round.round).await?;
            }
        }
        Ok(())
    }

    /// Fetches and pins a round's packages; what cannot be had, or is not what was recorded, is given up.
    async fn fetch(&self, round: RoundKey, packages: &[MinerPackage], fetched: &mut Fetched) {
        for package in packages {
            match aggregation::fetch_package(&self.agent, package, &pin(round)).await {
                Ok(_) => fetched.held.insert(package.miner),
                Err(error) => {
                    tracing::warn!(miner = %package.miner, "a package is not available: {error:#}");
                    fetched.given_up.insert(package.miner)
                }
            };
        }
    }

    /// Lets go of blobs of rounds whose windows have ended.
    async fn release_before(&self, run: u64, round: u32) -> anyhow::Result<()> {
        match round.checked_sub(KEPT_ROUNDS) {
            Some(round) => {
                self.agent
                    .depot
                    .release(&pin(RoundKey { run, round }))
                    .await
            }
            None => Ok(()),
        }
    }

    /// The ledger's name of the back end that computes here.
    pub(super) fn backend(&self) -> anyhow::Result<Backend> {
        let found = Backend::ALL
            .iter()
            .find(|backend| backend.name() == self.isa.name());
        found
            .copied()
            .with_context(|| format!("the ledger does not know the back end {}", self.isa))
    }
}

/// Rounds whose blobs stay pinned after they closed, so that anyone can still verify them.
const KEPT_ROUNDS: u32 = 64;

/// Pin of everything that a round needs.
pub(super) fn pin(round: RoundKey) -> String {
    format!("run-{}-round-{}", round.run, round.round)
}

/// Bytes of a stored state.
pub(super) fn state_bytes(parameters: usize) -> u64 {
    StepState::encoded_len(parameters) as u64
}

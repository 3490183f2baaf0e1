//! Re-running a miner's steps: for a panel from what it served, for the court from the public start.

use anyhow::Context as _;
use r3mes_training::{
    agent::{AuditKey, RoundKey},
    audit::{Evidence, audit},
    state::{StepState, floats_from_bytes},
};
use r3mes_types::{
    Address, Cid, Hash,
    task::Task,
    training::{Obligation, Served, Verdict},
    wire::List,
};

use super::{
    bench::fetch_adapter,
    depot::DepotError,
    workshop::{Workshop, pin, state_bytes},
};

impl Workshop {
    /// The verdict that is owed about a miner's task, as [`Workshop::judge`] finds it.
    pub(super) async fn judge_owed(
        &mut self,
        owed: &Obligation,
        believe: bool,
    ) -> anyhow::Result<(AuditKey, Verdict)> {
        let task = owed.task.as_ref().zip(AuditKey::of(owed));
        let (task, key) = task.context("the ledger named no task to judge")?;
        let verdict = self.judge(task, &owed.steps, owed.served.as_ref(), believe);
        Ok((key, verdict.await?))
    }

    /// Re-runs the audited steps. With `believe`, from the states that the miner served; without, from
    /// the round's public start.
    async fn judge(
        &mut self,
        task: &Task,
        steps: &[u32],
        served: Option<&Served>,
        believe: bool,
    ) -> anyhow::Result<Verdict> {
        self.bench
            .prepare(&self.agent.depot, &self.agent.chain, task)
            .await?;
        let pin = pin(RoundKey {
            run: task.run,
            round: task.round,
        });
        let adapter = fetch_adapter(&self.agent.depot, &task.start, &pin).await?;
        let adapter = self.bench.adapter(
            task.model,
            &task.hyper,
            &task.adapter_seed,
            adapter.as_deref(),
        )?;
        let parameters = adapter.numbers().len();
        let mut evidence = Evidence::default();
        if let Some(served) = served {
            evidence.feedback = self.served_feedback(task, served, parameters, &pin).await?;
            if believe {
                self.served_states(task, served, parameters, &pin, &mut evidence)
                    .await?;
            }
        }
        let backend = self.backend()?;
        let (job, memory) = self.bench.job(task)?;
        let start = job.start(adapter)?;
        let found = tokio::task::block_in_place(|| audit(&job, &start, steps, evidence, memory))?;
        Ok(Verdict {
            backend,
            steps: List::new(found.steps)?,
            feedback_withheld: found.feedback_withheld,
        })
    }

    /// States that can be had and are what the miner posted; the rest counts as withheld.
    async fn served_states(
        &self,
        task: &Task,
        served: &Served,
        parameters: usize,
        pin: &str,
        evidence: &mut Evidence,
    ) -> Result<(), DepotError> {
        for state in &served.states {
            let limit = state_bytes(parameters);
            let Some(bytes) = self.had(task.miner, state.cid, limit, pin).await? else {
                continue;
            };
            if Hash::of(&bytes) == state.state
                && let Ok(decoded) = StepState::decode(&bytes, parameters)
            {
                evidence.states.insert(state.step, decoded);
            }
        }
        Ok(())
    }

    /// The error feedback that the round began with, if it can be had and is the task's.
    async fn served_feedback(
        &self,
        task: &Task,
        served: &Served,
        parameters: usize,
        pin: &str,
    ) -> Result<Option<Vec<f32>>, DepotError> {
        let Some((cid, hash)) = served.feedback.zip(task.feedback) else {
            return Ok(None);
        };
        let limit = 4 * parameters as u64;
        let bytes = self.had(task.miner, cid, limit, pin).await?;
        let bytes = bytes.filter(|bytes| Hash::of(bytes) == hash);
        Ok(bytes.map(|bytes| floats_from_bytes(&bytes)))
    }

    /// A blob that a miner says it serves; none where that is not so.
    ///
    /// # Errors
    /// When something of this node failed: it says nothing of the miner.
    async fn had(
        &self,
        miner: Address,
        cid: Cid,
        limit: u64,
        pin: &str,
    ) -> Result<Option<Vec<u8>>, DepotError> {
        match self.agent.depot.get(cid, limit, Some(miner), pin).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.is_of_others() => {
                let error = anyhow::Error::new(error);
                tracing::warn!(%miner, %cid, "what should be served counts as withheld: {error:#}");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

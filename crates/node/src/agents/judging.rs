//! Re-running a miner's steps: for a panel from what it served, for the court from the public start.

use r3mes_training::{
    agent::RoundKey,
    audit::{Evidence, audit},
    state::{StepState, floats_from_bytes},
};
use r3mes_types::{
    Hash,
    task::Task,
    training::{Served, Verdict},
    wire::List,
};

use super::{
    bench::fetch_adapter,
    workshop::{Workshop, pin, state_bytes},
};

impl Workshop {
    /// Re-runs the audited steps. With `believe`, from the states that the miner served; without, from
    /// the round's public start.
    pub(super) async fn judge(
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
            evidence.feedback = self.served_feedback(task, served, parameters, &pin).await;
            if believe {
                self.served_states(task, served, parameters, &pin, &mut evidence)
                    .await;
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
    ) {
        for state in &served.states {
            let got = self
                .agent
                .depot
                .get(state.cid, state_bytes(parameters), Some(task.miner), pin)
                .await;
            let bytes = got.unwrap_or_default();
            if Hash::of(&bytes) == state.state
                && let Ok(decoded) = StepState::decode(&bytes, parameters)
            {
                evidence.states.insert(state.step, decoded);
            }
        }
    }

    /// The error feedback that the round began with, if it can be had and is the task's.
    async fn served_feedback(
        &self,
        task: &Task,
        served: &Served,
        parameters: usize,
        pin: &str,
    ) -> Option<Vec<f32>> {
        let (cid, hash) = (served.feedback?, task.feedback?);
        let limit = 4 * parameters as u64;
        let bytes = self
            .agent
            .depot
            .get(cid, limit, Some(task.miner), pin)
            .await
            .ok()?;
        (Hash::of(&bytes) == hash).then(|| floats_from_bytes(&bytes))
    }
}

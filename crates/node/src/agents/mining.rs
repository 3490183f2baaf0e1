//! Training a round, and publishing what an audit asks for.

use std::{collections::BTreeMap, ops::ControlFlow};

use anyhow::Context;
use r3mes_training::{
    adversary,
    agent::{RoundKey, Trained},
    round::{RoundProgress, run_round},
    state::{StepState, encode_floats},
};
use r3mes_types::{Hash, task::Task, training::Package};

use super::{
    bench::fetch_adapter,
    workfiles::{FinishedFiles, WorkFiles},
    workshop::{Workshop, pin},
};

impl Workshop {
    /// Trains a round, or takes it up where it was left. None when shutting down in the middle.
    pub(super) async fn train(&mut self, task: &Task) -> anyhow::Result<Option<Trained>> {
        let round = key(task);
        let files = WorkFiles::open(&self.root, task, self.durable)?;
        let old = task.feedback.and_then(|hash| files.old_feedback(&hash));
        let feedback_lost = task.feedback.is_some() && old.is_none();
        let mut task = task.clone();
        if feedback_lost {
            tracing::warn!(
                run = task.run,
                round = task.round,
                "the old error feedback is lost; starting from zero"
            );
            task.feedback = None;
        }
        let done = match files.read_result(&task.work(), task.steps, &self.secret) {
            Some(done) => Some(done),
            None => {
                self.bench
                    .prepare(&self.agent.depot, &self.agent.chain, &task)
                    .await?;
                let adapter = fetch_adapter(&self.agent.depot, &task.start, &pin(round)).await?;
                tokio::task::block_in_place(|| {
                    self.compute(&task, &files, adapter.as_deref(), old)
                })?;
                files.read_result(&task.work(), task.steps, &self.secret)
            }
        };
        let Some(FinishedFiles {
            package,
            feedback_hash,
            commitment,
        }) = done
        else {
            return Ok(None);
        };
        let (hash, bytes) = (Hash::of(&package), package.len() as u64);
        let cid = self.agent.depot.put(package, &pin(round)).await?;
        Ok(Some(Trained {
            commitment,
            package: Package {
                cid,
                hash,
                bytes,
                feedback: feedback_hash,
            },
            feedback_lost,
            served: BTreeMap::new(),
            feedback_cid: None,
        }))
    }

    fn compute(
        &mut self,
        task: &Task,
        files: &WorkFiles,
        adapter: Option<&[u8]>,
        feedback: Option<Vec<f32>>,
    ) -> anyhow::Result<()> {
        let adapter = self
            .bench
            .adapter(task.model, &task.hyper, &task.adapter_seed, adapter)?;
        let (job, memory) = self.bench.job(task)?;
        let start = job.start(adapter)?;
        if let Some(lie) = self.method.lie(task) {
            let told = adversary::lie(&job, start, feedback, &self.secret, &lie, memory)?;
            for state in &told.states {
                files.write_state(state)?;
            }
            return Ok(files.write_result(&told.finished.package_bytes, &told.finished.feedback)?);
        }
        let start_adapter = start.adapter.clone();
        let mut progress = resume(files, start)?;
        files.write_state(&progress.state)?;
        let mut stored = Ok(());
        let outcome = run_round(&job, &mut progress, memory, |progress| {
            stored = files.write_state(&progress.state);
            match stored.is_err() || self.agent.shutdown.is_cancelled() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        })?;
        stored?;
        if outcome.is_continue() {
            let done = progress.finish(&job, &start_adapter, feedback, &self.secret)?;
            files.write_result(&done.package_bytes, &done.feedback)?;
        }
        Ok(())
    }

    /// Puts states, and the error feedback that the round began with, into the blob store.
    pub(super) async fn publish(
        &self,
        round: RoundKey,
        trained: &mut Trained,
        steps: &[u32],
        feedback: bool,
    ) -> anyhow::Result<()> {
        let files = WorkFiles::of_round(&self.root, round, self.durable);
        for &step in steps {
            let bytes = files
                .read_state(u64::from(step))
                .with_context(|| format!("the state before step {step} is not stored any more"))?;
            trained
                .served
                .insert(step, self.agent.depot.put(bytes, &pin(round)).await?);
        }
        if feedback {
            let bytes = encode_floats(&files.begun_with()?);
            trained.feedback_cid = Some(self.agent.depot.put(bytes, &pin(round)).await?);
        }
        Ok(())
    }
}

/// The round as far as its stored states go, if they belong to this start.
fn resume(files: &WorkFiles, start: StepState) -> anyhow::Result<RoundProgress> {
    let parameters = start.adapter.len();
    let fresh = RoundProgress::new(start);
    let hashes = files.state_hashes();
    if hashes.len() < 2 || hashes[0] != fresh.hashes[0] {
        return Ok(fresh);
    }
    let newest = files.read_state(hashes.len() as u64 - 1)?;
    Ok(RoundProgress {
        state: StepState::decode(&newest, parameters)?,
        losses: Vec::new(),
        hashes,
    })
}

fn key(task: &Task) -> RoundKey {
    RoundKey {
        run: task.run,
        round: task.round,
    }
}

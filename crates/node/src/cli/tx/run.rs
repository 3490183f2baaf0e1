//! `r3mes tx run`: training runs.

use anyhow::Context;
use r3mes_types::{
    Hash,
    data::{DataShard, Dataset, DatasetStatus, QueryDataset},
    governance::{Change, RunEnd, RunSwitch},
    training::{MsgCreateRun, MsgEndRun, MsgPauseRun, MsgResumeRun},
    wire::{Shown, Text},
};

use super::{Account, Decision};
use crate::{
    agents::models::ModelFiles,
    cli::{
        args::{RunCommand, RunStart},
        output::Output,
    },
    plan::{Plan, Subject},
};

/// A plan with every parameter and what it means.
const EXAMPLE: &str = include_str!("../../../../../docs/run.yaml");

/// `r3mes tx run example`
pub(super) fn example(out: &Output) -> anyhow::Result<()> {
    out.show(&EXAMPLE, || EXAMPLE.to_owned())
}

impl Account<'_> {
    pub(super) async fn decide_on_run(&self, typed: &RunCommand) -> anyhow::Result<Shown> {
        let authority = self.address;
        let (decision, submit) = match typed {
            RunCommand::Start(typed) => return self.start_run(typed).await,
            RunCommand::Pause {
                run,
                reason,
                submit,
            } => {
                let alone = MsgPauseRun {
                    authority,
                    run: *run,
                    reason: Text::new(reason).context("give a shorter --reason")?,
                };
                (switch(*run, true, alone.into()), submit)
            }
            RunCommand::Resume { run, submit } => {
                let alone = MsgResumeRun {
                    authority,
                    run: *run,
                };
                (switch(*run, false, alone.into()), submit)
            }
            RunCommand::End { run, submit } => {
                let run = *run;
                let decision = Decision {
                    alone: MsgEndRun { authority, run }.into(),
                    change: Change::RunEnd(RunEnd { run }),
                    title: format!("end run {run}"),
                };
                (decision, submit)
            }
            RunCommand::Example => anyhow::bail!("the example needs no account"),
        };
        let message = self.message(self.way().await?, decision, submit)?;
        Ok(self.submit(message, submit, Vec::new()).await?)
    }

    async fn start_run(&self, typed: &RunStart) -> anyhow::Result<Shown> {
        let plan = typed.plan()?;
        let model = plan.model.as_deref();
        let model = model.context("name the model that is trained with --model")?;
        let dataset = plan.dataset;
        let dataset = dataset.context("give the number of the dataset with --dataset")?;
        let way = self.way().await?;
        let model = self.model(model).await?.spec;
        let answer = self.client.query(&QueryDataset { id: dataset }).await?;
        let found = answer.dataset.with_context(|| {
            format!("there is no dataset {dataset}; `r3mes query datasets` lists what there is")
        })?;
        suits(
            &found,
            &answer.shards,
            model.tokenizer_hash,
            plan.hyper.sequence,
        )?;
        let (depot, folder) = self.depot()?;
        let files = ModelFiles::of_command(&folder);
        let packed = files.open(&depot, &self.client, model.id).await?;
        let mut seed = [0; 32];
        getrandom::fill(&mut seed)?;
        let params = plan.params(&Subject {
            model: model.id,
            config: packed.config(),
            dataset,
            adapter_seed: Hash::from(seed),
        })?;
        let decision = Decision {
            alone: MsgCreateRun {
                authority: self.address,
                params: params.clone(),
            }
            .into(),
            change: Change::Run(params),
            title: format!("start the run {}", plan.name),
        };
        let message = self.message(way, decision, &typed.submit)?;
        let content = vec![("plan", Shown::Text(plan.to_yaml()))];
        Ok(self.submit(message, &typed.submit, content).await?)
    }
}

fn switch(run: u64, paused: bool, alone: r3mes_types::Message) -> Decision {
    let verb = if paused { "pause" } else { "resume" };
    Decision {
        alone,
        change: Change::RunSwitch(RunSwitch { run, paused }),
        title: format!("{verb} run {run}"),
    }
}

/// Refuses a dataset that rounds on it would fail for.
fn suits(
    dataset: &Dataset,
    shards: &[DataShard],
    tokenizer: Hash,
    sequence: u32,
) -> anyhow::Result<()> {
    let id = dataset.id;
    anyhow::ensure!(
        dataset.status == DatasetStatus::Adopted,
        "dataset {id} is {}: a run needs an adopted one",
        dataset.status
    );
    anyhow::ensure!(
        dataset.tokenizer_hash == tokenizer,
        "dataset {id} was made with another tokenizer than the model's: propose one with --model"
    );
    let window = u64::from(sequence) + 1;
    let short = shards.iter().position(|shard| shard.tokens < window);
    if let Some(index) = short {
        anyhow::bail!(
            "shard {index} of dataset {id} has {} tokens, and a window of hyper.sequence takes {window}: set a shorter one",
            shards[index].tokens
        );
    }
    Ok(())
}

impl RunStart {
    /// The plan: the file's, with the flags over it.
    fn plan(&self) -> anyhow::Result<Plan> {
        let mut plan = match &self.config {
            Some(path) => Plan::open(path)?,
            None => Plan::default(),
        };
        set(&mut plan.name, &self.name);
        set(&mut plan.preset, &self.preset);
        set(&mut plan.rounds, &self.rounds);
        set(&mut plan.steps, &self.steps);
        set(&mut plan.hyper.learning_rate, &self.learning_rate);
        set(
            &mut plan.reward,
            &self.reward.map(|reward| reward.to_string()),
        );
        set(&mut plan.min_miners, &self.min_miners);
        set(&mut plan.min_validators, &self.min_validators);
        set(&mut plan.audited_share, &self.audited_share);
        set(&mut plan.reaudited_share, &self.reaudited_share);
        plan.model = self.model.clone().or(plan.model);
        plan.dataset = self.dataset.or(plan.dataset);
        garde::Validate::validate(&plan).map_err(|report| {
            anyhow::anyhow!("a flag is not valid: {}", report.to_string().trim())
        })?;
        Ok(plan)
    }
}

fn set<T: Clone>(value: &mut T, typed: &Option<T>) {
    if let Some(typed) = typed {
        value.clone_from(typed);
    }
}

//! The workbench of a training role: model, shards and memory, kept between tasks.

use std::collections::BTreeMap;

use anyhow::Context;
use r3mes_exact::Cpu;
use r3mes_model::{Adapter, MemoryLimit, Model, PackedModel};
use r3mes_training::{
    dataset::Shard,
    job::{Job, adapter_layout, initial_adapter},
    step::StepMemory,
};
use r3mes_types::{
    Cid, Hash,
    task::{AdapterRef, HyperParameters, Task},
};

use super::{
    depot::{Depot, DepotError},
    models::ModelFiles,
};

/// Longest shard that is fetched, in bytes.
const MAX_SHARD_BYTES: u64 = 1 << 30;
/// Longest adapter that is fetched, in bytes.
pub const MAX_ADAPTER_BYTES: u64 = 4 * r3mes_model::MAX_ADAPTER_NUMBERS as u64;
/// Shards kept in memory; a role works on few at a time.
const MAX_KEPT_SHARDS: usize = 8;
/// Pin of the shards, which all rounds share.
const SHARED_PIN: &str = "shared";

/// What a training role computes with. One at a time: its kernels use the process's threads.
pub struct Bench {
    device: Cpu,
    memory: StepMemory<Cpu>,
    files: ModelFiles,
    models: BTreeMap<Hash, Model<Cpu>>,
    shards: BTreeMap<Cid, Shard>,
}

impl Bench {
    /// An empty bench; `memory_mb` bounds the micro-batch and changes no result.
    pub fn new(device: Cpu, memory_mb: u64, files: ModelFiles) -> Self {
        let bytes = usize::try_from(memory_mb << 20).unwrap_or(usize::MAX);
        Self {
            device,
            memory: StepMemory::new(MemoryLimit { bytes }),
            files,
            models: BTreeMap::new(),
            shards: BTreeMap::new(),
        }
    }

    /// Fetches what a task names, unless it is here.
    ///
    /// # Errors
    /// When the model or the shard cannot be had, or is not what the ledger says.
    pub async fn prepare(
        &mut self,
        depot: &Depot,
        chain: &r3mes_gateway::rpc::Client,
        task: &Task,
    ) -> anyhow::Result<()> {
        self.prepare_model(depot, chain, task.model).await?;
        if !self.shards.contains_key(&task.shard.cid) {
            let bytes = depot
                .get(task.shard.cid, MAX_SHARD_BYTES, None, SHARED_PIN)
                .await?;
            let shard = Shard::decode(&bytes)
                .with_context(|| format!("shard {} is malformed", task.shard.cid))?;
            while self.shards.len() >= MAX_KEPT_SHARDS {
                self.shards.pop_first();
            }
            self.shards.insert(task.shard.cid, shard);
        }
        Ok(())
    }

    /// Fetches a model, unless it is here.
    ///
    /// # Errors
    /// When it is not registered, cannot be had, or is not what the ledger says.
    pub async fn prepare_model(
        &mut self,
        depot: &Depot,
        chain: &r3mes_gateway::rpc::Client,
        id: Hash,
    ) -> anyhow::Result<()> {
        if !self.models.contains_key(&id) {
            self.insert(&self.files.open(depot, chain, id).await?);
        }
        Ok(())
    }

    /// Takes a model that is loaded already.
    pub fn insert(&mut self, packed: &PackedModel) {
        self.models
            .insert(packed.id(), Model::load(self.device.clone(), packed));
    }

    /// The job of a prepared task, with the memory to run it in.
    ///
    /// # Errors
    /// When the task does not fit its model or data.
    pub fn job<'a>(
        &'a mut self,
        task: &'a Task,
    ) -> anyhow::Result<(Job<'a, Cpu>, &'a mut StepMemory<Cpu>)> {
        let model = self
            .models
            .get(&task.model)
            .context("the model was not prepared")?;
        let shard = self
            .shards
            .get(&task.shard.cid)
            .context("the shard was not prepared")?;
        Ok((Job::new(model, shard, task)?, &mut self.memory))
    }

    /// The adapter that a reference names, from its bytes or drawn from the run's seed.
    ///
    /// # Errors
    /// When the bytes are no adapter of this model.
    pub fn adapter(
        &self,
        model: Hash,
        hyper: &HyperParameters,
        seed: &Hash,
        bytes: Option<&[u8]>,
    ) -> anyhow::Result<Adapter> {
        let model = self
            .models
            .get(&model)
            .context("the model was not prepared")?;
        let layout = adapter_layout(model.config(), hyper)?;
        Ok(match bytes {
            Some(bytes) => Adapter::from_bytes(&layout, bytes)?,
            None => initial_adapter(&layout, seed),
        })
    }
}

/// Bytes of the adapter that a reference names; none for the one drawn from the run's seed.
///
/// # Errors
/// When it cannot be had.
pub async fn fetch_adapter(
    depot: &Depot,
    adapter: &AdapterRef,
    pin: &str,
) -> Result<Option<Vec<u8>>, DepotError> {
    match adapter.cid {
        Some(cid) => Ok(Some(depot.get(cid, MAX_ADAPTER_BYTES, None, pin).await?)),
        None => Ok(None),
    }
}

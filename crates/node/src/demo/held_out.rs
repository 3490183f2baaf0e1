//! Held-out loss of an adapter, measured by the demonstration itself.

use r3mes_exact::Cpu;
use r3mes_model::{LoadedAdapter, MemoryLimit, Model, TrainingWorkspace};
use r3mes_training::{
    evaluate::{HeldOutLoss, held_out_loss},
    job::adapter_layout,
};
use r3mes_types::task::HyperParameters;

use crate::{
    agents,
    config::Config,
    genesis::{Founding, SEQUENCE},
};

/// Windows computed together.
const BATCH: usize = 4;
/// Of the windows of every round but the last, one in so many is measured: measuring all would take a
/// third of the machine.
const SAMPLED: usize = 4;
/// Which held-out windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// The fixed quarter that is measured each round.
    Sample,
    /// All others, measured at both ends.
    Rest,
}

/// Memory for activations, in bytes.
const MEMORY: usize = 256 << 20;

/// Measures adapters on text that no shard holds.
pub(super) struct HeldOut {
    model: Model<Cpu>,
    workspace: TrainingWorkspace<Cpu>,
}

impl HeldOut {
    /// Loads the base model that comes with the binary.
    pub(super) fn new(config: &Config) -> anyhow::Result<Self> {
        let bytes = r3mes_exact::Bytes::from_slice(crate::assets::BASE_MODEL);
        let packed = r3mes_model::PackedModel::from_bytes(&bytes)?;
        Ok(Self {
            model: Model::load(agents::device(config)?, &packed),
            workspace: TrainingWorkspace::new(MemoryLimit { bytes: MEMORY }),
        })
    }

    /// Numbers of an adapter: what a dense update would carry.
    pub(super) fn parameters(&self, hyper: &HyperParameters) -> anyhow::Result<u64> {
        Ok(adapter_layout(self.model.config(), hyper)?.len() as u64)
    }

    /// Loss over a part of the held-out windows; of the base model alone without an adapter's bytes.
    pub(super) fn loss(
        &mut self,
        founding: &Founding,
        hyper: &HyperParameters,
        adapter: Option<&[u8]>,
        part: Part,
    ) -> anyhow::Result<HeldOutLoss> {
        let layout = adapter_layout(self.model.config(), hyper)?;
        let loaded = match adapter {
            Some(bytes) => {
                let adapter = r3mes_model::Adapter::from_bytes(&layout, bytes)?;
                Some(LoadedAdapter::new(self.model.device(), &layout, &adapter)?)
            }
            None => None,
        };
        let wanted = |index| (part == Part::Sample) == (index % SAMPLED == 0);
        let texts = founding.held_out.iter().map(|text| {
            let windows = text.windows(SEQUENCE).enumerate();
            let windows = windows.filter(|&(index, _)| wanted(index));
            windows.map(|(_, window)| window).collect()
        });
        let texts: Vec<Vec<&[u32]>> = texts.collect();
        Ok(held_out_loss(
            &self.model,
            loaded.as_ref(),
            &texts,
            BATCH,
            &mut self.workspace,
        )?)
    }
}

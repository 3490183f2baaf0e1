//! Held-out loss of an adapter, measured by the demonstration itself.

use r3mes_exact::Cpu;
use r3mes_model::{LoadedAdapter, MemoryLimit, Model, TrainingWorkspace};
use r3mes_training::{
    evaluate::{HeldOutLoss, held_out_loss},
    job::adapter_layout,
};
use r3mes_types::task::HyperParameters;
use tokio_util::sync::CancellationToken;

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
    shutdown: CancellationToken,
}

impl HeldOut {
    /// Loads the base model that comes with the binary. What is measured when `shutdown` comes is given up.
    pub(super) fn new(config: &Config, shutdown: CancellationToken) -> anyhow::Result<Self> {
        let bytes = r3mes_exact::Bytes::from_slice(crate::assets::BASE_MODEL);
        let packed = r3mes_model::PackedModel::from_bytes(&bytes)?;
        Ok(Self {
            model: Model::load(agents::device(config)?, &packed),
            workspace: TrainingWorkspace::new(MemoryLimit { bytes: MEMORY }),
            shutdown,
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
        let (model, workspace) = (&self.model, &mut self.workspace);
        let mut measure =
            |texts: &[Vec<&[u32]>]| held_out_loss(model, loaded.as_ref(), texts, BATCH, workspace);
        // Of each text no more at once than is computed together, so that whoever waits is not kept.
        let mut texts = vec![Vec::new(); founding.held_out.len()];
        let mut total = measure(&texts)?;
        for (text, held_out) in founding.held_out.iter().enumerate() {
            let windows = held_out.windows(SEQUENCE).enumerate();
            let windows = windows.filter(|&(index, _)| wanted(index));
            let windows: Vec<&[u32]> = windows.map(|(_, window)| window).collect();
            for together in windows.chunks(BATCH) {
                anyhow::ensure!(!self.shutdown.is_cancelled(), "stopped while measuring");
                texts[text] = together.to_vec();
                total.add(&measure(&texts)?);
            }
            texts[text].clear();
        }
        Ok(total)
    }
}

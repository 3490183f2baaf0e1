//! The training run that a network of one's own begins with.

use r3mes_training::presets;
use r3mes_types::{
    Amount, Millis, Ppm,
    training::{Penalties, Preset, RunParams, Split, Windows},
    wire::{List, Text},
};

use crate::genesis::Founding;

/// How long a phase waits for those who do not answer, in seconds. Phases end as soon as all have, so
/// this is for processes that died; on a slow or busy machine nobody honest may miss it.
pub const PATIENCE: u64 = 300;
/// Newly issued for each round.
const REWARD: Amount = Amount::remes(3);
/// What a false claim of a miner costs: enough that lying does not pay when a third is audited.
const MINER_PENALTY: Amount = Amount::remes(50);
/// What a refuted verdict or a wrong aggregate costs.
const OTHER_PENALTY: Amount = Amount::remes(10);

/// What differs from run to run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Rounds.
    pub rounds: u32,
    /// Share of the miners that is audited.
    pub audited_share: Ppm,
    /// Miners that a round waits for.
    pub min_miners: u32,
    /// Most miners of a round.
    pub max_miners: u32,
    /// Validators that a round waits for.
    pub min_validators: u32,
}

impl Plan {
    /// The parameters of the run.
    ///
    /// # Errors
    /// When the hyper-parameters do not fit the model.
    pub fn params(&self, founding: &Founding) -> anyhow::Result<RunParams> {
        let (hyper, learning_rates) = presets::demonstration(self.rounds);
        let patience = Millis::new(PATIENCE * 1000);
        Ok(RunParams {
            name: Text::new("demonstration")?,
            model: founding.model.id,
            exact_version: r3mes_training::job::EXACT_VERSION,
            dataset: founding.dataset,
            steps: presets::DEMONSTRATION_STEPS,
            initial: founding.initial_adapter(&hyper)?,
            hyper,
            learning_rates: List::new(learning_rates)?,
            rounds: self.rounds,
            reward: REWARD,
            split: Split {
                miners: Ppm::percent(70),
                validators: Ppm::percent(20),
                proposer: Ppm::percent(5),
                treasury: Ppm::percent(5),
            },
            panel: 1,
            drawn_steps: 1,
            audited_share: self.audited_share,
            min_miners: self.min_miners,
            max_miners: self.max_miners,
            min_validators: self.min_validators,
            proposers: 1,
            windows: Windows {
                commit: patience,
                reveal: patience,
                availability: patience,
                serve: patience,
                verify: patience,
                verdict: patience,
                open: patience,
                court: patience,
                aggregate: patience,
            },
            penalties: Penalties {
                miner: MINER_PENALTY,
                validator: OTHER_PENALTY,
                proposer: OTHER_PENALTY,
            },
            kept_rounds: self.rounds,
            preset: Preset::Demonstration,
            adapter_seed: founding.adapter_seed,
            // Second audits would have miners keep the states of every round, on a machine of one's own.
            reaudited_share: Ppm::ZERO,
        })
    }
}

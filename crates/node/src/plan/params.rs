//! What the ledger takes a plan as.

use anyhow::Context;
use r3mes_model::ModelConfig;
use r3mes_training::{
    job::{EXACT_VERSION, adapter_layout, initial_adapter},
    package::Shape,
    presets,
    state::StepState,
};
use r3mes_types::{
    Hash, Millis, Ppm,
    task::{AdapterRef, F32Bits, HyperParameters, Targets},
    training::{self, RunParams},
    wire::{List, Text},
};

use super::{Hyper, Plan, Preset};

/// What a run trains.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The model's id.
    pub model: Hash,
    /// Its shape.
    pub config: &'a ModelConfig,
    /// The dataset.
    pub dataset: u64,
    /// Seed of the first adapter, where the plan names none.
    pub adapter_seed: Hash,
}

impl Plan {
    /// The parameters of the run, as the ledger takes them.
    ///
    /// # Errors
    /// When they do not fit the model, or the ledger would refuse them.
    pub fn params(&self, subject: &Subject<'_>) -> anyhow::Result<RunParams> {
        let hyper = self.hyper.bits()?;
        anyhow::ensure!(
            hyper.sequence as usize <= subject.config.context,
            "hyper.sequence is {}: the model's context has {} tokens",
            hyper.sequence,
            subject.config.context
        );
        let adapter_seed = match &self.adapter_seed {
            Some(digits) => digits.parse()?,
            None => subject.adapter_seed,
        };
        let rates = self.learning_rates();
        let windows = &self.windows_s;
        let params = RunParams {
            name: Text::new(&self.name)?,
            model: subject.model,
            exact_version: EXACT_VERSION,
            dataset: subject.dataset,
            steps: self.steps,
            initial: first_adapter(subject.config, &hyper, &adapter_seed)?,
            hyper,
            learning_rates: List::new(rates).with_context(|| {
                format!(
                    "a rate for each of {} rounds is too much: give learning_rates of at most {} entries, or set learning_rate_falls_to to 1",
                    self.rounds,
                    training::MAX_LEARNING_RATES
                )
            })?,
            rounds: self.rounds,
            reward: self.reward.parse()?,
            split: training::Split {
                miners: share(self.split.miners)?,
                validators: share(self.split.validators)?,
                proposer: share(self.split.proposer)?,
                treasury: share(self.split.treasury)?,
            },
            panel: self.panel,
            drawn_steps: self.drawn_steps,
            audited_share: share(self.audited_share)?,
            min_miners: self.min_miners,
            max_miners: self.max_miners,
            min_validators: self.min_validators,
            proposers: self.proposers,
            windows: training::Windows {
                commit: Millis::seconds(windows.commit),
                reveal: Millis::seconds(windows.reveal),
                availability: Millis::seconds(windows.availability),
                serve: Millis::seconds(windows.serve),
                verify: Millis::seconds(windows.verify),
                verdict: Millis::seconds(windows.verdict),
                open: Millis::seconds(windows.open),
                court: Millis::seconds(windows.court),
                aggregate: Millis::seconds(windows.aggregate),
            },
            penalties: training::Penalties {
                miner: self.penalties.miner.parse()?,
                validator: self.penalties.validator.parse()?,
                proposer: self.penalties.proposer.parse()?,
            },
            kept_rounds: self.kept_rounds,
            preset: match self.preset {
                Preset::Production => training::Preset::Production,
                Preset::Demonstration => training::Preset::Demonstration,
            },
            adapter_seed,
            reaudited_share: share(self.reaudited_share)?,
        };
        r3mes_ledger::training::check_params(&params)?;
        Ok(params)
    }

    fn learning_rates(&self) -> Vec<F32Bits> {
        match &self.learning_rates {
            Some(rates) => rates.iter().map(|rate| bits(*rate)).collect(),
            None if self.learning_rate_falls_to == 1.0 => Vec::new(),
            None => presets::linear_decay(
                decimal(self.hyper.learning_rate),
                decimal(self.learning_rate_falls_to),
                self.rounds,
            ),
        }
    }
}

impl Hyper {
    fn bits(&self) -> anyhow::Result<HyperParameters> {
        let targets = Targets::NAMES.iter().enumerate();
        let targets = targets.filter(|(_, name)| self.targets.iter().any(|named| named == *name));
        let set = targets.fold(0, |set, (index, _)| set | 1 << index);
        Ok(HyperParameters {
            batch: self.batch,
            sequence: self.sequence,
            rank: self.rank,
            alpha: bits(self.alpha),
            targets: Targets::from_bits(set).context("hyper.targets names no linear layer")?,
            learning_rate: bits(self.learning_rate),
            beta1: bits(self.beta1),
            beta2: bits(self.beta2),
            c1: bits(self.c1.unwrap_or_else(|| rest(self.beta1))),
            c2: bits(self.c2.unwrap_or_else(|| rest(self.beta2))),
            epsilon: bits(self.epsilon),
            weight_decay: bits(self.weight_decay),
            chunk: self.chunk,
            top_k: self.top_k,
            decay: bits(self.decay),
        })
    }
}

/// The adapter that the first round starts from: drawn from the seed.
fn first_adapter(
    model: &ModelConfig,
    hyper: &HyperParameters,
    seed: &Hash,
) -> anyhow::Result<AdapterRef> {
    let layout = adapter_layout(model, hyper)?;
    Shape::new(layout.len(), hyper.chunk as usize, hyper.top_k as usize)?;
    let adapter = initial_adapter(&layout, seed);
    Ok(AdapterRef {
        cid: None,
        adapter: adapter.hash(),
        state: StepState::start(adapter.into_numbers()).hash(),
    })
}

fn bits(number: f32) -> F32Bits {
    F32Bits(number.to_bits())
}

/// The number that was written, not the f32 next to it: 1 - 0.9 is to be 0.1.
fn decimal(number: f32) -> f64 {
    let written = number.to_string().parse();
    written.expect("the digits of a number are those of a number")
}

/// What is left of one.
fn rest(number: f32) -> f32 {
    (1.0 - decimal(number)) as f32
}

/// A fraction of one in millionths.
fn share(fraction: f64) -> anyhow::Result<Ppm> {
    let millionths = (fraction * f64::from(Ppm::ONE.millionths())).round();
    Ppm::new(millionths as u32).with_context(|| format!("{fraction} is more than one"))
}

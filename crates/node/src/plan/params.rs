//! What the ledger takes a plan as.

use std::error::Error;

use r3mes_ledger::training::check_params;
use r3mes_model::{AdapterError, ModelConfig};
use r3mes_training::{
    job::{EXACT_VERSION, adapter_layout, initial_adapter},
    package::{Shape, ShapeError},
    presets,
    state::StepState,
};
use r3mes_types::{
    Hash, Millis, Ppm,
    task::{AdapterRef, F32Bits, HyperParameters, Targets},
    training::{self, RunParams},
    wire::{DecodeError, List, Text},
};

use super::{Hyper, Penalties, Plan, Preset, Split, Windows};

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

/// Why a plan does not fit its model, or the ledger would refuse it.
#[derive(Debug, thiserror::Error)]
pub enum ParamsError {
    /// The model takes shorter sequences.
    #[error("hyper.sequence is {sequence}: the model's context has {context} tokens")]
    Sequence {
        /// Tokens of a sequence.
        sequence: u32,
        /// Tokens that the model takes.
        context: usize,
    },
    /// Nothing would be trained.
    #[error("hyper.targets names no linear layer")]
    Targets,
    /// The ledger keeps a learning rate for each of fewer rounds.
    #[error(
        "a rate for each of {rounds} rounds is too much: give learning_rates of at most {} entries, or set learning_rate_falls_to to 1",
        training::MAX_LEARNING_RATES
    )]
    Rates {
        /// Rounds of the plan.
        rounds: u32,
        /// What the ledger's list says.
        #[source]
        source: DecodeError,
    },
    /// What is written in one place is not what must be there.
    #[error("{field} cannot be taken")]
    Field {
        /// Its name in the plan.
        field: &'static str,
        /// What is wrong with it.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// A share is none.
    #[error("{field} is {share}, and a share is at most one")]
    Share {
        /// Its name in the plan.
        field: &'static str,
        /// The share.
        share: f64,
    },
    /// The model cannot carry the adapter.
    #[error("the model cannot carry an adapter of these hyper-parameters")]
    Adapter {
        /// Why not.
        #[from]
        source: AdapterError,
    },
    /// The adapter cannot be compressed so.
    #[error("the adapter cannot be compressed with this hyper.chunk and hyper.top_k")]
    Package {
        /// Why not.
        #[from]
        source: ShapeError,
    },
    /// The ledger's own rules.
    #[error(transparent)]
    Ledger(#[from] r3mes_ledger::training::ParamsError),
}

impl Plan {
    /// The parameters of the run, as the ledger takes them.
    ///
    /// # Errors
    /// When they do not fit the model, or the ledger would refuse them.
    pub fn params(&self, subject: &Subject<'_>) -> Result<RunParams, ParamsError> {
        let hyper = self.hyper.bits()?;
        if hyper.sequence as usize > subject.config.context {
            return Err(ParamsError::Sequence {
                sequence: hyper.sequence,
                context: subject.config.context,
            });
        }
        let adapter_seed = match &self.adapter_seed {
            Some(digits) => digits.parse().map_err(wrong("adapter_seed"))?,
            None => subject.adapter_seed,
        };
        let rates = List::new(self.learning_rates()).map_err(|source| ParamsError::Rates {
            rounds: self.rounds,
            source,
        })?;
        let params = RunParams {
            name: Text::new(&self.name).map_err(wrong("name"))?,
            model: subject.model,
            exact_version: EXACT_VERSION,
            dataset: subject.dataset,
            steps: self.steps,
            initial: first_adapter(subject.config, &hyper, &adapter_seed)?,
            hyper,
            learning_rates: rates,
            rounds: self.rounds,
            reward: self.reward.parse().map_err(wrong("reward"))?,
            split: self.split.shares()?,
            panel: self.panel,
            drawn_steps: self.drawn_steps,
            audited_share: share("audited_share", self.audited_share)?,
            min_miners: self.min_miners,
            max_miners: self.max_miners,
            min_validators: self.min_validators,
            proposers: self.proposers,
            windows: self.windows_s.lengths(),
            penalties: self.penalties.amounts()?,
            kept_rounds: self.kept_rounds,
            preset: match self.preset {
                Preset::Production => training::Preset::Production,
                Preset::Demonstration => training::Preset::Demonstration,
            },
            adapter_seed,
            reaudited_share: share("reaudited_share", self.reaudited_share)?,
        };
        check_params(&params)?;
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
    fn bits(&self) -> Result<HyperParameters, ParamsError> {
        let targets = Targets::NAMES.iter().enumerate();
        let targets = targets.filter(|(_, name)| self.targets.iter().any(|named| named == *name));
        let set = targets.fold(0, |set, (index, _)| set | 1 << index);
        Ok(HyperParameters {
            batch: self.batch,
            sequence: self.sequence,
            rank: self.rank,
            alpha: bits(self.alpha),
            targets: Targets::from_bits(set).ok_or(ParamsError::Targets)?,
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

impl Split {
    fn shares(&self) -> Result<training::Split, ParamsError> {
        Ok(training::Split {
            miners: share("split.miners", self.miners)?,
            validators: share("split.validators", self.validators)?,
            proposer: share("split.proposer", self.proposer)?,
            treasury: share("split.treasury", self.treasury)?,
        })
    }
}

impl Windows {
    fn lengths(&self) -> training::Windows {
        training::Windows {
            commit: Millis::seconds(self.commit),
            reveal: Millis::seconds(self.reveal),
            availability: Millis::seconds(self.availability),
            serve: Millis::seconds(self.serve),
            verify: Millis::seconds(self.verify),
            verdict: Millis::seconds(self.verdict),
            open: Millis::seconds(self.open),
            court: Millis::seconds(self.court),
            aggregate: Millis::seconds(self.aggregate),
        }
    }
}

impl Penalties {
    fn amounts(&self) -> Result<training::Penalties, ParamsError> {
        let amount = |field, text: &str| text.parse().map_err(wrong(field));
        Ok(training::Penalties {
            miner: amount("penalties.miner", &self.miner)?,
            validator: amount("penalties.validator", &self.validator)?,
            proposer: amount("penalties.proposer", &self.proposer)?,
        })
    }
}

/// The adapter that the first round starts from: drawn from the seed.
fn first_adapter(
    model: &ModelConfig,
    hyper: &HyperParameters,
    seed: &Hash,
) -> Result<AdapterRef, ParamsError> {
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
fn share(field: &'static str, share: f64) -> Result<Ppm, ParamsError> {
    let millionths = (share * f64::from(Ppm::ONE.millionths())).round();
    Ppm::new(millionths as u32).ok_or(ParamsError::Share { field, share })
}

/// What is wrong in one place of the plan.
fn wrong<E: Error + Send + Sync + 'static>(field: &'static str) -> impl Fn(E) -> ParamsError {
    move |source| ParamsError::Field {
        field,
        source: Box::new(source),
    }
}

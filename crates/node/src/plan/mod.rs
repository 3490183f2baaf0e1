//! The plan of a training run: every parameter of it, as people write them, with the demonstration's
//! figures where they write nothing.

mod params;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use garde::Validate;
use r3mes_training::presets;
use r3mes_types::{
    task::{F32Bits, MAX_BATCH, MAX_CHUNK, MAX_RANK, MAX_SEQUENCE, MAX_STEPS, Targets},
    training,
};
use serde::{Deserialize, Serialize};

pub use params::{ParamsError, Subject};

use crate::{
    config::{is_amount, is_hash},
    yaml,
};

/// How long a phase waits for those who do not answer, in seconds. Phases end as soon as all have, so
/// this is for processes that died; on a slow or busy machine nobody honest may miss it.
pub const PATIENCE: u64 = 300;
/// Shortest window of a phase in seconds.
const MIN_WINDOW_S: u64 = r3mes_types::MIN_WINDOW.millis() / 1000;
/// Longest window of a phase in seconds.
const MAX_WINDOW_S: u64 = training::MAX_WINDOW.millis() / 1000;
/// Most bytes that the file of a plan may have.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Why a file cannot be taken for the plan of a run.
#[derive(Debug, thiserror::Error)]
pub enum PlanFileError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Unread {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// It is far too long for one.
    #[error(
        "{} has {bytes} bytes; the plan of a run has at most {MAX_FILE_BYTES}",
        path.display()
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// There are mistakes in it.
    #[error("{} is no plan of a run", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// All of them.
        #[source]
        source: PlanError,
    },
}

/// What is wrong with the text of a plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct PlanError {
    /// Every complaint, with line, column and the line itself.
    pub problem: String,
}

/// Everything that defines a run, by the names of the ledger's `RunParams`. Shares are fractions of one,
/// amounts are written as in `3000000uremes`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Validate)]
#[serde(deny_unknown_fields, default)]
pub struct Plan {
    /// A name for people.
    #[garde(length(min = 1, max = training::MAX_RUN_NAME))]
    pub name: String,
    /// Which limits the plan is held to.
    #[garde(skip)]
    pub preset: Preset,
    /// The registered model, by name or id.
    #[garde(skip)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The adopted dataset, by number.
    #[garde(skip)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dataset: Option<u64>,
    /// Rounds.
    #[garde(range(min = 1))]
    pub rounds: u32,
    /// Local steps of each miner in a round (H).
    #[garde(range(min = 1, max = MAX_STEPS))]
    pub steps: u32,
    /// The optimizer's and the package's parameters.
    #[garde(dive)]
    pub hyper: Hyper,
    /// Share of `hyper.learning_rate` that the last round has left; in between it falls evenly.
    #[garde(range(min = 0.0, max = 1.0))]
    pub learning_rate_falls_to: f32,
    /// Learning rate of each round instead; the last one is kept for further rounds.
    #[garde(inner(length(min = 1, max = training::MAX_LEARNING_RATES), inner(range(min = 0.0))))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learning_rates: Option<Vec<f32>>,
    /// Newly issued for each round that closes.
    #[garde(custom(is_amount))]
    pub reward: String,
    /// Who gets how much of it.
    #[garde(dive)]
    pub split: Split,
    /// Validators in the panel of one audited miner (m).
    #[garde(range(min = 1, max = training::MAX_PANEL as u32))]
    pub panel: u32,
    /// Steps that a panel re-runs, besides the packaging (s).
    #[garde(range(min = 1, max = training::MAX_AUDITED as u32 - 1))]
    pub drawn_steps: u32,
    /// Share of the revealed packages that are audited (a).
    #[garde(custom(is_share))]
    pub audited_share: f64,
    /// Share of a miner's kept packages that are audited a second time before stake that it takes back
    /// is paid out.
    #[garde(custom(is_share))]
    pub reaudited_share: f64,
    /// Miners that a round waits for.
    #[garde(range(min = 1, max = self.max_miners))]
    pub min_miners: u32,
    /// Most miners of a round.
    #[garde(range(min = 1, max = training::MAX_MINERS as u32))]
    pub max_miners: u32,
    /// Validators that a round waits for.
    #[garde(range(min = 1, max = training::MAX_VALIDATORS as u32))]
    pub min_validators: u32,
    /// Proposers ranked for each round.
    #[garde(range(min = 1, max = training::MAX_PROPOSERS as u32))]
    pub proposers: u32,
    /// How many seconds each phase may take.
    #[garde(dive)]
    pub windows_s: Windows,
    /// What a false claim costs, and what is locked while it can be made.
    #[garde(dive)]
    pub penalties: Penalties,
    /// Closed rounds kept in full: how far back a second audit can look.
    #[garde(range(min = 1))]
    pub kept_rounds: u32,
    /// Seed of the adapter that the first round starts from, 64 hexadecimal digits; a new one when
    /// absent.
    #[garde(inner(custom(is_hash)))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapter_seed: Option<String>,
}

/// Which limits a plan is held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// Verification costs at most 5% of training, lying does not pay, and there are second audits
    Production,
    /// Lying does not pay; the rest is free, for a handful of nodes
    Demonstration,
}

/// The optimizer's and the package's parameters; see `docs/spec/training.md`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Validate)]
#[serde(deny_unknown_fields, default)]
pub struct Hyper {
    /// Sequences in a batch.
    #[garde(range(min = 1, max = MAX_BATCH))]
    pub batch: u32,
    /// Tokens of a sequence.
    #[garde(range(min = 1, max = MAX_SEQUENCE))]
    pub sequence: u32,
    /// LoRA rank.
    #[garde(range(min = 1, max = MAX_RANK))]
    pub rank: u32,
    /// LoRA alpha.
    #[garde(range(min = 0.0))]
    pub alpha: f32,
    /// The linear layers that carry LoRA factors: q, k, v, o, gate, up, down.
    #[garde(custom(are_targets))]
    pub targets: Vec<String>,
    /// Learning rate of the first round.
    #[garde(range(min = 0.0))]
    pub learning_rate: f32,
    /// Decay of AdamW's first moment.
    #[garde(range(min = 0.0, max = 1.0))]
    pub beta1: f32,
    /// Decay of AdamW's second moment.
    #[garde(range(min = 0.0, max = 1.0))]
    pub beta2: f32,
    /// Weight of the gradient in the first moment; 1 - beta1 when absent.
    #[garde(inner(range(min = 0.0)))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub c1: Option<f32>,
    /// Weight of the squared gradient in the second moment; 1 - beta2 when absent.
    #[garde(inner(range(min = 0.0)))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub c2: Option<f32>,
    /// Added to the root of the second moment.
    #[garde(range(min = 0.0))]
    pub epsilon: f32,
    /// Weight decay.
    #[garde(range(min = 0.0))]
    pub weight_decay: f32,
    /// Entries of the adapter that are compressed together.
    #[garde(range(min = 1, max = MAX_CHUNK))]
    pub chunk: u32,
    /// Entries of a chunk that are sent.
    #[garde(range(min = 1, max = self.chunk))]
    pub top_k: u32,
    /// What is kept of the error feedback from round to round.
    #[garde(range(min = 0.0, max = 1.0))]
    pub decay: f32,
}

/// How a round's reward is divided; together one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Validate)]
#[serde(deny_unknown_fields, default)]
pub struct Split {
    /// To the miners whose packages were accepted.
    #[garde(custom(is_share))]
    pub miners: f64,
    /// To the validators that answered.
    #[garde(custom(is_share))]
    pub validators: f64,
    /// To the proposer whose aggregate was taken.
    #[garde(custom(is_share))]
    pub proposer: f64,
    /// To the treasury.
    #[garde(custom(is_share))]
    pub treasury: f64,
}

/// How many seconds each phase may take; phases end sooner when all have answered. Four blocks must fit into
/// each, so that no single block proposer decides who is late: 8 seconds at the least.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Validate)]
#[serde(deny_unknown_fields, default)]
pub struct Windows {
    /// Miners train and commit to their states.
    #[garde(custom(is_window))]
    pub commit: u64,
    /// Miners name their packages and open the first and the last leaf.
    #[garde(custom(is_window))]
    pub reveal: u64,
    /// Validators say which packages they hold.
    #[garde(custom(is_window))]
    pub availability: u64,
    /// Audited miners publish the states before the audited steps.
    #[garde(custom(is_window))]
    pub serve: u64,
    /// Panels commit to their verdicts.
    #[garde(custom(is_window))]
    pub verify: u64,
    /// Panels tell their verdicts.
    #[garde(custom(is_window))]
    pub verdict: u64,
    /// Audited miners open the leaves around the audited steps.
    #[garde(custom(is_window))]
    pub open: u64,
    /// All validators replay what panels disagree on.
    #[garde(custom(is_window))]
    pub court: u64,
    /// Proposers aggregate, and validators confirm it.
    #[garde(custom(is_window))]
    pub aggregate: u64,
}

/// What a false claim costs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Validate)]
#[serde(deny_unknown_fields, default)]
pub struct Penalties {
    /// A miner's work that does not recompute.
    #[garde(custom(is_amount))]
    pub miner: String,
    /// A validator's verdict that the court refutes.
    #[garde(custom(is_amount))]
    pub validator: String,
    /// A proposer's aggregate that does not recompute.
    #[garde(custom(is_amount))]
    pub proposer: String,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            name: "run".into(),
            preset: Preset::Production,
            model: None,
            dataset: None,
            rounds: 12,
            steps: presets::DEMONSTRATION_STEPS,
            hyper: Hyper::default(),
            learning_rate_falls_to: 0.2,
            learning_rates: None,
            reward: "3000000uremes".into(),
            split: Split::default(),
            panel: 1,
            drawn_steps: 1,
            audited_share: 0.34,
            reaudited_share: 0.1,
            min_miners: 3,
            max_miners: 64,
            min_validators: 2,
            proposers: 1,
            windows_s: Windows::default(),
            penalties: Penalties::default(),
            kept_rounds: 64,
            adapter_seed: None,
        }
    }
}

impl Default for Hyper {
    fn default() -> Self {
        let (hyper, _) = presets::demonstration(1);
        let number = |bits: F32Bits| f32::from_bits(bits.0);
        Self {
            batch: hyper.batch,
            sequence: hyper.sequence,
            rank: hyper.rank,
            alpha: number(hyper.alpha),
            targets: Targets::NAMES.map(str::to_owned).to_vec(),
            learning_rate: number(hyper.learning_rate),
            beta1: number(hyper.beta1),
            beta2: number(hyper.beta2),
            c1: None,
            c2: None,
            epsilon: number(hyper.epsilon),
            weight_decay: number(hyper.weight_decay),
            chunk: hyper.chunk,
            top_k: hyper.top_k,
            decay: number(hyper.decay),
        }
    }
}

impl Default for Split {
    fn default() -> Self {
        Self {
            miners: 0.7,
            validators: 0.2,
            proposer: 0.05,
            treasury: 0.05,
        }
    }
}

impl Default for Windows {
    fn default() -> Self {
        Self {
            commit: PATIENCE,
            reveal: PATIENCE,
            availability: PATIENCE,
            serve: PATIENCE,
            verify: PATIENCE,
            verdict: PATIENCE,
            open: PATIENCE,
            court: PATIENCE,
            aggregate: PATIENCE,
        }
    }
}

impl Default for Penalties {
    fn default() -> Self {
        Self {
            miner: "50000000uremes".into(),
            validator: "10000000uremes".into(),
            proposer: "10000000uremes".into(),
        }
    }
}

impl Plan {
    /// The plan of a demonstration's run: every round is kept, and there are no second audits, which
    /// would have miners keep the states of every round, on a machine of one's own.
    pub fn demonstration(rounds: u32) -> Self {
        Self {
            name: "demonstration".into(),
            preset: Preset::Demonstration,
            rounds,
            reaudited_share: 0.0,
            kept_rounds: rounds,
            ..Self::default()
        }
    }

    /// Reads a plan from a YAML file; what it does not name is as in [`Plan::default`].
    ///
    /// # Errors
    /// When the file cannot be read, or with every complaint about it, its line included.
    pub fn open(path: &Path) -> Result<Self, PlanFileError> {
        let unread = |source| PlanFileError::Unread {
            path: path.to_owned(),
            source,
        };
        let bytes = fs::metadata(path).map_err(unread)?.len();
        if bytes > MAX_FILE_BYTES {
            return Err(PlanFileError::TooLarge {
                path: path.to_owned(),
                bytes,
            });
        }
        let text = fs::read_to_string(path).map_err(unread)?;
        Self::parse(&text).map_err(|source| PlanFileError::Malformed {
            path: path.to_owned(),
            source,
        })
    }

    /// As [`Plan::open`], from the text itself.
    ///
    /// # Errors
    /// Every complaint, with its line.
    pub fn parse(text: &str) -> Result<Self, PlanError> {
        yaml::read(text).map_err(|problem| PlanError { problem })
    }

    /// The plan as YAML.
    pub fn to_yaml(&self) -> String {
        serde_saphyr::to_string(self).expect("a plan holds only plain values")
    }
}

fn is_window(seconds: &u64, _: &()) -> garde::Result {
    match (MIN_WINDOW_S..=MAX_WINDOW_S).contains(seconds) {
        true => Ok(()),
        false => Err(garde::Error::new(format!(
            "must be {MIN_WINDOW_S} seconds, in which four blocks are made, to {MAX_WINDOW_S}, a week"
        ))),
    }
}

fn is_share(fraction: &f64, _: &()) -> garde::Result {
    match (0.0..=1.0).contains(fraction) {
        true => Ok(()),
        false => Err(garde::Error::new(
            "must be a share from 0 to 1, such as 0.1",
        )),
    }
}

fn are_targets(names: &[String], _: &()) -> garde::Result {
    let known = |name: &String| Targets::NAMES.contains(&name.as_str());
    match !names.is_empty() && names.iter().all(known) {
        true => Ok(()),
        false => Err(garde::Error::new(format!(
            "must be some of {}",
            Targets::NAMES.join(", ")
        ))),
    }
}

#[cfg(test)]
mod tests {
    use r3mes_training::synthetic::SyntheticShape;
    use r3mes_types::{Hash, Ppm, training::RunParams};

    use super::*;

    /// The plan that comes with the documentation.
    const EXAMPLE: &str = include_str!("../../../../docs/run.yaml");

    fn params(plan: &Plan) -> Result<RunParams, ParamsError> {
        let packed = SyntheticShape {
            context: 128,
            ..SyntheticShape::GOLDEN
        }
        .model(1);
        plan.params(&Subject {
            model: packed.id(),
            config: packed.config(),
            dataset: 1,
            adapter_seed: Hash::of(b"seed"),
        })
    }

    #[test]
    fn the_documented_plan_is_the_default_with_a_model_and_a_dataset() {
        let written = Plan::parse(EXAMPLE).unwrap();
        assert_eq!(written.model.as_deref(), Some("stories15m-b158"));
        assert_eq!(written.dataset, Some(1));
        let default = Plan {
            model: None,
            dataset: None,
            ..written
        };
        assert_eq!(default, Plan::default());
        assert_eq!(params(&default).unwrap().dataset, 1);
    }

    #[test]
    fn the_default_figures_are_the_demonstration_s_to_the_bit() {
        let (hyper, rates) = presets::demonstration(12);
        let plan = params(&Plan::demonstration(12)).unwrap();
        assert_eq!(plan.hyper, hyper);
        assert_eq!(*plan.learning_rates, rates);
        assert_eq!(plan.audited_share, Ppm::percent(34));
    }

    #[test]
    fn a_mistake_is_named_with_its_line() {
        for (text, line, named) in [
            ("rounds: 3\nreaudit: 0.1\n", "line 2", "reaudit"),
            ("reaudited_share: 10\n", "line 1", "0 to 1"),
            ("hyper:\n  targets: [q, z]\n", "line 2", "gate"),
            ("penalties:\n  miner: 50\n", "line 2", "uremes"),
            ("max_miners: 2\nmin_miners: 3\n", "line 2", "min_miners"),
            ("windows_s:\n  court: 7\n", "line 2", "four blocks"),
            ("windows_s: {serve: 604801}\n", "line 1", "a week"),
        ] {
            let refusal = Plan::parse(text).unwrap_err().to_string();
            assert!(refusal.contains(line), "{refusal}");
            assert!(refusal.contains(named), "{refusal}");
        }
    }

    #[test]
    fn what_the_ledger_would_refuse_is_refused_here() {
        let plan = |text| params(&Plan::parse(text).unwrap()).unwrap_err().to_string();
        assert!(plan("reaudited_share: 0\n").contains("reaudited_share"));
        assert!(plan("min_miners: 1\n").contains("does not deter"));
        assert!(plan("split: {miners: 0.5}\n").contains("add up"));
        assert!(plan("hyper: {sequence: 129}\n").contains("context"));
        assert!(plan("rounds: 2000\n").contains("learning_rate_falls_to"));
        let constant = Plan::parse("rounds: 2000\nlearning_rate_falls_to: 1\n").unwrap();
        assert!(params(&constant).unwrap().learning_rates.is_empty());
    }
}

//! What a demonstration measured.

use r3mes_types::training::Outcome;
use serde::{Serialize, Serializer};

/// What became of one miner's work in a round.
#[derive(Clone, Debug, Serialize)]
pub struct MinerFigures {
    /// Its name on the status board.
    pub name: String,
    /// Whether it keeps to the protocol.
    pub honest: bool,
    /// What the network made of its work; absent: the round did not take it in.
    #[serde(serialize_with = "by_name")]
    pub outcome: Option<Outcome>,
}

impl MinerFigures {
    /// The outcome for people.
    pub fn outcome_name(&self) -> &'static str {
        self.outcome.map_or("not assigned", Outcome::name)
    }

    /// Whether an honest miner was accepted, or a liar was not.
    pub fn is_just(&self) -> bool {
        self.honest == (self.outcome == Some(Outcome::Accepted))
    }
}

fn by_name<S: Serializer>(outcome: &Option<Outcome>, to: S) -> Result<S::Ok, S::Error> {
    outcome.map(Outcome::name).serialize(to)
}

/// One closed round.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RoundFigures {
    /// Its number, as the ledger counts: from 0.
    pub round: u32,
    /// Held-out loss of the adapter after it on a fixed quarter of the held-out text, in nats per token.
    pub held_out_sample: f64,
    /// Miners that were assigned work.
    pub assigned: u32,
    /// Packages in the aggregate.
    pub accepted: u32,
    /// What became of each miner's work.
    pub miners: Vec<MinerFigures>,
    /// Packages whose steps were recomputed by a panel.
    pub audited: u32,
    /// Miners that went before the court.
    pub disputed: u32,
    /// Bytes of the accepted packages.
    pub uploaded_bytes: u64,
    /// Bytes that the same updates would take as plain f32.
    pub dense_bytes: u64,
    /// Bytes that audited miners served to their panels.
    pub verification_bytes: u64,
    /// Tokens trained on by all assigned miners.
    pub tokens: u64,
    /// From opening to closing, in seconds of block time.
    pub seconds: f64,
    /// Paid out, in uremes.
    pub paid_uremes: u64,
    /// Slashed, in uremes.
    pub slashed_uremes: u64,
}

impl RoundFigures {
    /// Training throughput of the whole network.
    pub fn tokens_per_second(&self) -> f64 {
        self.tokens as f64 / self.seconds.max(1e-9)
    }
}

/// One thing that `--check` demands.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// What should hold.
    pub name: &'static str,
    /// Whether it does.
    pub holds: bool,
    /// What was found.
    pub found: String,
}

/// Everything a demonstration measured.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Figures {
    /// Held-out loss of the base model, in nats per token: the mean over the texts of each text's mean.
    pub base_loss: f64,
    /// The same on the quarter of the held-out text that is measured each round.
    pub base_sample: f64,
    /// The same of the last round's adapter.
    pub loss: f64,
    /// Each closed round.
    pub rounds: Vec<RoundFigures>,
    /// From the command to the last round's close, in seconds.
    pub seconds: f64,
    /// The prompt that both models answered.
    pub prompt: String,
    /// What the base model answered.
    pub base_answer: String,
    /// What the trained model answered.
    pub trained_answer: String,
    /// Where the public API answers.
    pub api: String,
    /// What `--check` found.
    pub checks: Vec<Check>,
}

impl Figures {
    /// How far the loss fell, as a share of the base model's.
    pub fn fall(&self) -> f64 {
        if self.base_loss > 0.0 {
            1.0 - self.loss / self.base_loss
        } else {
            0.0
        }
    }
}

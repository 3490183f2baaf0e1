//! A run: what is trained, on what, under which rules.

use super::limits::{MAX_LEARNING_RATES, MAX_RUN_NAME};
use crate::task::{AdapterRef, F32Bits, HyperParameters};
use crate::wire::{List, Text};
use crate::{Amount, Hash, Millis, Ppm, schema, wire_enum};

wire_enum! {
    /// Which limits the parameters of a run are held to.
    pub enum Preset {
        /// Verification may cost at most 5% of training, and slashing must deter.
        Production = 1 => "production",
        /// Slashing must deter; verification may cost what it will (a handful of nodes).
        Demonstration = 2 => "demonstration",
    }
}

wire_enum! {
    /// Whether a run opens rounds.
    pub enum RunStatus {
        /// Opens a round whenever enough nodes are there.
        Active = 1 => "active",
        /// Stopped by the authority, or because verdicts split by back end.
        Paused = 2 => "paused",
        /// All rounds are done, or the authority ended it. An open round closes as usual.
        Finished = 3 => "finished",
    }
}

schema! {
    /// How long each phase of a round may take, in block time. A phase ends early when
    /// all who owe something have answered.
    pub struct Windows {
        /// Train and commit.
        1 => commit: Millis,
        /// Reveal the package.
        2 => reveal: Millis,
        /// Fetch all packages and attest.
        3 => availability: Millis,
        /// Serve the states that an audit needs.
        4 => serve: Millis,
        /// Re-run and commit to a verdict.
        5 => verify: Millis,
        /// Reveal verdicts.
        6 => verdict: Millis,
        /// Open the audited leaves.
        7 => open: Millis,
        /// Replay from the public start and vote.
        8 => court: Millis,
        /// One proposer's turn to aggregate, and the validators' to attest.
        9 => aggregate: Millis,
    }

    /// How a round's reward is divided; together the whole.
    pub struct Split {
        /// To the miners of accepted packages, in equal parts of the number assigned.
        1 => miners: Ppm,
        /// To the validators, by duties done.
        2 => validators: Ppm,
        /// To the proposer whose aggregate was attested.
        3 => proposer: Ppm,
        /// To the treasury, with everything that nobody earned.
        4 => treasury: Ppm,
    }

    /// What is locked while a node owes something in a round, and lost when it is proved false.
    pub struct Penalties {
        /// A miner's work that does not recompute.
        1 => miner: Amount,
        /// A validator's verdict that the court refutes.
        2 => validator: Amount,
        /// A proposer's aggregate that does not recompute.
        3 => proposer: Amount,
    }

    /// Everything that defines a run. Hyper-parameters are the run's, never a node's own setting.
    pub struct RunParams {
        /// A name for people.
        1 => name: Text<MAX_RUN_NAME>,
        /// The registered base model.
        2 => model: Hash,
        /// The exact arithmetic's version that every node must compute with.
        3 => exact_version: u32,
        /// The adopted dataset, by its id.
        4 => dataset: u64,
        /// Local steps of each miner in a round (H).
        5 => steps: u32,
        /// The optimizer's and the package's parameters.
        6 => hyper: HyperParameters,
        /// Learning rate of each round; the last one is kept for all further rounds. Empty: the one in
        /// `hyper` for all.
        7 => learning_rates: List<F32Bits, MAX_LEARNING_RATES>,
        /// The adapter that round 0 starts from; without a CID it is the one drawn from `adapter_seed`.
        8 => initial: AdapterRef,
        /// How many rounds.
        9 => rounds: u32,
        /// Newly issued for each round that closes.
        10 => reward: Amount,
        /// Who gets how much of it.
        11 => split: Split,
        /// Validators in the panel of one audited miner (m).
        12 => panel: u32,
        /// Steps that a panel re-runs, besides the packaging (s).
        13 => drawn_steps: u32,
        /// Share of the revealed packages that are audited (a).
        14 => audited_share: Ppm,
        /// No round opens with fewer miners.
        15 => min_miners: u32,
        /// A round takes no more miners.
        16 => max_miners: u32,
        /// No round opens with fewer validators.
        17 => min_validators: u32,
        /// Proposers ranked for each round, the drawn one included.
        18 => proposers: u32,
        /// How long each phase may take.
        19 => windows: Windows,
        /// What a false claim costs.
        20 => penalties: Penalties,
        /// Closed rounds kept in full; older ones shrink to their summaries.
        21 => kept_rounds: u32,
        /// Which limits these parameters are held to.
        22 => preset: Preset,
        /// Seed of the adapter that the first round starts from.
        23 => adapter_seed: Hash,
        /// Share of the kept packages of a miner that are audited a second time before stake that it
        /// takes back is paid out.
        24 => reaudited_share: Ppm,
    }

    /// A run and how far it is.
    pub struct Run {
        /// Number of the run.
        1 => id: u64,
        /// Its rules.
        2 => params: RunParams,
        /// Whether it opens rounds.
        3 => status: RunStatus,
        /// The round that is open, or would open next.
        4 => round: u32,
        /// Whether that round is open.
        5 => open: bool,
        /// What the next round starts from: the newest attested aggregate, or the initial adapter.
        6 => adapter: AdapterRef,
        /// Why it is paused; empty when it is not.
        7 => paused_because: Text<256>,
        /// The oldest round that is still kept in full.
        8 => oldest_kept: u32,
    }
}

impl RunParams {
    /// The learning rate of a round.
    pub fn learning_rate(&self, round: u32) -> F32Bits {
        let index = (round as usize).min(self.learning_rates.len().saturating_sub(1));
        self.learning_rates
            .get(index)
            .copied()
            .unwrap_or(self.hyper.learning_rate)
    }
}

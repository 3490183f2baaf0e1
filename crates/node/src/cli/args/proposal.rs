//! `r3mes tx proposal` as typed.

use clap::{Args, Subcommand, ValueEnum};
use r3mes_types::{Address, Amount};

use super::{Submit, Vote, examples};

/// What to do about proposals.
#[derive(Debug, Subcommand)]
pub enum ProposalCommand {
    /// Vote on a proposal for this validator
    Vote {
        /// Number of the proposal
        proposal: u64,
        /// For or against it
        vote: Vote,
    },
    /// Change parameters of the ledger: at once if this account is the network's authority, else as a
    /// proposal on which the validators vote
    #[command(after_help = examples::SET)]
    Set {
        /// Parameters of one domain, each DOMAIN.NAME=VALUE by the names that `r3mes query params`
        /// prints
        #[arg(required = true, value_name = "NAME=VALUE")]
        settings: Vec<String>,
        /// How it is sent.
        #[command(flatten)]
        submit: Submit,
    },
    /// Decide on a slash that its node appealed
    Slash(DecideSlash),
    /// Pay from the treasury
    Spend {
        /// Who is paid, remes1...
        to: Address,
        /// Amount, such as 1000000uremes
        amount: Amount,
        /// How it is sent.
        #[command(flatten)]
        submit: Submit,
    },
}

/// `r3mes tx proposal slash`
#[derive(Debug, Args)]
pub struct DecideSlash {
    /// Number of the slash
    pub slash: u64,
    /// What becomes of the amount
    pub decision: SlashFate,
    /// How it is sent.
    #[command(flatten)]
    pub submit: Submit,
}

/// What becomes of a slashed amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SlashFate {
    /// The node gets it back
    Revert,
    /// The treasury gets it
    Keep,
}

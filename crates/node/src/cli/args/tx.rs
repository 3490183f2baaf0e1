//! `r3mes tx` as typed.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use r3mes_types::{Address, Amount, Role};

use super::{EscrowCommand, GrantCommand, ProposalCommand};
use crate::plan::Preset;

/// `r3mes tx`
#[derive(Debug, Args)]
pub struct Tx {
    /// Which transaction.
    #[command(subcommand)]
    pub command: TxCommand,
}

/// Which transaction.
#[derive(Debug, Subcommand)]
pub enum TxCommand {
    /// Send coins
    Send {
        /// Receiver, remes1...
        to: Address,
        /// Amount, such as 1000000uremes
        amount: Amount,
    },
    /// Register this node's roles with a stake
    Register {
        /// Roles, as names or numbers
        #[arg(long, value_delimiter = ',', required = true)]
        roles: Vec<Role>,
        /// Stake, such as 1000000uremes [default: the least that the roles need]
        #[arg(long)]
        stake: Option<Amount>,
    },
    /// Leave: stop taking work and unbond the stake. Keep the roles running until it is paid back: a
    /// miner's work may be audited a second time before that
    Leave,
    /// Ask back in when a jail term is over and the stake covers the roles. Where the account's 24 words
    /// are kept elsewhere, a role's key asks and the account pays
    Unjail,
    /// Appeal a slash within its window: the validators, or the network's authority, then decide
    /// whether the amount is given back
    Appeal {
        /// Number of the slash; `r3mes query slashes` lists them
        slash: u64,
        /// Why it was wrong, for those who decide: at most 256 bytes
        statement: String,
    },
    /// Take coins from the faucet of a development network; the account must have some already, for
    /// the fee
    Faucet {
        /// Amount, such as 1000000uremes; `r3mes query params` shows the most for one account
        amount: Amount,
    },
    /// Grants: keys that act for this account, or whose fees it pays
    #[command(subcommand)]
    Grant(GrantCommand),
    /// Models: what training and serving begin from
    #[command(subcommand)]
    Model(ModelCommand),
    /// Datasets: what is trained on
    #[command(subcommand)]
    Dataset(DatasetCommand),
    /// Training runs: start, pause, resume
    #[command(subcommand)]
    Run(RunCommand),
    /// Escrows: coins set aside for calls of remote functions that have a price
    #[command(subcommand)]
    Escrow(EscrowCommand),
    /// Proposals: what the validators decide together
    #[command(subcommand)]
    Proposal(ProposalCommand),
}

/// What to do about models.
#[derive(Debug, Subcommand)]
pub enum ModelCommand {
    /// Store a packed model and its tokenizer as blobs, and register it: at once if this account is the
    /// network's authority, else as a proposal on which the validators vote
    Register(ModelRegister),
}

/// `r3mes tx model register`
#[derive(Debug, Args)]
pub struct ModelRegister {
    /// The packed model, as `r3mes pack` writes it
    #[arg(value_name = "PACKED")]
    pub file: PathBuf,
    /// Its tokenizer [default: tokenizer.json beside it]
    #[arg(long, value_name = "FILE")]
    pub tokenizer: Option<PathBuf>,
    /// A name that no other model of the network has: letters, digits and -_./:
    #[arg(long)]
    pub name: String,
    /// Licence of the weights, such as MIT
    #[arg(long)]
    pub licence: String,
    /// Memory that a node needs to serve it, in MiB [default: twice the file and 64 more]
    #[arg(long, value_name = "MIB")]
    pub memory_mib: Option<u32>,
    /// Price of a million tokens
    #[arg(long, default_value = "1000000uremes", value_name = "AMOUNT")]
    pub price: Amount,
    /// How it is sent.
    #[command(flatten)]
    pub submit: Submit,
}

/// What to do about datasets.
#[derive(Debug, Subcommand)]
pub enum DatasetCommand {
    /// Tokenize texts, hold the last tenth of each out, store the rest as shards, and propose it all as
    /// a dataset: adopted at once if this account is the network's authority, else by the validators'
    /// vote
    Propose(DatasetPropose),
    /// Vote on a dataset for this validator
    Vote {
        /// Number of the dataset
        dataset: u64,
        /// For or against it
        vote: Vote,
    },
}

/// `r3mes tx dataset propose`
#[derive(Debug, Args)]
pub struct DatasetPropose {
    /// Text files in UTF-8, of at most 64 MiB each
    #[arg(required = true, value_name = "TEXT")]
    pub texts: Vec<PathBuf>,
    /// The registered model that is to be trained, by name or id: its tokenizer is used
    #[arg(long, value_name = "NAME|ID")]
    pub model: String,
    /// A name for people
    #[arg(long)]
    pub name: String,
    /// Licence of the texts, such as public-domain
    #[arg(long)]
    pub licence: String,
    /// Where the texts come from
    #[arg(long)]
    pub source: String,
    /// Shards that the texts are dealt over: miners beyond this number share shards
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub shards: u16,
    /// Tokens of a training sequence, for which the held-out windows are cut
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=131_072))]
    pub sequence: u32,
    /// How it is sent.
    #[command(flatten)]
    pub submit: Submit,
}

/// What to do about runs.
#[derive(Debug, Subcommand)]
pub enum RunCommand {
    /// Start a training run: at once if this account is the network's authority, else as a proposal on
    /// which the validators vote
    Start(Box<RunStart>),
    /// Keep a run from opening further rounds; the open one closes as usual
    Pause {
        /// Number of the run
        run: u64,
        /// Why, for people
        #[arg(long, default_value = "paused by its operator")]
        reason: String,
        /// How it is sent.
        #[command(flatten)]
        submit: Submit,
    },
    /// Let a paused run open rounds again
    Resume {
        /// Number of the run
        run: u64,
        /// How it is sent.
        #[command(flatten)]
        submit: Submit,
    },
    /// Finish a run for good, whatever rounds are left; the open one closes as usual
    End {
        /// Number of the run
        run: u64,
        /// How it is sent.
        #[command(flatten)]
        submit: Submit,
    },
    /// Print a plan with every parameter, its default and what it means, to begin a run.yaml with
    Example,
}

/// `r3mes tx run start`
///
/// Each flag wins over the plan in --config, and what neither names is as `r3mes tx run example` prints.
#[derive(Debug, Args)]
pub struct RunStart {
    /// Plan of the run in YAML, with any of the parameters that `r3mes tx run example` prints
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The registered model, by name or id
    #[arg(long, value_name = "NAME|ID")]
    pub model: Option<String>,
    /// The adopted dataset, by number
    #[arg(long, value_name = "NUMBER")]
    pub dataset: Option<u64>,
    /// A name for people
    #[arg(long)]
    pub name: Option<String>,
    /// Which limits the parameters are held to
    #[arg(long)]
    pub preset: Option<Preset>,
    /// How many rounds
    #[arg(long, value_name = "N")]
    pub rounds: Option<u32>,
    /// Local steps of each miner in a round
    #[arg(long, value_name = "N")]
    pub steps: Option<u32>,
    /// Learning rate of the first round
    #[arg(long, value_name = "RATE")]
    pub learning_rate: Option<f32>,
    /// Newly issued for each round that closes
    #[arg(long, value_name = "AMOUNT")]
    pub reward: Option<Amount>,
    /// Miners that a round waits for
    #[arg(long, value_name = "N")]
    pub min_miners: Option<u32>,
    /// Validators that a round waits for
    #[arg(long, value_name = "N")]
    pub min_validators: Option<u32>,
    /// Share of the packages that are audited, such as 0.34
    #[arg(long, value_name = "SHARE")]
    pub audited_share: Option<f64>,
    /// Share of a miner's packages that are audited a second time before it gets its stake back
    #[arg(long, value_name = "SHARE")]
    pub reaudited_share: Option<f64>,
    /// How it is sent.
    #[command(flatten)]
    pub submit: Submit,
}

/// How a decision of the network is sent.
#[derive(Clone, Debug, Args)]
pub struct Submit {
    /// Check everything, ask the ledger what it would say, and store and send nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Title of the proposal, where the validators vote
    #[arg(long)]
    pub title: Option<String>,
}

/// A vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Vote {
    /// For it
    Yes,
    /// Against it
    No,
}

//! `r3mes query` as typed.

use clap::{Args, Subcommand};
use r3mes_types::Address;

use super::ChainRegistry;

/// `r3mes query`
#[derive(Debug, Args)]
pub struct Query {
    /// What to ask.
    #[command(subcommand)]
    pub command: QueryCommand,
}

/// What to ask the ledger.
#[derive(Debug, Subcommand)]
pub enum QueryCommand {
    /// Balance and sequence of an account
    Account {
        /// The account, remes1...; this node's own when absent
        address: Option<Address>,
    },
    /// One node's registration
    Node {
        /// The node's account, remes1...; this node's own when absent
        address: Option<Address>,
    },
    /// Every registered node
    Nodes(UpTo),
    /// Registered models and their newest adapters
    Models(UpTo),
    /// Datasets
    Datasets(UpTo),
    /// One dataset and its shards
    Dataset {
        /// Its number
        dataset: u64,
    },
    /// Training runs
    Runs(UpTo),
    /// One training run
    Run {
        /// Its number
        #[arg(default_value_t = 1)]
        run: u64,
    },
    /// What the validators vote on or have decided
    Proposals(UpTo),
    /// The parameters of every domain of the ledger, and who is the network's authority
    Params,
    /// One training round: assignments, packages, verdicts, aggregate, payouts
    Round {
        /// Round number; the newest when absent
        round: Option<u32>,
        /// The run; `r3mes query runs` lists them
        #[arg(long, default_value_t = 1)]
        run: u64,
    },
    /// What a node owes right now
    Obligations {
        /// The node's account; this node's own when absent
        address: Option<Address>,
    },
    /// One open escrow: what of it was charged, and for whom
    Escrow {
        /// Its number
        escrow: u64,
    },
    /// Open escrows that an account pays or may charge
    Escrows {
        /// The account, remes1...; this node's own when absent
        address: Option<Address>,
        /// How much to show.
        #[command(flatten)]
        shown: UpTo,
    },
    /// Slashes: each amount taken, why, and until when it can be appealed
    Slashes {
        /// The node's account, remes1...; this node's own when absent
        address: Option<Address>,
        /// Those of every node
        #[arg(long, conflicts_with = "address")]
        all: bool,
        /// How much to show.
        #[command(flatten)]
        shown: UpTo,
    },
    /// Keys that may act for an account, in which messages, and which fees it pays
    Grants {
        /// The account, remes1...; this node's own when absent
        address: Option<Address>,
        /// How much to show.
        #[command(flatten)]
        shown: UpTo,
    },
    /// A transaction by its hash
    Transaction {
        /// 64 hex digits
        hash: String,
    },
    /// Write chain.json and assetlist.json: this network as the Cosmos chain registry lists it, for
    /// wallets and explorers
    ChainRegistry(ChainRegistry),
}

/// How much of a list to show.
#[derive(Clone, Copy, Debug, Args)]
pub struct UpTo {
    /// Show at most so many
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,
}

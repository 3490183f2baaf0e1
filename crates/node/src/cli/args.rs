//! The command line as typed.

mod address;
mod escrow;
mod examples;
mod functions;
mod grant;
mod overrides;
mod proposal;
mod query;
mod reading;
mod registry;
mod tx;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use r3mes_consensus::genesis::Genesis as ChainGenesis;
use r3mes_types::{Address, Role, Time};

pub(super) use escrow::*;
pub(super) use functions::*;
pub(super) use grant::*;
pub(super) use overrides::Overrides;
pub(super) use proposal::*;
pub(super) use query::*;
pub(super) use registry::{ChainRegistry, NetworkKind};
pub(super) use tx::*;

use crate::{config::TrustedHeader, plan, process::Service};

/// R3MES: a network where machines train, serve and verify AI models, and where every result can
/// be recomputed bit for bit.
///
/// First time here? `r3mes demo` runs a whole network on this machine.
#[derive(Debug, Parser)]
#[command(
    name = "r3mes",
    version,
    max_term_width = 100,
    propagate_version = true
)]
pub struct Cli {
    /// The node's home directory [default: ~/.r3mes]
    #[arg(long, global = true, env = "R3MES_HOME", value_name = "DIR")]
    pub home: Option<PathBuf>,
    /// Print JSON for programs instead of text for people
    #[arg(long, global = true)]
    pub json: bool,
    /// What wins over the configuration file.
    #[command(flatten)]
    pub overrides: Overrides,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a home: keys, configuration and, for a network of your own, a genesis
    #[command(after_help = examples::INIT)]
    Init(Init),
    /// Run what the configuration names: services and roles, each in a process of its own
    #[command(after_help = examples::START)]
    Start(Start),
    /// Run one service in this process (what `start` does for each)
    #[command(hide = true)]
    Run(Run),
    /// Show what runs here and where the network stands
    Status,
    /// Show, export or recover keys
    Keys(Keys),
    /// Sign a transaction with this node's account and send it: coins, roles, models, datasets,
    /// training runs, escrows, grants, votes
    #[command(after_help = examples::TX)]
    Tx(Tx),
    /// Ask the ledger
    #[command(after_help = examples::QUERY)]
    Query(Query),
    /// Check what others claim: recompute a training round or an answer, or verify a block, a balance or
    /// the participants against what the network's validators signed
    #[command(after_help = examples::VERIFY)]
    Verify(Verify),
    /// Write a genesis that goes on from this home's ledger, under another chain id and either engine
    Export(Export),
    /// Complete a prompt on this machine, without a network
    #[command(after_help = examples::GENERATE)]
    Generate(Generate),
    /// Pack a checkpoint in Hugging Face layout into one file for the network
    Pack(Pack),
    /// Share this machine's functions, or call those of others: the gateway, its tokens, calls
    #[command(after_help = examples::FUNCTIONS)]
    Functions(Functions),
    /// Run a whole network on this machine: train, verify, aggregate and serve
    #[command(after_help = examples::DEMO)]
    Demo(Demo),
    /// Make a network of several validators under CometBFT, and run it on this machine
    #[command(after_help = examples::TESTNET)]
    Testnet(Testnet),
    /// Print the golden hashes as this machine computes them; an error if one is not what it must be
    Golden(Golden),
    /// Print the version, the exact-arithmetic version and the back ends of this machine
    Version(Version),
}

/// `r3mes init`
#[derive(Debug, Args)]
pub struct Init {
    /// Roles this node will play
    #[arg(long, value_delimiter = ',', value_name = "ROLE,...")]
    pub roles: Vec<Role>,
    /// Join a network: RPC URL of one of its nodes, from which the genesis is taken. With
    /// --engine cometbft this home gets a ledger of its own that follows the network's
    #[arg(long, value_name = "URL", value_parser = address::node_url)]
    pub join: Option<String>,
    /// Begin with a snapshot of the state instead of executing all blocks: RPC URLs of further nodes
    /// of the network, which must have the same header as the one joined
    #[arg(long, value_delimiter = ',', value_name = "URL,...", requires = "join", value_parser = address::node_url)]
    pub witness: Vec<String>,
    /// Trust this header of the network joined, as HEIGHT:HASH, and not the genesis that the joined node
    /// sends; take it from a source that you trust
    #[arg(long, value_name = "HEIGHT:HASH", requires = "join", value_parser = trusted_header)]
    pub trust: Option<TrustedHeader>,
    /// Where blobs are that the ledger names no holder of: base URLs [default: port 8090 of the node
    /// joined]
    #[arg(long, value_delimiter = ',', value_name = "URL,...", requires = "join")]
    pub blobs: Vec<String>,
    /// Chain id of a network of your own
    #[arg(long, default_value = "r3mes-local", conflicts_with = "join", value_parser = chain_id)]
    pub chain_id: String,
    /// Found the network without an authority: parameters, models and runs are decided by the validators'
    /// votes alone, there is no faucet, and stake takes a week to unbond. The first voter is the founder
    #[arg(long, conflicts_with = "join")]
    pub no_authority: bool,
    /// Take the account's 24 words from standard input instead of making new ones
    #[arg(long)]
    pub recover: bool,
    /// Go on from another network: the genesis that `r3mes export` wrote
    #[arg(long, value_name = "FILE", requires = "from", conflicts_with_all = ["join", "recover", "roles", "no_authority"])]
    pub genesis: Option<PathBuf>,
    /// The home whose keys, blobs, roles and settings go on with that genesis
    #[arg(long, value_name = "DIR", requires = "genesis")]
    pub from: Option<PathBuf>,
}

/// `r3mes export`
#[derive(Debug, Args)]
pub struct Export {
    /// Chain id of the network that goes on
    #[arg(long, value_name = "ID", value_parser = chain_id)]
    pub chain_id: String,
    /// File to write
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
    /// End training rounds that are open: stake is set free, work in them is forgotten, and the same
    /// rounds open anew
    #[arg(long)]
    pub abort_rounds: bool,
}

/// The name of a chain, as the engines take it.
fn chain_id(typed: &str) -> Result<String, String> {
    let chain = ChainGenesis::new(typed, Time::default());
    chain
        .map(|_| typed.to_owned())
        .map_err(|error| error.to_string())
}

/// A header as people write it.
fn trusted_header(typed: &str) -> Result<TrustedHeader, String> {
    let form = || format!("{typed:?} is not HEIGHT:HASH, such as 1000:3F2A... with 64 hex digits");
    let (height, hash) = typed.split_once(':').ok_or_else(form)?;
    let header = TrustedHeader {
        height: height.parse().map_err(|_| form())?,
        hash: hash.to_owned(),
    };
    garde::Validate::validate(&header).map_err(|_| form())?;
    Ok(header)
}

/// `r3mes start`
#[derive(Debug, Args)]
pub struct Start {
    /// Play these roles, whatever the configuration names
    #[arg(long, value_delimiter = ',', value_name = "ROLE,...")]
    pub roles: Vec<Role>,
    /// Run these services, whatever the configuration names: node is the ledger, api the gateway,
    /// functions the gateway of remote functions.
    /// Without --roles no role runs beside them
    #[arg(long, value_delimiter = ',', value_name = "SERVICE,...")]
    pub services: Vec<StartService>,
    /// Follow the ledger of another machine, by HOST:PORT or the URL of its RPC, and run none here. A home
    /// that is not there yet is made
    #[arg(long, env = "R3MES_BLOCKCHAIN_URL", value_name = "URL", value_parser = address::node_url)]
    pub chain: Option<String>,
}

/// A service that `r3mes start` can run alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum StartService {
    /// The ledger, with CometBFT under that engine
    Node,
    /// The public API
    Api,
    /// The gateway of remote functions
    Functions,
}

/// `r3mes run`
#[derive(Debug, Args)]
pub struct Run {
    /// Which service
    pub service: Service,
    /// Cheat in this way: demonstrations only, and it costs the stake
    #[arg(long, hide = true, value_name = "KIND")]
    pub lie: Option<String>,
    /// Process that started this one, with which it ends
    #[arg(long, hide = true, value_name = "PID")]
    pub supervisor: Option<u32>,
}

/// `r3mes keys`
#[derive(Debug, Args)]
pub struct Keys {
    /// What to do with them.
    #[command(subcommand)]
    pub command: KeysCommand,
}

/// What to do with keys.
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// List the addresses of the account and of each role's operations key, and the ID by which
    /// CometBFT's peers name this node
    Show,
    /// Print the account's 24 words; whoever reads them owns the account
    Export,
    /// Take the 24 words from standard input into an empty keyring
    Recover,
    /// Move the key that signs blocks to tmkms: write its files, and remove the key here
    Tmkms {
        /// Folder for tmkms's files, on storage that this node should not reach
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
    },
}

/// `r3mes verify`
#[derive(Debug, Args)]
pub struct Verify {
    /// What to recompute.
    #[command(subcommand)]
    pub command: VerifyCommand,
}

/// What to recompute.
#[derive(Debug, Subcommand)]
pub enum VerifyCommand {
    /// Recompute a closed training round and name the first thing that differs
    Round {
        /// Round number
        round: u32,
        /// The run
        #[arg(long, default_value_t = 1)]
        run: u64,
        /// Also train every accepted miner's round again from its public start
        #[arg(long)]
        replay: bool,
    },
    /// Recompute an answer from its receipt and name the first position that differs
    Answer {
        /// The receipt: a file, a URL, or the id that the answer's x-r3mes-receipt header gave
        receipt: String,
        /// Public API that an id is looked up at [default: where this home's gateway or serving role
        /// listens, or http://127.0.0.1:8000]
        #[arg(long, value_name = "URL")]
        api: Option<String>,
    },
    /// Verify a block: header, signatures and transactions
    Block {
        /// Its height; the newest when absent
        height: Option<u64>,
        /// Where it comes from.
        #[command(flatten)]
        from: FromNode,
    },
    /// Verify what an account has
    Balance {
        /// The account, remes1...
        address: Address,
        /// Where it comes from.
        #[command(flatten)]
        from: FromNode,
    },
    /// Verify who signs blocks, and which nodes are registered
    Participants {
        /// How many nodes are asked for at a time
        #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=256))]
        page_size: u32,
        /// Where it comes from.
        #[command(flatten)]
        from: FromNode,
    },
}

/// Where a proof comes from, and what it is held against.
#[derive(Clone, Debug, Args)]
pub struct FromNode {
    /// RPC of the node that is asked, over network.rpc of the configuration
    #[arg(long, value_name = "URL", conflicts_with = "file", value_parser = address::node_url)]
    pub chain: Option<String>,
    /// A header that you trust, as HEIGHT:HASH, over network.light of the configuration and the genesis
    #[arg(long, value_name = "HEIGHT:HASH", value_parser = trusted_header)]
    pub trust: Option<TrustedHeader>,
    /// Write everything that is needed to verify it again, without a network
    #[arg(long, value_name = "FILE")]
    pub save: Option<PathBuf>,
    /// Verify such a file, and ask nobody
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
}

/// `r3mes generate`
#[derive(Debug, Args)]
pub struct Generate {
    /// The text to complete
    pub prompt: String,
    /// Most tokens to add
    #[arg(long, default_value_t = 64)]
    pub max_tokens: u32,
    /// 0 always takes the likeliest token
    #[arg(long, default_value_t = 0.8)]
    pub temperature: f32,
    /// Keep the likeliest tokens up to this share
    #[arg(long, default_value_t = 0.95)]
    pub top_p: f32,
    /// Equal seeds give equal answers on every machine
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// A packed model; the base model that comes with r3mes when absent
    #[arg(long, value_name = "FILE")]
    pub model: Option<PathBuf>,
    /// Tokenizer of that model
    #[arg(long, value_name = "FILE", requires = "model")]
    pub tokenizer: Option<PathBuf>,
    /// A LoRA adapter made by the network
    #[arg(long, value_name = "FILE")]
    pub adapter: Option<PathBuf>,
}

/// `r3mes pack`
#[derive(Debug, Args)]
pub struct Pack {
    /// Folder with config.json, *.safetensors and tokenizer.json
    pub checkpoint: PathBuf,
    /// File to write
    pub output: PathBuf,
}

/// `r3mes golden`
#[derive(Debug, Args)]
pub struct Golden {
    /// Print the hashes alone, for comparing machines
    #[arg(long)]
    pub hashes: bool,
}

/// `r3mes version`
#[derive(Debug, Args)]
pub struct Version {
    /// Print the back ends of this machine alone, a line each
    #[arg(long)]
    pub backends: bool,
}

/// `r3mes demo`
#[derive(Clone, Debug, Args)]
pub struct Demo {
    /// Training rounds
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
    /// A fourth miner joins, cheats in every step, and is seen caught and slashed
    #[arg(long)]
    pub liar: bool,
    /// Check everything at the end, then leave: status 0 only if all of it holds
    #[arg(long)]
    pub check: bool,
    /// Keep the directory when done
    #[arg(long)]
    pub keep: bool,
    /// Where the network's homes are made [default: a new folder in the temporary directory]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Port of the public API; 0 takes a free one
    #[arg(long, default_value_t = 8000)]
    pub port: u16,
    /// Seed of the beacon's hash chain; fresh randomness when absent. Keys, times and the blocks that
    /// draws fall on still differ from run to run
    #[arg(long, value_name = "N")]
    pub beacon: Option<u64>,
}

/// `r3mes testnet`
#[derive(Clone, Debug, Args)]
pub struct Testnet {
    /// Validators; each also mines, and the first aggregates and answers prompts
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub validators: u16,
    /// Where the homes are made; those that are there go on
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// Make homes for these machines instead of running anything here: a name or address a line, with
    /// roles behind it where the machine is not to mine and validate
    #[arg(long, value_name = "FILE")]
    pub hosts: Option<PathBuf>,
    /// Check that blocks agree, that a training round closes, and that a killed validator comes back,
    /// then leave: status 0 only if all of it holds
    #[arg(long, conflicts_with = "hosts")]
    pub check: bool,
    /// Seconds in which blocks must come, and in which a round must close
    #[arg(long, value_name = "SECONDS", default_value_t = plan::PATIENCE, requires = "check", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub within: u64,
    /// Port of the public API; 0 takes a free one
    #[arg(long, default_value_t = 8000)]
    pub port: u16,
    /// Pause after each block, in milliseconds: at most a second
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub block_interval_ms: u64,
    /// Found the network without an authority: the validators' votes decide, there is no faucet, and stake
    /// takes a week to unbond
    #[arg(long)]
    pub no_authority: bool,
    /// Training rounds of the run that begins at once
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_chain_id_that_no_engine_takes_is_refused_before_a_home_is_made() {
        let typed = |id| Cli::read_from(["r3mes", "init", "--chain-id", id]);
        typed("r3mes-1_a.b").unwrap();
        for id in ["", "my chain", "ünlü-1", &"a".repeat(51)] {
            let refusal = typed(id).unwrap_err().to_string();
            assert!(refusal.contains("letters, digits"), "{refusal}");
        }
    }

    #[test]
    fn every_command_and_flag_has_a_help_text() {
        fn check(command: &clap::Command) {
            assert!(
                command.get_about().is_some(),
                "{} has no help",
                command.get_name()
            );
            for argument in command
                .get_arguments()
                .filter(|argument| !argument.is_hide_set())
            {
                assert!(
                    argument.get_help().is_some(),
                    "{} {}",
                    command.get_name(),
                    argument.get_id()
                );
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }
}

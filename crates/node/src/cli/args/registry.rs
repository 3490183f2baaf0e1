//! What `r3mes query chain-registry` takes.

use std::path::PathBuf;

use clap::Args;

use crate::config::{is_host_and_port, is_http_url};

/// `r3mes query chain-registry`
#[derive(Debug, Args)]
pub struct ChainRegistry {
    /// Folder for the files
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// What kind of network this is
    #[arg(long, value_name = "KIND", default_value_t = NetworkKind::Devnet)]
    pub network_type: NetworkKind,
    /// Name in the registry, in small letters and digits [default: r3mes, with the kind of network
    /// unless it is mainnet]
    #[arg(long, value_name = "NAME", value_parser = registry_name)]
    pub chain_name: Option<String>,
    /// Where others reach RPCs of the network [default: network.rpc of the configuration]
    #[arg(long, value_delimiter = ',', value_name = "URL,...", value_parser = http_url)]
    pub public_rpc: Vec<String>,
    /// Where they reach the Cosmos SDK's REST [default: where this home's ledger listens]
    #[arg(long, value_delimiter = ',', value_name = "URL,...", value_parser = http_url)]
    pub public_rest: Vec<String>,
    /// Where they reach its gRPC [default: where this home's ledger listens]
    #[arg(long, value_delimiter = ',', value_name = "HOST:PORT,...", value_parser = host_and_port)]
    pub public_grpc: Vec<String>,
}

/// What a network is for, in the registry's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum NetworkKind {
    /// Its coins are worth something
    Mainnet,
    /// Open to everybody, for trying things
    Testnet,
    /// Somebody's own
    Devnet,
}

impl std::fmt::Display for NetworkKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Mainnet => "mainnet",
            Self::Testnet => "testnet",
            Self::Devnet => "devnet",
        })
    }
}

/// A name as the registry takes it.
fn registry_name(typed: &str) -> Result<String, String> {
    let fits = |letter: u8| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    match !typed.is_empty() && typed.bytes().all(fits) {
        true => Ok(typed.to_owned()),
        false => Err("small letters and digits only".to_owned()),
    }
}

fn http_url(typed: &str) -> Result<String, String> {
    is_http_url(typed, &()).map_err(|error| error.to_string())?;
    Ok(typed.to_owned())
}

fn host_and_port(typed: &str) -> Result<String, String> {
    is_host_and_port(typed, &()).map_err(|error| error.to_string())?;
    Ok(typed.to_owned())
}

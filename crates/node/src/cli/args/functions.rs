//! `r3mes functions` as typed.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Subcommand};
use r3mes_types::Amount;

use super::address;

/// `r3mes functions`
#[derive(Debug, Args)]
pub struct Functions {
    /// What to do.
    #[command(subcommand)]
    pub command: FunctionsCommand,
}

/// What to do with remote functions.
#[derive(Debug, Subcommand)]
pub enum FunctionsCommand {
    /// Run a gateway in this process until Ctrl-C. It needs no ledger, and no `r3mes init`
    Serve(Serve),
    /// Who may come and call: tokens of this home's gateway
    Token(Token),
    /// Certificates with which a gateway speaks TLS, by an authority of your own
    Ca(Ca),
    /// Nodes that are connected
    Nodes(At),
    /// Functions that can be called
    List(At),
    /// Call a function and print what it returns, a line for each item of a stream
    Call(Call),
}

/// `r3mes functions serve`
#[derive(Debug, Args)]
pub struct Serve {
    /// Address to listen on, over services.functions.listen; 0.0.0.0:8080 lets other machines in
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = address::listen)]
    pub listen: Option<SocketAddr>,
    /// Meet other gateways at these NATS servers, over services.functions.nats
    #[arg(long, value_delimiter = ',', value_name = "URL,...")]
    pub nats: Vec<String>,
    /// The file of the certificate authority to trust at tls:// servers of NATS
    #[arg(long, value_name = "FILE", requires = "nats")]
    pub nats_ca: Option<PathBuf>,
    /// Tell these hosts alone of the ends of asynchronous calls, over services.functions.webhook_hosts
    #[arg(long, value_delimiter = ',', value_name = "HOST,...")]
    pub webhook_hosts: Vec<String>,
    /// Let pages of these origins call from a browser, over services.functions.cors_origins; * for all
    #[arg(long, value_delimiter = ',', value_name = "ORIGIN,...")]
    pub cors_origins: Vec<String>,
    /// Let nobody come without a token
    #[arg(long)]
    pub token_required: bool,
    /// Speak TLS with the certificate in this file, over services.functions.tls
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_certificate: Option<PathBuf>,
    /// The file of the certificate's private key
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    pub tls_key: Option<PathBuf>,
}

/// `r3mes functions ca`
#[derive(Debug, Args)]
pub struct Ca {
    /// What to do with it.
    #[command(subcommand)]
    pub command: CaCommand,
}

/// What to do with a certificate authority.
#[derive(Debug, Subcommand)]
pub enum CaCommand {
    /// Make an authority in a folder, and a certificate of it for a gateway
    Create {
        /// The folder, to hold ca.pem and ca.key, server.pem and server.key
        dir: PathBuf,
        /// Where the gateway is.
        #[command(flatten)]
        server: ForServer,
    },
    /// Issue one more certificate of an authority
    Issue {
        /// The authority's folder
        dir: PathBuf,
        /// What the files are called there: NAME.pem and NAME.key
        name: String,
        /// Where the gateway is.
        #[command(flatten)]
        server: ForServer,
    },
}

/// For whom a certificate is.
#[derive(Clone, Debug, Args)]
pub struct ForServer {
    /// Names and addresses by which the gateway is reached; localhost, 127.0.0.1 and ::1 are added
    #[arg(long = "host", value_delimiter = ',', value_name = "HOST,...", value_parser = address::host)]
    pub hosts: Vec<String>,
    /// Days until the certificate expires
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub days: u32,
}

/// `r3mes functions token`
#[derive(Debug, Args)]
pub struct Token {
    /// What to do with them.
    #[command(subcommand)]
    pub command: TokenCommand,
}

/// What to do with tokens.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token and print it: it cannot be shown again
    Create {
        /// Whose it is; usage is counted by it
        user: String,
        /// Groups it carries, which open the functions that are for them
        #[arg(long, value_delimiter = ',', value_name = "GROUP,...")]
        groups: Vec<String>,
        /// Days until it ends; it never does when absent
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=36_500))]
        days: Option<u32>,
    },
    /// List tokens by the beginning of their hashes
    List,
    /// Revoke tokens: all of a user, or the one whose hash begins so
    Revoke {
        /// A user, or the first 8 or more digits of a hash
        which: String,
    },
}

/// Where a gateway is.
#[derive(Clone, Debug, Args)]
pub struct At {
    /// The gateway, as HOST:PORT, or tls://HOST:PORT where it speaks TLS; of several, with commas
    /// between them, the first that answers
    /// [default: where this home's gateway listens, or 127.0.0.1:8080]
    #[arg(long, env = "R3MES_GATEWAY", value_name = "HOST:PORT")]
    pub gateway: Option<String>,
    /// The file of the certificate authority to trust [default: those that this machine trusts]
    #[arg(long, env = "R3MES_FUNCTIONS_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,
}

/// `r3mes functions call`
#[derive(Debug, Args)]
pub struct Call {
    /// The function, or NODE.FUNCTION
    pub function: String,
    /// Its arguments as JSON: an object by name, or a list by position
    #[arg(default_value = "[]")]
    pub arguments: String,
    /// Only on a node that can do this
    #[arg(long)]
    pub capability: Option<String>,
    /// The most that the call may cost, such as 700uremes; a function with a price is not called without
    #[arg(long, value_name = "AMOUNT")]
    pub max_price: Option<Amount>,
    /// Seconds in which it must end
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub timeout: Option<u64>,
    /// Where the gateway is.
    #[command(flatten)]
    pub at: At,
}

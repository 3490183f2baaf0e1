//! Several gateways that meet on a NATS cluster, so that a client of one reaches the nodes of all.
//!
//! Gateways find each other by beacons, and open a link for each direction (see `links.rs`). A node's id
//! belongs to one key at all of them: who takes an id first is written into a JetStream key-value
//! bucket (see `owners.rs`). All gateways of a cluster trust each other; what keeps others out is the
//! cluster's own access control.

mod calls;
mod links;
mod owners;

use std::{path::PathBuf, sync::Arc, time::Duration};

use async_nats::{Client, ConnectOptions};
use serde::Deserialize;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    net::TcpStream,
};
use tokio_util::sync::CancellationToken;

use self::links::Links;
pub use self::{
    calls::{CallRecord, CallState, Interrupts, KeepError, KeptCalls, LIFE, Once, Turn},
    owners::Owners,
};
use crate::serve::Hub;

/// How long the first connection to the cluster may take.
const CONNECTING: Duration = Duration::from_secs(10);
/// Most bytes of what a server says of itself.
const MAX_INFO_BYTES: u64 = 64 << 10;

/// Where a gateway meets others.
#[derive(Clone, Debug)]
pub struct FederationConfig {
    /// Servers of the cluster, each `nats://host:port`. TLS is not spoken.
    pub servers: Vec<String>,
    /// A credentials file that the cluster's owner gave out.
    pub credentials: Option<PathBuf>,
    /// This gateway's name, for people.
    pub name: String,
    /// What the network's subjects and buckets begin with; gateways with another one are not met.
    pub prefix: String,
    /// Servers that keep each record: 1, 3 or 5.
    pub replicas: usize,
}

/// Why a gateway cannot meet others.
#[derive(Debug, thiserror::Error)]
pub enum FederationError {
    /// The credentials cannot be read.
    #[error("cannot read the NATS credentials in {path}")]
    Credentials {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: std::io::Error,
    },
    /// The prefix cannot begin a subject.
    #[error(
        "{0:?} cannot be the prefix of a network: use letters, digits, '-' and '_', at most 32"
    )]
    Prefix(String),
    /// No server answers.
    #[error("cannot connect to NATS at {servers}: {reason}")]
    Connect {
        /// The servers, with commas between them.
        servers: String,
        /// What the last one said.
        reason: String,
    },
    /// A server speaks TLS only, and this build speaks none.
    #[error(
        "the NATS server at {0} asks for TLS, which is not spoken yet: let it listen without TLS where \
         only your own machines reach it"
    )]
    Tls(String),
    /// JetStream does not do what is asked.
    #[error("NATS does not {doing}: {reason}; JetStream must be enabled (nats-server --jetstream)")]
    JetStream {
        /// What it was asked for.
        doing: &'static str,
        /// What it said.
        reason: String,
    },
    /// There is no address for this gateway.
    #[error("the operating system gives no random bytes: {0}")]
    Random(getrandom::Error),
    /// A subscription was refused.
    #[error("NATS refuses the subscription to {subject}: {reason}")]
    Subscribe {
        /// To what.
        subject: String,
        /// What it said.
        reason: String,
    },
}

/// A gateway's place among others.
#[derive(Debug)]
pub struct Federation {
    client: Client,
    config: FederationConfig,
    owners: Owners,
    calls: Arc<KeptCalls>,
}

impl Federation {
    /// Connects to the cluster.
    ///
    /// # Errors
    /// See [`FederationError`].
    pub async fn connect(config: FederationConfig) -> Result<Self, FederationError> {
        let word = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if config.prefix.is_empty() || config.prefix.len() > 32 || !config.prefix.chars().all(word)
        {
            return Err(FederationError::Prefix(config.prefix));
        }
        for server in &config.servers {
            if wants_tls(server).await {
                return Err(FederationError::Tls(server.clone()));
            }
        }
        let mut options = ConnectOptions::new()
            .name(format!("r3mes {}", config.name))
            .connection_timeout(CONNECTING);
        if let Some(path) = &config.credentials {
            options = options.credentials_file(path).await.map_err(|source| {
                FederationError::Credentials {
                    path: path.clone(),
                    source,
                }
            })?;
        }
        let client =
            options
                .connect(&config.servers)
                .await
                .map_err(|error| FederationError::Connect {
                    servers: config.servers.join(", "),
                    reason: error.to_string(),
                })?;
        let owners = Owners::open(&client, &config.prefix, config.replicas).await?;
        let calls = KeptCalls::open(&client, &config.prefix, config.replicas);
        let calls = Arc::new(calls.await?);
        Ok(Self {
            client,
            config,
            owners,
            calls,
        })
    }

    /// The record of whose each node's id is.
    pub fn owners(&self) -> &Owners {
        &self.owners
    }

    /// Asynchronous calls that outlast a gateway.
    pub fn calls(&self) -> &Arc<KeptCalls> {
        &self.calls
    }

    /// Meets other gateways until `shutdown`, then says goodbye to them.
    ///
    /// # Errors
    /// When the cluster refuses what this needs; a server that is lost is waited for.
    pub async fn run(
        &self,
        hub: Arc<Hub>,
        shutdown: CancellationToken,
    ) -> Result<(), FederationError> {
        let links = Links::new(self.client.clone(), &self.config, Arc::clone(&hub))?;
        tokio::select! {
            result = links.run(shutdown.clone()) => result,
            () = self.owners.follow(&hub) => Ok(()),
        }
    }
}

/// Whether a server says that it speaks TLS only. One that does not answer is left to the client.
async fn wants_tls(server: &str) -> bool {
    #[derive(Deserialize)]
    struct Info {
        #[serde(default)]
        tls_required: bool,
    }
    let asking = async {
        let address = server.strip_prefix("nats://").unwrap_or(server);
        let stream = TcpStream::connect(address).await.ok()?;
        let (mut said, mut line) = (BufReader::new(stream).take(MAX_INFO_BYTES), String::new());
        said.read_line(&mut line).await.ok()?;
        let info: Info = serde_json::from_str(line.strip_prefix("INFO ")?).ok()?;
        Some(info.tls_required)
    };
    let answer = tokio::time::timeout(CONNECTING, asking).await;
    answer.ok().flatten().unwrap_or(false)
}

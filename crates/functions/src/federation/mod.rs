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
use tokio_util::sync::CancellationToken;

use self::links::Links;
pub use self::{
    calls::{CallRecord, CallState, KeepError, KeptCalls, LIFE, Once, Turn},
    owners::Owners,
};
use crate::{
    serve::Hub,
    tls::{self, TlsError},
};

/// How long the first connection to the cluster may take.
const CONNECTING: Duration = Duration::from_secs(10);

/// Where a gateway meets others.
#[derive(Clone, Debug)]
pub struct FederationConfig {
    /// Servers of the cluster, each `nats://host:port` or `tls://host:port`. With one of the latter,
    /// nothing but TLS is spoken with any of them.
    pub servers: Vec<String>,
    /// The file (PEM) of the certificate authority that is trusted where TLS is spoken; those that the
    /// machine trusts if there is none.
    pub ca: Option<PathBuf>,
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
    /// Nobody can be trusted.
    #[error("cannot speak TLS with NATS: {0}")]
    Tls(#[from] TlsError),
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
        let secure = config
            .servers
            .iter()
            .any(|server| server.starts_with("tls://"));
        let tls = match tls::client_config(config.ca.as_deref()) {
            // No server is known to speak it; one that does is refused then.
            Err(TlsError::NoAuthorities(_)) if !secure => tls::trusting_nobody()?,
            found => found?,
        };
        let mut options = ConnectOptions::new()
            .name(format!("r3mes {}", config.name))
            .connection_timeout(CONNECTING)
            .require_tls(secure)
            .tls_client_config(tls);
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

//! A compute node: functions behind one connection that the node itself opens.

mod connection;
mod invocation;
mod key;

use std::{
    collections::BTreeMap, fmt, future::Future, path::PathBuf, pin::Pin, sync::Arc, time::Duration,
};

use ed25519_consensus::SigningKey;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

pub use self::{
    invocation::{Input, Invocation, Output, answer},
    key::key_file,
};
use crate::{
    failure::Failure,
    registry::{Capabilities, FunctionInfo},
    tls::TlsError,
    wire::messages::Load,
};

/// Pauses between connections: the first, and the longest. A connection that lasts as long as the longest
/// was a good one, after which pauses are short again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// What a node is.
#[derive(Clone)]
pub struct NodeConfig {
    /// The broker, as HOST:PORT, or tls://HOST:PORT where it speaks TLS; of several, with commas between
    /// them, the next one whenever a connection is not made or is lost.
    pub broker: String,
    /// The file (PEM) of the certificate authority that is trusted; those that the machine trusts if
    /// there is none.
    pub ca: Option<PathBuf>,
    /// The node's name there.
    pub id: String,
    /// The key that its name belongs to.
    pub key: SigningKey,
    /// A token, where the broker wants one.
    pub token: Option<String>,
    /// What it can do.
    pub capabilities: Capabilities,
    /// Calls it runs at a time.
    pub max_concurrent: u32,
    /// Resources it has, in base units.
    pub resources: BTreeMap<String, f64>,
}

impl fmt::Debug for NodeConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeConfig")
            .field("broker", &self.broker)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

type Running = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>>;
type Handler = Arc<dyn Fn(Invocation) -> Running + Send + Sync>;

/// A node and its functions.
pub struct Node {
    config: NodeConfig,
    registered: watch::Sender<bool>,
    functions: BTreeMap<String, (FunctionInfo, Handler)>,
    load: Option<watch::Receiver<Load>>,
}

/// Why a node stopped.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// There is no such address.
    #[error("{broker:?} names no broker: write HOST:PORT, or tls://HOST:PORT where it speaks TLS")]
    Address {
        /// What was given.
        broker: String,
    },
    /// It cannot be told who the broker is, or it is nobody who is trusted. A node that was registered
    /// once, or has other brokers to go to, tries again instead.
    #[error("node {id:?} cannot speak TLS with the broker at {broker}: {reason}")]
    Tls {
        /// The broker.
        broker: String,
        /// The node.
        id: String,
        /// What went wrong.
        reason: TlsError,
    },
    /// The broker will not have it.
    #[error("the broker at {broker} refuses node {id:?}: {reason}")]
    Refused {
        /// The broker.
        broker: String,
        /// The node.
        id: String,
        /// What it said.
        reason: String,
    },
    /// The description of what it offers is too long.
    #[error("node {id:?} offers too much: {reason}")]
    Description {
        /// The node.
        id: String,
        /// What is too long.
        reason: String,
    },
}

impl Node {
    /// A node without functions.
    pub fn new(config: NodeConfig) -> Self {
        Self {
            config,
            registered: watch::Sender::new(false),
            functions: BTreeMap::new(),
            load: None,
        }
    }

    /// Tells the broker of this machine's load, now and whenever it changes. Without, it is not known there.
    pub fn tell_load(&mut self, load: watch::Receiver<Load>) {
        self.load = Some(load);
    }

    /// Whether a broker has its functions, now and from now on.
    pub fn registered(&self) -> watch::Receiver<bool> {
        self.registered.subscribe()
    }

    /// Offers a function.
    ///
    /// # Errors
    /// What is wrong with its description.
    pub fn register<F, R>(&mut self, info: FunctionInfo, function: F) -> Result<(), String>
    where
        F: Fn(Invocation) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        info.check()?;
        let name = info.name.clone();
        let handler: Handler = Arc::new(move |invocation| Box::pin(function(invocation)));
        match self.functions.insert(name.clone(), (info, handler)) {
            Some(_) => Err(format!("{name} is registered twice")),
            None => Ok(()),
        }
    }

    /// Serves calls until `shutdown`, connecting again whenever the connection is lost.
    ///
    /// # Errors
    /// When the broker says that trying again is no use.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), NodeError> {
        let (mut pause, mut known) = (PAUSES.0, false);
        loop {
            let (mut untrusted, mut others) = (None, false);
            for broker in self.config.broker.split(',').map(str::trim) {
                let began = Instant::now();
                let served = tokio::select! {
                    served = self.serve(broker) => served,
                    () = shutdown.cancelled() => return Ok(()),
                };
                known |= self.registered.send_replace(false);
                match served {
                    Err(error @ NodeError::Tls { .. }) => {
                        tracing::warn!(%error, "functions.node.connect");
                        untrusted = Some(error);
                    }
                    served => {
                        served?;
                        others = true;
                    }
                }
                if began.elapsed() >= PAUSES.1 {
                    pause = PAUSES.0;
                }
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = shutdown.cancelled() => return Ok(()),
                }
            }
            if let Some(error) = untrusted
                && !known
                && !others
            {
                return Err(error);
            }
            pause = (pause * 2).min(PAUSES.1);
        }
    }
}

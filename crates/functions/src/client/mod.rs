//! A client: calls functions through a broker.

mod reply;

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use serde::de::DeserializeOwned;
use tokio::{sync::mpsc, task::JoinHandle};

use self::reply::failure_of;
pub use self::reply::{Event, Reply, Upload};
use crate::{
    broker::{FunctionView, NodeView},
    failure::{Failure, Reason},
    link::{Arrival, Link, goodbye},
    reach::{Unreached, reach},
    serve::Hub,
    tls::TlsError,
    wire::{
        Flags, Frame, Kind,
        messages::{Ask, CallHead, Head, Hello, PROTOCOL, Question, Welcome},
    },
};

/// How long the broker may take to greet.
const GREETING: Duration = Duration::from_secs(10);
/// Bytes on their way between a broker and a client in its process.
const PIPE_BYTES: usize = 256 << 10;

/// Where a client goes, and as whom.
#[derive(Clone, Default)]
pub struct ClientConfig {
    /// The broker, as HOST:PORT, or tls://HOST:PORT where it speaks TLS; of several, with commas between
    /// them, the first that greets.
    pub broker: String,
    /// A token, where the broker or a function wants one.
    pub token: Option<String>,
    /// The file (PEM) of the certificate authority that is trusted; those that the machine trusts if
    /// there is none.
    pub ca: Option<PathBuf>,
}

impl fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientConfig")
            .field("broker", &self.broker)
            .finish_non_exhaustive()
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// There is no such address.
    #[error("{broker:?} names no broker: write HOST:PORT, or tls://HOST:PORT where it speaks TLS")]
    Address {
        /// What was given.
        broker: String,
    },
    /// It cannot be told who answers there, or nobody who is trusted does.
    #[error("cannot speak TLS with the broker at {broker}: {reason}")]
    Tls {
        /// The broker.
        broker: String,
        /// What went wrong.
        reason: TlsError,
    },
    /// Nobody answers there.
    #[error("cannot reach a broker at {broker}")]
    Unreachable {
        /// The broker.
        broker: String,
        /// What went wrong.
        #[source]
        source: std::io::Error,
    },
    /// The broker will not have this client.
    #[error("the broker at {broker} refuses: {reason}")]
    Refused {
        /// The broker.
        broker: String,
        /// What it said.
        reason: String,
    },
    /// What answers there is no broker, or one that is stuck.
    #[error("what answers at {broker} does not greet as a broker does")]
    NoGreeting {
        /// The address.
        broker: String,
    },
}

/// A connection to a broker. It ends when the client is dropped, and its calls with it.
#[derive(Debug)]
pub struct Client {
    link: Arc<Link>,
    moving: JoinHandle<()>,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn connect(config: &ClientConfig) -> Result<Self, ConnectError> {
        let mut refusal = ConnectError::NoGreeting {
            broker: config.broker.clone(),
        };
        for broker in config.broker.split(',').map(str::trim) {
            match Self::connect_to(broker, config).await {
                Err(error @ ConnectError::Refused { .. }) => return Err(error),
                Err(error) => refusal = error,
                connected => return connected,
            }
        }
        Err(refusal)
    }

    async fn connect_to(address: &str, config: &ClientConfig) -> Result<Self, ConnectError> {
        let broker = || address.to_owned();
        let reached = reach(address, config.ca.as_deref()).await;
        let stream = reached.map_err(|error| match error {
            Unreached::Address => ConnectError::Address { broker: broker() },
            Unreached::Silent(source) => ConnectError::Unreachable {
                broker: broker(),
                source,
            },
            Unreached::Tls(reason) => ConnectError::Tls {
                broker: broker(),
                reason,
            },
        })?;
        let (read, write) = stream.into_split();
        let (link, (to, mut arrivals)) = (Link::new(), mpsc::unbounded_channel());
        let moving = tokio::spawn({
            let link = Arc::clone(&link);
            async move {
                if let Err(error) = link.run(read, write, to).await {
                    tracing::warn!(%error, "functions.client.lost");
                }
            }
        });
        let client = Self { link, moving };
        let greeting = tokio::time::timeout(GREETING, client.greet(config, &mut arrivals));
        match greeting.await {
            Ok(Ok(())) => Ok(client),
            Ok(Err(Some(reason))) => Err(ConnectError::Refused {
                broker: broker(),
                reason,
            }),
            Ok(Err(None)) | Err(_) => Err(ConnectError::NoGreeting { broker: broker() }),
        }
    }

    /// A client within the process of a broker, for what speaks other protocols there: each of its calls
    /// must say whose it is.
    pub fn within(hub: Arc<Hub>) -> Self {
        let (near, far) = tokio::io::duplex(PIPE_BYTES);
        let ((near_read, near_write), (far_read, far_write)) =
            (tokio::io::split(near), tokio::io::split(far));
        let (link, to) = (Link::new(), mpsc::unbounded_channel().0);
        let moving = tokio::spawn({
            let link = Arc::clone(&link);
            async move {
                let serving = hub.attend_front(far_read, far_write);
                let (moved, ()) = tokio::join!(link.run(near_read, near_write, to), serving);
                if let Err(error) = moved {
                    tracing::warn!(%error, "functions.client.lost");
                }
            }
        });
        Self { link, moving }
    }

    /// Says hello; why it is refused, if that is said.
    async fn greet(
        &self,
        config: &ClientConfig,
        arrivals: &mut mpsc::UnboundedReceiver<Arrival>,
    ) -> Result<(), Option<String>> {
        while let Some(Arrival::Control(frame)) = arrivals.recv().await {
            match frame.kind {
                Kind::Challenge => {
                    let hello = Hello {
                        protocol: PROTOCOL,
                        agent: concat!("r3mes/", env!("CARGO_PKG_VERSION")).into(),
                        token: config.token.clone(),
                        node: None,
                    };
                    let head = hello.encode().map_err(|error| Some(error.to_string()))?;
                    self.link.send(Frame {
                        head,
                        ..Frame::bare(Kind::Hello, 0)
                    });
                }
                Kind::Welcome => return Welcome::decode(&frame.head).map(|_| ()).map_err(|_| None),
                Kind::Goodbye => return Err(Some(goodbye(&frame).reason)),
                _ => return Err(None),
            }
        }
        Err(None)
    }

    /// Calls a function with one argument.
    ///
    /// # Errors
    /// [`Reason::Invalid`] when the head is too long. What the call itself comes to, the reply says.
    pub async fn call(
        &self,
        head: &CallHead,
        argument: impl Into<Bytes>,
    ) -> Result<Reply, Failure> {
        self.call_with(head, [argument.into()]).await
    }

    /// Calls a function with one argument that lies in several parts.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn call_with(
        &self,
        head: &CallHead,
        parts: impl IntoIterator<Item = Bytes, IntoIter: Send>,
    ) -> Result<Reply, Failure> {
        let (upload, reply) = self.begin(head, parts, Flags::LAST).await?;
        drop(upload);
        Ok(reply)
    }

    /// Calls a function whose arguments follow, item by item.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn open(&self, head: &CallHead) -> Result<(Upload, Reply), Failure> {
        self.begin(head, [], Flags::NONE).await
    }

    async fn begin(
        &self,
        head: &CallHead,
        body: impl IntoIterator<Item = Bytes, IntoIter: Send>,
        flags: Flags,
    ) -> Result<(Upload, Reply), Failure> {
        let head = head
            .encode()
            .map_err(|error| Failure::new(Reason::Invalid, error.to_string()))?;
        let (outgoing, incoming) = self.link.open();
        // Who reads no more says why, in the reply.
        let _ = outgoing.begin(head, body, flags).await;
        Ok((Upload::new(outgoing), Reply::new(incoming)))
    }

    /// Whether the connection still stands.
    pub fn is_connected(&self) -> bool {
        !self.moving.is_finished()
    }

    /// The nodes that are connected.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn nodes(&self) -> Result<Vec<NodeView>, Failure> {
        let (mut ask, mut nodes) = (Ask::new(Question::Nodes), Vec::<NodeView>::new());
        loop {
            let (page, whole) = self.ask(&ask).await?;
            let empty = page.is_empty();
            nodes.extend(page);
            if whole || empty {
                return Ok(nodes);
            }
            ask.after_node = nodes.last().map(|view| view.id.clone());
        }
    }

    /// The functions that this client may call.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn functions(&self) -> Result<Vec<FunctionView>, Failure> {
        let (mut ask, mut functions) = (Ask::new(Question::Functions), Vec::<FunctionView>::new());
        loop {
            let (page, whole) = self.ask(&ask).await?;
            let empty = page.is_empty();
            functions.extend(page);
            if whole || empty {
                return Ok(functions);
            }
            let last = functions.last();
            ask.after_node = last.map(|view| view.node.clone());
            ask.after_function = last.map(|view| view.info.name.clone());
        }
    }

    /// A page of a list, and whether it is the last one.
    async fn ask<T: DeserializeOwned>(&self, ask: &Ask) -> Result<(Vec<T>, bool), Failure> {
        let (outgoing, mut incoming) = self.link.open();
        outgoing.tell(Kind::Ask, ask);
        let frame = incoming.next().await;
        incoming.finish();
        match frame {
            Some(frame) if frame.kind == Kind::Answer => {
                let page = rmp_serde::from_slice(&frame.body)
                    .map_err(|error| Failure::new(Reason::Internal, error.to_string()))?;
                Ok((page, frame.flags.ends_stream()))
            }
            Some(frame) => Err(failure_of(&frame)),
            None => Err(Failure::new(Reason::Disconnected, "the connection is gone")),
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.link.close();
        self.moving.abort();
    }
}

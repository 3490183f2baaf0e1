//! A compute node: functions behind one connection that the node itself opens.

use std::{
    any::Any,
    collections::BTreeMap,
    fmt,
    future::Future,
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use ed25519_consensus::SigningKey;
use futures::FutureExt;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    failure::{Failure, Reason},
    link::{Arrival, Incoming, Link, Outgoing, Unread, goodbye},
    reach::{Unreached, reach},
    registry::{Capabilities, FunctionInfo},
    tls::TlsError,
    wire::{
        Frame, Kind,
        messages::{
            CallHead, Caller, Challenge, Head, Hello, Load, NodeHello, PROTOCOL, Progress,
            Register, Welcome, node_proof,
        },
    },
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

/// Reads a node's key from a file, or makes one there that only the owner can read.
///
/// # Errors
/// When the file cannot be read or written, or holds something else.
pub fn key_file(path: &Path) -> std::io::Result<SigningKey> {
    use std::{fs, io, os::unix::fs::OpenOptionsExt};
    let other = || {
        let words = format!("{} does not hold 64 hexadecimal digits", path.display());
        io::Error::new(io::ErrorKind::InvalidData, words)
    };
    let mut secret = [0; 32];
    match fs::read_to_string(path) {
        Ok(text) => hex::decode_to_slice(text.trim(), &mut secret).map_err(|_| other())?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            getrandom::fill(&mut secret).map_err(|error| io::Error::other(error.to_string()))?;
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder)?;
            }
            let mut options = fs::OpenOptions::new();
            let mut file = options
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(path)?;
            io::Write::write_all(&mut file, hex::encode(secret).as_bytes())?;
            file.sync_all()?;
        }
        Err(error) => return Err(error),
    }
    Ok(SigningKey::from(secret))
}

/// One call, as the function sees it.
pub struct Invocation {
    /// For whom.
    pub caller: Caller,
    /// Its arguments.
    pub input: Input,
    /// Where results go.
    pub output: Output,
}

/// Arguments, item by item.
pub struct Input {
    frames: Incoming,
    ended: bool,
    cancelled: CancellationToken,
}

impl Input {
    /// The next item; `None` after the last, or when nobody waits any more.
    pub async fn item(&mut self) -> Option<Bytes> {
        let mut item = BytesMut::new();
        while !self.ended {
            let frame = tokio::select! {
                frame = self.frames.next() => frame?,
                () = self.cancelled.cancelled() => return None,
            };
            if matches!(frame.kind, Kind::Cancel | Kind::Failed) {
                return None;
            }
            self.ended = frame.flags.ends_stream();
            if frame.flags.ends_item() {
                if item.is_empty() {
                    return Some(frame.body);
                }
                item.extend_from_slice(&frame.body);
                return Some(item.freeze());
            }
            item.extend_from_slice(&frame.body);
        }
        None
    }
}

/// Results, item by item, and word of how far the call has come.
pub struct Output {
    link: Outgoing,
    cancelled: CancellationToken,
}

impl Output {
    /// Sends an item, waiting until the reader has room for it.
    ///
    /// # Errors
    /// When nobody reads any more.
    pub async fn item(&self, body: impl Into<Bytes>) -> Result<(), Unread> {
        self.item_of([body.into()]).await
    }

    /// Sends an item that lies in several parts, as [`Output::item`] does.
    ///
    /// # Errors
    /// When nobody reads any more.
    pub async fn item_of(
        &self,
        parts: impl IntoIterator<Item = Bytes, IntoIter: Send>,
    ) -> Result<(), Unread> {
        self.link.item(parts).await
    }

    /// Sends the last item, which a function that returns one value does.
    ///
    /// # Errors
    /// When nobody reads any more.
    pub async fn last(self, body: impl Into<Bytes>) -> Result<(), Unread> {
        self.last_of([body.into()]).await
    }

    /// Sends the last item, which lies in several parts.
    ///
    /// # Errors
    /// When nobody reads any more.
    pub async fn last_of(
        &self,
        parts: impl IntoIterator<Item = Bytes, IntoIter: Send>,
    ) -> Result<(), Unread> {
        self.link.last(parts).await
    }

    /// Says how far the call has come: a share of one, and a line for people, of which
    /// [`MAX_NOTE_BYTES`](crate::wire::messages::MAX_NOTE_BYTES) are sent. It is left out where much waits
    /// to be sent already.
    pub fn progress(&self, done: Option<f64>, note: impl Into<String>) {
        let note = note.into();
        self.link.mention(Kind::Progress, &Progress { done, note });
    }

    /// Cancelled as soon as nobody waits for the call any more.
    pub fn cancelled(&self) -> &CancellationToken {
        &self.cancelled
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

    /// One connection, until it is lost.
    async fn serve(&self, broker: &str) -> Result<(), NodeError> {
        let stream = match reach(broker, self.config.ca.as_deref()).await {
            Ok(stream) => stream,
            Err(Unreached::Address) => {
                return Err(NodeError::Address {
                    broker: broker.to_owned(),
                });
            }
            Err(Unreached::Tls(reason)) => {
                return Err(NodeError::Tls {
                    broker: broker.to_owned(),
                    id: self.config.id.clone(),
                    reason,
                });
            }
            Err(error) => {
                tracing::warn!(broker, %error, "functions.node.connect");
                return Ok(());
            }
        };
        let (read, write) = stream.into_split();
        let link = Link::new();
        let (to, mut arrivals) = mpsc::unbounded_channel();
        let moving = link.run(read, write, to);
        let serving = self.attend(broker, &link, &mut arrivals);
        tokio::select! {
            result = moving => {
                if let Err(error) = result {
                    tracing::warn!(broker, %error, "functions.node.lost");
                }
                // What the broker said last may lie there still.
                while let Ok(arrival) = arrivals.try_recv() {
                    if let Arrival::Control(frame) = arrival
                        && frame.kind == Kind::Goodbye
                    {
                        self.leave(broker, &frame)?;
                    }
                }
                Ok(())
            }
            result = serving => result,
        }
    }

    /// Greets, registers, then starts each call that comes.
    async fn attend(
        &self,
        broker: &str,
        link: &Arc<Link>,
        arrivals: &mut mpsc::UnboundedReceiver<Arrival>,
    ) -> Result<(), NodeError> {
        let (mut calls, mut load) = (JoinSet::new(), None);
        loop {
            let arrival = tokio::select! {
                arrival = arrivals.recv() => arrival,
                Some(_) = calls.join_next(), if !calls.is_empty() => continue,
                frame = load_frame(&mut load) => {
                    link.send(frame);
                    continue;
                }
            };
            let frame = match arrival {
                None => return Ok(()),
                Some(Arrival::Control(frame)) => frame,
                Some(Arrival::Call(frame, outgoing, incoming)) => {
                    self.start(link, frame, (outgoing, incoming), &mut calls);
                    continue;
                }
            };
            match frame.kind {
                Kind::Challenge => match Challenge::decode(&frame.head) {
                    Ok(challenge) => link.send(self.hello(&challenge)?),
                    Err(_) => return Ok(()),
                },
                Kind::Welcome if Welcome::decode(&frame.head).is_ok() => {
                    link.send(self.offers()?);
                }
                Kind::Registered => {
                    self.registered.send_replace(true);
                    load.clone_from(&self.load);
                    load.iter_mut().for_each(watch::Receiver::mark_changed);
                    tracing::info!(node = self.config.id, "functions.node.registered");
                }
                Kind::Goodbye => return self.leave(broker, &frame),
                _ => {}
            }
        }
    }

    fn hello(&self, challenge: &Challenge) -> Result<Frame, NodeError> {
        let config = &self.config;
        let proof = config.key.sign(&node_proof(&challenge.nonce, &config.id));
        let hello = Hello {
            protocol: PROTOCOL,
            agent: concat!("r3mes/", env!("CARGO_PKG_VERSION")).into(),
            token: config.token.clone(),
            node: Some(NodeHello {
                id: config.id.clone(),
                key: config.key.verification_key().to_bytes(),
                signature: proof.to_bytes(),
                capabilities: config.capabilities.clone(),
                max_concurrent: config.max_concurrent,
                resources: config.resources.clone(),
            }),
        };
        let head = hello.encode().map_err(|error| self.too_long(error))?;
        Ok(Frame {
            head,
            ..Frame::bare(Kind::Hello, 0)
        })
    }

    fn offers(&self) -> Result<Frame, NodeError> {
        let functions = self.functions.values().map(|(info, _)| info.clone());
        let list = Register {
            functions: functions.collect(),
        };
        let body = rmp_serde::to_vec_named(&list).map_err(|error| self.too_long(error))?;
        Ok(Frame {
            body: body.into(),
            ..Frame::bare(Kind::Register, 0)
        })
    }

    fn too_long(&self, reason: impl ToString) -> NodeError {
        NodeError::Description {
            id: self.config.id.clone(),
            reason: reason.to_string(),
        }
    }

    fn leave(&self, broker: &str, frame: &Frame) -> Result<(), NodeError> {
        let goodbye = goodbye(frame);
        match goodbye.retry {
            true => {
                tracing::warn!(broker, reason = goodbye.reason, "functions.node.dismissed");
                Ok(())
            }
            false => Err(NodeError::Refused {
                broker: broker.to_owned(),
                id: self.config.id.clone(),
                reason: goodbye.reason,
            }),
        }
    }

    fn start(
        &self,
        link: &Arc<Link>,
        frame: Frame,
        (outgoing, incoming): (Outgoing, Incoming),
        calls: &mut JoinSet<()>,
    ) {
        let number = frame.call;
        let head = match CallHead::decode(&frame.head) {
            Ok(head) => head,
            Err(error) => {
                let failure = Failure::new(Reason::Invalid, error.to_string());
                outgoing.tell(Kind::Failed, &failure);
                return link.leave(number);
            }
        };
        let Some((_, handler)) = self.functions.get(&head.function) else {
            let words = format!(
                "node {:?} has no function {:?}",
                self.config.id, head.function
            );
            outgoing.tell(Kind::Failed, &Failure::new(Reason::NotFound, words));
            return link.leave(number);
        };
        let cancelled = CancellationToken::new();
        let invocation = Invocation {
            caller: head.caller.unwrap_or_default(),
            input: Input::new(frame, incoming, cancelled.clone()),
            output: Output {
                link: outgoing.again(),
                cancelled: cancelled.clone(),
            },
        };
        let (handler, link) = (Arc::clone(handler), Arc::clone(link));
        calls.spawn(async move {
            let running = AssertUnwindSafe(async move { handler(invocation).await }).catch_unwind();
            let watched = async {
                outgoing.unread().await;
                cancelled.cancel();
                std::future::pending::<()>().await;
            };
            let result = tokio::select! {
                result = running => result.unwrap_or_else(|panic| Err(panicked(&*panic))),
                () = watched => return,
            };
            let failure = match result {
                Err(failure) => Some(failure),
                Ok(()) if outgoing.ended() => None,
                Ok(()) => outgoing
                    .end()
                    .await
                    .err()
                    .map(|unread| Failure::new(Reason::Cancelled, unread.to_string())),
            };
            if let Some(failure) = failure {
                outgoing.tell(Kind::Failed, &failure);
            }
            link.leave(number);
        });
    }
}

/// What tells of the next change of a load; nothing ever does where nobody measures it.
async fn load_frame(load: &mut Option<watch::Receiver<Load>>) -> Frame {
    if let Some(changing) = load
        && changing.changed().await.is_ok()
        && let Ok(head) = changing.borrow_and_update().encode()
    {
        return Frame {
            head,
            ..Frame::bare(Kind::Load, 0)
        };
    }
    *load = None;
    std::future::pending().await
}

impl Input {
    /// Arguments that begin with the frame that opened the call.
    fn new(first: Frame, mut frames: Incoming, cancelled: CancellationToken) -> Self {
        frames.put_back(Frame {
            kind: Kind::Data,
            ..first
        });
        Self {
            frames,
            ended: false,
            cancelled,
        }
    }
}

/// What a caller is told of a function that panicked.
fn panicked(panic: &(dyn Any + Send)) -> Failure {
    let words = panic.downcast_ref::<&str>().copied();
    let words = words.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let mut failure = Failure::new(Reason::Raised, words.unwrap_or("the function panicked"));
    failure.exception = Some("panic".into());
    failure
}

/// A function of one argument and one result, both bytes.
///
/// # Errors
/// What the function returns.
pub async fn answer<F, R>(mut invocation: Invocation, function: F) -> Result<(), Failure>
where
    F: FnOnce(Bytes) -> R,
    R: Future<Output = Result<Bytes, Failure>>,
{
    let argument = invocation.input.item().await.unwrap_or_default();
    let result = function(argument).await?;
    // A caller that is gone has no use for it.
    let _ = invocation.output.last(result).await;
    Ok(())
}

//! Links between gateways over NATS: ordered streams of bytes whose loss is noticed.
//!
//! Every gateway has an address, made anew each time it starts, and is subscribed to
//! `PREFIX.gateway.ADDRESS`. Its beacon on `PREFIX.beacon` says that it is there; a gateway that hears one
//! opens a link to it. A link's messages carry its number and count up from 0 in each direction. NATS
//! keeps the order of one sender and may lose messages when a server fails, so a gap ends the link: its
//! calls fail, and it is opened again at the next beacon.
//!
//! ```text
//! offset  bytes  what
//!      0      1  1 open, 2 bytes, 3 mark, 4 close
//!      1      8  number of the link, little-endian
//!      9      8  count of the messages with bytes before this one, little-endian
//!     17      -  of open: a MessagePack map; of bytes: frames, cut anywhere
//! ```
//! A mark is sent where nothing else is, so a message that was lost last is missed. It asks for an answer
//! that only the server gives, when nobody is subscribed to that address any more: so a gateway that was
//! killed is known at once, and one that is cut off after [`SILENCE`].

use std::{collections::HashMap, io, pin::pin, sync::Arc, time::Duration};

use async_nats::{Client, Message, StatusCode, Subscriber};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncReadExt, DuplexStream},
    sync::mpsc,
    task::JoinSet,
    time::{Instant, MissedTickBehavior},
};
use tokio_util::{io::StreamReader, sync::CancellationToken};

use super::{FederationConfig, FederationError};
use crate::{serve::Hub, wire::messages::PROTOCOL};

/// Time between beacons, between marks, and between reports of nodes' states.
const TICK: Duration = Duration::from_millis(200);
/// How long nothing may be heard of a gateway.
const SILENCE: Duration = Duration::from_secs(5);
/// Bytes before what a message carries.
const HEADER_BYTES: usize = 17;
/// Bytes that a message carries at most; servers take 1 MiB unless they are told otherwise.
const MESSAGE_BYTES: usize = 256 << 10;
/// Bytes between a broker and the messages they become.
const PIPE_BYTES: usize = 256 << 10;

const OPEN: u8 = 1;
const BYTES: u8 = 2;
const MARK: u8 = 3;
const CLOSE: u8 = 4;

/// What a gateway says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Beacon {
    name: String,
    address: String,
    protocol: u16,
    /// Whether it goes.
    leaving: bool,
}

/// Another gateway.
#[derive(Debug)]
struct Gateway {
    heard: Instant,
    /// The link on which calls are given to it.
    link: Option<u64>,
}

/// One end of a link.
#[derive(Debug)]
struct Link {
    /// Whose address the other end is.
    address: String,
    /// What came, for the broker.
    arrived: mpsc::UnboundedSender<io::Result<Bytes>>,
    /// The count that the next message must have.
    next: u64,
}

/// All links of a gateway.
pub(super) struct Links {
    client: Client,
    prefix: String,
    me: Beacon,
    hub: Arc<Hub>,
    gateways: HashMap<String, Gateway>,
    links: HashMap<u64, Link>,
    /// Links that were opened from here so far.
    opened: u64,
    tasks: JoinSet<u64>,
}

impl Links {
    pub(super) fn new(
        client: Client,
        config: &FederationConfig,
        hub: Arc<Hub>,
    ) -> Result<Self, FederationError> {
        let mut address = [0; 16];
        getrandom::fill(&mut address).map_err(FederationError::Random)?;
        let address = hex::encode(address);
        Ok(Self {
            client,
            prefix: config.prefix.clone(),
            me: Beacon {
                name: config.name.clone(),
                address,
                protocol: PROTOCOL,
                leaving: false,
            },
            hub,
            gateways: HashMap::new(),
            links: HashMap::new(),
            opened: 0,
            tasks: JoinSet::new(),
        })
    }

    /// Keeps links until `shutdown`.
    pub(super) async fn run(mut self, shutdown: CancellationToken) -> Result<(), FederationError> {
        let beacons = format!("{}.beacon", self.prefix);
        let mut beacons_heard = self.subscribe(beacons.clone()).await?;
        let mut messages = self.subscribe(self.subject(&self.me.address)).await?;
        let mut gone = self
            .subscribe(format!("{}.gone.{}.*", self.prefix, self.me.address))
            .await?;
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                _ = ticks.tick() => {
                    self.say(&beacons).await;
                    self.hub.with(|broker, _| broker.tell_states());
                    self.drop_silent();
                }
                Some(message) = beacons_heard.next() => self.hear(&message).await,
                Some(message) = messages.next() => self.receive(message).await,
                Some(message) = gone.next() => self.lose(&message),
                Some(ended) = self.tasks.join_next(), if !self.tasks.is_empty() => {
                    if let Ok(number) = ended {
                        self.forget(number).await;
                    }
                }
            }
        }
        self.me.leaving = true;
        self.say(&beacons).await;
        self.links.clear();
        while self.tasks.join_next().await.is_some() {}
        if let Err(error) = self.client.flush().await {
            tracing::warn!(%error, "functions.federation.goodbye");
        }
        Ok(())
    }

    async fn subscribe(&self, subject: String) -> Result<Subscriber, FederationError> {
        let subscribed = self.client.subscribe(subject.clone()).await;
        subscribed.map_err(|error| FederationError::Subscribe {
            subject,
            reason: error.to_string(),
        })
    }

    fn subject(&self, address: &str) -> String {
        format!("{}.gateway.{address}", self.prefix)
    }

    async fn say(&self, beacons: &str) {
        // A plain struct is always encoded.
        let body = rmp_serde::to_vec_named(&self.me).unwrap_or_default();
        publish(&self.client, beacons.to_owned(), body.into()).await;
    }

    /// Another gateway's beacon.
    async fn hear(&mut self, message: &Message) {
        let Ok(beacon) = rmp_serde::from_slice::<Beacon>(&message.payload) else {
            return;
        };
        if beacon.address == self.me.address {
            return;
        }
        if beacon.leaving {
            self.gateways.remove(&beacon.address);
            self.links.retain(|_, link| link.address != beacon.address);
            return;
        }
        let gateway = self
            .gateways
            .entry(beacon.address.clone())
            .or_insert_with(|| {
                tracing::info!(name = beacon.name, "functions.federation.met");
                Gateway {
                    heard: Instant::now(),
                    link: None,
                }
            });
        gateway.heard = Instant::now();
        if gateway.link.is_none() {
            self.opened += 1;
            let number = link_number(&self.me.address, self.opened);
            gateway.link = Some(number);
            // A plain struct is always encoded.
            let me = rmp_serde::to_vec_named(&self.me).unwrap_or_default();
            let subject = self.subject(&beacon.address);
            publish(&self.client, subject, message_of(OPEN, number, 0, &me)).await;
            self.start(number, beacon, true);
        }
    }

    /// A message to this gateway.
    async fn receive(&mut self, message: Message) {
        let mut payload = message.payload;
        if payload.len() < HEADER_BYTES {
            return;
        }
        let (kind, number, count) = (payload.get_u8(), payload.get_u64_le(), payload.get_u64_le());
        if kind == OPEN {
            if let Ok(beacon) = rmp_serde::from_slice::<Beacon>(&payload) {
                self.start(number, beacon, false);
            }
            return;
        }
        let Some(link) = self.links.get_mut(&number) else {
            if let (MARK, Some(gone)) = (kind, message.reply) {
                publish(&self.client, gone.to_string(), Bytes::new()).await;
            }
            return;
        };
        if let Some(gateway) = self.gateways.get_mut(&link.address) {
            gateway.heard = Instant::now();
        }
        if kind == CLOSE {
            self.links.remove(&number);
        } else if count != link.next {
            tracing::warn!(count, expected = link.next, "functions.federation.gap");
            let subject = format!("{}.gateway.{}", self.prefix, link.address);
            self.links.remove(&number);
            publish(&self.client, subject, message_of(CLOSE, number, 0, &[])).await;
        } else if kind == BYTES {
            link.next += 1;
            // The broker's end ends with its task, which is noticed there.
            let _ = link.arrived.send(Ok(payload));
        }
    }

    /// Word that a mark found no link: from the other gateway, or from a server when that is gone.
    fn lose(&mut self, message: &Message) {
        let number = message.subject.rsplit('.').next();
        let number = number.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        let lost = number.and_then(|number| self.links.remove(&number));
        if let Some(link) = lost
            && message.status == Some(StatusCode::NO_RESPONDERS)
        {
            self.gateways.remove(&link.address);
            self.links.retain(|_, other| other.address != link.address);
        }
    }

    fn drop_silent(&mut self) {
        let silent = |gateway: &Gateway| gateway.heard.elapsed() >= SILENCE;
        self.gateways.retain(|_, gateway| !silent(gateway));
        let gateways = &self.gateways;
        self.links
            .retain(|_, link| gateways.contains_key(&link.address));
    }

    /// A link's task has ended: the other end is told, and the link may be opened again.
    async fn forget(&mut self, number: u64) {
        if let Some(link) = self.links.remove(&number) {
            let subject = self.subject(&link.address);
            publish(&self.client, subject, message_of(CLOSE, number, 0, &[])).await;
        }
        for gateway in self.gateways.values_mut() {
            if gateway.link == Some(number) {
                gateway.link = None;
            }
        }
    }

    /// Connects a link to the broker: calls go out on it when `calling`, and come in otherwise.
    fn start(&mut self, number: u64, other: Beacon, calling: bool) {
        let (arrived, arrivals) = mpsc::unbounded_channel();
        let link = Link {
            address: other.address.clone(),
            arrived,
            next: 0,
        };
        self.links.insert(number, link);
        if !self.gateways.contains_key(&other.address) {
            let heard = Instant::now();
            let met = Gateway { heard, link: None };
            self.gateways.insert(other.address.clone(), met);
        }
        let (near, far) = tokio::io::duplex(PIPE_BYTES);
        let sender = Sender {
            client: self.client.clone(),
            subject: self.subject(&other.address),
            gone: format!("{}.gone.{}.{number:016x}", self.prefix, self.me.address),
            number,
        };
        let hub = Arc::clone(&self.hub);
        self.tasks.spawn(async move {
            let read = reader(arrivals);
            let attended = async {
                match calling {
                    true => hub.attend_remote(&other.name, read, near).await,
                    false => hub.attend_gateway(&other.name, read, near).await,
                }
            };
            tokio::select! {
                () = attended => {}
                () = sender.run(far) => {}
            }
            number
        });
    }
}

/// What arrives on a link as a stream of bytes.
fn reader(arrivals: mpsc::UnboundedReceiver<io::Result<Bytes>>) -> impl AsyncRead + Unpin {
    let items = futures::stream::unfold(arrivals, |mut arrivals| async {
        let item = arrivals.recv().await?;
        Some((item, arrivals))
    });
    StreamReader::new(Box::pin(items))
}

/// Sends what a broker writes to the other end of a link.
struct Sender {
    client: Client,
    subject: String,
    /// Where a server answers when nobody is there.
    gone: String,
    number: u64,
}

impl Sender {
    async fn mark(&self, count: u64) {
        let mark = message_of(MARK, self.number, count, &[]);
        let (to, gone) = (self.subject.clone(), self.gone.clone());
        if let Err(error) = self.client.publish_with_reply(to, gone, mark).await {
            tracing::warn!(%error, "functions.federation.publish");
        }
    }

    async fn run(&self, mut from: DuplexStream) {
        let (mut count, mut waiting) = (0, BytesMut::new());
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            waiting.reserve(MESSAGE_BYTES);
            let read = {
                let mut bounded = (&mut from).take(MESSAGE_BYTES as u64);
                let mut reading = pin!(bounded.read_buf(&mut waiting));
                loop {
                    tokio::select! {
                        read = &mut reading => break read,
                        _ = ticks.tick() => self.mark(count).await,
                    }
                }
            };
            match read {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            let message = message_of(BYTES, self.number, count, &waiting);
            waiting.clear();
            count += 1;
            publish(&self.client, self.subject.clone(), message).await;
        }
    }
}

/// A number that no other link has: of the gateway that opens it, and of its links before.
fn link_number(address: &str, opened: u64) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher
        .update(address.as_bytes())
        .update(&opened.to_le_bytes());
    let mut number = [0; 8];
    hasher.finalize_xof().fill(&mut number);
    u64::from_le_bytes(number)
}

/// Publishes; a message that is lost is missed by its count.
async fn publish(client: &Client, subject: String, message: Bytes) {
    if let Err(error) = client.publish(subject, message).await {
        tracing::warn!(%error, "functions.federation.publish");
    }
}

fn message_of(kind: u8, number: u64, count: u64, body: &[u8]) -> Bytes {
    let mut message = BytesMut::with_capacity(HEADER_BYTES + body.len());
    message.put_u8(kind);
    message.put_u64_le(number);
    message.put_u64_le(count);
    message.put_slice(body);
    message.freeze()
}

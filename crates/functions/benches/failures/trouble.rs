//! What goes wrong, again and again for as long as the process runs.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use r3mes_functions::{
    Reason,
    client::Client,
    wire::{
        Flags, Frame, Kind, PREFACE,
        messages::{CallHead, Credit, Head, Hello, PROTOCOL},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

use crate::{
    Outcome, Part,
    ends::{self, HELD_PLACES},
    ready,
};

/// A kind of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    Killed,
    Unread,
    Held,
    Payload,
    Cancels,
    Malformed,
}

/// Payload whose size the issue of a gateway's memory names.
const PAYLOAD_BYTES: usize = 1_000_000_000;
/// Connections that nobody reads, and streams of each.
const UNREAD: (usize, u32) = (4, 8);
/// Between two looks whether a connection that nobody reads still stands.
const PING_PAUSE: Duration = Duration::from_millis(5);
/// Who calls a function whose places are all held.
const HOLDERS: usize = 64;
/// Who gives calls up.
const CANCELLERS: u8 = 8;

impl Trouble {
    pub(crate) const ALL: [Self; 6] = [
        Self::Killed,
        Self::Unread,
        Self::Held,
        Self::Payload,
        Self::Cancels,
        Self::Malformed,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Killed => "killed",
            Self::Unread => "unread",
            Self::Held => "held",
            Self::Payload => "payload",
            Self::Cancels => "cancels",
            Self::Malformed => "malformed",
        }
    }

    /// As the table says it.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Killed => "nodes are killed in 16 calls each",
            Self::Unread => "4 connections ask for 8 endless streams each and read nothing",
            Self::Held => "a function never returns, and 64 callers wait for its places",
            Self::Payload => "1 GB goes to the same node and back",
            Self::Cancels => "8 callers give calls up at any moment",
            Self::Malformed => "connections send malformed frames",
        }
    }

    pub(crate) fn named(name: &str) -> Outcome<Self> {
        let known = Self::ALL.into_iter().find(|known| known.name() == name);
        known.ok_or_else(|| format!("there is no failure {name:?}").into())
    }

    /// Provokes it, and says that it has begun.
    pub(crate) async fn provoke(self, broker: &str) -> Outcome<()> {
        match self {
            Self::Killed => killed(broker).await,
            Self::Unread => unread(broker).await,
            Self::Held => held(broker).await,
            Self::Payload => payload(broker).await,
            Self::Cancels => cancels(broker).await,
            Self::Malformed => malformed(broker).await,
        }
    }
}

/// Calls a node of its own, and kills it in the midst of them.
async fn killed(broker: &str) -> Outcome<()> {
    let client = ends::client(broker).await?;
    ready("killing")?;
    loop {
        let mut victim = Part::start(&["node", broker, "victim", "victim_"])?;
        let mut calls = Vec::new();
        for _ in 0..HELD_PLACES {
            calls.push(client.call(&CallHead::new("victim_hold"), "").await?);
        }
        let has_all = async |client: &Client| -> Outcome<bool> {
            let nodes = client.nodes().await?;
            Ok(nodes
                .iter()
                .any(|node| node.id == "victim" && node.running == HELD_PLACES))
        };
        while !has_all(&client).await? {
            tokio::task::yield_now().await;
        }
        victim.process.kill()?;
        for call in calls {
            match call.result().await {
                Err(failure) if failure.reason == Reason::NodeLost => {}
                other => return Err(format!("a call of a killed node: {other:?}").into()),
            }
        }
    }
}

/// Asks for streams without end, grants them all the room there is, and reads nothing; once it is hung up on, it
/// comes again.
async fn unread(broker: &str) -> Outcome<()> {
    let hello = Hello {
        protocol: PROTOCOL,
        agent: "bench".into(),
        token: None,
        node: None,
    };
    let mut sent = BytesMut::from(&PREFACE[..]);
    put(&mut sent, Kind::Hello, 0, Flags::NONE, &hello)?;
    for call in 1..=UNREAD.1 {
        put(
            &mut sent,
            Kind::Call,
            call,
            Flags::LAST,
            &CallHead::new("flood"),
        )?;
        put(
            &mut sent,
            Kind::Credit,
            call,
            Flags::NONE,
            &Credit { bytes: u32::MAX },
        )?;
    }
    let mut ping = BytesMut::new();
    Frame::bare(Kind::Ping, 0).encode_head(&mut ping);
    let (sent, ping) = (sent.freeze(), ping.freeze());
    let mut connections = JoinSet::new();
    for _ in 0..UNREAD.0 {
        let (sent, ping) = (sent.clone(), ping.clone());
        let mut dead = TcpStream::connect(broker).await?;
        let broker = broker.to_owned();
        connections.spawn(async move {
            loop {
                // Once the gateway has hung up, a ping fails.
                let mut next = dead.write_all(&sent).await;
                while next.is_ok() {
                    tokio::time::sleep(PING_PAUSE).await;
                    next = dead.write_all(&ping).await;
                }
                dead = TcpStream::connect(&broker).await?;
            }
        });
    }
    ready("not reading")?;
    first_end(connections).await
}

/// Takes all places of a function that never returns, and waits for them again and again.
async fn held(broker: &str) -> Outcome<()> {
    let client = Arc::new(ends::client(broker).await?);
    let mut holders = JoinSet::new();
    for _ in 0..HOLDERS {
        let client = Arc::clone(&client);
        holders.spawn(async move {
            let mut head = CallHead::new("hold");
            head.deadline_ms = Some(20);
            loop {
                match client.call(&head, "").await?.result().await {
                    Err(failure) if failure.reason == Reason::DeadlineExceeded => {}
                    other => return Outcome::<()>::Err(format!("a held call: {other:?}").into()),
                }
            }
        });
    }
    ready("holding")?;
    first_end(holders).await
}

async fn payload(broker: &str) -> Outcome<()> {
    let client = ends::client(broker).await?;
    let payload = Bytes::from(vec![0x5a; PAYLOAD_BYTES]);
    ready("sending")?;
    loop {
        let reply = client.call(&CallHead::new("echo"), payload.clone()).await?;
        if reply.result().await?.len() != PAYLOAD_BYTES {
            return Err("part of the payload came back".into());
        }
    }
}

/// Begins calls and streams, and gives up two in three before, during or after their answers.
async fn cancels(broker: &str) -> Outcome<()> {
    let client = Arc::new(ends::client(broker).await?);
    let mut callers = JoinSet::new();
    for caller in 0..CANCELLERS {
        let client = Arc::clone(&client);
        callers.spawn(async move {
            for call in 0u64.. {
                let dice = *blake3::keyed_hash(&[caller; 32], &call.to_le_bytes()).as_bytes();
                let name = if dice[0].is_multiple_of(4) {
                    "flood"
                } else {
                    "echo"
                };
                let mut reply = client.call(&CallHead::new(name), "argument").await?;
                match dice[1] % 3 {
                    0 => drop(reply),
                    1 => tokio::task::yield_now().await,
                    _ => drop(reply.item().await?),
                }
            }
            Outcome::Ok(())
        });
    }
    ready("cancelling")?;
    first_end(callers).await
}

/// Greets as a client does, and then sends frames in which a few bytes were changed, or bytes without sense.
async fn malformed(broker: &str) -> Outcome<()> {
    ready("sending")?;
    for number in 0u64.. {
        let mut dice = blake3::Hasher::new_keyed(&[7; 32])
            .update(&number.to_le_bytes())
            .finalize_xof();
        let mut sent = BytesMut::from(&PREFACE[..]);
        let hello = Hello {
            protocol: PROTOCOL,
            agent: "bench".into(),
            token: None,
            node: None,
        };
        put(&mut sent, Kind::Hello, 0, Flags::NONE, &hello)?;
        let sound = sent.len();
        put(
            &mut sent,
            Kind::Call,
            1,
            Flags::LAST,
            &CallHead::new("echo"),
        )?;
        if number.is_multiple_of(2) {
            sent.resize(sound + 256, 0);
            dice.fill(&mut sent[sound..]);
        }
        let mut places = [0; 4];
        dice.fill(&mut places);
        let length = sent.len() - sound;
        for place in places {
            sent[sound + usize::from(place) % length] ^= place | 1;
        }
        let mut connection = TcpStream::connect(broker).await?;
        // The gateway may have closed it before everything was sent or read.
        let _ = connection.write_all(&sent).await;
        let _ = connection.shutdown().await;
        let _ = connection.read_to_end(&mut Vec::new()).await;
    }
    Ok(())
}

/// What the first of several that go on for ever ended with.
async fn first_end(mut several: JoinSet<Outcome<()>>) -> Outcome<()> {
    match several.join_next().await {
        Some(ended) => ended?,
        None => Ok(()),
    }
}

/// Adds a frame without a body.
fn put(to: &mut BytesMut, kind: Kind, call: u32, flags: Flags, head: &impl Head) -> Outcome<()> {
    let frame = Frame {
        head: head.encode()?,
        flags,
        ..Frame::bare(kind, call)
    };
    frame.encode_head(to);
    Ok(())
}

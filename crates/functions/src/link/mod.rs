//! One end of a connection to a broker: frames in, sorted by call; frames out, within what is granted.

mod ends;
mod window;

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    sync::{mpsc, watch},
    time::Instant,
};

pub(crate) use self::ends::Unread;
pub(crate) use self::ends::{Incoming, Outgoing};
use self::window::Window;
use crate::{
    failure::{Failure, Reason},
    outbox::Outbox,
    wire::{
        Frame, Kind,
        messages::{Credit, Goodbye, Head, Welcome},
    },
};

/// Bytes that may wait to be written before the connection is given up.
const MAX_WAITING_BYTES: usize = 256 << 20;
/// Bytes read at a time.
const READ_BYTES: usize = 64 << 10;
/// How long nothing may be heard from a broker that has not said how long it may be silent.
const SILENCE: Duration = Duration::from_secs(15);
/// Shorter silences than this are not believed: they would make a busy machine lose connections.
const SHORTEST_SILENCE: Duration = Duration::from_secs(1);

/// An open connection.
#[derive(Debug)]
pub(crate) struct Link {
    outbox: Outbox,
    calls: Mutex<HashMap<u32, Entry>>,
    next: AtomicU32,
    heard: Mutex<Instant>,
    /// How long nothing may be heard: what the broker said, once it has.
    silence: watch::Sender<Duration>,
    /// Why the broker ended the connection, once it has said so.
    farewell: OnceLock<Goodbye>,
}

#[derive(Debug)]
struct Entry {
    frames: mpsc::UnboundedSender<Frame>,
    window: Arc<Window>,
}

/// What belongs to no open call.
#[derive(Debug)]
pub(crate) enum Arrival {
    /// A frame of the connection itself.
    Control(Frame),
    /// The other end opens a call, which ends with [`Link::leave`]. What follows its first frame is
    /// sorted already.
    Call(Frame, Outgoing, Incoming),
}

impl Link {
    /// A connection on which nothing was said yet.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            outbox: Outbox::new(MAX_WAITING_BYTES),
            calls: Mutex::default(),
            next: AtomicU32::new(1),
            heard: Mutex::new(Instant::now()),
            silence: watch::Sender::new(SILENCE),
            farewell: OnceLock::new(),
        })
    }

    /// Moves frames until the connection ends or nothing was heard for as long as the broker says that
    /// it is never silent; then every open call has failed.
    pub(crate) async fn run<R, W>(
        self: &Arc<Self>,
        read: R,
        write: W,
        arrivals: mpsc::UnboundedSender<Arrival>,
    ) -> io::Result<()>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        let result = tokio::select! {
            result = self.outbox.write_to(write) => result,
            result = self.read(read, arrivals) => result,
            () = self.watch() => Err(io::Error::new(io::ErrorKind::TimedOut, "nothing is heard from the broker")),
            () = self.outbox.overdue() => Err(io::ErrorKind::TimedOut.into()),
        };
        self.outbox.close();
        let gone = match (self.farewell.get(), &result) {
            (Some(goodbye), _) => format!("the broker ended the connection: {}", goodbye.reason),
            (None, Err(error)) => format!("the connection to the broker is gone: {error}"),
            (None, Ok(())) => "the connection to the broker is gone".to_owned(),
        };
        let gone = Failure::new(Reason::Disconnected, gone);
        let head = gone.encode().unwrap_or_default();
        for (number, entry) in self.calls().drain() {
            let frame = Frame {
                head: head.clone(),
                ..Frame::bare(Kind::Failed, number)
            };
            entry.window.close();
            // A call that nobody listens to has no use for it.
            let _ = entry.frames.send(frame);
        }
        result
    }

    async fn read(
        self: &Arc<Self>,
        mut read: impl AsyncRead + Unpin,
        arrivals: mpsc::UnboundedSender<Arrival>,
    ) -> io::Result<()> {
        let mut waiting = BytesMut::with_capacity(READ_BYTES);
        loop {
            if read.read_buf(&mut waiting).await? == 0 {
                return Ok(());
            }
            *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
            while let Some(frame) = Frame::decode(&mut waiting).map_err(io::Error::other)? {
                self.sort(frame, &arrivals);
            }
            waiting.reserve(READ_BYTES);
        }
    }

    fn sort(self: &Arc<Self>, frame: Frame, arrivals: &mpsc::UnboundedSender<Arrival>) {
        match frame.kind {
            Kind::Ping => self.outbox.push(Frame::bare(Kind::Pong, 0)),
            Kind::Pong => {}
            Kind::Credit => {
                if let (Some(entry), Ok(credit)) =
                    (self.calls().get(&frame.call), Credit::decode(&frame.head))
                {
                    entry.window.grant(credit.bytes);
                }
            }
            Kind::Data
            | Kind::Cancel
            | Kind::Progress
            | Kind::Queued
            | Kind::Started
            | Kind::Cached
            | Kind::Failed
            | Kind::Answer => {
                let last = matches!(frame.kind, Kind::Failed | Kind::Cancel);
                if let Some(entry) = self.calls().get(&frame.call) {
                    if last {
                        entry.window.close();
                    }
                    // A call that was dropped here may still be answered from there.
                    let _ = entry.frames.send(frame);
                }
            }
            kind => {
                let arrival = match kind {
                    Kind::Call => {
                        let (outgoing, incoming) = self.enter(frame.call, false);
                        Arrival::Call(frame, outgoing, incoming)
                    }
                    Kind::Welcome => {
                        if let Ok(welcome) = Welcome::decode(&frame.head) {
                            let silence = Duration::from_millis(welcome.silence_ms);
                            self.silence.send_replace(silence.max(SHORTEST_SILENCE));
                        }
                        Arrival::Control(frame)
                    }
                    Kind::Goodbye => {
                        // What it says first is why.
                        let _ = self.farewell.set(goodbye(&frame));
                        Arrival::Control(frame)
                    }
                    _ => Arrival::Control(frame),
                };
                // The receiver goes only with the task that drives this connection.
                let _ = arrivals.send(arrival);
            }
        }
    }

    async fn watch(&self) {
        let mut changed = self.silence.subscribe();
        loop {
            let silence = *changed.borrow_and_update();
            let heard = *self.heard.lock().unwrap_or_else(PoisonError::into_inner);
            let quiet = heard.elapsed();
            if quiet >= silence {
                return;
            }
            if quiet >= silence / 3 {
                self.outbox.push(Frame::bare(Kind::Ping, 0));
            }
            // The sender lives as long as `self`.
            let _ = tokio::time::timeout(silence / 4, changed.changed()).await;
        }
    }

    /// Sends a frame of the connection itself.
    pub(crate) fn send(&self, frame: Frame) {
        self.outbox.push(frame);
    }

    /// Sends a frame after which its call waits for the other end: at once where it is the only call.
    fn send_last(&self, frame: Frame) {
        let alone = self.calls().len() <= 1;
        if alone {
            self.outbox.push_through(frame);
        } else {
            self.outbox.push(frame);
        }
    }

    /// Ends the connection once everything is sent.
    pub(crate) fn close(&self) {
        self.outbox.close();
    }

    /// Opens a call from this end.
    pub(crate) fn open(self: &Arc<Self>) -> (Outgoing, Incoming) {
        let number = self.next.fetch_add(1, Ordering::Relaxed) & !(1 << 31);
        self.enter(number.max(1), true)
    }

    /// Forgets a call that has ended.
    pub(crate) fn leave(&self, number: u32) {
        self.calls().remove(&number);
    }

    fn enter(self: &Arc<Self>, number: u32, ours: bool) -> (Outgoing, Incoming) {
        let (to, frames) = mpsc::unbounded_channel();
        let window = Arc::new(Window::default());
        let entry = Entry {
            frames: to,
            window: Arc::clone(&window),
        };
        self.calls().insert(number, entry);
        let outgoing = Outgoing {
            link: Arc::clone(self),
            number,
            window,
        };
        let incoming = Incoming {
            link: Arc::clone(self),
            number,
            frames,
            ours,
            first: None,
            owed: 0,
            widened: false,
        };
        (outgoing, incoming)
    }

    fn calls(&self) -> MutexGuard<'_, HashMap<u32, Entry>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a broker ended a connection, as far as it said.
pub(crate) fn goodbye(frame: &Frame) -> Goodbye {
    Goodbye::decode(&frame.head).unwrap_or(Goodbye {
        reason: "the broker said goodbye".into(),
        retry: true,
    })
}

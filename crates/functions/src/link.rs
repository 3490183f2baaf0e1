//! One end of a connection to a broker: frames in, sorted by call; frames out, within what is granted.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    sync::{Notify, mpsc},
    time::Instant,
};

use crate::{
    broker::{FRAME_COST, WINDOW_BYTES},
    failure::{Failure, Reason},
    outbox::Outbox,
    wire::{
        Flags, Frame, Kind, MAX_BODY_BYTES, PREFACE,
        messages::{Credit, Goodbye, Head},
    },
};

/// Bytes that may wait to be written before the connection is given up.
const MAX_WAITING_BYTES: usize = 256 << 20;
/// Bytes read at a time.
const READ_BYTES: usize = 64 << 10;
/// What a receiver of much lets the sender be ahead by.
const WIDE_WINDOW_BYTES: u32 = 1 << 20;

/// An open connection.
#[derive(Debug)]
pub(crate) struct Link {
    outbox: Outbox,
    calls: Mutex<HashMap<u32, Entry>>,
    next: AtomicU32,
    heard: Mutex<Instant>,
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
        })
    }

    /// Moves frames until the connection ends or nothing was heard for `silence`; then every open call
    /// has failed.
    pub(crate) async fn run<R, W>(
        self: &Arc<Self>,
        read: R,
        write: W,
        arrivals: mpsc::UnboundedSender<Arrival>,
        silence: Duration,
    ) -> io::Result<()>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let result = tokio::select! {
            result = self.outbox.write_to(write) => result,
            result = self.read(read, arrivals) => result,
            () = self.watch(silence) => Err(io::ErrorKind::TimedOut.into()),
            () = self.outbox.overdue() => Err(io::ErrorKind::TimedOut.into()),
        };
        self.outbox.close();
        let gone = Failure::new(Reason::Disconnected, "the connection to the broker is gone");
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
                    _ => Arrival::Control(frame),
                };
                // The receiver goes only with the task that drives this connection.
                let _ = arrivals.send(arrival);
            }
        }
    }

    async fn watch(&self, silence: Duration) {
        loop {
            let heard = *self.heard.lock().unwrap_or_else(PoisonError::into_inner);
            let quiet = heard.elapsed();
            if quiet >= silence {
                return;
            }
            if quiet >= silence / 3 {
                self.outbox.push(Frame::bare(Kind::Ping, 0));
            }
            tokio::time::sleep(silence / 4).await;
        }
    }

    /// Sends a frame of the connection itself.
    pub(crate) fn send(&self, frame: Frame) {
        self.outbox.push(frame);
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

/// What the other side has granted.
#[derive(Debug)]
struct Window {
    left: Mutex<Option<i64>>,
    wake: Notify,
    /// Whether this side has sent its last frame.
    ended: AtomicBool,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            left: Mutex::new(Some(i64::from(WINDOW_BYTES))),
            wake: Notify::new(),
            ended: AtomicBool::new(false),
        }
    }
}

impl Window {
    fn left(&self) -> MutexGuard<'_, Option<i64>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn grant(&self, bytes: u32) {
        if let Some(left) = &mut *self.left() {
            *left += i64::from(bytes);
        }
        self.wake.notify_waiters();
    }

    /// Nobody reads any more.
    fn close(&self) {
        *self.left() = None;
        self.wake.notify_waiters();
    }

    /// Takes the cost of a frame with a body of at most `wanted` bytes, as soon as some of it is
    /// granted; how many bytes it may have. `None` when nobody reads any more.
    async fn take(&self, wanted: usize) -> Option<usize> {
        loop {
            let woken = self.wake.notified();
            {
                let mut left = self.left();
                let granted = left.as_mut()?;
                let body = (*granted - i64::from(FRAME_COST)).min(wanted as i64);
                if body > 0 || (body == 0 && wanted == 0) {
                    *granted -= body + i64::from(FRAME_COST);
                    return Some(body as usize);
                }
            }
            woken.await;
        }
    }
}

/// Nobody reads what is sent any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the other side of the call reads no more")]
pub struct Unread;

/// The sending side of a call.
#[derive(Debug)]
pub(crate) struct Outgoing {
    link: Arc<Link>,
    number: u32,
    window: Arc<Window>,
}

impl Outgoing {
    /// The same side once more.
    pub(crate) fn again(&self) -> Self {
        Self {
            link: Arc::clone(&self.link),
            number: self.number,
            window: Arc::clone(&self.window),
        }
    }

    /// Opens the call with its head and as much of `body` as may go along; the rest follows when the
    /// other side grants it. `flags` mark the last frame.
    ///
    /// # Errors
    /// When the other side reads no more.
    pub(crate) async fn begin(
        &self,
        head: Bytes,
        body: impl IntoIterator<Item = Bytes, IntoIter: Send>,
        flags: Flags,
    ) -> Result<(), Unread> {
        self.chunks(Kind::Call, head, body, flags).await
    }

    /// Sends an item, cut as the other side grants it.
    ///
    /// # Errors
    /// When the other side reads no more.
    pub(crate) async fn item(
        &self,
        body: impl IntoIterator<Item = Bytes, IntoIter: Send>,
    ) -> Result<(), Unread> {
        self.chunks(Kind::Data, Bytes::new(), body, Flags::ITEM)
            .await
    }

    /// Sends the last item.
    ///
    /// # Errors
    /// When the other side reads no more.
    pub(crate) async fn last(
        &self,
        body: impl IntoIterator<Item = Bytes, IntoIter: Send>,
    ) -> Result<(), Unread> {
        self.chunks(Kind::Data, Bytes::new(), body, Flags::LAST)
            .await
    }

    /// Says that nothing follows.
    ///
    /// # Errors
    /// When the other side reads no more.
    pub(crate) async fn end(&self) -> Result<(), Unread> {
        self.chunks(Kind::Data, Bytes::new(), [], Flags::END).await
    }

    async fn chunks(
        &self,
        mut kind: Kind,
        mut head: Bytes,
        parts: impl IntoIterator<Item = Bytes, IntoIter: Send>,
        last: Flags,
    ) -> Result<(), Unread> {
        let mut parts = parts.into_iter().filter(|part| !part.is_empty());
        let mut body = parts.next().unwrap_or_default();
        loop {
            let wanted = body.len().min(MAX_BODY_BYTES);
            self.link.outbox.room().await;
            let bytes = self.window.take(wanted).await.ok_or(Unread)?;
            let chunk = body.split_to(bytes);
            if body.is_empty() {
                body = parts.next().unwrap_or_default();
            }
            let flags = if body.is_empty() { last } else { Flags::NONE };
            self.link.send(Frame {
                kind,
                flags,
                call: self.number,
                head: std::mem::take(&mut head),
                body: chunk,
            });
            if body.is_empty() {
                self.window
                    .ended
                    .fetch_or(last.ends_stream(), Ordering::Relaxed);
                return Ok(());
            }
            kind = Kind::Data;
        }
    }

    /// Sends a frame that costs nothing.
    pub(crate) fn tell<H: Head>(&self, kind: Kind, head: &H) {
        self.link.send(Frame {
            head: head.encode().unwrap_or_default(),
            ..Frame::bare(kind, self.number)
        });
    }

    /// Whether the last frame was sent.
    pub(crate) fn ended(&self) -> bool {
        self.window.ended.load(Ordering::Relaxed)
    }

    /// Waits until nobody reads any more.
    pub(crate) async fn unread(&self) {
        loop {
            let woken = self.window.wake.notified();
            if self.window.left().is_none() {
                return;
            }
            woken.await;
        }
    }
}

/// The receiving side of a call. Dropped by its caller before the end, it cancels the call.
#[derive(Debug)]
pub(crate) struct Incoming {
    link: Arc<Link>,
    number: u32,
    frames: mpsc::UnboundedReceiver<Frame>,
    /// Whether this end opened the call.
    ours: bool,
    first: Option<Frame>,
    owed: u32,
    widened: bool,
}

impl Incoming {
    /// Puts a frame before all others.
    pub(crate) fn put_back(&mut self, frame: Frame) {
        self.first = Some(frame);
    }

    /// The next frame; `None` when the call is over.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        let frame = match self.first.take() {
            Some(frame) => frame,
            None => self.frames.recv().await?,
        };
        if frame.kind == Kind::Data {
            self.consumed(&frame);
        }
        Some(frame)
    }

    /// Counts a frame that was taken in, and grants more once that is worth a frame.
    fn consumed(&mut self, frame: &Frame) {
        if frame.flags.ends_stream() {
            return;
        }
        self.owed += frame.body.len() as u32 + FRAME_COST;
        if self.owed < WINDOW_BYTES / 2 {
            return;
        }
        let mut bytes = std::mem::take(&mut self.owed);
        if !std::mem::replace(&mut self.widened, true) {
            bytes += WIDE_WINDOW_BYTES - WINDOW_BYTES;
        }
        self.link.send(Frame {
            head: Credit { bytes }.encode().unwrap_or_default(),
            ..Frame::bare(Kind::Credit, self.number)
        });
    }

    /// The call has ended; nothing is left to cancel.
    pub(crate) fn finish(&self) {
        self.link.leave(self.number);
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if self.ours && self.link.calls().remove(&self.number).is_some() {
            self.link.send(Frame::bare(Kind::Cancel, self.number));
        }
    }
}

/// Connects to the first of `brokers` that answers (HOST:PORT, several with commas between them), and
/// says which protocol is spoken.
///
/// # Errors
/// What the last of them said.
pub(crate) async fn reach(brokers: &str) -> io::Result<TcpStream> {
    let mut refusal = io::ErrorKind::InvalidInput.into();
    for broker in brokers.split(',') {
        match TcpStream::connect(broker.trim()).await {
            Ok(mut stream) => {
                // Only delays small frames when it cannot be set.
                let _ = stream.set_nodelay(true);
                stream.write_all(&PREFACE).await?;
                return Ok(stream);
            }
            Err(error) => refusal = error,
        }
    }
    Err(refusal)
}

/// Why a broker ended a connection, as far as it said.
pub(crate) fn goodbye(frame: &Frame) -> Goodbye {
    Goodbye::decode(&frame.head).unwrap_or(Goodbye {
        reason: "the broker said goodbye".into(),
        retry: true,
    })
}

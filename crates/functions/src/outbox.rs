//! Frames on their way to a connection.

use std::{
    fmt, io,
    pin::Pin,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    sync::{Notify, watch},
};

use crate::wire::Frame;

/// Bodies up to this are copied beside their heads; longer ones are written from where they lie.
const COPIED_BYTES: usize = 16 << 10;
/// Bytes after which what was gathered is written.
const GATHERED_BYTES: usize = 64 << 10;

/// Bytes that wait above which calls of this connection send no more of their own accord.
const BUSY_BYTES: usize = 4 << 20;

/// How long what is left in a closed outbox may take to be written.
const CLOSING: Duration = Duration::from_secs(10);

/// Where frames are written.
type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// Frames that wait to be written. What is in it is bounded by the windows of calls and by `most`.
#[derive(Debug)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    wake: Notify,
    room: Notify,
    phase: watch::Sender<Phase>,
    most: usize,
}

#[derive(Default)]
struct State {
    frames: Vec<Frame>,
    bytes: usize,
    /// Here while nobody writes.
    writer: Option<Writer>,
    /// The rest of what somebody began to write, to be written and flushed before all frames.
    begun: Option<BytesMut>,
    /// Whether the connection still stands, so that a writer comes back.
    attached: bool,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("frames", &self.frames)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// What is in it is still written.
    Closed,
    /// Its reader was too slow; nothing is in it any more.
    Overflowed,
}

impl Outbox {
    /// An empty one that holds at most so many bytes, what it takes to hold them included.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            state: Mutex::default(),
            wake: Notify::new(),
            room: Notify::new(),
            phase: watch::Sender::new(Phase::Open),
            most,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_open(&self) -> bool {
        *self.phase.borrow() == Phase::Open
    }

    /// Adds a frame. One that finds no room ends the connection: its reader is too slow.
    pub(crate) fn push(&self, frame: Frame) {
        self.add(self.state(), frame);
    }

    /// Adds a frame that may as well be left out, if little waits.
    pub(crate) fn push_if_idle(&self, frame: Frame) {
        let state = self.state();
        if state.bytes <= BUSY_BYTES {
            self.add(state, frame);
        }
    }

    /// Adds a frame and writes it in this thread where nothing else is to be written: no other thread has
    /// to wake for it.
    pub(crate) fn push_through(&self, frame: Frame) {
        let mut state = self.state();
        let alone = self.is_open() && state.frames.is_empty() && state.begun.is_none();
        if !alone || frame.len() > COPIED_BYTES {
            return self.add(state, frame);
        }
        let Some(mut writer) = state.writer.take() else {
            return self.add(state, frame);
        };
        drop(state);
        let mut bytes = BytesMut::with_capacity(frame.len());
        frame.encode_head(&mut bytes);
        bytes.extend_from_slice(&frame.body);
        // Whoever drives the connection goes on with what is left, and meets what went wrong.
        let written = matches!(write_now(&mut writer, &mut bytes), Poll::Ready(Ok(())));
        let mut state = self.state();
        state.begun = (!written).then_some(bytes);
        self.put_back(state, writer);
    }

    /// Somebody has written.
    fn put_back(&self, mut state: MutexGuard<'_, State>, writer: Writer) {
        if !state.attached {
            return;
        }
        state.writer = Some(writer);
        let more = state.begun.is_some() || !state.frames.is_empty() || !self.is_open();
        drop(state);
        if more {
            self.wake.notify_one();
        }
    }

    fn add(&self, mut state: MutexGuard<'_, State>, frame: Frame) {
        if !self.is_open() {
            return;
        }
        state.bytes += frame.len() + size_of::<Frame>();
        state.frames.push(frame);
        if state.bytes > self.most {
            state.frames = Vec::new();
            state.bytes = 0;
            self.phase.send_replace(Phase::Overflowed);
            self.room.notify_waiters();
        }
        drop(state);
        self.wake.notify_one();
    }

    /// Returns when little waits to be written. Whoever sends much awaits it before each frame: its
    /// connection then keeps up with it, and others on its thread have their turn.
    pub(crate) async fn room(&self) {
        loop {
            let emptied = self.room.notified();
            if self.state().bytes <= BUSY_BYTES || !self.is_open() {
                return;
            }
            emptied.await;
        }
    }

    /// Takes no more frames; what is in it is still written.
    pub(crate) fn close(&self) {
        self.phase.send_if_modified(|phase| {
            let open = *phase == Phase::Open;
            if open {
                *phase = Phase::Closed;
            }
            open
        });
        self.wake.notify_one();
        self.room.notify_waiters();
    }

    /// Returns when the connection is not to be waited for any more: at once when its reader was too
    /// slow, some time after the outbox was closed otherwise.
    pub(crate) async fn overdue(&self) {
        let mut phase = self.phase.subscribe();
        // The sender lives as long as `self`.
        let ended = phase.wait_for(|phase| *phase != Phase::Open).await;
        if ended.is_ok_and(|phase| *phase == Phase::Closed) {
            tokio::time::sleep(CLOSING).await;
        }
    }

    /// The writer with everything that waits, as soon as there is something; without frames once the outbox is
    /// closed and empty.
    async fn next(&self) -> (Writer, Option<BytesMut>, Vec<Frame>) {
        loop {
            let woken = self.wake.notified();
            {
                let mut state = self.state();
                let waits = state.begun.is_some() || !state.frames.is_empty();
                if (waits || !self.is_open())
                    && let Some(writer) = state.writer.take()
                {
                    state.bytes = 0;
                    self.room.notify_waiters();
                    return (
                        writer,
                        state.begun.take(),
                        std::mem::take(&mut state.frames),
                    );
                }
            }
            woken.await;
        }
    }

    /// Writes frames until the outbox is closed and empty.
    pub(crate) async fn write_to(
        &self,
        to: impl AsyncWrite + Send + Unpin + 'static,
    ) -> io::Result<()> {
        let _attached = Attached::new(self, Box::new(to));
        let mut gathered = BytesMut::with_capacity(GATHERED_BYTES);
        loop {
            let (mut to, begun, frames) = self.next().await;
            if begun.is_none() && frames.is_empty() {
                return to.shutdown().await;
            }
            to.write_all(&begun.unwrap_or_default()).await?;
            for frame in frames {
                frame.encode_head(&mut gathered);
                if frame.body.len() <= COPIED_BYTES {
                    gathered.extend_from_slice(&frame.body);
                }
                if gathered.len() >= GATHERED_BYTES || frame.body.len() > COPIED_BYTES {
                    to.write_all(&gathered).await?;
                    gathered.clear();
                }
                if frame.body.len() > COPIED_BYTES {
                    to.write_all(&frame.body).await?;
                }
            }
            to.write_all(&gathered).await?;
            gathered.clear();
            to.flush().await?;
            self.put_back(self.state(), to);
        }
    }
}

/// A connection that stands: its writer is in the outbox, or comes back to it.
struct Attached<'a>(&'a Outbox);

impl<'a> Attached<'a> {
    fn new(outbox: &'a Outbox, writer: Writer) -> Self {
        let mut state = outbox.state();
        state.attached = true;
        state.writer = Some(writer);
        Self(outbox)
    }
}

impl Drop for Attached<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.attached = false;
        state.writer = None;
    }
}

/// Writes and flushes as much as can be done without waiting; the rest stays in `bytes`.
fn write_now(writer: &mut Writer, bytes: &mut BytesMut) -> Poll<io::Result<()>> {
    let mut context = Context::from_waker(Waker::noop());
    while !bytes.is_empty() {
        match ready!(Pin::new(&mut *writer).poll_write(&mut context, bytes))? {
            0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            written => bytes.advance(written),
        }
    }
    Pin::new(writer).poll_flush(&mut context)
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        task::{Context, Waker},
    };

    use tokio::io::AsyncReadExt;

    use super::*;
    use crate::wire::Kind;

    #[tokio::test]
    async fn who_sends_much_waits_until_it_is_taken() {
        let outbox = Outbox::new(3 * BUSY_BYTES);
        let mut context = Context::from_waker(Waker::noop());
        let mut ready = || pin!(outbox.room()).poll(&mut context).is_ready();
        assert!(ready());
        let frame = Frame {
            body: vec![0; BUSY_BYTES].into(),
            ..Frame::bare(Kind::Data, 1)
        };
        outbox.push(frame.clone());
        assert!(!ready());
        let room = outbox.room();
        let _attached = Attached::new(&outbox, Box::new(tokio::io::sink()));
        let taken = async { outbox.next().await.2.len() };
        assert_eq!(tokio::join!(room, taken).1, 1);
        outbox.push(frame);
        outbox.close();
        assert!(ready());
    }

    /// A frame of a call, told apart by its body.
    fn small(byte: u8) -> Frame {
        Frame {
            body: vec![byte; 100].into(),
            ..Frame::bare(Kind::Data, 1)
        }
    }

    /// The bodies that arrive until the connection ends.
    async fn bodies(mut from: impl AsyncReadExt + Unpin) -> Vec<u8> {
        let (mut bytes, mut bodies) = (BytesMut::new(), Vec::new());
        while from.read_buf(&mut bytes).await.unwrap() > 0 {
            while let Some(frame) = Frame::decode(&mut bytes).unwrap() {
                bodies.push(frame.body[0]);
            }
        }
        bodies
    }

    /// A pipe narrower than a frame takes part of it at once; what is left of it goes before what came after.
    #[tokio::test]
    async fn what_is_written_at_once_keeps_its_place() {
        for width in [1, 7, 64, 1 << 20] {
            let outbox = Outbox::new(BUSY_BYTES);
            let (near, far) = tokio::io::duplex(width);
            let pushing = async {
                // Nothing is attached yet: it waits as any other.
                outbox.push_through(small(0));
                for byte in (1..60).step_by(3) {
                    tokio::task::yield_now().await;
                    outbox.push_through(small(byte));
                    outbox.push_through(small(byte + 1));
                    outbox.push(small(byte + 2));
                }
                outbox.close();
            };
            let (_, written, read) = tokio::join!(pushing, outbox.write_to(near), bodies(far));
            written.unwrap();
            assert_eq!(read, (0..61).collect::<Vec<u8>>(), "width {width}");
        }
    }

    #[tokio::test]
    async fn a_lone_frame_is_written_by_who_pushes_it() {
        let outbox = Outbox::new(BUSY_BYTES);
        let (near, mut far) = tokio::io::duplex(1 << 10);
        let _attached = Attached::new(&outbox, Box::new(near));
        outbox.push_through(small(7));
        let mut bytes = BytesMut::with_capacity(1 << 10);
        far.read_buf(&mut bytes).await.unwrap();
        assert_eq!(Frame::decode(&mut bytes).unwrap(), Some(small(7)));
        assert!(outbox.state().frames.is_empty());
    }
}

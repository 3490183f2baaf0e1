//! Frames on their way to a connection.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::BytesMut;
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

/// Frames that wait to be written. What is in it is bounded by the windows of calls and by `most`.
#[derive(Debug)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    wake: Notify,
    room: Notify,
    phase: watch::Sender<Phase>,
    most: usize,
}

#[derive(Debug, Default)]
struct State {
    frames: Vec<Frame>,
    bytes: usize,
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

    fn add(&self, mut state: MutexGuard<'_, State>, frame: Frame) {
        if !self.is_open() {
            return;
        }
        state.bytes += frame.len() + size_of::<Frame>();
        state.frames.push(frame);
        if state.bytes > self.most {
            *state = State::default();
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

    /// Everything that waits, as soon as there is something; `None` once it is closed and empty.
    pub(crate) async fn next(&self) -> Option<Vec<Frame>> {
        loop {
            let woken = self.wake.notified();
            {
                let mut state = self.state();
                if !state.frames.is_empty() {
                    state.bytes = 0;
                    self.room.notify_waiters();
                    return Some(std::mem::take(&mut state.frames));
                }
                if !self.is_open() {
                    return None;
                }
            }
            woken.await;
        }
    }

    /// Writes frames until the outbox is closed and empty.
    pub(crate) async fn write_to(&self, mut to: impl AsyncWrite + Unpin) -> std::io::Result<()> {
        let mut gathered = BytesMut::with_capacity(GATHERED_BYTES);
        while let Some(frames) = self.next().await {
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
        }
        to.shutdown().await
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        task::{Context, Waker},
    };

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
        let taken = async { outbox.next().await.map(|frames| frames.len()) };
        assert_eq!(tokio::join!(room, taken).1, Some(1));
        outbox.push(frame);
        outbox.close();
        assert!(ready());
    }
}

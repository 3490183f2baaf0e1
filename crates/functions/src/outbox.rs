//! Frames on their way to a connection.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    sync::Notify,
};

use crate::wire::Frame;

/// Bodies up to this are copied beside their heads; longer ones are written from where they lie.
const COPIED_BYTES: usize = 16 << 10;
/// Bytes after which what was gathered is written.
const GATHERED_BYTES: usize = 64 << 10;

/// Frames that wait to be written. What is in it is bounded by the windows of calls and by `most`.
#[derive(Debug)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    wake: Notify,
    most: usize,
}

#[derive(Debug, Default)]
struct State {
    frames: Vec<Frame>,
    bytes: usize,
    closed: bool,
}

impl Outbox {
    /// An empty one that holds at most so many bytes.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            state: Mutex::default(),
            wake: Notify::new(),
            most,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a frame. One that finds no room closes the outbox: its reader is too slow.
    pub(crate) fn push(&self, frame: Frame) {
        let mut state = self.state();
        if state.closed {
            return;
        }
        state.bytes += frame.len();
        state.frames.push(frame);
        state.closed = state.bytes > self.most;
        drop(state);
        self.wake.notify_one();
    }

    /// Takes no more frames; what is in it is still written.
    pub(crate) fn close(&self) {
        self.state().closed = true;
        self.wake.notify_one();
    }

    /// Everything that waits, as soon as there is something; `None` once it is closed and empty.
    pub(crate) async fn next(&self) -> Option<Vec<Frame>> {
        loop {
            let woken = self.wake.notified();
            {
                let mut state = self.state();
                if !state.frames.is_empty() {
                    state.bytes = 0;
                    return Some(std::mem::take(&mut state.frames));
                }
                if state.closed {
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

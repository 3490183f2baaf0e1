//! The two ends of a call on a connection.

use std::sync::{Arc, atomic::Ordering};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{Link, window::Window};
use crate::{
    broker::{FRAME_COST, WIDE_WINDOW_BYTES, WINDOW_BYTES},
    wire::{
        Flags, Frame, Kind, MAX_BODY_BYTES,
        messages::{Credit, Head},
    },
};

/// Nobody reads what is sent any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the other side of the call reads no more")]
pub struct Unread;

/// The sending side of a call.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(super) link: Arc<Link>,
    pub(super) number: u32,
    pub(super) window: Arc<Window>,
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
            let frame = Frame {
                kind,
                flags,
                call: self.number,
                head: std::mem::take(&mut head),
                body: chunk,
            };
            if flags.ends_stream() {
                self.link.send_last(frame);
            } else {
                self.link.send(frame);
            }
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

    /// Sends a frame that costs nothing, unless much waits to be sent already, or no head could be made.
    pub(crate) fn mention<H: Head>(&self, kind: Kind, head: &H) {
        if let Ok(head) = head.encode() {
            self.link.outbox.push_if_idle(Frame {
                head,
                ..Frame::bare(kind, self.number)
            });
        }
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
    pub(super) link: Arc<Link>,
    pub(super) number: u32,
    pub(super) frames: mpsc::UnboundedReceiver<Frame>,
    /// Whether this end opened the call.
    pub(super) ours: bool,
    pub(super) first: Option<Frame>,
    pub(super) owed: u32,
    pub(super) widened: bool,
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

//! A call as its function sees it: arguments come, results and progress go.

use std::future::Future;

use bytes::{Bytes, BytesMut};
use tokio_util::sync::CancellationToken;

use crate::{
    failure::Failure,
    link::{Incoming, Outgoing, Unread},
    wire::{
        Frame, Kind,
        messages::{Caller, Progress},
    },
};

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
    /// Arguments that begin with the frame that opened the call.
    pub(super) fn new(first: Frame, mut frames: Incoming, cancelled: CancellationToken) -> Self {
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
    pub(super) link: Outgoing,
    pub(super) cancelled: CancellationToken,
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

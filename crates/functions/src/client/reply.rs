//! The two directions of a call, as its caller has them.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::{
    failure::{Failure, Reason},
    link::{Incoming, Outgoing, Unread},
    wire::{
        Frame, Kind,
        messages::{Cached, Head, Progress, Queued, Started},
    },
};

/// The arguments of a call that are still to come. Dropping it does not end them.
#[derive(Debug)]
pub struct Upload(Outgoing);

impl Upload {
    pub(super) fn new(outgoing: Outgoing) -> Self {
        Self(outgoing)
    }

    /// Sends an item, waiting until the function has room for it.
    ///
    /// # Errors
    /// When the function reads no more; the reply says why.
    pub async fn item(&self, body: impl Into<Bytes>) -> Result<(), Unread> {
        self.item_of([body.into()]).await
    }

    /// Sends an item that lies in several parts.
    ///
    /// # Errors
    /// As [`Upload::item`].
    pub async fn item_of(
        &self,
        parts: impl IntoIterator<Item = Bytes, IntoIter: Send>,
    ) -> Result<(), Unread> {
        self.0.item(parts).await
    }

    /// Says that nothing follows.
    ///
    /// # Errors
    /// As [`Upload::item`].
    pub async fn end(self) -> Result<(), Unread> {
        self.0.end().await
    }
}

/// What happens to a call.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// It waits for a node behind so many others.
    Queued(u32),
    /// This node has it, after it has waited.
    Started(String),
    /// The function says how far it has come.
    Progress(Progress),
    /// An item of its result.
    Item(Bytes),
}

/// What comes back. Dropped before the end, it cancels the call.
#[derive(Debug)]
pub struct Reply {
    frames: Incoming,
    over: bool,
    progress: Option<Progress>,
    age: Option<Duration>,
    most_bytes: usize,
}

impl Reply {
    pub(super) fn new(frames: Incoming) -> Self {
        Self {
            frames,
            over: false,
            progress: None,
            age: None,
            most_bytes: usize::MAX,
        }
    }

    /// Lets no item be longer than `bytes`: one that is fails the call, before more of it is kept.
    #[must_use]
    pub fn bounded(mut self, bytes: usize) -> Self {
        self.most_bytes = bytes;
        self
    }

    /// The next item; `None` after the last.
    ///
    /// # Errors
    /// How the call failed; nothing follows then.
    pub async fn item(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            match self.event().await? {
                None => return Ok(None),
                Some(Event::Item(item)) => return Ok(Some(item)),
                Some(Event::Progress(progress)) => self.progress = Some(progress),
                Some(Event::Queued(_) | Event::Started(_)) => {}
            }
        }
    }

    /// What happens next, an item or anything else; `None` after the last item. To be called until it
    /// returns: what has come of an item is lost when it is given up.
    ///
    /// # Errors
    /// How the call failed; nothing follows then.
    pub async fn event(&mut self) -> Result<Option<Event>, Failure> {
        let mut item = BytesMut::new();
        while !self.over {
            let Some(frame) = self.frames.next().await else {
                break;
            };
            match frame.kind {
                Kind::Data => {}
                Kind::Progress => match Progress::decode(&frame.head) {
                    Ok(progress) if item.is_empty() => return Ok(Some(Event::Progress(progress))),
                    _ => continue,
                },
                Kind::Queued => match Queued::decode(&frame.head) {
                    Ok(queued) => return Ok(Some(Event::Queued(queued.before))),
                    Err(_) => continue,
                },
                Kind::Started => match Started::decode(&frame.head) {
                    Ok(started) => return Ok(Some(Event::Started(started.node))),
                    Err(_) => continue,
                },
                Kind::Cached => {
                    let cached = Cached::decode(&frame.head).ok();
                    self.age = cached.map(|cached| Duration::from_micros(cached.age_us));
                    continue;
                }
                Kind::Failed => {
                    self.finish();
                    return Err(failure_of(&frame));
                }
                _ => continue,
            }
            if item.len() + frame.body.len() > self.most_bytes {
                self.over = true;
                return Err(self.too_long());
            }
            if frame.flags.ends_stream() {
                self.finish();
            }
            match (frame.flags.ends_item(), item.is_empty()) {
                (true, true) => return Ok(Some(Event::Item(frame.body))),
                (true, false) => {
                    item.extend_from_slice(&frame.body);
                    return Ok(Some(Event::Item(item.freeze())));
                }
                (false, _) => item.extend_from_slice(&frame.body),
            }
        }
        Ok(None)
    }

    /// The one result of a function that does not stream.
    ///
    /// # Errors
    /// How the call failed.
    pub async fn result(mut self) -> Result<Bytes, Failure> {
        let words = "the function ended without a result";
        self.item()
            .await?
            .ok_or_else(|| Failure::new(Reason::Internal, words))
    }

    /// What the function said of its progress last, of what was read so far.
    pub fn progress(&self) -> Option<&Progress> {
        self.progress.as_ref()
    }

    /// How old the result was when the broker sent it, if it is one that was kept; known once it was read.
    pub fn age(&self) -> Option<Duration> {
        self.age
    }

    fn too_long(&self) -> Failure {
        let words = format!(
            "an item of the result is longer than the {} bytes that can be answered here: call the \
             function with a client for Python or Rust",
            self.most_bytes
        );
        Failure::new(Reason::Invalid, words)
    }

    fn finish(&mut self) {
        self.over = true;
        self.frames.finish();
    }
}

pub(super) fn failure_of(frame: &Frame) -> Failure {
    Failure::decode(&frame.head)
        .unwrap_or_else(|error| Failure::new(Reason::Internal, error.to_string()))
}

//! A request's body that has to come: nobody holds a connection by sending it byte by byte.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{BoxError, body::Bytes};
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{self, Instant, Sleep};

use crate::server::Limits;

/// A body that ends with an error once its sender has let wait for it longer than the limits allow. Time
/// in which nobody asks for more of it does not count.
pub(crate) struct Timely<B> {
    body: B,
    limits: Limits,
    /// Bytes that have come.
    received: u64,
    /// How long was waited for them.
    waited: Duration,
    /// Since when the next ones are waited for, and for how long.
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
    late: Late,
}

/// Whether a body came too slowly. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Late(Arc<AtomicBool>);

impl Late {
    pub(crate) fn is_so(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl<B> Timely<B> {
    pub(crate) fn new(body: B, limits: Limits, late: Late) -> Self {
        Self {
            body,
            limits,
            received: 0,
            waited: Duration::ZERO,
            waiting: None,
            late,
        }
    }

    /// How long the next bytes may take.
    fn left(&self) -> Duration {
        let Limits {
            body_pause,
            body_bytes_per_s,
            ..
        } = self.limits;
        let earned = Duration::from_secs(self.received / u64::from(body_bytes_per_s.get()));
        let left = (body_pause + earned).saturating_sub(self.waited);
        left.min(body_pause)
    }
}

impl<B> Body for Timely<B>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        if let Poll::Ready(next) = Pin::new(&mut this.body).poll_frame(cx) {
            if let Some((since, _)) = this.waiting.take() {
                this.waited += since.elapsed();
            }
            if let Some(Ok(frame)) = &next {
                this.received += frame.data_ref().map_or(0, |bytes| bytes.len() as u64);
            }
            return Poll::Ready(next.map(|frame| frame.map_err(Into::into)));
        }
        let left = this.left();
        let begin = || (Instant::now(), Box::pin(time::sleep(left)));
        let (_, over) = this.waiting.get_or_insert_with(begin);
        ready!(over.as_mut().poll(cx));
        this.late.0.store(true, Ordering::Relaxed);
        Poll::Ready(Some(Err("the body came too slowly".into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

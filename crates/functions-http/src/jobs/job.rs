//! One call whose result is kept: how it stands, and who is told of its end.

use std::{
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use r3mes_functions::{
    Failure, Reason,
    client::{Event, Reply},
    webhook::Webhook,
};
use serde_json::{Value, json};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    super::{
        problem::Problem,
        values,
        webhook::{self, INLINE_BYTES, Sender},
    },
    Asked,
};

/// What keeping an item takes besides its bytes: its handle in the list, what counts its users, and what
/// the allocator adds to both.
const ITEM_BYTES: usize = 128;

/// Bytes below which a kept item is copied out of the buffer that it came in.
const COPIED: usize = 256 << 10;

/// How a call stands.
#[derive(Clone, Debug)]
pub(in super::super) enum State {
    Waiting { before: Option<u32> },
    Running { done: Option<f64>, note: String },
    Succeeded(Arc<[Bytes]>),
    Failed(Failure),
}

impl State {
    pub(in super::super) fn is_over(&self) -> bool {
        matches!(self, Self::Succeeded(_) | Self::Failed(_))
    }
}

/// A call whose result is kept.
#[derive(Debug)]
pub(in super::super) struct Job {
    pub(super) id: String,
    pub(super) user: String,
    function: String,
    node: Option<String>,
    pub(super) came: SystemTime,
    pub(super) state: watch::Sender<State>,
    over: Mutex<Option<Instant>>,
    pub(super) cancelled: CancellationToken,
    webhook: Option<Mutex<Webhook>>,
}

impl Job {
    /// A call that waits.
    pub(super) fn new(asked: Asked) -> Self {
        Self {
            id: asked.id,
            user: asked.user,
            function: asked.function,
            node: asked.node,
            came: SystemTime::now(),
            state: watch::Sender::new(State::Waiting { before: None }),
            over: Mutex::default(),
            cancelled: CancellationToken::new(),
            webhook: asked.webhook.map(Mutex::new),
        }
    }

    pub(in super::super) fn id(&self) -> &str {
        &self.id
    }

    /// How it stands, without its result.
    fn heading(&self) -> Value {
        let came = self.came.duration_since(SystemTime::UNIX_EPOCH);
        let target = (self.function.as_str(), self.node.as_deref());
        let came_us = came.map_or(0, |since| since.as_micros() as u64);
        view(&self.id, target, came_us, &self.state.borrow())
    }

    /// As [`Self::heading`], with what has become of its webhook.
    pub(super) fn shown(&self) -> Value {
        let mut view = self.heading();
        if let Some(webhook) = self.webhook() {
            view["webhook"] = webhook::view(&webhook);
        }
        view
    }

    /// As [`Self::shown`], with the result.
    pub(in super::super) fn view(&self) -> Value {
        let mut view = self.shown();
        if let State::Succeeded(items) = &*self.state.borrow() {
            add_results(&mut view, items);
        }
        view
    }

    /// Waits for its items.
    ///
    /// # Errors
    /// How it failed.
    pub(in super::super) async fn ended(&self) -> Result<Arc<[Bytes]>, Failure> {
        let mut states = self.state.subscribe();
        let state = states.wait_for(State::is_over).await;
        match state.as_deref() {
            Ok(State::Succeeded(items)) => Ok(Arc::clone(items)),
            Ok(State::Failed(failure)) => Err(failure.clone()),
            // The sender lives as long as the job.
            _ => Err(Failure::new(Reason::Internal, "the call was forgotten")),
        }
    }

    /// Nobody waits for it any more.
    pub(in super::super) fn cancel(&self) {
        self.finish(State::Failed(Failure::new(
            Reason::Cancelled,
            "the caller cancelled",
        )));
        // Whoever runs it finds that it is over.
        self.cancelled.cancel();
    }

    pub(super) fn finish(&self, state: State) {
        let changed = self.state.send_if_modified(|known| {
            let open = !known.is_over();
            if open {
                *known = state;
            }
            open
        });
        if changed {
            *self.over.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
    }

    fn webhook(&self) -> Option<MutexGuard<'_, Webhook>> {
        let webhook = self.webhook.as_ref()?;
        Some(webhook.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Tells whoever wants to know that it is over, until they know, it is given up, or the call is
    /// forgotten: what waits to be told keeps no result.
    pub(super) async fn tell(job: Weak<Self>, sender: &Sender) {
        let Some(user) = job.upgrade().map(|job| job.user.clone()) else {
            return;
        };
        loop {
            let turn = sender.turn(&user).await;
            let Some(job) = job.upgrade() else { return };
            let Some(webhook) = job.webhook().map(|webhook| webhook.clone()) else {
                return;
            };
            let items = match &*job.state.borrow() {
                State::Succeeded(items) => Some(Arc::clone(items)),
                _ => None,
            };
            let items = items.filter(|items| cost(items) <= INLINE_BYTES);
            let body = webhook::body(job.heading(), items.as_deref());
            let attempt = sender.send(turn, &webhook, &job.id, body).await;
            let pause = job.webhook().and_then(|mut webhook| webhook.note(attempt));
            drop((job, items));
            match pause {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return,
            }
        }
    }

    pub(super) fn bytes(&self) -> usize {
        match &*self.state.borrow() {
            State::Succeeded(items) => cost(items),
            _ => 0,
        }
    }

    pub(super) fn is_older_than(&self, life: Duration) -> bool {
        let over = *self.over.lock().unwrap_or_else(PoisonError::into_inner);
        over.is_some_and(|at| at.elapsed() >= life)
    }

    pub(super) fn is_over(&self) -> bool {
        self.state.borrow().is_over()
    }
}

/// Bytes of memory that items take.
fn cost(items: &[Bytes]) -> usize {
    let bytes: usize = items.iter().map(Bytes::len).sum();
    bytes + items.len() * ITEM_BYTES
}

/// An item without the rest of the buffer that it was read into, which would be kept with it.
fn alone(item: Bytes) -> Bytes {
    match item.len() < COPIED {
        true => Bytes::copy_from_slice(&item),
        false => item,
    }
}

/// Makes a call and gathers its items, telling how it stands.
///
/// # Errors
/// How it failed, or that its items take more than `most_bytes`.
pub(in super::super) async fn gather(
    call: impl Future<Output = Result<Reply, Failure>>,
    most_bytes: usize,
    told: &watch::Sender<State>,
) -> Result<Vec<Bytes>, Failure> {
    let mut reply = call.await?.bounded(most_bytes);
    let (mut items, mut bytes) = (Vec::new(), 0);
    while let Some(event) = reply.event().await? {
        let state = match event {
            Event::Item(item) => {
                bytes += item.len() + ITEM_BYTES;
                if bytes > most_bytes {
                    let words = format!(
                        "the result takes more than {most_bytes} bytes, {ITEM_BYTES} of them for each \
                         item, which is more than is kept: call it without Prefer and Idempotency-Key"
                    );
                    return Err(Failure::new(Reason::Invalid, words));
                }
                items.push(alone(item));
                continue;
            }
            Event::Queued(before) => State::Waiting {
                before: Some(before),
            },
            Event::Started(_) => State::Running {
                done: None,
                note: String::new(),
            },
            Event::Progress(progress) => State::Running {
                done: progress.done,
                note: progress.note,
            },
        };
        told.send_if_modified(|known| {
            let open = !known.is_over();
            if open {
                *known = state;
            }
            open
        });
    }
    Ok(items)
}

/// How a call stands, as JSON and without its result; `target` is a function and a node.
pub(in super::super) fn view(
    id: &str,
    target: (&str, Option<&str>),
    came_us: u64,
    state: &State,
) -> Value {
    let mut view = json!({
        "id": id,
        "function": target.0,
        "node": target.1,
        "created_at_us": came_us,
    });
    let (status, further) = match state {
        State::Waiting { before } => ("waiting", json!({ "before": before })),
        State::Running { done, note } => (
            "running",
            json!({ "progress": { "done": done, "note": note } }),
        ),
        State::Succeeded(_) => ("succeeded", json!({})),
        State::Failed(failure) => {
            let cancelled = failure.reason == Reason::Cancelled;
            let status = if cancelled { "cancelled" } else { "failed" };
            let problem = Problem::from(failure.clone());
            (status, json!({ "error": problem.body() }))
        }
    };
    view["status"] = status.into();
    if let (Some(view), Value::Object(further)) = (view.as_object_mut(), further) {
        view.extend(further);
    }
    view
}

/// Adds one result, or all items of a stream; what JSON cannot show says so in its place.
pub(in super::super) fn add_results(view: &mut Value, items: &[Bytes]) {
    let show = |item: &Bytes| {
        values::unpack(item).unwrap_or_else(|error| Problem::invalid(error.to_string()).body())
    };
    match items {
        [one] => view["result"] = show(one),
        many => view["items"] = many.iter().map(show).collect(),
    }
}

//! Asynchronous calls, and calls with an idempotency key: their results are kept for a while.

use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, SystemTime},
};

use axum::http::StatusCode;
use bytes::Bytes;
use r3mes_functions::{
    Failure, Reason,
    client::{Event, Reply},
    webhook::Webhook,
    wire::messages::CallHead,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use super::{
    HttpLimits,
    problem::Problem,
    values,
    webhook::{self, INLINE_BYTES, Sender},
};

/// Time between two looks at what is old.
const TIDYING: Duration = Duration::from_secs(10);
/// What keeping an item takes besides its bytes: its handle in the list, what counts its users, and what
/// the allocator adds to both.
const ITEM_BYTES: usize = 128;

/// Bytes below which a kept item is copied out of the buffer that it came in.
const COPIED: usize = 256 << 10;

/// How a call stands.
#[derive(Clone, Debug)]
pub(super) enum State {
    Waiting { before: Option<u32> },
    Running { done: Option<f64>, note: String },
    Succeeded(Arc<[Bytes]>),
    Failed(Failure),
}

impl State {
    pub(super) fn is_over(&self) -> bool {
        matches!(self, Self::Succeeded(_) | Self::Failed(_))
    }
}

/// A call whose result is kept.
#[derive(Debug)]
pub(super) struct Job {
    id: String,
    user: String,
    function: String,
    node: Option<String>,
    came: SystemTime,
    state: watch::Sender<State>,
    over: Mutex<Option<Instant>>,
    cancelled: CancellationToken,
    webhook: Option<Mutex<Webhook>>,
}

impl Job {
    pub(super) fn id(&self) -> &str {
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
    fn shown(&self) -> Value {
        let mut view = self.heading();
        if let Some(webhook) = self.webhook() {
            view["webhook"] = webhook::view(&webhook);
        }
        view
    }

    /// As [`Self::shown`], with the result.
    pub(super) fn view(&self) -> Value {
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
    pub(super) async fn ended(&self) -> Result<Arc<[Bytes]>, Failure> {
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
    pub(super) fn cancel(&self) {
        self.finish(State::Failed(Failure::new(
            Reason::Cancelled,
            "the caller cancelled",
        )));
        // Whoever runs it finds that it is over.
        self.cancelled.cancel();
    }

    fn finish(&self, state: State) {
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
    async fn tell(job: Weak<Self>, sender: &Sender) {
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

    fn bytes(&self) -> usize {
        match &*self.state.borrow() {
            State::Succeeded(items) => cost(items),
            _ => 0,
        }
    }

    fn is_older_than(&self, life: Duration) -> bool {
        let over = *self.over.lock().unwrap_or_else(PoisonError::into_inner);
        over.is_some_and(|at| at.elapsed() >= life)
    }

    fn is_over(&self) -> bool {
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
pub(super) async fn gather(
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
pub(super) fn view(id: &str, target: (&str, Option<&str>), came_us: u64, state: &State) -> Value {
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
pub(super) fn add_results(view: &mut Value, items: &[Bytes]) {
    let show = |item: &Bytes| {
        values::unpack(item).unwrap_or_else(|error| Problem::invalid(error.to_string()).body())
    };
    match items {
        [one] => view["result"] = show(one),
        many => view["items"] = many.iter().map(show).collect(),
    }
}

/// What a call is to be.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) id: String,
    pub(super) user: String,
    /// An idempotency key.
    pub(super) key: Option<String>,
    /// What calls with the same key must have in common: see [`digest`].
    pub(super) same: [u8; 32],
    pub(super) function: String,
    pub(super) node: Option<String>,
    pub(super) webhook: Option<Webhook>,
}

/// A call that was asked for.
#[derive(Debug)]
pub(super) enum Begun {
    /// It runs from now on.
    New(Arc<Job>),
    /// It is the one that had the same key before.
    Known(Arc<Job>),
}

/// All kept calls.
#[derive(Debug)]
pub(super) struct Jobs {
    limits: HttpLimits,
    webhooks: Arc<Sender>,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    jobs: HashMap<String, Arc<Job>>,
    /// By user and key: which call has it, and what it was called with.
    keys: HashMap<(String, String), (String, [u8; 32])>,
}

impl Jobs {
    pub(super) fn new(limits: &HttpLimits, webhooks: Arc<Sender>) -> Self {
        Self {
            limits: limits.clone(),
            webhooks,
            kept: Mutex::default(),
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a call, unless the same user had one with the same key.
    ///
    /// # Errors
    /// When too many are kept, or when that one was another call.
    pub(super) fn begin(
        self: &Arc<Self>,
        asked: Asked,
        call: impl Future<Output = Result<Reply, Failure>> + Send + 'static,
    ) -> Result<Begun, Problem> {
        let mut kept = self.kept();
        let key = asked.key.map(|key| (asked.user.clone(), key));
        if let Some((known, with)) = key.as_ref().and_then(|key| kept.keys.get(key))
            && let Some(job) = kept.jobs.get(known)
        {
            return match *with == asked.same {
                true => Ok(Begun::Known(Arc::clone(job))),
                false => Err(Problem::new(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "this Idempotency-Key belongs to a call of another function or with other arguments",
                )),
            };
        }
        if kept.jobs.len() >= self.limits.jobs {
            let words = format!("{} calls are kept already", kept.jobs.len());
            let mut busy = Failure::new(Reason::Busy, words);
            busy.retry_after_ms = Some(TIDYING.as_millis() as u64);
            return Err(busy.into());
        }
        let job = Arc::new(Job {
            id: asked.id,
            user: asked.user,
            function: asked.function,
            node: asked.node,
            came: SystemTime::now(),
            state: watch::Sender::new(State::Waiting { before: None }),
            over: Mutex::default(),
            cancelled: CancellationToken::new(),
            webhook: asked.webhook.map(Mutex::new),
        });
        kept.jobs.insert(job.id.clone(), Arc::clone(&job));
        if let Some(key) = key {
            kept.keys.insert(key, (job.id.clone(), asked.same));
        }
        drop(kept);
        let (jobs, running, most) = (Arc::clone(self), Arc::clone(&job), self.limits.job_bytes);
        tokio::spawn(async move {
            let result = tokio::select! {
                result = gather(call, most, &running.state) => Some(result),
                () = running.cancelled.cancelled() => None,
            };
            if let Some(result) = result {
                running.finish(match result {
                    Ok(items) => State::Succeeded(items.into()),
                    Err(failure) => State::Failed(failure),
                });
                jobs.make_room();
            }
            let told = Arc::downgrade(&running);
            drop(running);
            Job::tell(told, &jobs.webhooks).await;
        });
        Ok(Begun::New(job))
    }

    /// A call, if it is this user's.
    pub(super) fn get(&self, id: &str, user: &str) -> Option<Arc<Job>> {
        let kept = self.kept();
        kept.jobs.get(id).filter(|job| job.user == user).cloned()
    }

    /// A user's calls, without their results; none of those who have no token.
    pub(super) fn of(&self, user: &str) -> Vec<Value> {
        let kept = self.kept();
        let mine = kept
            .jobs
            .values()
            .filter(|job| !user.is_empty() && job.user == user);
        let mut views: Vec<Value> = mine.map(|job| job.shown()).collect();
        views.sort_by_key(|view| view["created_at_us"].as_u64());
        views
    }

    /// Forgets results that are old, until `shutdown`.
    pub(super) fn forget_old(
        self: &Arc<Self>,
        shutdown: CancellationToken,
    ) -> impl Future<Output = ()> + Send + use<> {
        let jobs = Arc::clone(self);
        async move {
            let mut ticks = tokio::time::interval(TIDYING);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
                let life = jobs.limits.job_life;
                jobs.kept().retain(|job| !job.is_older_than(life));
            }
        }
    }

    /// Forgets the oldest results while there are more bytes than are kept.
    fn make_room(&self) {
        let mut kept = self.kept();
        let mut ended: Vec<_> = kept
            .jobs
            .values()
            .filter(|job| job.is_over())
            .cloned()
            .collect();
        let mut bytes: usize = ended.iter().map(|job| job.bytes()).sum();
        ended.sort_by_key(|job| job.came);
        for job in ended {
            if bytes <= self.limits.job_bytes {
                return;
            }
            bytes -= job.bytes();
            kept.retain(|known| known.id != job.id);
        }
    }
}

impl Kept {
    fn retain(&mut self, keep: impl Fn(&Job) -> bool) {
        self.jobs.retain(|_, job| keep(job));
        let jobs = &self.jobs;
        self.keys.retain(|_, (id, _)| jobs.contains_key(id));
    }
}

/// What makes two calls the same: target, arguments, and who is told.
pub(super) fn digest(head: &CallHead, arguments: &[u8], webhook: Option<&Webhook>) -> [u8; 32] {
    let told = webhook.map(|webhook| &webhook.url);
    let target = json!([
        head.node,
        head.function,
        head.capability,
        head.requirements,
        told
    ]);
    let target = target.to_string();
    Sha256::new()
        .chain_update((target.len() as u64).to_le_bytes())
        .chain_update(target)
        .chain_update(arguments)
        .finalize()
        .into()
}

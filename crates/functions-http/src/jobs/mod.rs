//! Asynchronous calls, and calls with an idempotency key: their results are kept for a while.

mod job;

use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::http::StatusCode;
use r3mes_functions::{Failure, Reason, client::Reply, webhook::Webhook, wire::messages::CallHead};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

pub(super) use self::job::{Job, State, add_results, gather, view};
use super::{HttpLimits, problem::Problem, webhook::Sender};

/// Time between two looks at what is old.
const TIDYING: Duration = Duration::from_secs(10);
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
        let same = asked.same;
        let key = asked.key.clone();
        let key = key.map(|key| (asked.user.clone(), key));
        if let Some((known, with)) = key.as_ref().and_then(|key| kept.keys.get(key))
            && let Some(job) = kept.jobs.get(known)
        {
            return match *with == same {
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
        let job = Arc::new(Job::new(asked));
        kept.jobs.insert(job.id.clone(), Arc::clone(&job));
        if let Some(key) = key {
            kept.keys.insert(key, (job.id.clone(), same));
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

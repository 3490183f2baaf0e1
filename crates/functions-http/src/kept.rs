//! Asynchronous calls of a gateway that meets others: kept where all of them see them, and run by
//! whichever has the turn.

use std::{sync::Arc, time::SystemTime};

use axum::http::StatusCode;
use bytes::Bytes;
use r3mes_functions::{
    Failure, Reason,
    client::Client,
    federation::{CallRecord, CallState, KeepError, KeptCalls, Once, Turn},
    serve::Hub,
    webhook::{Attempt, Webhook},
    wire::messages::CallHead,
};
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    jobs::{State, add_results, digest, gather, view},
    problem::Problem,
    webhook::{self, Sender},
};

/// Milliseconds after which there may be room for another call.
const FULL_MS: u64 = 10_000;

/// The calls of all gateways, as this one sees and runs them.
#[derive(Debug)]
pub(super) struct Kept {
    calls: Arc<KeptCalls>,
    client: Arc<Client>,
    webhooks: Arc<Sender>,
    /// Bytes of a result.
    most_bytes: usize,
}

/// One of them.
#[derive(Debug)]
pub(super) struct KeptCall {
    calls: Arc<KeptCalls>,
    record: CallRecord,
}

impl Kept {
    pub(super) fn new(
        calls: Arc<KeptCalls>,
        client: Arc<Client>,
        webhooks: Arc<Sender>,
        most_bytes: usize,
    ) -> Self {
        Self {
            calls,
            client,
            webhooks,
            most_bytes,
        }
    }

    fn call(&self, record: CallRecord) -> KeptCall {
        KeptCall {
            calls: Arc::clone(&self.calls),
            record,
        }
    }

    /// Takes a call, unless its caller had one with the same key; whether it is that one.
    ///
    /// # Errors
    /// When no node offers the function, or the call cannot be kept.
    pub(super) async fn begin(
        &self,
        hub: &Hub,
        key: Option<String>,
        head: CallHead,
        arguments: Bytes,
        webhook: Option<Webhook>,
    ) -> Result<(KeptCall, bool), Problem> {
        let same = digest(&head, &arguments, webhook.as_ref());
        if key.is_none() && info(hub, &head, |_| ()).is_none() {
            let words = format!("there is no function {:?} on any node", head.function);
            return Err(Failure::new(Reason::NotFound, words).into());
        }
        // A caller that goes away leaves nothing half done.
        let (calls, now) = (Arc::clone(&self.calls), now_us());
        let submitting = tokio::spawn(async move {
            let once = key.as_deref().map(|key| Once { key, same });
            calls.submit(head, arguments, now, once, webhook).await
        });
        let (record, known) = submitting.await.map_err(|error| {
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
        })??;
        Ok((self.call(record), known))
    }

    /// A user's call.
    pub(super) async fn get(&self, user: &str, id: &str) -> Result<Option<KeptCall>, Problem> {
        let record = self.calls.get(user, id).await?;
        Ok(record.map(|record| self.call(record)))
    }

    /// A user's calls, without their results; none of those who have no token.
    pub(super) async fn of(&self, user: &str) -> Result<Vec<Value>, Problem> {
        if user.is_empty() {
            return Ok(Vec::new());
        }
        let records = self.calls.of(user).await?;
        Ok(records.iter().map(shown).collect())
    }

    /// Ends a user's call.
    pub(super) async fn cancel(&self, user: &str, id: &str) -> Result<Option<KeptCall>, Problem> {
        let record = self.calls.cancel(user, id).await?;
        Ok(record.map(|record| self.call(record)))
    }

    /// Runs calls that this gateway is given, and tells of those that are over, until `shutdown`.
    pub(super) async fn run(&self, hub: &Arc<Hub>, shutdown: CancellationToken) {
        let knowing = Arc::clone(hub);
        let is_known = move |head: &CallHead| info(&knowing, head, |_| ()).is_some();
        let (hub, client, most_bytes) =
            (Arc::clone(hub), Arc::clone(&self.client), self.most_bytes);
        let run = move |turn| {
            let (hub, client) = (Arc::clone(&hub), Arc::clone(&client));
            async move { run(turn, &hub, &client, most_bytes).await }
        };
        let webhooks = Arc::clone(&self.webhooks);
        let turn = move |user: String| {
            let webhooks = Arc::clone(&webhooks);
            async move { webhooks.turn(&user).await }
        };
        let webhooks = Arc::clone(&self.webhooks);
        let tell = move |turn, record: CallRecord, items: Option<Vec<Bytes>>| {
            let webhooks = Arc::clone(&webhooks);
            async move {
                let body = webhook::body(heading(&record), items.as_deref());
                match &record.webhook {
                    Some(webhook) => webhooks.send(turn, webhook, &record.id, body).await,
                    // Nobody wants to be told.
                    None => Attempt::Delivered,
                }
            }
        };
        let running = self.calls.work(shutdown.clone(), is_known, run);
        tokio::join!(running, self.calls.deliver(shutdown, turn, tell));
    }
}

/// Runs a call and keeps its outcome.
async fn run(mut turn: Turn, hub: &Hub, client: &Client, most_bytes: usize) {
    let head = turn.record().head.clone();
    let idempotent = info(hub, &head, |info| info.idempotent).unwrap_or_default();
    if turn.was_begun() && !idempotent {
        let words = "the gateway that ran this call is gone, and a node may have begun it: call again \
                     if it may run twice";
        turn.end(Err(Failure::new(Reason::NodeLost, words))).await;
        return;
    }
    let arguments = match turn.arguments().await {
        Ok(arguments) => arguments,
        Err(error) => {
            let failure = Failure::new(Reason::Internal, error.to_string());
            turn.end(Err(failure)).await;
            return;
        }
    };
    let (told, seen) = watch::channel(State::Running {
        done: None,
        note: String::new(),
    });
    let latest = || match &*seen.borrow() {
        State::Running { done, note } => CallState::Running {
            done: *done,
            note: note.clone(),
        },
        State::Waiting { before } => CallState::Waiting { before: *before },
        // What is gathered does not tell of the end.
        State::Succeeded(_) | State::Failed(_) => CallState::Waiting { before: None },
    };
    let cancelled = turn.cancelled();
    let over = |words: &str| Err(Failure::new(Reason::Cancelled, words));
    let outcome = tokio::select! {
        outcome = gather(client.call(&head, arguments), most_bytes, &told) => outcome,
        () = turn.tell(latest) => over("the call is over"),
        () = cancelled.cancelled() => over("the caller cancelled"),
    };
    // Its node, or the way to it, may have gone before the call reached it.
    let nobody = matches!(&outcome, Err(failure) if failure.reason == Reason::NotFound)
        && info(hub, &head, |_| ()).is_none();
    if nobody && turn.wait_for_node().await {
        return;
    }
    turn.end(outcome).await;
}

/// What is known of the function that a call is for.
fn info<T>(
    hub: &Hub,
    head: &CallHead,
    tell: impl FnOnce(&r3mes_functions::registry::FunctionInfo) -> T,
) -> Option<T> {
    hub.with(|broker, _| {
        broker
            .function(head.node.as_deref(), &head.function)
            .map(tell)
    })
}

fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_micros() as u64)
}

/// How a call stands, without its result.
fn heading(record: &CallRecord) -> Value {
    let state = match &record.state {
        CallState::Waiting { before } => State::Waiting { before: *before },
        CallState::Running { done, note } => State::Running {
            done: *done,
            note: note.clone(),
        },
        CallState::Succeeded { .. } => State::Succeeded(Arc::default()),
        CallState::Failed(failure) => State::Failed(failure.clone()),
    };
    let target = (record.head.function.as_str(), record.head.node.as_deref());
    view(&record.id, target, record.created_at_us, &state)
}

/// As [`heading`], with what has become of its webhook.
fn shown(record: &CallRecord) -> Value {
    let mut view = heading(record);
    if let Some(webhook) = &record.webhook {
        view["webhook"] = webhook::view(webhook);
    }
    view
}

impl KeptCall {
    pub(super) fn id(&self) -> &str {
        &self.record.id
    }

    /// As `GET /api/calls/{id}` shows it.
    pub(super) async fn view(&self) -> Result<Value, Problem> {
        let mut view = shown(&self.record);
        if matches!(self.record.state, CallState::Succeeded { .. }) {
            add_results(&mut view, &self.calls.items(&self.record).await?);
        }
        Ok(view)
    }

    /// Waits for its items.
    pub(super) async fn ended(&self) -> Result<Arc<[Bytes]>, Problem> {
        let record = self.calls.over(&self.record).await?;
        match &record.state {
            CallState::Failed(failure) => Err(failure.clone().into()),
            _ => Ok(self.calls.items(&record).await?.into()),
        }
    }
}

impl From<KeepError> for Problem {
    fn from(error: KeepError) -> Self {
        let status = match &error {
            KeepError::Full => {
                let mut busy = Failure::new(Reason::Busy, error.to_string());
                busy.retry_after_ms = Some(FULL_MS);
                return busy.into();
            }
            KeepError::OtherCall => StatusCode::UNPROCESSABLE_ENTITY,
            KeepError::Forgotten(_) => StatusCode::GONE,
            KeepError::Nats(_) => StatusCode::SERVICE_UNAVAILABLE,
            KeepError::Taken | KeepError::Malformed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string())
    }
}

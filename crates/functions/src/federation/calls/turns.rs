//! Whose turn a call is: each that waits is given to one gateway, which runs it.
//!
//! A gateway that runs a call is subscribed to `PREFIX.running.ID` before the record says that the call
//! has begun, so whoever is given it again asks there: no answer from anybody means that the gateway
//! that had it is gone, as the server knows.

use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_nats::{
    Client, RequestErrorKind, Subscriber,
    jetstream::{
        AckKind, Message,
        consumer::{Consumer, pull},
    },
};
use bytes::Bytes;
use futures::StreamExt;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    ACK_WAIT, CallRecord, CallState, KeepError, KeptCalls, LIFE, nats,
    record::{arguments_of, decoded, result_of},
    values,
};
use crate::{failure::Failure, federation::FederationError, wire::messages::CallHead};

/// Calls that one gateway runs at a time.
const AT_ONCE: usize = 1024;
/// Calls that a gateway is given before it asks for more.
const BATCH: usize = 16;
/// Time between signs of life of a call.
const SIGN: Duration = Duration::from_secs(3);
/// How long whoever runs a call may take to say so.
const ANSWER: Duration = Duration::from_secs(1);
/// Time before a call that another gateway runs is given to somebody again.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// Time before a call of a function that no node offers is given to somebody again.
const TRY_AGAIN: Duration = Duration::from_secs(2);
/// How long a gateway knows no node with a call's function before the call fails: one that has just
/// started knows few nodes.
const NODES_MAY_COME: Duration = Duration::from_secs(60);
/// Time before what the cluster did not answer is tried again.
const PAUSE: Duration = Duration::from_secs(1);
/// How often it is tried to keep a result before the call fails.
const TRIES: usize = 30;

pub(super) const CANCEL: &[u8] = b"cancel";
const ASK: &[u8] = b"running?";

/// A call that this gateway runs.
#[derive(Debug)]
pub struct Turn {
    calls: Arc<KeptCalls>,
    message: Arc<Message>,
    record: CallRecord,
    revision: u64,
    lost: bool,
    /// Whether its record was seen to be over.
    is_over: bool,
    unknown: Arc<Unknown>,
    cancelled: CancellationToken,
    /// Ends with this.
    _attending: JoinSet<()>,
}

/// Calls whose functions no node offers, and since when that is known.
type Unknown = Mutex<HashMap<String, Instant>>;

impl KeptCalls {
    /// Runs calls by `run` as they are given to this gateway, until `shutdown`. A call whose function
    /// `is_known` to no node is waited with.
    pub async fn work<K, F, W>(self: &Arc<Self>, shutdown: CancellationToken, is_known: K, run: F)
    where
        K: Fn(&CallHead) -> bool + Clone + Send + Sync + 'static,
        F: Fn(Turn) -> W + Clone + Send + Sync + 'static,
        W: Future<Output = ()> + Send + 'static,
    {
        let (calls, unknown) = (Arc::clone(self), Arc::new(Unknown::default()));
        let working = each(&self.queue, AT_ONCE, move |message| {
            let (calls, unknown) = (Arc::clone(&calls), Arc::clone(&unknown));
            let (is_known, run) = (is_known.clone(), run.clone());
            async move {
                match calls.begin(message, &unknown, is_known).await {
                    Ok(Some(turn)) => run(turn).await,
                    Ok(None) => {}
                    Err(error) => tracing::warn!(%error, "functions.federation.begin"),
                }
            }
        });
        shutdown.run_until_cancelled(working).await;
    }

    /// Takes a call that this gateway was given, unless it is over, another gateway runs it, or its
    /// function may still come.
    async fn begin(
        self: &Arc<Self>,
        message: Message,
        unknown: &Arc<Unknown>,
        is_known: impl Fn(&CallHead) -> bool,
    ) -> Result<Option<Turn>, KeepError> {
        let name = String::from_utf8_lossy(&message.payload).into_owned();
        let Some(entry) = self.entry(&name).await? else {
            ack(&message, AckKind::Ack).await?;
            return Ok(None);
        };
        let mut record: CallRecord = decoded(&entry.value)?;
        if record.is_over() {
            self.announce(&record).await?;
            ack(&message, AckKind::Ack).await?;
            self.drop_value(&arguments_of(&record.id), record.arguments)
                .await;
            return Ok(None);
        }
        if record.runner.is_some() && self.is_run(&record.id).await? {
            ack(&message, AckKind::Nak(Some(LOOK_AGAIN))).await?;
            return Ok(None);
        }
        if is_known(&record.head) {
            lock(unknown).remove(&record.id);
        } else if may_come(unknown, &record.id) {
            ack(&message, AckKind::Nak(Some(TRY_AGAIN))).await?;
            return Ok(None);
        }
        let mut runner = [0; 8];
        getrandom::fill(&mut runner).map_err(FederationError::Random)?;
        let lost = record.runner.replace(hex::encode(runner)).is_some();
        let said = self.client.subscribe(self.running(&record.id)).await;
        let said = said.map_err(|error| nats("listen for a call", error))?;
        let (message, cancelled) = (Arc::new(message), CancellationToken::new());
        let mut attending = JoinSet::new();
        attending.spawn(attend(
            self.client.clone(),
            said,
            Arc::clone(&message),
            cancelled.clone(),
        ));
        let mut turn = Turn {
            calls: Arc::clone(self),
            message,
            record,
            revision: entry.revision,
            lost,
            is_over: false,
            unknown: Arc::clone(unknown),
            cancelled,
            _attending: attending,
        };
        // An answer may be lost, so whether this is the runner is asked until it is known.
        loop {
            match turn.change().await {
                Ok(true) => return Ok(Some(turn)),
                Ok(false) => break,
                Err(error) => tracing::warn!(%error, "functions.federation.begin"),
            }
            tokio::time::sleep(PAUSE).await;
        }
        ack(&turn.message, AckKind::Nak(Some(LOOK_AGAIN))).await?;
        Ok(None)
    }

    /// Whether a gateway runs a call; one that does not answer is taken to.
    async fn is_run(&self, id: &str) -> Result<bool, KeepError> {
        let asking = self.client.request(self.running(id), ASK.into());
        match tokio::time::timeout(ANSWER, asking).await {
            Err(_) | Ok(Ok(_)) => Ok(true),
            Ok(Err(error)) => match error.kind() {
                RequestErrorKind::NoResponders => Ok(false),
                RequestErrorKind::TimedOut => Ok(true),
                _ => Err(nats("ask who runs a call", error).into()),
            },
        }
    }
}

/// Gives each message of a queue to `handle`, `at_once` at a time, for ever.
pub(super) async fn each<W>(
    queue: &Consumer<pull::Config>,
    at_once: usize,
    handle: impl Fn(Message) -> W,
) where
    W: Future<Output = ()> + Send + 'static,
{
    let permits = Arc::new(Semaphore::new(at_once));
    let mut running = JoinSet::new();
    loop {
        let messages = queue.stream().max_messages_per_batch(BATCH);
        let mut messages = match messages.messages().await {
            Ok(messages) => messages,
            Err(error) => {
                tracing::warn!(%error, "functions.federation.queue");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        while let Some(message) = messages.next().await {
            let message = match message {
                Ok(message) => message,
                Err(error) => {
                    tracing::warn!(%error, "functions.federation.queue");
                    break;
                }
            };
            while running.try_join_next().is_some() {}
            // It is never closed.
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
                return;
            };
            let handling = handle(message);
            running.spawn(async move {
                let _permit: OwnedSemaphorePermit = permit;
                handling.await;
            });
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn lock(unknown: &Unknown) -> std::sync::MutexGuard<'_, HashMap<String, Instant>> {
    unknown.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a node may still come that offers what a call is for.
fn may_come(unknown: &Unknown, id: &str) -> bool {
    let mut since = lock(unknown);
    // Those that another gateway ran, or ended, are asked for no more.
    since.retain(|_, since| since.elapsed() < NODES_MAY_COME * 2);
    let since = since.entry(id.to_owned()).or_insert_with(Instant::now);
    since.elapsed() < NODES_MAY_COME
}

pub(super) async fn ack(message: &Message, kind: AckKind) -> Result<(), KeepError> {
    let acked = message.ack_with(kind).await;
    acked.map_err(|error| nats("take an answer about a call", error).into())
}

/// Answers whoever asks whether the call runs, lets the queue know that it does, and cancels it when
/// somebody says so.
async fn attend(
    client: Client,
    mut said: Subscriber,
    message: Arc<Message>,
    cancelled: CancellationToken,
) {
    let mut signs = tokio::time::interval(SIGN);
    loop {
        tokio::select! {
            _ = signs.tick() => {
                if let Err(error) = ack(&message, AckKind::Progress).await {
                    tracing::warn!(%error, "functions.federation.sign");
                }
            }
            heard = said.next() => match heard {
                Some(heard) if heard.payload == CANCEL => cancelled.cancel(),
                Some(heard) => {
                    let Some(reply) = heard.reply else { continue };
                    if let Err(error) = client.publish(reply, Bytes::new()).await {
                        tracing::debug!(%error, "functions.federation.answer");
                    }
                }
                // The connection was closed for good.
                None => return,
            },
        }
    }
}

impl Turn {
    /// The call.
    pub fn record(&self) -> &CallRecord {
        &self.record
    }

    /// Whether a gateway that is gone had begun it, so that a node may have run it already.
    pub fn was_begun(&self) -> bool {
        self.lost
    }

    /// Told once the caller has cancelled it.
    pub fn cancelled(&self) -> CancellationToken {
        self.cancelled.clone()
    }

    /// Its arguments.
    ///
    /// # Errors
    /// See [`KeepError`].
    pub async fn arguments(&self) -> Result<Bytes, KeepError> {
        let id = &self.record.id;
        loop {
            let name = arguments_of(id);
            match self.calls.read(&name, self.record.arguments, id).await {
                Err(KeepError::Nats(error)) => {
                    tracing::warn!(%error, "functions.federation.arguments");
                }
                result => return result,
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Keeps how the call stands as `latest` tells it, at most every 3 s. Returns when the call is
    /// another gateway's, or over.
    pub async fn tell(&mut self, latest: impl Fn() -> CallState) {
        let mut signs = tokio::time::interval(SIGN);
        let mut written = Instant::now();
        loop {
            signs.tick().await;
            let state = latest();
            if state == self.record.state && written.elapsed() < LIFE / 4 {
                continue;
            }
            self.record.state = state;
            match self.change().await {
                Ok(true) => written = Instant::now(),
                Ok(false) => return,
                Err(error) => tracing::warn!(%error, "functions.federation.tell"),
            }
        }
    }

    /// Writes the record, unless it is another gateway's by now, or over; whether it was written.
    async fn change(&mut self) -> Result<bool, KeepError> {
        loop {
            match self.calls.change(&self.record, self.revision).await {
                Ok(revision) => {
                    self.revision = revision;
                    return Ok(true);
                }
                Err(KeepError::Taken) => {}
                Err(error) => return Err(error),
            }
            // It may be this one that was written last, and the answer was lost.
            let Some(entry) = self.calls.entry(&self.record.name()).await? else {
                return Ok(false);
            };
            let known: CallRecord = decoded(&entry.value)?;
            self.is_over = known.is_over();
            if self.is_over || known.runner != self.record.runner {
                return Ok(false);
            }
            self.revision = entry.revision;
        }
    }

    /// Lets a call wait that no node has, since none offers its function any more: one may come again, or be
    /// known again, within a minute. Whether it waits; if not, it is to be ended. That it waits is kept
    /// however long the cluster does not answer: a call whose runner is gone counts as begun.
    pub async fn wait_for_node(&mut self) -> bool {
        if !may_come(&self.unknown, &self.record.id) {
            return false;
        }
        self.record.runner = None;
        self.record.state = CallState::Waiting { before: None };
        loop {
            match self.change().await {
                Ok(true) => break,
                Ok(false) => return false,
                Err(error) => tracing::warn!(%error, "functions.federation.wait"),
            }
            tokio::time::sleep(PAUSE).await;
        }
        if let Err(error) = ack(&self.message, AckKind::Nak(Some(TRY_AGAIN))).await {
            // Nobody runs it once this is dropped, so it is given to somebody again.
            tracing::warn!(%error, "functions.federation.wait");
        }
        true
    }

    /// Keeps its outcome, however long the cluster does not answer, and takes it off the queue. A result
    /// that cannot be kept makes it a failure.
    pub async fn end(mut self, outcome: Result<Vec<Bytes>, Failure>) {
        let state = match outcome {
            Ok(items) => self.keep(&items).await,
            Err(failure) => CallState::Failed(failure),
        };
        loop {
            match self.try_end(&state).await {
                Ok(()) => return,
                Err(error) => tracing::warn!(%error, "functions.federation.end"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn keep(&self, items: &[Bytes]) -> CallState {
        let (packed, name) = (values::packed(items), result_of(&self.record));
        let mut reason = String::new();
        for _ in 0..TRIES {
            match self.calls.write(&name, packed.clone()).await {
                Ok(pieces) => return CallState::Succeeded { pieces },
                Err(error) => {
                    tracing::warn!(%error, "functions.federation.keep");
                    reason = error.to_string();
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
        let words = format!("the result could not be kept: {reason}");
        CallState::Failed(Failure::new(crate::Reason::Internal, words))
    }

    async fn try_end(&mut self, state: &CallState) -> Result<(), KeepError> {
        self.record.state = state.clone();
        if !self.change().await? && !self.is_over {
            return Ok(());
        }
        self.calls.announce(&self.record).await?;
        ack(&self.message, AckKind::Ack).await?;
        let name = arguments_of(&self.record.id);
        self.calls.drop_value(&name, self.record.arguments).await;
        Ok(())
    }
}

const _: () = assert!(SIGN.as_secs() * 3 < ACK_WAIT.as_secs());

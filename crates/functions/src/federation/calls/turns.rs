//! Whose turn a call is: each that waits is given to one gateway, which runs it.
//!
//! A gateway that runs a call is subscribed to `PREFIX.running.ID` before the record says that the call
//! has begun, so whoever is given it again asks there: no answer from anybody means that the gateway
//! that had it is gone, as the server knows.

use std::{future::Future, sync::Arc, time::Duration};

use async_nats::{
    RequestErrorKind, Subscriber,
    jetstream::{AckKind, Message},
};
use bytes::Bytes;
use futures::StreamExt;
use tokio::{sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::FederationError;
use super::{
    ACK_WAIT, CallRecord, CallState, KeepError, KeptCalls, arguments_of, decoded, nats, result_of,
    values,
};
use crate::failure::Failure;

/// Calls that one gateway runs at a time.
const AT_ONCE: usize = 1024;
/// Calls that a gateway is given before it asks for more.
const BATCH: usize = 16;
/// Time between signs of life of a call.
const SIGN: Duration = Duration::from_secs(3);
/// Time before a call that another gateway runs is given to somebody again.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// Time before what the cluster did not answer is tried again.
const PAUSE: Duration = Duration::from_secs(1);

pub(super) const CANCEL: &[u8] = b"cancel";
const ASK: &[u8] = b"running?";

/// A call that this gateway runs.
#[derive(Debug)]
pub struct Turn {
    calls: Arc<KeptCalls>,
    message: Message,
    record: CallRecord,
    revision: u64,
    lost: bool,
    /// Whether its record was seen to be over.
    is_over: bool,
}

/// What others say to whoever runs a call.
#[derive(Debug)]
pub struct Interrupts {
    calls: Arc<KeptCalls>,
    said: Subscriber,
}

impl KeptCalls {
    /// Runs calls by `run` as they are given to this gateway, until `shutdown`.
    pub async fn work<F, W>(self: &Arc<Self>, shutdown: CancellationToken, run: F)
    where
        F: Fn(Turn, Interrupts) -> W,
        W: Future<Output = ()> + Send + 'static,
    {
        let working = async {
            let permits = Arc::new(Semaphore::new(AT_ONCE));
            let mut running = JoinSet::new();
            loop {
                let messages = self.queue.stream().max_messages_per_batch(BATCH);
                match messages.messages().await {
                    Ok(mut messages) => {
                        while let Some(message) = messages.next().await {
                            let message = match message {
                                Ok(message) => message,
                                Err(error) => {
                                    tracing::warn!(%error, "functions.federation.queue");
                                    break;
                                }
                            };
                            while running.try_join_next().is_some() {}
                            let permit = Arc::clone(&permits).acquire_owned().await;
                            match self.begin(message).await {
                                Ok(Some((turn, interrupts))) => {
                                    let turn = run(turn, interrupts);
                                    running.spawn(async move {
                                        turn.await;
                                        drop(permit);
                                    });
                                }
                                Ok(None) => {}
                                Err(error) => {
                                    tracing::warn!(%error, "functions.federation.begin");
                                }
                            }
                        }
                    }
                    Err(error) => tracing::warn!(%error, "functions.federation.queue"),
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        shutdown.run_until_cancelled(working).await;
    }

    /// Takes a call that this gateway was given, unless it is over or another gateway runs it.
    async fn begin(
        self: &Arc<Self>,
        message: Message,
    ) -> Result<Option<(Turn, Interrupts)>, KeepError> {
        let name = String::from_utf8_lossy(&message.payload).into_owned();
        let entry = match self.entry(&name).await? {
            Some(entry) => entry,
            None => return ack(&message, AckKind::Ack).await.map(|()| None),
        };
        let mut record: CallRecord = decoded(&entry.value)?;
        if record.is_over() {
            return ack(&message, AckKind::Ack).await.map(|()| None);
        }
        if record.runner.is_some() && self.is_run(&record.id).await? {
            return ack(&message, AckKind::Nak(Some(LOOK_AGAIN)))
                .await
                .map(|()| None);
        }
        let mut runner = [0; 8];
        getrandom::fill(&mut runner).map_err(FederationError::Random)?;
        let lost = record.runner.replace(hex::encode(runner)).is_some();
        let said = self.client.subscribe(self.running(&record.id)).await;
        let said = said.map_err(|error| nats("listen for a call", error))?;
        let revision = match self.change(&record, entry.revision).await {
            Ok(revision) => revision,
            Err(KeepError::Taken) => {
                return ack(&message, AckKind::Nak(Some(LOOK_AGAIN)))
                    .await
                    .map(|()| None);
            }
            Err(error) => return Err(error),
        };
        let turn = Turn {
            calls: Arc::clone(self),
            message,
            record,
            revision,
            lost,
            is_over: false,
        };
        let interrupts = Interrupts {
            calls: Arc::clone(self),
            said,
        };
        Ok(Some((turn, interrupts)))
    }

    /// Whether a gateway runs a call; one that does not answer is taken to.
    async fn is_run(&self, id: &str) -> Result<bool, KeepError> {
        let asked = self.client.request(self.running(id), ASK.into()).await;
        match asked {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == RequestErrorKind::NoResponders => Ok(false),
            Err(error) if error.kind() == RequestErrorKind::TimedOut => Ok(true),
            Err(error) => Err(nats("ask who runs a call", error).into()),
        }
    }
}

async fn ack(message: &Message, kind: AckKind) -> Result<(), KeepError> {
    let acked = message.ack_with(kind).await;
    acked.map_err(|error| nats("take an answer about a call", error).into())
}

impl Interrupts {
    /// Answers whoever asks whether the call runs, and returns once the caller has cancelled it.
    pub async fn cancelled(&mut self) {
        while let Some(message) = self.said.next().await {
            if message.payload == CANCEL {
                return;
            }
            if let Some(reply) = message.reply {
                let answered = self.calls.client.publish(reply, Bytes::new()).await;
                if let Err(error) = answered {
                    tracing::debug!(%error, "functions.federation.answer");
                }
            }
        }
        // The connection was closed for good: nobody can cancel any more.
        std::future::pending().await
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

    /// Its arguments.
    ///
    /// # Errors
    /// See [`KeepError`].
    pub async fn arguments(&self) -> Result<Bytes, KeepError> {
        let id = &self.record.id;
        let name = arguments_of(id);
        self.calls.read(&name, self.record.arguments, id).await
    }

    /// Keeps how the call stands each time that `latest` has something new, and lets the queue know that
    /// it runs. Returns when it is another gateway's, or over.
    pub async fn tell(&mut self, latest: impl Fn() -> CallState) {
        let mut signs = tokio::time::interval(SIGN);
        loop {
            signs.tick().await;
            self.record.state = latest();
            match self.change().await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => tracing::warn!(%error, "functions.federation.tell"),
            }
            if let Err(error) = ack(&self.message, AckKind::Progress).await {
                tracing::warn!(%error, "functions.federation.sign");
            }
        }
    }

    /// Lets a gateway have it again after `pause`: nothing of it has reached a node.
    pub async fn put_back(mut self, pause: Duration) {
        self.record.runner = None;
        self.record.state = CallState::Waiting { before: None };
        let back = async {
            self.calls.change(&self.record, self.revision).await?;
            ack(&self.message, AckKind::Nak(Some(pause))).await
        };
        if let Err(error) = back.await {
            tracing::warn!(%error, "functions.federation.put_back");
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

    /// Keeps its outcome, however long the cluster does not answer, and takes it off the queue.
    pub async fn end(mut self, outcome: Result<Vec<Bytes>, Failure>) {
        loop {
            match self.try_end(&outcome).await {
                Ok(()) => return,
                Err(error) => tracing::warn!(%error, "functions.federation.end"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn try_end(&mut self, outcome: &Result<Vec<Bytes>, Failure>) -> Result<(), KeepError> {
        self.record.state = match outcome {
            Ok(items) => {
                let packed = values::packed(items);
                let name = result_of(&self.record.id);
                CallState::Succeeded {
                    pieces: self.calls.write(&name, packed).await?,
                }
            }
            Err(failure) => CallState::Failed(failure.clone()),
        };
        if !self.change().await? && !self.is_over {
            return Ok(());
        }
        ack(&self.message, AckKind::Ack).await?;
        let name = arguments_of(&self.record.id);
        self.calls.drop_value(&name, self.record.arguments).await;
        Ok(())
    }
}

const _: () = assert!(SIGN.as_secs() * 3 < ACK_WAIT.as_secs());

//! Messages about calls that are over: each waits in the work queue `PREFIX_webhooks` until a gateway has
//! delivered it, or it is given up.
//!
//! The queue gives a message to another gateway when the one that has it is gone, so a receiver may be
//! told more than once. Between attempts the message waits in the queue, and holds up nobody.

use std::{future::Future, pin::pin, sync::Arc, time::Duration};

use async_nats::jetstream::{
    AckKind, Context, Message,
    consumer::{Consumer, pull},
    stream::{self, DiscardPolicy, RetentionPolicy},
};
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::{CallRecord, KeepError, KeptCalls, MAX_WAITING, SAME, nats, record::decoded, turns};
use crate::{
    federation::FederationError,
    webhook::{Attempt, Shares},
};

/// Messages that one gateway has at a time, and those of one user: with most of them it waits for a turn.
const AT_ONCE: usize = 1024;
const OF_A_USER: usize = 128;
/// Time before a message of a user is given to somebody again who has so many here already.
const OTHERS_FIRST: Duration = Duration::from_secs(2);
/// Time between signs that a message waits for its turn.
const SIGN: Duration = Duration::from_secs(5);
/// How long a gateway may take for an attempt before another one gets the message.
const ACK_WAIT: Duration = Duration::from_secs(20);
/// Time before a record is looked at again that somebody else has changed.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// Pieces of a result that is given to whoever delivers a message: 256 KiB.
const MOST_PIECES: u32 = 1;

/// Opens the queue, or makes it.
pub(super) async fn open(
    context: &Context,
    prefix: &str,
    replicas: usize,
) -> Result<Consumer<pull::Config>, FederationError> {
    let doing = "queue webhooks";
    let queue = stream::Config {
        name: format!("{prefix}_webhooks"),
        subjects: vec![format!("{prefix}.webhooks")],
        retention: RetentionPolicy::WorkQueue,
        discard: DiscardPolicy::New,
        max_messages: MAX_WAITING,
        duplicate_window: SAME,
        num_replicas: replicas,
        ..stream::Config::default()
    };
    let stream = context.get_or_create_stream(queue).await;
    let stream = stream.map_err(|error| nats(doing, error))?;
    let consumer = pull::Config {
        durable_name: Some("gateways".into()),
        ack_wait: ACK_WAIT,
        max_ack_pending: MAX_WAITING,
        ..pull::Config::default()
    };
    let queue = stream.get_or_create_consumer("gateways", consumer).await;
    queue.map_err(|error| nats(doing, error))
}

impl KeptCalls {
    /// Has it told that a call is over, if somebody wants to be told. Where too many messages wait, nobody is:
    /// a call that waited for its message would hold up everybody's calls.
    pub(super) async fn announce(&self, record: &CallRecord) -> Result<(), KeepError> {
        match &record.webhook {
            Some(webhook) if webhook.is_pending() => {}
            _ => return Ok(()),
        }
        match self.publish("webhooks", record).await {
            Err(KeepError::Full) => self.give_up(record).await,
            published => published,
        }
    }

    /// Notes that nobody is told that a call is over.
    async fn give_up(&self, record: &CallRecord) -> Result<(), KeepError> {
        loop {
            let Some(entry) = self.entry(&record.name()).await? else {
                return Ok(());
            };
            let mut known: CallRecord = decoded(&entry.value)?;
            if let Some(webhook) = known.webhook.as_mut() {
                let why = format!("{MAX_WAITING} messages wait for their receivers already");
                webhook.note(Attempt::Refused(why));
            }
            match self.change(&known, entry.revision).await {
                Err(KeepError::Taken) => {}
                changed => return changed.map(|_| ()),
            }
        }
    }

    /// Delivers messages by `send` as they are given to this gateway, until `shutdown`. Each waits for the
    /// `turn` of its user, who is told from others by a text. `send` gets that turn, the call, and the items
    /// of its result unless they have more than 256 KiB.
    pub async fn deliver<T, U, F, W>(
        self: &Arc<Self>,
        shutdown: CancellationToken,
        turn: impl Fn(String) -> U + Clone + Send + Sync + 'static,
        send: F,
    ) where
        T: Send + 'static,
        U: Future<Output = T> + Send + 'static,
        F: Fn(T, CallRecord, Option<Vec<Bytes>>) -> W + Clone + Send + Sync + 'static,
        W: Future<Output = Attempt> + Send + 'static,
    {
        let (calls, shares) = (Arc::clone(self), Arc::new(Shares::new(OF_A_USER)));
        let delivering = turns::each(&self.webhooks, AT_ONCE, move |message| {
            let (calls, shares) = (Arc::clone(&calls), Arc::clone(&shares));
            let (turn, send) = (turn.clone(), send.clone());
            async move {
                let name = String::from_utf8_lossy(&message.payload).into_owned();
                let user = name.split('.').next().unwrap_or_default().to_owned();
                let delivered = match shares.free_place(&user) {
                    Some(_place) => match waited(&message, turn(user)).await {
                        Ok(turn) => calls.attempt(&message, &name, turn, send).await,
                        Err(error) => Err(error),
                    },
                    None => turns::ack(&message, AckKind::Nak(Some(OTHERS_FIRST))).await,
                };
                if let Err(error) = delivered {
                    tracing::warn!(%error, "functions.federation.webhook");
                }
            }
        });
        shutdown.run_until_cancelled(delivering).await;
    }

    async fn attempt<T, F, W>(
        &self,
        message: &Message,
        name: &str,
        turn: T,
        send: F,
    ) -> Result<(), KeepError>
    where
        F: Fn(T, CallRecord, Option<Vec<Bytes>>) -> W,
        W: Future<Output = Attempt>,
    {
        let Some(entry) = self.entry(name).await? else {
            return turns::ack(message, AckKind::Ack).await;
        };
        let mut record: CallRecord = decoded(&entry.value)?;
        if !record.webhook.as_ref().is_some_and(|of| of.is_pending()) {
            return turns::ack(message, AckKind::Ack).await;
        }
        let items = match record.pieces() > MOST_PIECES {
            true => None,
            false => match self.items(&record).await {
                Ok(items) => Some(items),
                Err(KeepError::Forgotten(_)) => None,
                Err(error) => return Err(error),
            },
        };
        let came_to = send(turn, record.clone(), items).await;
        let webhook = record.webhook.as_mut();
        let pause = webhook.and_then(|webhook| webhook.note(came_to));
        let next = match self.change(&record, entry.revision).await {
            Ok(_) => pause.map_or(AckKind::Ack, |pause| AckKind::Nak(Some(pause))),
            Err(KeepError::Taken) => AckKind::Nak(Some(LOOK_AGAIN)),
            Err(error) => return Err(error),
        };
        turns::ack(message, next).await
    }
}

/// Waits for a turn, and lets the queue know that the message is not forgotten.
async fn waited<T>(message: &Message, turn: impl Future<Output = T>) -> Result<T, KeepError> {
    let mut turn = pin!(turn);
    let mut signs = tokio::time::interval(SIGN);
    loop {
        tokio::select! {
            turn = &mut turn => {
                // An attempt has all its time from here on.
                turns::ack(message, AckKind::Progress).await?;
                return Ok(turn);
            }
            _ = signs.tick() => turns::ack(message, AckKind::Progress).await?,
        }
    }
}

const _: () = assert!(SIGN.as_secs() * 3 < ACK_WAIT.as_secs());

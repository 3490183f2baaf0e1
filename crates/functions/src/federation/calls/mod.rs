//! Asynchronous calls that outlast the gateway that took them, in JetStream.
//!
//! A call's record, which says how it stands, lies in the bucket `PREFIX_calls` under
//! `USER.ID`, where `USER` is 16 bytes of BLAKE3 of the caller's name in hexadecimal digits; its arguments
//! and its result lie in pieces in the bucket `PREFIX_values`. Both are forgotten an hour after they were
//! written last. Until the call is over, its record's name is also a message of the work queue
//! `PREFIX_waiting`, which gives each to one gateway at a time (see `turns.rs`).
//!
//! A record is changed only from the revision that was read, so of two gateways that each hold a call to
//! be theirs one finds out that it is not.

mod record;
mod submit;
mod turns;
mod values;
mod webhooks;

use std::{collections::BTreeMap, time::Duration};

use async_nats::{
    Client,
    jetstream::{
        self, Context,
        consumer::{Consumer, pull},
        kv::{self, Operation, Store, UpdateErrorKind},
        stream::{self, DiscardPolicy, LastRawMessageErrorKind, RetentionPolicy},
    },
};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};

use self::record::{decoded, encoded, is_id, name, result_of, user_name};
pub use self::{
    record::{CallRecord, CallState},
    submit::Once,
    turns::Turn,
};
use super::FederationError;
use crate::failure::Failure;

/// How long a call that is over is remembered.
pub const LIFE: Duration = Duration::from_secs(3600);
/// Calls that may wait or run at a time.
const MAX_WAITING: i64 = 10_000;
/// How long a gateway may say nothing of a call that it was given.
const ACK_WAIT: Duration = Duration::from_secs(10);
/// Time between two looks whether a call that is waited for is still kept.
const LOOK: Duration = Duration::from_secs(30);
/// The header of what was deleted.
const OPERATION: &str = "KV-Operation";
/// How long a message with the same id is known to be the same.
const SAME: Duration = Duration::from_secs(120);

/// Why a call cannot be taken, or is not known.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// A work queue is full.
    #[error("{MAX_WAITING} calls wait already")]
    Full,
    /// The idempotency key was used before.
    #[error("this Idempotency-Key belongs to a call of another function or with other arguments")]
    OtherCall,
    /// Another gateway has changed the record.
    #[error("another gateway has this call now")]
    Taken,
    /// What belongs to the call is kept no longer.
    #[error("what belongs to call {0} is kept no longer")]
    Forgotten(String),
    /// What is kept cannot be read.
    #[error("what is kept of a call cannot be read: {0}")]
    Malformed(String),
    /// The cluster does not answer.
    #[error(transparent)]
    Nats(#[from] FederationError),
}

/// The calls of all gateways.
#[derive(Clone, Debug)]
pub struct KeptCalls {
    client: Client,
    context: Context,
    prefix: String,
    records: Store,
    values: Store,
    queue: Consumer<pull::Config>,
    webhooks: Consumer<pull::Config>,
}

impl KeptCalls {
    /// Opens the buckets and the queue, or makes them.
    pub(super) async fn open(
        client: &Client,
        prefix: &str,
        replicas: usize,
    ) -> Result<Self, FederationError> {
        let context = jetstream::new(client.clone());
        let bucket = async |name: &str, description: &str| {
            let config = kv::Config {
                bucket: format!("{prefix}_{name}"),
                description: description.into(),
                history: 1,
                max_age: LIFE,
                num_replicas: replicas,
                ..kv::Config::default()
            };
            let made = context.create_key_value(config).await;
            made.map_err(|error| nats("keep asynchronous calls", error))
        };
        let records = bucket("calls", "Asynchronous calls of an R3MES network").await?;
        let values = bucket("values", "Arguments and results of asynchronous calls").await?;
        let queue = stream::Config {
            name: format!("{prefix}_waiting"),
            subjects: vec![format!("{prefix}.waiting")],
            retention: RetentionPolicy::WorkQueue,
            discard: DiscardPolicy::New,
            max_messages: MAX_WAITING,
            duplicate_window: SAME,
            num_replicas: replicas,
            ..stream::Config::default()
        };
        let doing = "queue asynchronous calls";
        let stream = context.get_or_create_stream(queue).await;
        let stream = stream.map_err(|error| nats(doing, error))?;
        let consumer = pull::Config {
            durable_name: Some("gateways".into()),
            ack_wait: ACK_WAIT,
            max_ack_pending: MAX_WAITING,
            ..pull::Config::default()
        };
        let queue = stream.get_or_create_consumer("gateways", consumer).await;
        Ok(Self {
            webhooks: webhooks::open(&context, prefix, replicas).await?,
            client: client.clone(),
            prefix: prefix.to_owned(),
            records,
            values,
            queue: queue.map_err(|error| nats(doing, error))?,
            context,
        })
    }

    /// How a user's call stands.
    ///
    /// # Errors
    /// See [`KeepError`].
    pub async fn get(&self, user: &str, id: &str) -> Result<Option<CallRecord>, KeepError> {
        if !is_id(id) {
            return Ok(None);
        }
        let entry = self.entry(&name(user, id)).await?;
        entry.map(|entry| decoded(&entry.value)).transpose()
    }

    /// A user's calls, oldest first.
    ///
    /// # Errors
    /// See [`KeepError`].
    pub async fn of(&self, user: &str) -> Result<Vec<CallRecord>, KeepError> {
        let doing = "list asynchronous calls";
        let filter = format!("{}{}.*", self.records.prefix, user_name(user));
        let listed = self.records.stream.info_with_subjects(filter).await;
        let listed = listed.map_err(|error| nats(doing, error))?;
        let named: BTreeMap<String, usize> = listed
            .try_collect()
            .await
            .map_err(|error| nats(doing, error))?;
        let mut records = Vec::new();
        for subject in named.into_keys() {
            let id = subject.rsplit('.').next().unwrap_or_default();
            records.extend(self.get(user, id).await?);
        }
        records.sort_by_key(|record| record.created_at_us);
        Ok(records)
    }

    /// Waits until a call is over.
    ///
    /// # Errors
    /// See [`KeepError`].
    pub async fn over(&self, record: &CallRecord) -> Result<CallRecord, KeepError> {
        let doing = "tell how a call stands";
        let forgotten = || KeepError::Forgotten(record.id.clone());
        let watch = self.records.watch_with_history(record.name()).await;
        let mut watch = watch.map_err(|error| nats(doing, error))?;
        let mut looks = tokio::time::interval(LOOK);
        loop {
            let record: CallRecord = tokio::select! {
                entry = watch.next() => {
                    let entry = entry.ok_or_else(forgotten)?;
                    let entry = entry.map_err(|error| nats(doing, error))?;
                    if entry.operation != Operation::Put {
                        return Err(forgotten());
                    }
                    decoded(&entry.value)?
                }
                // What is forgotten with time is not told of.
                _ = looks.tick() => {
                    let known = self.get(record.user(), &record.id).await?;
                    known.ok_or_else(forgotten)?
                }
            };
            if record.is_over() {
                return Ok(record);
            }
        }
    }

    /// The items of the result of a call that succeeded.
    ///
    /// # Errors
    /// See [`KeepError`].
    pub async fn items(&self, record: &CallRecord) -> Result<Vec<Bytes>, KeepError> {
        if !matches!(record.state, CallState::Succeeded { .. }) {
            return Ok(Vec::new());
        }
        let pieces = record.pieces();
        let packed = self.read(&result_of(record), pieces, &record.id).await?;
        values::unpacked(packed)
    }

    /// Ends a user's call that is not over; its record then.
    ///
    /// # Errors
    /// See [`KeepError`].
    pub async fn cancel(&self, user: &str, id: &str) -> Result<Option<CallRecord>, KeepError> {
        if !is_id(id) {
            return Ok(None);
        }
        loop {
            let Some(entry) = self.entry(&name(user, id)).await? else {
                return Ok(None);
            };
            let mut record: CallRecord = decoded(&entry.value)?;
            if record.is_over() {
                return Ok(Some(record));
            }
            let words = "the caller cancelled";
            record.state = CallState::Failed(Failure::new(crate::Reason::Cancelled, words));
            match self.change(&record, entry.revision).await {
                Ok(_) => {
                    let told = self
                        .client
                        .publish(self.running(id), turns::CANCEL.into())
                        .await;
                    told.map_err(|error| nats("tell that a call was cancelled", error))?;
                    return Ok(Some(record));
                }
                Err(KeepError::Taken) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The subject of whoever runs a call.
    fn running(&self, id: &str) -> String {
        format!("{}.running.{id}", self.prefix)
    }

    /// What is kept under a name now. The stream's leader is asked: another replica may lag.
    async fn entry(&self, name: &str) -> Result<Option<Known>, KeepError> {
        let subject = format!("{}{name}", self.records.prefix);
        let stream = &self.records.stream;
        match stream.get_last_raw_message_by_subject(&subject).await {
            Ok(message) if message.headers.get(OPERATION).is_some() => Ok(None),
            Ok(message) => Ok(Some(Known {
                value: message.payload,
                revision: message.sequence,
            })),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(nats("tell how a call stands", error).into()),
        }
    }

    /// Writes a record that was read at `revision`; its new one.
    async fn change(&self, record: &CallRecord, revision: u64) -> Result<u64, KeepError> {
        self.update(&record.name(), encoded(record)?, revision)
            .await
    }

    async fn update(&self, name: &str, value: Bytes, revision: u64) -> Result<u64, KeepError> {
        let changed = self.records.update(name, value, revision).await;
        changed.map_err(|error| match error.kind() {
            UpdateErrorKind::WrongLastRevision => KeepError::Taken,
            _ => nats("keep how a call stands", error).into(),
        })
    }
}

/// What is kept under a name.
struct Known {
    value: Bytes,
    revision: u64,
}

fn nats(doing: &'static str, error: impl std::fmt::Display) -> FederationError {
    FederationError::JetStream {
        doing,
        reason: error.to_string(),
    }
}

//! Taking calls: each once for its idempotency key, and none that the queue has no room for.

use std::error::Error;

use async_nats::jetstream::{
    self, ErrorCode, context::PublishError, kv::CreateErrorKind, message::PublishMessage,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    CallRecord, CallState, KeepError, KeptCalls, nats,
    record::{arguments_of, decoded, encoded, key_name},
};
use crate::{webhook::Webhook, wire::messages::CallHead};

/// What an idempotency key was used for.
#[derive(Clone, Copy, Debug)]
pub struct Once<'a> {
    /// The key.
    pub key: &'a str,
    /// A hash of what is called and of its arguments.
    pub same: [u8; 32],
}

#[derive(Serialize, Deserialize)]
struct KeyUse {
    id: String,
    same: [u8; 32],
}

impl KeptCalls {
    /// Takes a call, unless the same user had one with the same key: its record, and whether it is that
    /// one. Once this returns, the call outlasts this gateway. `head` names the caller and the id.
    ///
    /// # Errors
    /// See [`KeepError`].
    pub async fn submit(
        &self,
        head: CallHead,
        arguments: Bytes,
        created_at_us: u64,
        once: Option<Once<'_>>,
        webhook: Option<Webhook>,
    ) -> Result<(CallRecord, bool), KeepError> {
        let caller = head.caller.clone().unwrap_or_default();
        if let Some(once) = &once
            && let (_, Some(known)) = self.used(&caller.user, once).await?
        {
            return Ok((known, true));
        }
        let record = CallRecord {
            arguments: self.write(&arguments_of(&caller.call), arguments).await?,
            id: caller.call,
            head,
            created_at_us,
            runner: None,
            state: CallState::Waiting { before: None },
            webhook,
        };
        let made = self.records.create(record.name(), encoded(&record)?).await;
        made.map_err(|error| nats("keep a call", error))?;
        let Some(once) = &once else {
            if let Err(error) = self.enqueue(&record).await {
                self.forget(&record).await;
                return Err(error);
            }
            return Ok((record, false));
        };
        match self.claim(&record, once).await {
            Ok(None) => {}
            Ok(Some(known)) => {
                self.forget(&record).await;
                return Ok((known, true));
            }
            Err(error) => {
                if matches!(error, KeepError::OtherCall) {
                    self.forget(&record).await;
                }
                return Err(error);
            }
        }
        // Where this fails, the next call with the key puts it into the queue.
        self.enqueue(&record).await?;
        Ok((record, false))
    }

    /// Writes what a key is used for; the call that has it, if another one does.
    async fn claim(
        &self,
        record: &CallRecord,
        once: &Once<'_>,
    ) -> Result<Option<CallRecord>, KeepError> {
        let value = encoded(&KeyUse {
            id: record.id.clone(),
            same: once.same,
        })?;
        let key = key_name(record.user(), once.key);
        loop {
            let written = match self.used(record.user(), once).await? {
                (_, Some(known)) if known.id == record.id => return Ok(None),
                (_, Some(known)) => return Ok(Some(known)),
                // The call that had it is kept no longer.
                (Some(revision), None) => {
                    let written = self.update(&key, value.clone(), revision).await;
                    written.map(drop)
                }
                (None, None) => match self.records.create(&key, value.clone()).await {
                    Ok(_) => Ok(()),
                    Err(error) if error.kind() == CreateErrorKind::AlreadyExists => {
                        Err(KeepError::Taken)
                    }
                    Err(error) => Err(nats("keep an idempotency key", error).into()),
                },
            };
            match written {
                Ok(()) => return Ok(None),
                Err(KeepError::Taken) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The revision of what is kept of a key, and the call that it was used for.
    async fn used(
        &self,
        user: &str,
        once: &Once<'_>,
    ) -> Result<(Option<u64>, Option<CallRecord>), KeepError> {
        let Some(entry) = self.entry(&key_name(user, once.key)).await? else {
            return Ok((None, None));
        };
        let used: KeyUse = decoded(&entry.value)?;
        let Some(record) = self.get(user, &used.id).await? else {
            return Ok((Some(entry.revision), None));
        };
        if used.same != once.same {
            return Err(KeepError::OtherCall);
        }
        if record.runner.is_none() && !record.is_over() {
            // Its gateway may have ended before it was in the queue.
            self.enqueue(&record).await?;
        }
        Ok((Some(entry.revision), Some(record)))
    }

    async fn enqueue(&self, record: &CallRecord) -> Result<(), KeepError> {
        self.publish("waiting", record).await
    }

    /// Puts the name of a record into a queue.
    pub(super) async fn publish(&self, queue: &str, record: &CallRecord) -> Result<(), KeepError> {
        let message = PublishMessage::build()
            .message_id(&record.id)
            .payload(record.name().into());
        let subject = format!("{}.{queue}", self.prefix);
        let sent = self.context.send_publish(subject, message).await;
        let sent = sent.map_err(|error| nats("queue a call", error))?;
        match sent.await {
            Ok(_) => Ok(()),
            Err(error) if not_stored(&error) => {
                // So it also says that a disk fails, which the code does not tell apart.
                tracing::warn!(queue, %error, "functions.federation.full");
                Err(KeepError::Full)
            }
            Err(error) => Err(nats("queue a call", error).into()),
        }
    }

    /// Lets go of a call that nobody was told of. What stays is forgotten with time.
    async fn forget(&self, record: &CallRecord) {
        if let Err(error) = self.records.purge(record.name()).await {
            tracing::debug!(%error, "functions.federation.forget");
        }
        self.drop_value(&arguments_of(&record.id), record.arguments)
            .await;
    }
}

/// Whether the server has no room for a message: `JSStreamStoreFailedErr`, of a stream at its limits.
fn not_stored(error: &PublishError) -> bool {
    let told = error
        .source()
        .and_then(|source| source.downcast_ref::<jetstream::Error>());
    told.is_some_and(|told| told.error_code() == ErrorCode::STREAM_STORE_FAILED)
}

//! Whose each node's id is, at all gateways: a JetStream key-value bucket that keeps, under the
//! hexadecimal digits of an id, the Ed25519 key that took it first.

use std::time::Duration;

use async_nats::{
    Client,
    jetstream::{
        self,
        kv::{self, CreateErrorKind, Store},
    },
};
use bytes::Bytes;
use futures::StreamExt;

use super::FederationError;
use crate::serve::Hub;

/// Time before what the cluster did not answer is asked again.
const PAUSE: Duration = Duration::from_secs(1);

/// The record.
#[derive(Clone, Debug)]
pub struct Owners {
    store: Store,
}

impl Owners {
    /// Opens the record, or makes it.
    pub(super) async fn open(
        client: &Client,
        prefix: &str,
        replicas: usize,
    ) -> Result<Self, FederationError> {
        let config = kv::Config {
            bucket: format!("{prefix}_owners"),
            description: "Keys that node ids of an R3MES network belong to".into(),
            history: 1,
            num_replicas: replicas,
            ..kv::Config::default()
        };
        let made = jetstream::new(client.clone())
            .create_key_value(config)
            .await;
        let store = made.map_err(|error| jet("keep who owns node ids", &error))?;
        Ok(Self { store })
    }

    /// Takes an id for a key, if nobody has it; the key that has it now. Waits while the cluster does not
    /// answer.
    pub async fn claim(&self, id: &str, key: [u8; 32]) -> [u8; 32] {
        loop {
            match self.try_claim(id, key).await {
                Ok(owner) => return owner,
                Err(error) => tracing::warn!(id, %error, "functions.federation.claim"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn try_claim(&self, id: &str, key: [u8; 32]) -> Result<[u8; 32], FederationError> {
        let name = hex::encode(id);
        let created = self.store.create(&name, Bytes::copy_from_slice(&key)).await;
        match created {
            Ok(_) => Ok(key),
            Err(error) if error.kind() == CreateErrorKind::AlreadyExists => {
                let known = self.store.get(&name).await;
                let known = known.map_err(|error| jet("say who owns a node id", &error))?;
                Ok(known
                    .and_then(|value| value[..].try_into().ok())
                    .unwrap_or(key))
            }
            Err(error) => Err(jet("keep who owns a node id", &error)),
        }
    }

    /// Tells the broker of every owner that is known and of all that come; begins anew whenever the
    /// cluster does not answer.
    pub(super) async fn follow(&self, hub: &Hub) {
        loop {
            if let Err(error) = self.watch(hub).await {
                tracing::warn!(%error, "functions.federation.owners");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn watch(&self, hub: &Hub) -> Result<(), FederationError> {
        let doing = "say who owns node ids";
        let watch = self.store.watch_with_history(">").await;
        let mut watch = watch.map_err(|error| jet(doing, &error))?;
        while let Some(entry) = watch.next().await {
            let entry = entry.map_err(|error| jet(doing, &error))?;
            let id = hex::decode(&entry.key).ok();
            let id = id.and_then(|bytes| String::from_utf8(bytes).ok());
            if let (Some(id), Ok(key)) = (id, <[u8; 32]>::try_from(&entry.value[..])) {
                hub.with(|broker, now| broker.set_owner(&id, key, now));
            }
        }
        Ok(())
    }
}

fn jet(doing: &'static str, error: &dyn std::fmt::Display) -> FederationError {
    FederationError::JetStream {
        doing,
        reason: error.to_string(),
    }
}

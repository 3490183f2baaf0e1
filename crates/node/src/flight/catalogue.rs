//! What the ledger says of adapters and packages.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use futures::{FutureExt, future::BoxFuture};
use r3mes_blobs::{BlobStore, FileReader, GetError};
use r3mes_gateway::{
    flight::{AdapterFacts, Catalogue, CatalogueError, Listed, Name},
    rpc::{Client, ClientError},
};
use r3mes_model::{ModelConfig, PackedModel};
use r3mes_training::job::adapter_layout;
use r3mes_types::{
    Address, Cid, Hash,
    models::{QueryModel, QueryModels, QueryVersions, Version},
    query::{MAX_PAGE_KEY, PageRequest, Query},
    training::{Entry, QueryRound, QueryRun, QueryRuns, Run},
    wire::Blob,
};
use tokio::sync::Mutex;

use crate::agents::chain::newest_round;

/// Rounds of the newest run whose packages are listed.
const LISTED_ROUNDS: u32 = 16;
/// Newest adapters that are listed.
const LISTED_ADAPTERS: usize = 256;
/// Newest versions that are remembered; older ones are adapters of no known shape.
const REMEMBERED_VERSIONS: usize = 65_536;

/// Asks the ledger what blobs are; the shape of a model stands in its packed file, which the store must
/// have.
pub struct LedgerCatalogue {
    chain: Client,
    store: Arc<dyn BlobStore>,
    versions: Mutex<Versions>,
}

/// Versions of models that the ledger has told of. A version never changes.
#[derive(Default)]
struct Versions {
    by_adapter: HashMap<Cid, Version>,
    /// Where the last page of each model begins, which is read again when a version is unknown.
    last_pages: BTreeMap<Hash, Blob<MAX_PAGE_KEY>>,
}

impl Versions {
    /// Takes versions in, and forgets the oldest of more than `most`.
    fn remember(&mut self, told: impl Iterator<Item = Version>, most: usize) {
        self.by_adapter
            .extend(told.map(|version| (version.adapter, version)));
        let Some(too_many) = self.by_adapter.len().checked_sub(most + 1) else {
            return;
        };
        let age = |version: &Version| (version.registered_at, version.number, version.adapter);
        let mut ages: Vec<_> = self.by_adapter.values().map(age).collect();
        let (_, newest_forgotten, _) = ages.select_nth_unstable(too_many);
        let newest_forgotten = *newest_forgotten;
        self.by_adapter
            .retain(|_, version| age(version) > newest_forgotten);
    }
}

impl LedgerCatalogue {
    /// A catalogue of a ledger, for the service over a store.
    pub fn new(chain: Client, store: Arc<dyn BlobStore>) -> Self {
        Self {
            chain,
            store,
            versions: Mutex::default(),
        }
    }

    async fn facts(&self, cid: Cid) -> Result<Option<AdapterFacts>, CatalogueError> {
        let mut versions = self.versions.lock().await;
        if !versions.by_adapter.contains_key(&cid) {
            self.read_versions(&mut versions).await?;
        }
        let Some(version) = versions.by_adapter.get(&cid).cloned() else {
            return Ok(None);
        };
        drop(versions);
        let run = self.ask(&QueryRun { run: version.run }).await?;
        let model = self.ask(&QueryModel { id: version.model }).await?.model;
        let model = model.ok_or_else(|| silent("the ledger has no such model"))?;
        let model = model.spec;
        let shape = self.shape(model.base).await?;
        let layout = adapter_layout(&shape, &run.params.hyper).map_err(silent)?;
        let details = vec![
            ("model", model.name.to_string()),
            ("version", version.number.to_string()),
            ("run", version.run.to_string()),
            ("round", version.round.to_string()),
        ];
        Ok(Some(AdapterFacts { layout, details }))
    }

    /// The shape of the model whose packed file is `base`.
    async fn shape(&self, base: Cid) -> Result<ModelConfig, CatalogueError> {
        let store = Arc::clone(&self.store);
        let read = tokio::task::spawn_blocking(move || {
            let mut file = match FileReader::open(&*store, base) {
                Err(GetError::Missing { .. }) => return Err(CatalogueError::NoModel { base }),
                opened => opened.map_err(silent)?,
            };
            PackedModel::read_config(&mut file).map_err(silent)
        });
        read.await.map_err(silent)?
    }

    /// Asks the ledger.
    async fn ask<Q: Query>(&self, question: &Q) -> Result<Q::Answer, CatalogueError> {
        self.chain.query(question).await.map_err(silent)
    }

    /// Reads the versions that have come since the last time.
    async fn read_versions(&self, versions: &mut Versions) -> Result<(), CatalogueError> {
        let mut page = PageRequest::default();
        loop {
            let answer = self.ask(&QueryModels { page: Some(page) }).await?;
            for model in &answer.models {
                self.read_versions_of(model.spec.id, versions).await?;
            }
            if answer.next.is_empty() {
                return Ok(());
            }
            page = PageRequest {
                after: answer.next,
                limit: 0,
            };
        }
    }

    async fn read_versions_of(
        &self,
        model: Hash,
        versions: &mut Versions,
    ) -> Result<(), CatalogueError> {
        loop {
            let after = versions.last_pages.get(&model).cloned();
            let page = PageRequest {
                after: after.unwrap_or_default(),
                limit: 0,
            };
            let question = QueryVersions {
                model,
                page: Some(page),
            };
            let answer = self.ask(&question).await?;
            versions.remember(answer.versions.iter().cloned(), REMEMBERED_VERSIONS);
            if answer.next.is_empty() {
                return Ok(());
            }
            versions.last_pages.insert(model, answer.next);
        }
    }

    async fn newest_run(&self) -> Result<Option<Run>, CatalogueError> {
        let mut newest: Option<Run> = None;
        loop {
            let after = newest.as_ref().map(|run| run.id);
            let answer = self.ask(&QueryRuns { after, limit: 0 }).await?;
            match answer.runs.iter().last() {
                Some(last) => newest = Some(last.clone()),
                None => return Ok(newest),
            }
        }
    }

    /// The miners' parts in a round; none when it has not begun.
    async fn entries(&self, run: u64, round: u32) -> Result<Vec<Entry>, CatalogueError> {
        match self.chain.query(&QueryRound { run, round }).await {
            Ok(record) => Ok(record.entries.iter().cloned().collect()),
            Err(ClientError::Query { codespace, .. }) if codespace == "training" => Ok(Vec::new()),
            Err(error) => Err(silent(error)),
        }
    }

    async fn package_of(&self, miner: Address, round: u32) -> Result<Option<Cid>, CatalogueError> {
        let Some(run) = self.newest_run().await? else {
            return Ok(None);
        };
        let entries = self.entries(run.id, round).await?;
        let entry = entries.into_iter().find(|entry| entry.miner == miner);
        Ok(entry
            .and_then(|entry| entry.package)
            .map(|package| package.cid))
    }

    async fn listed(&self) -> Result<Vec<Listed>, CatalogueError> {
        let mut versions = self.versions.lock().await;
        self.read_versions(&mut versions).await?;
        let mut known: Vec<&Version> = versions.by_adapter.values().collect();
        known.sort_unstable_by_key(|version| (version.registered_at, version.number));
        let newest = known.iter().rev().take(LISTED_ADAPTERS);
        let mut listed: Vec<Listed> = newest
            .map(|version| Listed {
                name: Name::Adapter(version.adapter),
                cid: version.adapter,
            })
            .collect();
        drop(versions);
        let Some(run) = self.newest_run().await? else {
            return Ok(listed);
        };
        let Some(newest) = newest_round(&run) else {
            return Ok(listed);
        };
        for round in (newest.saturating_sub(LISTED_ROUNDS - 1)..=newest).rev() {
            for entry in self.entries(run.id, round).await? {
                let miner = entry.miner;
                listed.extend(entry.package.map(|package| Listed {
                    name: Name::Gradients { miner, round },
                    cid: package.cid,
                }));
            }
        }
        Ok(listed)
    }
}

impl Catalogue for LedgerCatalogue {
    fn list(&self) -> BoxFuture<'_, Result<Vec<Listed>, CatalogueError>> {
        self.listed().boxed()
    }

    fn adapter(&self, cid: Cid) -> BoxFuture<'_, Result<Option<AdapterFacts>, CatalogueError>> {
        self.facts(cid).boxed()
    }

    fn package(
        &self,
        miner: Address,
        round: u32,
    ) -> BoxFuture<'_, Result<Option<Cid>, CatalogueError>> {
        self.package_of(miner, round).boxed()
    }
}

fn silent(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> CatalogueError {
    CatalogueError::Silent {
        source: source.into(),
    }
}

#[cfg(test)]
mod tests {
    use r3mes_types::Time;

    use super::*;

    #[test]
    fn the_oldest_versions_are_forgotten() {
        let version = |number: u32| Version {
            model: Hash::of(b"a model"),
            number,
            run: 1,
            round: number.into(),
            adapter: Cid::raw(&number.to_le_bytes()),
            adapter_hash: Hash::of(&number.to_le_bytes()),
            registered_at: Time::from_nanos(number.into()),
        };
        let mut versions = Versions::default();
        versions.remember((0..10).rev().map(version), 4);
        versions.remember([version(10)].into_iter(), 4);
        let mut kept: Vec<u32> = versions
            .by_adapter
            .values()
            .map(|kept| kept.number)
            .collect();
        kept.sort_unstable();
        assert_eq!(kept, [7, 8, 9, 10]);
    }
}

//! A role's blobs: its own store, and everybody else's by CID.

use std::sync::Arc;

use r3mes_blobs::{BlobStore, PinName};
use r3mes_gateway::{ipfs, rpc};
use r3mes_types::{
    Address, Cid,
    nodes::{Node, NodeStatus, QueryNode, QueryNodes},
    query::PageRequest,
};

/// Most nodes that are asked for a blob nobody in particular should have.
const MAX_ASKED_NODES: u32 = 32;

/// Puts, keeps and fetches blobs for one process.
#[derive(Clone)]
pub struct Depot {
    store: Arc<dyn BlobStore>,
    fetcher: ipfs::Fetcher,
    chain: rpc::Client,
    bootstrap: Vec<ipfs::Source>,
}

impl Depot {
    /// A depot over a store; `bootstrap` are base URLs asked besides the nodes on the ledger.
    ///
    /// # Errors
    /// When a base URL is not one, or no HTTP client can be made.
    pub fn new(
        store: Arc<dyn BlobStore>,
        chain: rpc::Client,
        bootstrap: &[String],
    ) -> anyhow::Result<Self> {
        let bootstrap = bootstrap
            .iter()
            .map(|url| url.parse())
            .collect::<Result<_, _>>()?;
        let fetcher = ipfs::Fetcher::new(Arc::clone(&store), ipfs::FetchOptions::default())?;
        Ok(Self {
            store,
            fetcher,
            chain,
            bootstrap,
        })
    }

    /// The store itself.
    pub fn store(&self) -> &Arc<dyn BlobStore> {
        &self.store
    }

    /// Stores bytes under a pin.
    ///
    /// # Errors
    /// When the store refuses, for instance because the disk is full.
    pub async fn put(&self, bytes: Vec<u8>, pin: &str) -> anyhow::Result<Cid> {
        let pin = PinName::new(pin)?;
        self.blocking(move |store| {
            let cid = store.put(&bytes)?;
            store.pin(&cid, &pin)?;
            Ok(cid)
        })
        .await
    }

    /// The blob's bytes, fetched from `holder`, the bootstrap stores or any node if it is not here.
    /// What was fetched is pinned under `pin`.
    ///
    /// # Errors
    /// When it is nowhere to be had, or longer than `max_bytes`.
    pub async fn get(
        &self,
        cid: Cid,
        max_bytes: u64,
        holder: Option<Address>,
        pin: &str,
    ) -> anyhow::Result<Vec<u8>> {
        let here = self
            .blocking(move |store| Ok(store.missing(&cid)?.is_empty()))
            .await?;
        if !here {
            let pin = PinName::new(pin)?;
            self.blocking(move |store| Ok(store.pin(&cid, &pin)?))
                .await?;
            let sources = self.sources(holder).await?;
            self.fetcher.fetch(&cid, &sources, max_bytes).await?;
        }
        self.blocking(move |store| Ok(store.get(&cid, max_bytes)?))
            .await
    }

    /// Lets everything under a pin go; it is collected when space is needed.
    ///
    /// # Errors
    /// When the store refuses.
    pub async fn release(&self, pin: &str) -> anyhow::Result<()> {
        let pin = PinName::new(pin)?;
        self.blocking(move |store| {
            store.unpin_all(&pin)?;
            Ok(())
        })
        .await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn BlobStore) -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<T> {
        let store = Arc::clone(&self.store);
        tokio::task::spawn_blocking(move || work(store.as_ref())).await?
    }

    /// Everybody to ask, in order: the holder, the bootstrap stores, every active node. All in one
    /// list, since a fetch pauses only after nobody on its list had a block.
    async fn sources(&self, holder: Option<Address>) -> anyhow::Result<Vec<ipfs::Source>> {
        let question = QueryNodes {
            role: None,
            page: Some(PageRequest {
                limit: MAX_ASKED_NODES,
                ..PageRequest::default()
            }),
        };
        let nodes = self.chain.query(&question).await?.nodes;
        let mut sources = Vec::new();
        if let Some(address) = holder {
            match nodes.iter().find(|node| node.address == address) {
                Some(node) => sources.extend(node_sources(node)),
                None => {
                    let answer = self.chain.query(&QueryNode { address }).await?;
                    sources.extend(answer.node.iter().flat_map(node_sources));
                }
            }
        }
        sources.extend(self.bootstrap.iter().cloned());
        let active = nodes
            .iter()
            .filter(|node| node.status == NodeStatus::Active && Some(node.address) != holder);
        sources.extend(active.flat_map(node_sources));
        Ok(sources)
    }
}

/// Where a node's blobs are; an endpoint that is no usable address is passed over.
fn node_sources(node: &Node) -> Vec<ipfs::Source> {
    let urls = node.spec.endpoints.iter();
    urls.filter_map(|endpoint| endpoint.blobs.parse().ok())
        .collect()
}

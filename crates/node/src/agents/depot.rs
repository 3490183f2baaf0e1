//! A role's blobs: its own store, and everybody else's by CID.

mod error;

use std::{fs::File, io::Write, sync::Arc};

use r3mes_blobs::{BlobStore, FileReader, GetError, PinName, StoreError};
use r3mes_gateway::{flight::Peers, ipfs, rpc};
use r3mes_types::{
    Address, Cid,
    nodes::{Node, NodeStatus, QueryNode, QueryNodes},
    query::PageRequest,
};

pub use error::DepotError;

use crate::{config::Config, flight, home::Home};

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
    /// A depot over a store. Besides the nodes on the ledger it asks the bootstrap stores and the Flight
    /// peers of the configuration.
    ///
    /// # Errors
    /// When an address is not one, there are Flight peers but no token, or no HTTP client can be made.
    pub fn new(
        home: &Home,
        config: &Config,
        store: Arc<dyn BlobStore>,
        chain: rpc::Client,
    ) -> anyhow::Result<Self> {
        let named = config.network.bootstrap_blobs.iter();
        let mut bootstrap: Vec<ipfs::Source> =
            named.map(|url| url.parse()).collect::<Result<_, _>>()?;
        let mut fetcher = ipfs::Fetcher::new(Arc::clone(&store), ipfs::FetchOptions::default())?;
        let peers = flight::peer_sources(config)?;
        if !peers.is_empty() {
            let token = flight::require_token(home, config, "flight.peers")?;
            fetcher = fetcher.with_peers(Peers::new(token, peers.iter().cloned()));
        }
        let further: Vec<_> = peers
            .into_iter()
            .filter(|peer| !bootstrap.contains(peer))
            .collect();
        bootstrap.extend(further);
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
    pub async fn put(&self, bytes: Vec<u8>, pin: &str) -> Result<Cid, DepotError> {
        let pin = PinName::new(pin)?;
        self.blocking(move |store| {
            let put = store.put(&bytes);
            let cid = put.map_err(|source| DepotError::Put { source })?;
            store.pin(&cid, &pin).map_err(of_store)?;
            Ok(cid)
        })
        .await
    }

    /// The blob's bytes, fetched from `holder`, the bootstrap stores or any node if it is not here.
    /// It is pinned under `pin`, unless it cannot be had.
    ///
    /// # Errors
    /// When it is nowhere to be had, or longer than `max_bytes`.
    pub async fn get(
        &self,
        cid: Cid,
        max_bytes: u64,
        holder: Option<Address>,
        pin: &str,
    ) -> Result<Vec<u8>, DepotError> {
        self.fetch_pinned(cid, max_bytes, holder, pin).await?;
        self.blocking(move |store| {
            let got = store.get(&cid, max_bytes);
            got.map_err(|source| unread(cid, source))
        })
        .await
    }

    /// As [`Depot::get`], and leaves the bytes in the store.
    ///
    /// # Errors
    /// As [`Depot::get`].
    pub async fn fetch_pinned(
        &self,
        cid: Cid,
        max_bytes: u64,
        holder: Option<Address>,
        pin: &str,
    ) -> Result<(), DepotError> {
        let pin = PinName::new(pin)?;
        let kept = pin.clone();
        // Also what is here, perhaps under the pin of a round that is let go of earlier.
        let here = self
            .blocking(move |store| {
                store.pin(&cid, &kept).map_err(of_store)?;
                let missing = store.missing(&cid);
                let missing = missing.map_err(|source| DepotError::Walk {
                    cid,
                    source: Box::new(source),
                })?;
                Ok(missing.is_empty())
            })
            .await?;
        if !here {
            let fetched = self.fetch(cid, max_bytes, holder).await;
            self.blocking(move |store| {
                match fetched {
                    // A back end may be able to pin only what is complete.
                    Ok(()) => store.pin(&cid, &pin).map_err(of_store)?,
                    Err(_) => drop(store.unpin(&cid, &pin).map_err(of_store)?),
                }
                fetched
            })
            .await?;
        }
        Ok(())
    }

    /// Writes a blob that is in the store into a file, a block at a time.
    ///
    /// # Errors
    /// When it is not here or longer than `max_bytes`, or cannot be read or written.
    pub fn copy(&self, cid: Cid, max_bytes: u64, file: &mut File) -> Result<(), DepotError> {
        let unread = |source| unread(cid, source);
        let mut blob = FileReader::open(&*self.store, cid).map_err(unread)?;
        if blob.size() > max_bytes {
            return Err(DepotError::Longer {
                cid,
                bytes: blob.size(),
                recorded: max_bytes,
            });
        }
        while let Some(chunk) = blob.next_chunk().map_err(unread)? {
            let written = file.write_all(&chunk);
            written.map_err(|source| DepotError::Copy { cid, source })?;
        }
        Ok(())
    }

    /// Asks the holder and the bootstrap stores, then every node.
    async fn fetch(
        &self,
        cid: Cid,
        max_bytes: u64,
        holder: Option<Address>,
    ) -> Result<(), DepotError> {
        let sources = self.sources(holder).await;
        let sources = sources.map_err(|source| DepotError::Ledger {
            cid,
            source: Box::new(source),
        })?;
        match self.fetcher.fetch(&cid, &sources, max_bytes).await {
            Ok(_) => Ok(()),
            Err(source) => Err(DepotError::Fetch {
                cid,
                source: Box::new(source),
            }),
        }
    }

    /// Keeps a blob.
    ///
    /// # Errors
    /// When the store refuses.
    pub async fn pin(&self, cid: Cid, pin: &str) -> Result<(), DepotError> {
        let pin = PinName::new(pin)?;
        self.blocking(move |store| store.pin(&cid, &pin).map_err(of_store))
            .await
    }

    /// Lets a blob go, unless it is kept under another pin.
    ///
    /// # Errors
    /// When the store refuses.
    pub async fn unpin(&self, cid: Cid, pin: &str) -> Result<(), DepotError> {
        let pin = PinName::new(pin)?;
        self.blocking(move |store| store.unpin(&cid, &pin).map(drop).map_err(of_store))
            .await
    }

    /// Keeps a blob while the ledger is told of it, and lets it go when the ledger refuses. An answer
    /// that did not come may still have been a yes, so the blob stays then.
    ///
    /// # Errors
    /// When the store refuses; what became of the message is the inner result.
    pub async fn pin_while<T>(
        &self,
        cid: Cid,
        pin: &str,
        sending: impl Future<Output = Result<T, rpc::SendError>>,
    ) -> Result<Result<T, rpc::SendError>, DepotError> {
        self.pin(cid, pin).await?;
        let sent = sending.await;
        if let Err(rpc::SendError::Refused { .. }) = &sent {
            self.unpin(cid, pin).await?;
        }
        Ok(sent)
    }

    /// Lets everything go whose pin is `ended`; it is collected when space is needed.
    ///
    /// # Errors
    /// When the store refuses.
    pub async fn release(
        &self,
        ended: impl Fn(&PinName) -> bool + Send + 'static,
    ) -> Result<(), DepotError> {
        self.blocking(move |store| {
            let pins = store.pins().map_err(of_store)?;
            for pin in pins.iter().filter(|pin| ended(&pin.name)) {
                store.unpin(&pin.root, &pin.name).map_err(of_store)?;
            }
            Ok(())
        })
        .await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn BlobStore) -> Result<T, DepotError> + Send + 'static,
    ) -> Result<T, DepotError> {
        let store = Arc::clone(&self.store);
        let done = tokio::task::spawn_blocking(move || work(store.as_ref())).await;
        done.map_err(|source| DepotError::Stopped { source })?
    }

    /// Everybody to ask, in order: the holder, the bootstrap stores, every active node. All in one
    /// list, since a fetch pauses only after nobody on its list had a block.
    async fn sources(
        &self,
        holder: Option<Address>,
    ) -> Result<Vec<ipfs::Source>, rpc::ClientError> {
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

fn unread(cid: Cid, source: GetError) -> DepotError {
    DepotError::Read {
        cid,
        source: Box::new(source),
    }
}

fn of_store(source: StoreError) -> DepotError {
    DepotError::Store { source }
}

/// Where a node's blobs are; an endpoint that is no usable address is passed over.
fn node_sources(node: &Node) -> Vec<ipfs::Source> {
    let urls = node.spec.endpoints.iter();
    urls.filter_map(|endpoint| endpoint.blobs.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use r3mes_blobs::MemoryStore;
    use r3mes_gateway::rpc::SendError;

    use super::*;

    const LIMIT: u64 = 1 << 20;

    /// A depot whose ledger does not answer and that knows no other store.
    fn depot() -> Depot {
        let chain = rpc::Client::new("http://127.0.0.1:1").unwrap();
        let mut config = Config::default();
        config.network.bootstrap_blobs.clear();
        let home = Home::new("no such home");
        Depot::new(&home, &config, Arc::new(MemoryStore::new()), chain).unwrap()
    }

    fn pins(depot: &Depot) -> Vec<String> {
        let pins = depot.store().pins().unwrap();
        pins.into_iter().map(|pin| pin.name.to_string()).collect()
    }

    #[tokio::test]
    async fn what_is_here_already_is_kept_for_the_next_user_as_well() {
        let depot = depot();
        let cid = depot.put(vec![7; 10], "run-1-round-1").await.unwrap();
        let got = depot.get(cid, LIMIT, None, "run-1-round-2").await.unwrap();
        assert_eq!(got, [7; 10]);
        let first = |name: &PinName| name.as_str() == "run-1-round-1";
        depot.release(first).await.unwrap();
        assert_eq!(pins(&depot), ["run-1-round-2"]);
    }

    #[tokio::test]
    async fn what_cannot_be_had_leaves_no_pin() {
        let depot = depot();
        let absent = Cid::raw(b"nobody has this");
        let got = depot.get(absent, LIMIT, None, "run-1-round-1").await;
        assert!(matches!(got, Err(DepotError::Ledger { .. })));
        assert!(pins(&depot).is_empty());
    }

    #[tokio::test]
    async fn what_fails_on_this_node_is_told_from_what_others_owe() {
        let depot = depot();
        let absent = Cid::raw(b"nobody has this");
        let unasked = depot.get(absent, LIMIT, None, "served").await;
        assert!(
            !unasked.unwrap_err().is_of_others(),
            "the ledger is silent, and the holder was never asked"
        );
        let cid = depot.put(vec![7; 10], "served").await.unwrap();
        let longer = depot.get(cid, 9, None, "served").await.unwrap_err();
        assert!(longer.is_of_others(), "{longer}");
        let sources: [ipfs::Source; 1] = ["http://127.0.0.1:1".parse().unwrap()];
        let source = depot.fetcher.fetch(&absent, &sources, LIMIT).await;
        let missing = DepotError::Fetch {
            cid: absent,
            source: Box::new(source.unwrap_err()),
        };
        assert!(missing.is_of_others(), "{missing}");
    }

    #[tokio::test]
    async fn a_blob_is_let_go_under_one_pin_and_kept_under_another() {
        let depot = depot();
        let cid = depot.put(vec![7; 10], "genesis").await.unwrap();
        depot.pin(cid, "run-1-round-1").await.unwrap();
        depot.unpin(cid, "run-1-round-1").await.unwrap();
        assert_eq!(pins(&depot), ["genesis"]);
    }

    #[tokio::test]
    async fn what_the_ledger_refuses_loses_its_pin_and_what_it_may_have_taken_does_not() {
        let depot = depot();
        // An earlier round whose packages changed nothing has the same adapter.
        let earlier = "adapter-run-1-round-1";
        let cid = depot.put(vec![7; 10], earlier).await.unwrap();
        let pin = "adapter-run-1-round-2";
        let answered = async |answer: Result<u64, SendError>| {
            let sending = async {
                assert_eq!(pins(&depot), [earlier, pin]);
                answer
            };
            let sent = depot.pin_while(cid, pin, sending).await.unwrap();
            (sent.is_ok(), pins(&depot))
        };
        let refused = SendError::Refused {
            codespace: "training".into(),
            code: 7,
            log: "the round is closed".into(),
        };
        assert_eq!(answered(Err(refused)).await, (false, vec![earlier.into()]));
        let silent = SendError::TimedOut {
            hash: [0; 32],
            waited: std::time::Duration::from_secs(1),
        };
        let both = vec![earlier.to_owned(), pin.to_owned()];
        assert_eq!(answered(Err(silent)).await, (false, both.clone()));
        assert_eq!(answered(Ok(9)).await, (true, both));
    }
}

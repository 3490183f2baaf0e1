mod error;

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, stream::FuturesUnordered};
use r3mes_blobs::{
    AnyCid, BlobStore, Block, Cid, FileReader, FollowError, GetError, MAX_BLOCK_BYTES, StoreError,
    missing,
};
use reqwest::{StatusCode, redirect::Policy};
use tokio::{sync::Semaphore, task, time};
use tracing::Instrument;

pub use self::error::{Attempt, FetchError};

use self::error::{Attempts, Refused};
use super::Source;
use crate::flight::{PeerError, Peers};

/// What a blob's nodes may add to the bytes of its content: enough for 40 GB.
const NODE_ALLOWANCE: u64 = MAX_BLOCK_BYTES as u64;

/// How often a walk starts over because damaged blocks were set aside.
const MAX_WALKS: usize = 8;

/// How a [`Fetcher`] behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchOptions {
    /// Blocks being fetched at once, over all fetches.
    pub concurrent_blocks: usize,
    /// Time to connect.
    pub connect_timeout: Duration,
    /// Longest pause within an answer.
    pub stall_timeout: Duration,
    /// Longest time for one block from one source.
    pub block_timeout: Duration,
    /// How often all sources are asked for a block before it counts as missing.
    pub rounds: u32,
    /// Pause before the second round; it doubles from round to round.
    pub pause: Duration,
}

impl Default for FetchOptions {
    /// Eight blocks at once, three rounds over about a second when sources answer quickly.
    fn default() -> Self {
        Self {
            concurrent_blocks: 8,
            connect_timeout: Duration::from_secs(3),
            stall_timeout: Duration::from_secs(10),
            block_timeout: Duration::from_secs(60),
            rounds: 3,
            pause: Duration::from_millis(300),
        }
    }
}

/// Fetches blobs into a store, block by block, from whoever has them. No source is trusted: each
/// block is checked against its CID before it is stored.
///
/// Only blocks that are not in the store are asked for, so a fetch that was broken off goes on
/// where it stopped. Dropping the future of a fetch cancels it.
#[derive(Clone)]
pub struct Fetcher {
    store: Arc<dyn BlobStore>,
    client: reqwest::Client,
    peers: Option<Peers>,
    places: Arc<Semaphore>,
    options: FetchOptions,
}

/// What a fetch did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    /// Blocks that were not in the store before.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Fetcher {
    /// A fetcher into `store`.
    ///
    /// # Errors
    /// When the operating system does not let it make a client.
    pub fn new(store: Arc<dyn BlobStore>, options: FetchOptions) -> Result<Self, FetchError> {
        // Nodes meet directly: neither proxies of the environment nor redirects.
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(Policy::none())
            .tcp_nodelay(true)
            .connect_timeout(options.connect_timeout)
            .read_timeout(options.stall_timeout)
            .timeout(options.block_timeout)
            .build()
            .map_err(|source| FetchError::Client { source })?;
        Ok(Self {
            store,
            client,
            peers: None,
            places: Arc::new(Semaphore::new(options.concurrent_blocks.max(1))),
            options,
        })
    }

    /// A fetcher that also asks sources that begin with `flight://`, as far as they are `peers`.
    #[must_use]
    pub fn with_peers(self, peers: Peers) -> Self {
        Self {
            peers: Some(peers),
            ..self
        }
    }

    /// Makes the blob `root`, a file of at most `max_bytes`, complete in the store. It is not
    /// pinned: pin it before or soon after.
    ///
    /// # Errors
    /// [`FetchError::Missing`] when no source has a block, with what each said;
    /// [`FetchError::TooLarge`]; what the store may say.
    pub async fn fetch(
        &self,
        root: &Cid,
        sources: &[Source],
        max_bytes: u64,
    ) -> Result<Fetched, FetchError> {
        let mut job = Job {
            fetcher: self,
            root: *root,
            sources,
            liars: Mutex::default(),
            max_bytes,
            fetched: Fetched::default(),
            wanted: HashSet::new(),
        };
        let span = tracing::info_span!("gateway.blob.fetch", cid = %root);
        job.run().instrument(span).await?;
        Ok(job.fetched)
    }

    /// Fetches what is not here and returns the file.
    ///
    /// # Errors
    /// As [`fetch`](Self::fetch).
    pub async fn get(
        &self,
        root: &Cid,
        sources: &[Source],
        max_bytes: u64,
    ) -> Result<Vec<u8>, FetchError> {
        self.fetch(root, sources, max_bytes).await?;
        let cid = *root;
        let read = self
            .blocking(move |store| store.get(&cid, max_bytes))
            .await?;
        read.map_err(|source| match source {
            GetError::TooLarge { cid, size, limit } => FetchError::TooLarge { cid, size, limit },
            source => FetchError::Read { source },
        })
    }

    /// Asks one source for one block, and checks what it sends.
    async fn ask(&self, source: &Source, cid: &AnyCid) -> Result<Block, Refused> {
        let bytes = match source.is_flight() {
            true => self.ask_peer(source, cid).await?,
            false => self.ask_gateway(source, cid).await?,
        };
        let cid = cid.clone();
        let verified = task::spawn_blocking(move || Block::verify(cid, bytes)).await;
        match verified {
            Ok(Ok(block)) => Ok(block),
            _ => Err(Refused::Wrong),
        }
    }

    async fn ask_peer(&self, source: &Source, cid: &AnyCid) -> Result<Bytes, Refused> {
        let peers = self.peers.as_ref().ok_or(PeerError::Stranger)?;
        // Nodes of this network speak of blocks of its own kinds among each other.
        let cid = &Cid::try_from(cid).map_err(|_| Refused::Absent)?;
        let (connect, patience) = (self.options.connect_timeout, self.options.block_timeout);
        Ok(peers.block(source, cid, connect, patience).await?)
    }

    async fn ask_gateway(&self, source: &Source, cid: &AnyCid) -> Result<Bytes, Refused> {
        let request = self.client.get(source.block_url(cid)).send();
        let mut answer = request.await.map_err(Refused::Network)?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND | StatusCode::GONE => return Err(Refused::Absent),
            status => return Err(Refused::Status(status)),
        }
        let mut bytes = BytesMut::new();
        while let Some(chunk) = answer.chunk().await.map_err(Refused::Network)? {
            if bytes.len() + chunk.len() > MAX_BLOCK_BYTES {
                return Err(Refused::Wrong);
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes.freeze())
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn BlobStore) -> T + Send + 'static,
    ) -> Result<T, FetchError> {
        let store = Arc::clone(&self.store);
        let done = task::spawn_blocking(move || work(&*store)).await;
        done.map_err(|source| FetchError::Stopped { source })
    }
}

/// One fetch.
struct Job<'f> {
    fetcher: &'f Fetcher,
    root: Cid,
    sources: &'f [Source],
    /// Sources that sent wrong bytes, by index; they are not asked again.
    liars: Mutex<HashSet<usize>>,
    max_bytes: u64,
    fetched: Fetched,
    /// Blocks asked for so far.
    wanted: HashSet<AnyCid>,
}

impl Job<'_> {
    async fn run(&mut self) -> Result<(), FetchError> {
        let root = AnyCid::from(self.root);
        let mut pending = VecDeque::from(self.missing(root.clone()).await?);
        if !pending.contains(&root) {
            self.check_size().await?;
        }
        self.wanted.extend(pending.iter().cloned());
        let fetcher = self.fetcher;
        let (sources, liars) = (self.sources, std::mem::take(&mut self.liars));
        let asking = Asking {
            fetcher,
            sources,
            liars: &liars,
        };
        let mut running = FuturesUnordered::new();
        loop {
            while running.len() < fetcher.options.concurrent_blocks.max(1)
                && let Some(cid) = pending.pop_front()
            {
                running.push(asking.fetch_block(cid));
            }
            let Some(block) = running.next().await else {
                return Ok(());
            };
            let below = self.keep(block?).await?;
            pending.extend(below);
        }
    }

    /// Stores a block and returns the blocks below it that are to be fetched.
    async fn keep(&mut self, block: Block) -> Result<Vec<AnyCid>, FetchError> {
        let bytes = block.bytes().len() as u64;
        self.fetched.blocks += 1;
        self.fetched.bytes += bytes;
        if self.fetched.bytes > self.max_bytes.saturating_add(NODE_ALLOWANCE) {
            return Err(FetchError::TooLarge {
                cid: self.root.into(),
                size: self.fetched.bytes,
                limit: self.max_bytes,
            });
        }
        let is_root = *block.cid() == self.root;
        let links = block.links().map_err(|source| FetchError::Node {
            cid: block.cid().clone(),
            source,
        })?;
        let stored = self
            .fetcher
            .blocking(move |store| store.insert(std::slice::from_ref(&block)));
        stored
            .await?
            .map_err(|source| FetchError::Store { source })?;
        if is_root {
            self.check_size().await?;
        }
        let mut below = Vec::new();
        for link in links {
            if self.wanted.contains(&link) {
                continue;
            }
            for missing in self.missing(link).await? {
                if self.wanted.insert(missing.clone()) {
                    below.push(missing);
                }
            }
        }
        Ok(below)
    }

    /// What is not here at and below `cid`. Damaged blocks are set aside as they are found, and
    /// count as not here from then on.
    async fn missing(&self, cid: AnyCid) -> Result<Vec<AnyCid>, FetchError> {
        let walk = move |store: &dyn BlobStore| {
            for _ in 0..MAX_WALKS {
                match missing(store, &cid) {
                    Err(FollowError::Store {
                        source: StoreError::Corrupt { .. },
                        ..
                    }) => {}
                    walked => return walked,
                }
            }
            missing(store, &cid)
        };
        let walked = self.fetcher.blocking(walk).await?;
        walked.map_err(|source| match source {
            FollowError::Node { cid, source } => FetchError::Node { cid, source },
            source => FetchError::Walk { source },
        })
    }

    /// Refuses a file that is too long as soon as its root is here.
    async fn check_size(&self) -> Result<(), FetchError> {
        let root = self.root;
        let opened = self
            .fetcher
            .blocking(move |store| FileReader::open(store, root).map(|file| file.size()));
        match opened.await? {
            Ok(size) if size > self.max_bytes => Err(FetchError::TooLarge {
                cid: root.into(),
                size,
                limit: self.max_bytes,
            }),
            Ok(_) => Ok(()),
            Err(source) => Err(FetchError::Read { source }),
        }
    }
}

/// What a block needs to be asked for.
#[derive(Clone, Copy)]
struct Asking<'f> {
    fetcher: &'f Fetcher,
    sources: &'f [Source],
    liars: &'f Mutex<HashSet<usize>>,
}

impl Asking<'_> {
    async fn fetch_block(self, cid: AnyCid) -> Result<Block, FetchError> {
        let mut attempts = BTreeMap::new();
        let mut pause = self.fetcher.options.pause;
        for round in 0..self.fetcher.options.rounds.max(1) {
            if round > 0 {
                time::sleep(pause).await;
                pause = pause.saturating_mul(2);
            }
            for (index, source) in self.sources.iter().enumerate() {
                if self.is_liar(index) {
                    continue;
                }
                let place = self.fetcher.places.acquire().await;
                let span = tracing::debug_span!("gateway.block.fetch", %cid, %source);
                let asked = self.fetcher.ask(source, &cid).instrument(span).await;
                drop(place);
                match asked {
                    Ok(block) => return Ok(block),
                    Err(refused) => {
                        tracing::debug!(%cid, %source, %refused, "block not had");
                        if matches!(refused, Refused::Wrong) {
                            self.liars().insert(index);
                        }
                        attempts.insert(index, refused.to_string());
                    }
                }
            }
        }
        let attempt = |(index, reason): (usize, String)| Attempt {
            source: self.sources[index].clone(),
            reason,
        };
        Err(FetchError::Missing {
            cid,
            attempts: Attempts(attempts.into_iter().map(attempt).collect()),
        })
    }

    fn is_liar(&self, index: usize) -> bool {
        self.liars().contains(&index)
    }

    fn liars(&self) -> std::sync::MutexGuard<'_, HashSet<usize>> {
        self.liars.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! Blocks between nodes over Flight alone.

use std::{sync::Arc, time::Duration};

use r3mes_blobs::{
    AnyCid, BlobStore, Block, CHUNK_BYTES, Cid, Collected, MemoryStore, Pin, PinName, StoreError,
    Usage,
};
use r3mes_gateway::{
    flight::{FlightLimits, Peers, Token, router},
    ipfs::{FetchError, FetchOptions, Fetcher, Source},
};
use tokio::net::TcpListener;

use super::{Ledger, Node, Running, content, token};

const LIMIT: u64 = 100 << 20;

fn fetcher(store: &Arc<MemoryStore>, token: Token, peers: &[Source]) -> Fetcher {
    let options = FetchOptions {
        pause: Duration::from_millis(1),
        ..FetchOptions::default()
    };
    let peers = Peers::new(token, peers.iter().cloned());
    Fetcher::new(store.clone(), options)
        .unwrap()
        .with_peers(peers)
}

fn source(running: &Running) -> Source {
    format!("flight://{}", running.address).parse().unwrap()
}

/// A node that has a file of several blocks besides.
async fn node_with(file: &[u8]) -> (Node, Cid) {
    let node = Node::start(FlightLimits::default()).await;
    let cid = node.store.put(file).unwrap();
    (node, cid)
}

#[tokio::test]
async fn a_file_of_many_blocks_comes_over_flight_and_what_is_here_is_not_asked_for() {
    let file = content(3, 5 * CHUNK_BYTES + 1);
    let (node, cid) = node_with(&file).await;
    let source = source(&node.running);
    let store = Arc::new(MemoryStore::new());
    let fetcher = fetcher(&store, token(), std::slice::from_ref(&source));
    let sources = [source];
    let fetched = fetcher.fetch(&cid, &sources, LIMIT).await.unwrap();
    assert_eq!(fetched.blocks, 7);
    assert_eq!(store.get(&cid, LIMIT).unwrap(), file);
    let again = fetcher.fetch(&cid, &sources, LIMIT).await.unwrap();
    assert_eq!(again.blocks, 0);
}

#[tokio::test]
async fn a_peer_that_stopped_is_connected_to_again() {
    let (node, cid) = node_with(b"first").await;
    let other = node.store.put(b"second").unwrap();
    let address = node.running.address;
    let source = source(&node.running);
    let store = Arc::new(MemoryStore::new());
    let fetcher = fetcher(&store, token(), std::slice::from_ref(&source));
    let sources = [source];
    fetcher.fetch(&cid, &sources, LIMIT).await.unwrap();

    let ledger = Ledger {
        layout: node.layout,
        adapter: node.adapter,
        package: node.package_cid,
        miner: node.miner,
    };
    node.running.stop().await;
    assert!(fetcher.fetch(&other, &sources, LIMIT).await.is_err());
    let listener = TcpListener::bind(address).await.unwrap();
    let router = router(
        node.store,
        Arc::new(ledger),
        token(),
        FlightLimits::default(),
    );
    let _running = Running::start_on(listener, router);
    fetcher.fetch(&other, &sources, LIMIT).await.unwrap();
}

#[tokio::test]
async fn each_failure_of_a_peer_is_told() {
    let (node, cid) = node_with(b"here").await;
    let peer = source(&node.running);
    let liar = Liar(Arc::clone(&node.store));
    let ledger = Ledger {
        layout: node.layout.clone(),
        adapter: node.adapter,
        package: node.package_cid,
        miner: node.miner,
    };
    let lying = router(
        Arc::new(liar),
        Arc::new(ledger),
        token(),
        FlightLimits::default(),
    );
    let lying = Running::start(lying).await;
    let liar = source(&lying);
    let wrong_token = Token::new("another token another token another").unwrap_err();
    assert!(wrong_token.to_string().contains("without spaces"));
    let other_token = Token::new("another-token-another-token-another").unwrap();
    let absent = Cid::raw(b"nobody has this");
    for (token, cid, asked, says) in [
        (token(), absent, &peer, "does not have it"),
        (token(), cid, &liar, "sent other bytes"),
        (other_token, cid, &peer, "Unauthenticated"),
    ] {
        let store = Arc::new(MemoryStore::new());
        let fetcher = fetcher(&store, token, std::slice::from_ref(asked));
        let failed = fetcher
            .fetch(&cid, std::slice::from_ref(asked), LIMIT)
            .await;
        let failed = failed.unwrap_err();
        assert!(matches!(failed, FetchError::Missing { .. }), "{failed}");
        assert!(failed.to_string().contains(says), "{failed}");
        assert!(!store.contains(&cid).unwrap());
    }
    // An honest peer after the liar is enough.
    let store = Arc::new(MemoryStore::new());
    let both = [liar, peer];
    let fetcher = fetcher(&store, token(), &both);
    assert_eq!(fetcher.get(&cid, &both, LIMIT).await.unwrap(), b"here");
}

#[tokio::test]
async fn a_stranger_is_not_even_connected_to() {
    let stranger = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    stranger.set_nonblocking(true).unwrap();
    let address = stranger.local_addr().unwrap();
    let source: Source = format!("flight://{address}").parse().unwrap();
    let store = Arc::new(MemoryStore::new());
    let without = Fetcher::new(store.clone(), FetchOptions::default()).unwrap();
    for fetcher in [fetcher(&store, token(), &[]), without] {
        let cid = Cid::raw(b"x");
        let failed = fetcher
            .fetch(&cid, std::slice::from_ref(&source), LIMIT)
            .await;
        let failed = failed.unwrap_err().to_string();
        assert!(failed.contains("not shown the token"), "{failed}");
    }
    let nobody = stranger.accept().unwrap_err();
    assert_eq!(nobody.kind(), std::io::ErrorKind::WouldBlock);
}

/// Hands out another block than the one asked for.
struct Liar(Arc<MemoryStore>);

impl BlobStore for Liar {
    fn any_block(&self, _: &AnyCid) -> Result<Option<Block>, StoreError> {
        Ok(Some(Block::raw("a lie".into()).unwrap()))
    }
    fn contains_any(&self, cid: &AnyCid) -> Result<bool, StoreError> {
        self.0.contains_any(cid)
    }
    fn insert(&self, blocks: &[Block]) -> Result<(), StoreError> {
        self.0.insert(blocks)
    }
    fn pin(&self, root: &Cid, name: &PinName) -> Result<(), StoreError> {
        self.0.pin(root, name)
    }
    fn unpin(&self, root: &Cid, name: &PinName) -> Result<bool, StoreError> {
        self.0.unpin(root, name)
    }
    fn pins(&self) -> Result<Vec<Pin>, StoreError> {
        self.0.pins()
    }
    fn usage(&self) -> Result<Usage, StoreError> {
        self.0.usage()
    }
    fn collect_garbage(&self, keep_bytes: u64) -> Result<Collected, StoreError> {
        self.0.collect_garbage(keep_bytes)
    }
}

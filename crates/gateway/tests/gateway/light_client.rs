//! Informal Systems' whole light client (`tendermint-light-client`: scheduler, store, detection of
//! forged headers) against our RPC. Its requests and answers are written and read by `tendermint-rpc`;
//! only the transport is ours, since theirs brings a second, older HTTP and TLS stack.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use r3mes_gateway::rpc::TxClient;
use r3mes_types::Amount;
use tendermint::block::Height;
use tendermint::validator;
use tendermint::{AppHash, Hash};
use tendermint_light_client::builder::LightClientBuilder;
use tendermint_light_client::components::clock::SystemClock;
use tendermint_light_client::components::io::{AtHeight, Io, IoError};
use tendermint_light_client::components::scheduler::basic_bisecting_schedule;
use tendermint_light_client::instance::Instance;
use tendermint_light_client::store::memory::MemoryStore;
use tendermint_light_client::verifier::ProdVerifier;
use tendermint_light_client::verifier::options::Options;
use tendermint_light_client::verifier::predicates::ProdPredicates;
use tendermint_light_client::verifier::types::{LightBlock, PeerId, Status};
use tendermint_rpc::endpoint::{commit, validators};
use tendermint_rpc::{PageNumber, PerPage, Response, SimpleRequest};
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

use super::rpc::{Node, key, send};
use super::support;

/// Names the peer in the light client's messages; the RPC has no part in it.
fn peer_id() -> PeerId {
    PeerId::new([7; 20])
}

/// Fetches light blocks from a node over JSON-RPC. It blocks, so it is used on a thread that may wait.
struct Peer {
    url: String,
    runtime: Handle,
}

impl Peer {
    fn call<R: SimpleRequest>(&self, request: R) -> Result<R::Response, IoError> {
        let asked = support::client()
            .post(&self.url)
            .header("content-type", "application/json")
            .body(request.into_json());
        let answer = self
            .runtime
            .block_on(async { asked.send().await.unwrap().bytes().await.unwrap() });
        R::Response::from_string(answer).map_err(IoError::from_rpc)
    }

    fn validators(&self, height: Height) -> Result<Vec<validator::Info>, IoError> {
        let page = validators::Request::new(
            Some(height),
            Some(PageNumber::from(1)),
            Some(PerPage::from(100)),
        );
        Ok(self.call(page)?.validators)
    }
}

impl Io for Peer {
    fn fetch_light_block(&self, height: AtHeight) -> Result<LightBlock, IoError> {
        let height = match height {
            AtHeight::At(height) => Some(height),
            AtHeight::Highest => None,
        };
        let signed = self.call(commit::Request { height })?.signed_header;
        let height = signed.header.height;
        let proposer = signed.header.proposer_address;
        let present = validator::Set::with_proposer(self.validators(height)?, proposer)
            .map_err(IoError::invalid_validator_set)?;
        let next = validator::Set::without_proposer(self.validators(height.increment())?);
        Ok(LightBlock::new(signed, present, next, peer_id()))
    }
}

/// A light client that trusts the block of height 1 with a hash, and asks `io`.
fn instance(io: impl Io + 'static, trusted: Hash) -> Result<Instance, String> {
    let options = Options {
        trust_threshold: Default::default(),
        trusting_period: Duration::from_secs(1_000_000),
        clock_drift: Duration::from_secs(5),
    };
    let builder = LightClientBuilder::custom(
        peer_id(),
        options,
        Box::new(MemoryStore::new()),
        Box::new(io),
        Box::new(SystemClock),
        Box::new(ProdVerifier::default()),
        Box::new(basic_bisecting_schedule),
        Box::new(ProdPredicates),
    );
    let builder = builder.trust_primary_at(Height::from(1_u32), trusted);
    Ok(builder.map_err(|error| error.to_string())?.build())
}

/// A node with some blocks, its address, and the hash of its first block.
async fn node(directory: &std::path::Path) -> (Node, Hash) {
    let node = Node::start(directory).await;
    let sender = TxClient::new(node.client(), key(1));
    for _ in 0..6 {
        let message = send(&key(1), &key(2), Amount::remes(1));
        sender.send(message).await.unwrap();
    }
    let first = node.get("block?height=1").await;
    let hash = first["block_id"]["hash"].as_str().unwrap().parse().unwrap();
    (node, hash)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_light_client_follows_the_chain() {
    let directory = tempfile::tempdir().unwrap();
    let (node, hash) = node(directory.path()).await;
    let (url, runtime) = (node.url.clone(), Handle::current());
    let peer = Peer { url, runtime };
    let (middle, highest) = spawn_blocking(move || {
        let Instance {
            mut light_client,
            mut state,
        } = instance(peer, hash).unwrap();
        let target = Height::from(3_u32);
        let middle = light_client.verify_to_target(target, &mut state).unwrap();
        let highest = light_client.verify_to_highest(&mut state).unwrap();
        let stored = state.light_store.highest_trusted_or_verified().unwrap();
        assert_eq!(stored, highest);
        // A height that is not there yet is told apart from a failure.
        let beyond = Height::try_from(highest.height().value() + 1_000).unwrap();
        let refused = light_client.verify_to_target(beyond, &mut state);
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains("higher than latest height"), "{refused}");
        (middle, highest)
    })
    .await
    .unwrap();
    assert_eq!(middle.height().value(), 3);
    let status = node.get("status").await;
    let newest = &status["sync_info"]["latest_block_height"];
    assert_eq!(*newest, highest.height().to_string());
    for block in [middle, highest] {
        let ours = node.get(&format!("block?height={}", block.height())).await;
        let hash = block.signed_header.header.hash().to_string();
        assert_eq!(ours["block_id"]["hash"], hash);
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_light_client_finds_out_a_forged_header_and_a_wrong_beginning() {
    let directory = tempfile::tempdir().unwrap();
    let (node, hash) = node(directory.path()).await;
    let (url, runtime) = (node.url.clone(), Handle::current());
    spawn_blocking(move || {
        let peer = Arc::new(Mutex::new(Peer { url, runtime }));
        let honest = peer.clone();
        let wrong = Hash::Sha256([3; 32]);
        let honest = move |height| honest.lock().unwrap().fetch_light_block(height);
        assert!(instance(honest, wrong).is_err());

        let forging = move |height| {
            let mut block = peer.lock().unwrap().fetch_light_block(height)?;
            if block.height().value() == 4 {
                block.signed_header.header.app_hash = AppHash::try_from(vec![9; 32]).unwrap();
            }
            Ok(block)
        };
        let mut client = instance(forging, hash).unwrap();
        let forged = Height::from(4_u32);
        let refused = client
            .light_client
            .verify_to_target(forged, &mut client.state);
        assert!(refused.is_err());
        let store = &client.state.light_store;
        assert!(store.get(forged, Status::Failed).is_some());
        assert_eq!(
            store
                .highest_trusted_or_verified()
                .unwrap()
                .height()
                .value(),
            1
        );
        // The others are as the validators signed them.
        let target = Height::from(5_u32);
        let verified = client
            .light_client
            .verify_to_target(target, &mut client.state);
        assert_eq!(verified.unwrap().height(), target);
    })
    .await
    .unwrap();
    node.stop().await;
}

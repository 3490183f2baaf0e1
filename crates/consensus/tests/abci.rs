//! The ledger asked over ABCI's socket by hand: what CometBFT seldom does, but may.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::path::Path;
use std::sync::Arc;

use r3mes_consensus::app::{LedgerApp, storage_options};
use r3mes_consensus::cometbft::{EngineError, Listener, Parts, open};
use r3mes_consensus::genesis::Genesis;
use r3mes_ledger::genesis::{DEVELOPMENT_CHAIN, DEVELOPMENT_SECRET};
use r3mes_state::Storage;
use r3mes_types::beacon::HashChains;
use tendermint_proto::google::protobuf::Timestamp;
use tendermint_proto::v0_38::abci::response_process_proposal::ProposalStatus;
use tendermint_proto::v0_38::abci::{
    RequestCommit, RequestFinalizeBlock, RequestInfo, RequestInitChain, RequestPrepareProposal,
    RequestProcessProposal, RequestQuery, ResponseInfo, request, response,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

#[path = "support/bank.rs"]
mod bank;
#[path = "support/socket.rs"]
mod socket;

use bank::{key, ledger_genesis, send, validator};
use socket::Connection;

/// The engine, listening.
struct Running {
    shutdown: CancellationToken,
    engine: JoinHandle<Result<(), EngineError>>,
    chain: Genesis,
}

impl Running {
    fn start(folder: &Path) -> Self {
        let genesis = ledger_genesis();
        let chain = Genesis::of_network(&genesis).unwrap();
        let storage = Storage::memory(storage_options()).unwrap();
        let beacon = HashChains::new(DEVELOPMENT_SECRET, DEVELOPMENT_CHAIN);
        let app = Arc::new(LedgerApp::new(genesis, storage, Some(beacon)));
        let (engine, _) = open(Parts::new(chain.clone(), app)).unwrap();
        let listener = Listener::unix(&folder.join("abci")).unwrap();
        let shutdown = CancellationToken::new();
        let engine = tokio::spawn(engine.run(listener, shutdown.clone()));
        Self {
            shutdown,
            engine,
            chain,
        }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.engine.await.unwrap().unwrap();
    }
}

impl Connection {
    async fn info(&mut self) -> ResponseInfo {
        match self.ask(request::Value::Info(RequestInfo::default())).await {
            response::Value::Info(info) => info,
            other => panic!("{other:?}"),
        }
    }

    /// Begins the chain.
    async fn begin(&mut self, chain: &Genesis) {
        let asked = RequestInitChain {
            time: Some(time(chain, 0)),
            chain_id: chain.chain_id.to_string(),
            validators: vec![tendermint_proto::v0_38::abci::ValidatorUpdate {
                pub_key: Some(tendermint_proto::v0_38::crypto::PublicKey {
                    sum: Some(tendermint_proto::v0_38::crypto::public_key::Sum::Ed25519(
                        validator().public_key().as_bytes().to_vec(),
                    )),
                }),
                power: i64::try_from(ledger_genesis().validators[0].power).unwrap(),
            }],
            initial_height: 1,
            ..RequestInitChain::default()
        };
        let answer = self.ask(request::Value::InitChain(asked)).await;
        assert!(
            matches!(answer, response::Value::InitChain(_)),
            "{answer:?}"
        );
    }

    /// The transactions of a block that this node would propose.
    async fn proposal(&mut self, chain: &Genesis, height: i64) -> Vec<prost::bytes::Bytes> {
        let asked = RequestPrepareProposal {
            max_tx_bytes: 1 << 20,
            height,
            time: Some(time(chain, height)),
            proposer_address: proposer(),
            ..RequestPrepareProposal::default()
        };
        match self.ask(request::Value::PrepareProposal(asked)).await {
            response::Value::PrepareProposal(proposal) => proposal.txs,
            other => panic!("{other:?}"),
        }
    }

    async fn examined(&mut self, chain: &Genesis, txs: &[prost::bytes::Bytes]) -> ProposalStatus {
        let asked = RequestProcessProposal {
            txs: txs.to_vec(),
            height: 1,
            time: Some(time(chain, 1)),
            proposer_address: proposer(),
            ..RequestProcessProposal::default()
        };
        match self.ask(request::Value::ProcessProposal(asked)).await {
            response::Value::ProcessProposal(answer) => answer.status(),
            other => panic!("{other:?}"),
        }
    }

    async fn finalize(
        &mut self,
        chain: &Genesis,
        height: i64,
        txs: &[prost::bytes::Bytes],
    ) -> Vec<u8> {
        match self.ask(decided(chain, height, txs)).await {
            response::Value::FinalizeBlock(answer) => answer.app_hash.to_vec(),
            other => panic!("{other:?}"),
        }
    }

    async fn commit(&mut self) {
        let answer = self.ask(request::Value::Commit(RequestCommit {})).await;
        assert!(matches!(answer, response::Value::Commit(_)), "{answer:?}");
    }
}

fn decided(chain: &Genesis, height: i64, txs: &[prost::bytes::Bytes]) -> request::Value {
    request::Value::FinalizeBlock(RequestFinalizeBlock {
        txs: txs.to_vec(),
        height,
        time: Some(time(chain, height)),
        proposer_address: proposer(),
        ..RequestFinalizeBlock::default()
    })
}

/// A second a block, from the genesis on.
fn time(chain: &Genesis, height: i64) -> Timestamp {
    let nanos = i64::try_from(chain.time.nanos()).unwrap();
    Timestamp {
        seconds: nanos / 1_000_000_000 + height,
        nanos: i32::try_from(nanos % 1_000_000_000).unwrap(),
    }
}

fn proposer() -> prost::bytes::Bytes {
    validator()
        .public_key()
        .address()
        .as_bytes()
        .to_vec()
        .into()
}

#[tokio::test]
async fn a_block_that_is_committed_while_cometbft_starts_again_is_taken_once_more() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(folder.path());
    let chain = running.chain.clone();
    let mut first = Connection::open(folder.path()).await;
    first.begin(&chain).await;
    let txs = first.proposal(&chain, 1).await;
    let app_hash = first.finalize(&chain, 1, &txs).await;

    // CometBFT is started again here, and learns that there is no block.
    let mut second = Connection::open(folder.path()).await;
    assert_eq!(second.info().await.last_block_height, 0);
    // Its predecessor's last words come after that.
    first.commit().await;
    drop(first);
    // It gives the block again that it knows, and finds the same.
    assert_eq!(second.finalize(&chain, 1, &txs).await, app_hash);
    second.commit().await;
    let info = second.info().await;
    assert_eq!(
        (info.last_block_height, info.last_block_app_hash.to_vec()),
        (1, app_hash)
    );
    // And the chain goes on.
    let txs = second.proposal(&chain, 2).await;
    second.finalize(&chain, 2, &txs).await;
    second.commit().await;
    assert_eq!(second.info().await.last_block_height, 2);
    running.stop().await;
}

#[tokio::test]
async fn a_block_that_was_executed_before_cometbft_started_again_is_executed_anew() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(folder.path());
    let chain = running.chain.clone();
    let mut first = Connection::open(folder.path()).await;
    first.begin(&chain).await;
    let txs = first.proposal(&chain, 1).await;
    let app_hash = first.finalize(&chain, 1, &txs).await;
    drop(first);
    let mut second = Connection::open(folder.path()).await;
    assert_eq!(second.info().await.last_block_height, 0);
    assert_eq!(second.finalize(&chain, 1, &txs).await, app_hash);
    second.commit().await;
    assert_eq!(second.info().await.last_block_app_hash.to_vec(), app_hash);
    running.stop().await;
}

#[tokio::test]
async fn a_proposal_without_the_beacon_s_element_is_rejected_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(folder.path());
    let chain = running.chain.clone();
    let mut connection = Connection::open(folder.path()).await;
    connection.begin(&chain).await;
    let honest = connection.proposal(&chain, 1).await;
    let mut forged = honest.clone();
    let mut reveal = forged[0].to_vec();
    // The element comes after the address, and its length.
    let address = proposer();
    let at = reveal.windows(20).position(|bytes| bytes == address);
    reveal[at.unwrap() + 22] ^= 1;
    forged[0] = reveal.into();
    let stranger = r3mes_types::tx::Signer {
        chain_id: bank::CHAIN,
        account_number: 99,
        sequence: 0,
    };
    let transfer = send(&key(1), &key(2), &stranger).into();
    let twice = [&honest[..], &honest[..1]].concat();
    for (what, txs) in [
        ("nothing", vec![]),
        ("an element of another chain", forged),
        ("a transfer first", vec![transfer]),
        ("the element twice", twice),
    ] {
        let status = connection.examined(&chain, &txs).await;
        assert_eq!(status, ProposalStatus::Reject, "{what}");
    }
    assert_eq!(
        connection.examined(&chain, &honest).await,
        ProposalStatus::Accept
    );
    connection.finalize(&chain, 1, &honest).await;
    connection.commit().await;
    running.stop().await;
}

#[tokio::test]
async fn a_question_about_a_height_below_zero_is_refused_and_the_engine_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(folder.path());
    let mut connection = Connection::open(folder.path()).await;
    connection.begin(&running.chain.clone()).await;
    let question = RequestQuery {
        path: "/store".into(),
        height: -1,
        ..RequestQuery::default()
    };
    let answer = connection.ask(request::Value::Query(question)).await;
    let response::Value::Query(answer) = answer else {
        panic!("{answer:?}")
    };
    assert_eq!((answer.code, answer.codespace.as_str()), (18, "sdk"));
    assert_eq!(connection.info().await.last_block_height, 0);
    running.stop().await;
}

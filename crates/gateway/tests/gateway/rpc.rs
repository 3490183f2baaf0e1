//! The chain over HTTP: CometBFT's shapes, the clients, restarts.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use r3mes_consensus::app::{LedgerApp, storage_options};
use r3mes_consensus::genesis::Genesis;
use r3mes_consensus::key::ValidatorKey;
use r3mes_consensus::local::{Config, ConsensusHandle, EngineError, Parts, open};
use r3mes_consensus::store::BlockStore;
use r3mes_gateway::rpc::{
    Chain, Client, ClientError, RpcLimits, SendError, Service, TxClient, TxState, router,
};
use r3mes_http::server;
use r3mes_ledger::genesis::{DEVELOPMENT_CHAIN, DEVELOPMENT_SECRET, development};
use r3mes_state::{Storage, proof_spec};
use r3mes_types::auth::QueryAccount;
use r3mes_types::bank::{Balance, MsgSend, QueryBalance};
use r3mes_types::beacon::HashChains;
use r3mes_types::query::Query;
use r3mes_types::tx::{Fee, Signer, Unsigned};
use r3mes_types::wire::{List, Wire};
use r3mes_types::{Amount, Coin, SecretKey};
use serde_json::{Value, json};
use tendermint::block::signed_header::SignedHeader;
use tendermint::validator;
use tendermint_light_client_verifier::options::Options;
use tendermint_light_client_verifier::types::{TrustedBlockState, UntrustedBlockState};
use tendermint_light_client_verifier::{ProdVerifier, Verdict, Verifier};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::support;

const CHAIN: &str = "rpc-1";

pub(super) fn key(number: u8) -> SecretKey {
    SecretKey::from_bytes(&[number; 32]).unwrap()
}

pub(super) fn validator_key() -> ValidatorKey {
    ValidatorKey::from_seed(&[5; 32])
}

pub(super) fn ledger_genesis() -> r3mes_ledger::Genesis {
    // The last two are for one client alone.
    let mut balances: Vec<Balance> = [1, 2, 3, 28, 29]
        .map(|number| Balance {
            address: key(number).address(),
            amount: Amount::remes(1_000),
        })
        .to_vec();
    balances.sort_by_key(|balance| balance.address);
    let mut genesis = development(CHAIN, key(1).address(), &balances);
    let mut validators = genesis.validators.to_vec();
    validators[0].key = validator_key().public_key();
    genesis.validators = List::new(validators).unwrap();
    genesis
}

/// A node with its files in a folder, on a port.
pub(super) struct Node {
    pub(super) handle: ConsensusHandle,
    pub(super) url: String,
    shutdown: CancellationToken,
    engine: JoinHandle<Result<(), EngineError>>,
    server: JoinHandle<()>,
}

impl Node {
    pub(super) async fn start(directory: &Path) -> Self {
        Self::start_on(directory, 0).await
    }

    async fn start_on(directory: &Path, port: u16) -> Self {
        let genesis = ledger_genesis();
        let canonical: Arc<[u8]> = genesis.encode().into();
        let chain = Genesis::of_ledger(&genesis, &validator_key()).unwrap();
        let storage = Storage::open(directory.join("state"), storage_options()).unwrap();
        let beacon = HashChains::new(DEVELOPMENT_SECRET, DEVELOPMENT_CHAIN);
        let app = Arc::new(LedgerApp::new(genesis, storage, Some(beacon)));
        let store = BlockStore::open(directory.join("blocks")).unwrap();
        let config = Config {
            interval: Duration::from_millis(1),
            proof_block_after: None,
            ..Config::default()
        };
        let parts = Parts::new(chain, validator_key(), app, store);
        let (engine, handle) = open(parts, config).unwrap();
        let shutdown = CancellationToken::new();
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let service = Service {
            handle: handle.clone(),
            genesis: canonical,
            moniker: "test".into(),
            limits: RpcLimits::default(),
        };
        Self {
            handle,
            url,
            engine: tokio::spawn(engine.run(shutdown.clone())),
            server: tokio::spawn(server::serve(
                listener,
                router(Chain::Local(service)),
                server::Limits::default(),
                shutdown.clone(),
            )),
            shutdown,
        }
    }

    pub(super) fn client(&self) -> Client {
        Client::new(&self.url).unwrap()
    }

    fn port(&self) -> u16 {
        self.url.rsplit(':').next().unwrap().parse().unwrap()
    }

    /// The result of a method by `GET`.
    pub(super) async fn get(&self, path: &str) -> Value {
        let answer = support::client()
            .get(format!("{}/{path}", self.url))
            .send()
            .await
            .unwrap();
        let mut answer: Value = answer.json().await.unwrap();
        assert_eq!(answer["error"], Value::Null, "{path}");
        answer["result"].take()
    }

    pub(super) async fn stop(self) {
        self.shutdown.cancel();
        self.server.await.unwrap();
        self.engine.await.unwrap().unwrap();
    }
}

pub(super) fn send(from: &SecretKey, to: &SecretKey, amount: Amount) -> Vec<r3mes_types::Message> {
    let message = MsgSend {
        from_address: from.address(),
        to_address: to.address(),
        amount: List::new(vec![Coin(amount)]).unwrap(),
    };
    vec![message.into()]
}

async fn balance(client: &Client, of: &SecretKey) -> Amount {
    let question = QueryBalance {
        address: of.address(),
    };
    client.query(&question).await.unwrap().amount
}

#[tokio::test]
async fn a_light_client_reads_and_verifies_what_the_rpc_answers() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path()).await;
    let sender = TxClient::new(node.client(), key(1));
    for _ in 0..4 {
        sender
            .send(send(&key(1), &key(2), Amount::remes(1)))
            .await
            .unwrap();
    }
    let light_block = async |height: u64| {
        let commit = node.get(&format!("commit?height={height}")).await;
        let signed: SignedHeader = serde_json::from_value(commit["signed_header"].clone()).unwrap();
        let validators = node.get(&format!("validators?height={height}")).await;
        let validators: Vec<validator::Info> =
            serde_json::from_value(validators["validators"].clone()).unwrap();
        (signed, validator::Set::without_proposer(validators))
    };
    let (trusted, validators) = light_block(1).await;
    for height in 2..=4 {
        let (untrusted, set) = light_block(height).await;
        let verdict = ProdVerifier::default().verify_update_header(
            UntrustedBlockState {
                signed_header: &untrusted,
                validators: &set,
                next_validators: None,
            },
            TrustedBlockState {
                chain_id: &trusted.header.chain_id,
                header_time: trusted.header.time,
                height: trusted.header.height,
                next_validators: &validators,
                next_validators_hash: trusted.header.next_validators_hash,
            },
            &Options {
                trust_threshold: Default::default(),
                trusting_period: Duration::from_secs(1_000_000),
                clock_drift: Duration::from_secs(5),
            },
            (untrusted.header.time + Duration::from_secs(1)).unwrap(),
        );
        assert_eq!(verdict, Verdict::Success, "height {height}");

        let block = node.get(&format!("block?height={height}")).await;
        let parsed: tendermint::Block = serde_json::from_value(block["block"].clone()).unwrap();
        assert_eq!(parsed.header.hash(), untrusted.header.hash());
        assert_eq!(
            block["block_id"]["hash"],
            untrusted.header.hash().to_string()
        );
    }
    node.stop().await;
}

#[tokio::test]
async fn blocks_are_found_by_height_and_events() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path()).await;
    let client = node.client();
    let sender = TxClient::new(client.clone(), key(1));
    let transfer = send(&key(1), &key(2), Amount::remes(1));
    let height = sender.send(transfer).await.unwrap().height;
    let search = |query: String| client.raw("block_search", json!({"query": query}));
    let found = search(format!("block.height<={height}")).await.unwrap();
    assert_eq!(found["total_count"], height.to_string());
    let newest_first = client.raw("block", json!({"height": height.to_string()}));
    assert_eq!(found["blocks"][0], newest_first.await.unwrap());
    let none = search("block.height>0 AND nothing.like='this'".into());
    assert_eq!(none.await.unwrap()["total_count"], "0");
    let refusal = search("block.height=a".into()).await.unwrap_err();
    assert!(refusal.to_string().contains("block.height"), "{refusal}");
    node.stop().await;
}

#[tokio::test]
async fn both_ways_of_asking_answer_alike_in_cometbft_s_shapes() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path()).await;
    let client = node.client();
    let sent = TxClient::new(client.clone(), key(1));
    let outcome = sent
        .send(send(&key(1), &key(2), Amount::remes(1)))
        .await
        .unwrap();
    let hash = hex::encode(outcome.hash);
    let question = hex::encode(
        QueryAccount {
            address: key(1).address(),
        }
        .encode(),
    );
    let path = QueryAccount::PATH;
    let calls = [
        ("health".into(), "health", json!({})),
        ("status".into(), "status", json!({})),
        ("net_info".into(), "net_info", json!([])),
        ("genesis".into(), "genesis", json!({})),
        (
            "blockchain?minHeight=1&maxHeight=1".into(),
            "blockchain",
            json!(["1", "1"]),
        ),
        ("block?height=1".into(), "block", json!({"height": "1"})),
        (
            "header?height=\"1\"".into(),
            "header",
            json!({"height": "1"}),
        ),
        (
            "block_results".into(),
            "block_results",
            json!({"height": null}),
        ),
        ("commit?height=1".into(), "commit", json!(["1"])),
        (
            "validators".into(),
            "validators",
            json!({"page": "1", "per_page": "100"}),
        ),
        ("consensus_params".into(), "consensus_params", json!({})),
        ("abci_info".into(), "abci_info", json!({})),
        (
            "num_unconfirmed_txs".into(),
            "num_unconfirmed_txs",
            json!({}),
        ),
        (
            format!("tx?hash=0x{hash}&prove=true"),
            "tx",
            json!({"hash": STANDARD.encode(outcome.hash), "prove": true}),
        ),
        (
            format!("abci_query?path=\"{path}\"&data=0x{question}&prove=true"),
            "abci_query",
            json!({"path": path, "data": question, "prove": true}),
        ),
    ];
    for (uri, method, params) in calls {
        let by_post = client.raw(method, params).await.unwrap();
        assert_eq!(node.get(&uri).await, by_post, "{method}");
    }

    let status = node.get("status").await;
    assert_eq!(status["node_info"]["network"], CHAIN);
    assert_eq!(status["sync_info"]["latest_block_height"], "1");
    assert_eq!(status["sync_info"]["earliest_block_height"], "1");
    assert_eq!(
        status["validator_info"]["pub_key"]["type"],
        "tendermint/PubKeyEd25519"
    );
    let first = node.get("block?height=1").await;
    assert_eq!(first["block"]["header"]["last_block_id"]["hash"], "");
    assert_eq!(first["block"]["last_commit"]["height"], "0");
    assert_eq!(first["block"]["data"]["txs"].as_array().unwrap().len(), 2);
    let results = node.get("block_results?height=1").await;
    assert_eq!(results["txs_results"][1]["code"], 0);
    assert_eq!(
        results["txs_results"][1]["gas_used"],
        outcome.gas_used.to_string()
    );
    let genesis = client.genesis().await.unwrap();
    assert_eq!(genesis, ledger_genesis().encode());
    node.stop().await;
}

#[tokio::test]
async fn an_account_is_proved_to_whoever_has_the_next_header() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path()).await;
    let sender = TxClient::new(node.client(), key(1));
    for _ in 0..2 {
        sender
            .send(send(&key(1), &key(2), Amount::remes(1)))
            .await
            .unwrap();
    }
    let question = hex::encode(
        QueryAccount {
            address: key(1).address(),
        }
        .encode(),
    );
    let path = QueryAccount::PATH;
    let answer = node
        .get(&format!(
            "abci_query?path=\"{path}\"&data=0x{question}&prove=true&height=1"
        ))
        .await;
    let response = &answer["response"];
    let bytes = |value: &Value| STANDARD.decode(value.as_str().unwrap()).unwrap();
    let operation = bytes(&response["proofOps"]["ops"][0]["data"]);
    let proof = ics23::CommitmentProof::decode(operation.as_slice()).unwrap();
    let Some(ics23::commitment_proof::Proof::Exist(exist)) = &proof.proof else {
        panic!("the account exists")
    };
    let header = node.get("header?height=2").await;
    let root = hex::decode(header["header"]["app_hash"].as_str().unwrap()).unwrap();
    assert!(ics23::verify_membership::<ics23::HostFunctionsManager>(
        &proof,
        &proof_spec(),
        &root,
        &bytes(&response["key"]),
        &exist.value,
    ));
    node.stop().await;
}

#[tokio::test]
async fn clones_of_a_sender_share_its_sequence_and_pay_what_is_asked() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path()).await;
    let sender = TxClient::new(node.client(), key(1));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let sender = sender.clone();
        tasks.spawn(async move { sender.send(send(&key(1), &key(2), Amount::remes(1))).await });
    }
    while let Some(outcome) = tasks.join_next().await {
        assert_eq!(outcome.unwrap().unwrap().code, 0);
    }
    let client = node.client();
    assert_eq!(balance(&client, &key(2)).await, Amount::remes(1_020));
    assert!(balance(&client, &key(1)).await < Amount::remes(980));
    node.stop().await;
}

#[tokio::test]
async fn two_processes_with_one_key_get_along() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path()).await;
    let mut tasks = tokio::task::JoinSet::new();
    for amount in [1, 2] {
        let sender = TxClient::new(node.client(), key(1));
        tasks.spawn(async move {
            for _ in 0..5 {
                sender
                    .send(send(&key(1), &key(2), Amount::remes(amount)))
                    .await
                    .unwrap();
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    assert_eq!(balance(&node.client(), &key(2)).await, Amount::remes(1_015));
    node.stop().await;
}

#[tokio::test]
async fn a_process_that_died_after_sending_does_not_send_twice() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path()).await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..2 {
        // The second one knows nothing of the first, and signs the same bytes.
        let sender = TxClient::new(node.client(), key(1)).with_gas_limit(900_000);
        tasks.spawn(async move { sender.send(send(&key(1), &key(2), Amount::remes(1))).await });
    }
    let mut hashes = Vec::new();
    while let Some(outcome) = tasks.join_next().await {
        hashes.push(outcome.unwrap().unwrap().hash);
    }
    hashes.dedup();
    let received = balance(&node.client(), &key(2)).await;
    assert_eq!(received, Amount::remes(1_000 + hashes.len() as u64));
    node.stop().await;
}

#[tokio::test]
async fn refusals_keep_the_ledger_s_code_and_words() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path()).await;
    let sender = TxClient::new(node.client(), key(1));
    let error = sender
        .send(send(&key(1), &key(2), Amount::remes(5_000)))
        .await
        .unwrap_err();
    let SendError::Refused {
        codespace,
        code,
        log,
    } = error
    else {
        panic!("{error:?}")
    };
    assert_eq!(codespace, "bank");
    assert_ne!(code, 0);
    assert!(!log.is_empty());
    // The refused one took its sequence; the next one goes on from there.
    sender
        .send(send(&key(1), &key(2), Amount::remes(1)))
        .await
        .unwrap();

    let stranger = TxClient::new(node.client(), key(99));
    let error = stranger
        .send(send(&key(99), &key(2), Amount::remes(1)))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, SendError::Refused { codespace, code: 9, .. } if codespace == "sdk"),
        "{error:?}"
    );
    let error = node
        .client()
        .query_bytes("/nowhere", &[], None)
        .await
        .unwrap_err();
    assert!(matches!(error, ClientError::Query { .. }), "{error:?}");
    node.stop().await;
}

#[tokio::test]
async fn a_sender_outlives_restarts_of_the_node_and_sends_nothing_twice() {
    const TRANSFERS: u64 = 30;
    let directory = tempfile::tempdir().unwrap();
    let mut node = Node::start(directory.path()).await;
    let port = node.port();
    let sender = TxClient::new(node.client(), key(1));
    let sending = tokio::spawn(async move {
        for _ in 0..TRANSFERS {
            sender
                .send(send(&key(1), &key(2), Amount::remes(1)))
                .await
                .unwrap();
        }
    });
    for _ in 0..2 {
        let height = node.handle.latest().height;
        let patience = Duration::from_secs(20);
        node.handle
            .wait_for_height(height + 2, patience)
            .await
            .unwrap();
        node.stop().await;
        node = Node::start_on(directory.path(), port).await;
    }
    sending.await.unwrap();
    let received = balance(&node.client(), &key(2)).await;
    assert_eq!(received, Amount::remes(1_000 + TRANSFERS));
    node.stop().await;
}

#[tokio::test]
async fn waiting_ends_with_the_next_block_or_with_patience() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path()).await;
    let client = node.client();
    let height = client.status().await.unwrap().height;
    let still = client
        .wait_height_for(height, Duration::from_millis(50))
        .await
        .unwrap();
    assert_eq!(still, height);
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.wait_height(height).await.unwrap() }
    });
    node.handle.make_block().await.unwrap();
    assert_eq!(waiting.await.unwrap(), height + 1);
    let unknown = client
        .wait_tx(&[7; 32], Duration::from_secs(5))
        .await
        .unwrap();
    assert_eq!(unknown, TxState::Unknown);
    assert_eq!(client.tx(&[7; 32]).await.unwrap(), None);
    node.stop().await;
}

#[tokio::test]
async fn transactions_of_one_batch_are_offered_in_order_and_answered_in_their_places() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path()).await;
    let address = key(1).address();
    let account = node.client().query(&QueryAccount { address }).await;
    let tx = |sequence| {
        let signer = Signer {
            chain_id: CHAIN,
            account_number: account.as_ref().unwrap().account.as_ref().unwrap().number,
            sequence,
        };
        Unsigned::new(send(&key(1), &key(2), Amount::remes(1)))
            .with_fee(Fee::of(Amount::remes(1), 1_000_000))
            .sign(&key(1), &signer)
            .unwrap()
    };
    let mut forged = tx(2);
    // The signature comes last.
    *forged.last_mut().unwrap() ^= 1;
    let call =
        |id: u32, tx: Value| json!({"id": id, "method": "broadcast_tx_sync", "params": {"tx": tx}});
    let offer = |id, tx: &[u8]| call(id, STANDARD.encode(tx).into());
    let calls = json!([
        offer(1, &tx(0)),
        offer(2, &tx(1)),
        call(3, "no base64".into()),
        offer(4, &forged),
        {"id": 5, "method": "health"},
        offer(6, &tx(1)),
        offer(7, &tx(2)),
    ]);
    let answer = support::client().post(&node.url).body(calls.to_string());
    let answer: Value = answer.send().await.unwrap().json().await.unwrap();
    let found: Vec<(u64, Value, Value)> = answer
        .as_array()
        .unwrap()
        .iter()
        .map(|answer| {
            let id = answer["id"].as_u64().unwrap();
            (
                id,
                answer["result"]["code"].clone(),
                answer["error"]["code"].clone(),
            )
        })
        .collect();
    let (none, good) = (Value::Null, json!(0));
    // The second one waits already, or stands in a block and its sequence has passed.
    let repeated = [(none.clone(), json!(-32603)), (json!(32), none.clone())];
    assert!(
        repeated.contains(&(found[5].1.clone(), found[5].2.clone())),
        "{answer}"
    );
    for (place, expected) in [
        (0, (1, good.clone(), none.clone())),
        (1, (2, good.clone(), none.clone())),
        (2, (3, none.clone(), json!(-32602))),
        (3, (4, json!(15), none.clone())),
        (4, (5, none.clone(), none.clone())),
        (6, (7, good, none)),
    ] {
        assert_eq!(found[place], expected, "{answer}");
    }
    node.stop().await;
}

#[tokio::test]
async fn what_is_not_a_call_is_refused_with_a_reason() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path()).await;
    let http = support::client();
    let get = async |path: &str| {
        let answer = http
            .get(format!("{}/{path}", node.url))
            .send()
            .await
            .unwrap();
        let status = answer.status().as_u16();
        (
            status,
            answer.json::<Value>().await.unwrap()["error"]["code"].clone(),
        )
    };
    assert_eq!(get("nothing").await, (404, json!(-32601)));
    assert_eq!(get("block?height=x").await, (500, json!(-32602)));
    assert_eq!(get("block?height=99").await, (500, json!(-32603)));
    assert_eq!(get("wait_tx?hash=0x00").await, (500, json!(-32602)));
    let absent = format!("tx?hash=0x{}", "00".repeat(32));
    assert_eq!(get(&absent).await, (500, json!(-32603)));

    let post = async |body: String| {
        let answer = http.post(&node.url).body(body).send().await.unwrap();
        (
            answer.status().as_u16(),
            answer.json::<Value>().await.unwrap(),
        )
    };
    let (status, answer) = post("{".into()).await;
    assert_eq!((status, &answer["error"]["code"]), (500, &json!(-32700)));
    let call = json!({"jsonrpc": "2.0", "id": 3, "method": "health"});
    let (status, answer) = post(json!([call, {"id": 4}]).to_string()).await;
    assert_eq!(status, 200);
    assert_eq!(answer[0], json!({"jsonrpc": "2.0", "id": 3, "result": {}}));
    assert_eq!(answer[1]["error"]["code"], -32601);
    let (status, answer) = post(Value::Array(vec![call; 17]).to_string()).await;
    assert_eq!((status, &answer["error"]["code"]), (500, &json!(-32600)));
    let large = vec![b' '; RpcLimits::default().body_bytes + 1];
    let answer = http.post(&node.url).body(large).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 413);
    let list: Value = http
        .get(&node.url)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(
        list["methods"]["abci_query"],
        json!(["path", "data", "height", "prove"])
    );
    node.stop().await;
}

#[tokio::test]
async fn nothing_is_signed_for_another_chain_than_the_client_s_own() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path()).await;
    let chain_id = node.client().status().await.unwrap().chain_id;
    let own = node.client().of_chain(&chain_id);
    let other = node.client().of_chain("elsewhere-1");
    let coins = || send(&key(1), &key(2), Amount::remes(1));
    let refused = TxClient::new(other, key(1)).send(coins()).await;
    let refused = refused.unwrap_err().to_string();
    for named in [&node.url, &chain_id, "elsewhere-1"] {
        assert!(refused.contains(named), "{refused}");
    }
    TxClient::new(own, key(1)).send(coins()).await.unwrap();
    node.stop().await;
}

#[tokio::test]
async fn a_node_that_is_not_there_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let client = Client::new(&url).unwrap().retry_for(Duration::ZERO);
    let error = client.status().await.unwrap_err();
    assert!(
        matches!(error, ClientError::Unreachable { .. }),
        "{error:?}"
    );
    assert!(error.to_string().contains(&url), "{error}");
    for wrong in ["", "127.0.0.1:26657", "ftp://127.0.0.1"] {
        let refused = Client::new(wrong);
        assert!(matches!(refused, Err(ClientError::Url { .. })), "{wrong}");
    }
}

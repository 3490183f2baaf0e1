//! The RPC under engine `cometbft`, with the real program: what CometBFT answers, what we add, and what
//! a client sees while CometBFT is away.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use axum::routing::post;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use r3mes_consensus::app::{LedgerApp, storage_options};
use r3mes_consensus::cometbft::home::{CometHome, Settings};
use r3mes_consensus::cometbft::{EngineError, Listener, Parts, open, remove_socket};
use r3mes_consensus::genesis::Genesis;
use r3mes_consensus::key::ValidatorKey;
use r3mes_consensus::mempool::Limits;
use r3mes_gateway::rpc::{
    Chain, Client, ClientError, Relay, RpcLimits, TxClient, TxState, genesis_file, router,
};
use r3mes_http::server;
use r3mes_ledger::genesis::{DEVELOPMENT_CHAIN, DEVELOPMENT_SECRET};
use r3mes_state::Storage;
use r3mes_types::Amount;
use r3mes_types::auth::QueryAccount;
use r3mes_types::bank::QueryBalance;
use r3mes_types::beacon::HashChains;
use r3mes_types::tx::{Fee, Signer, Unsigned};
use r3mes_types::wire::Wire;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::cosmos;
use super::outside::program;
use super::rpc::{key, ledger_genesis, send, validator_key};
use super::socket::Socket;
use super::support::{self, Running};

/// Long enough for anything that should happen; only failures wait so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// CometBFT in a process of its own, killed when it is dropped.
pub(super) struct Comet(Child);

impl Drop for Comet {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(super) fn start_comet(program: &Path, directory: &Path) -> Comet {
    let socket = |name: &str| format!("unix://{}", directory.join(name).display());
    let settings = Settings {
        moniker: "relayed".into(),
        abci: socket("abci"),
        rpc: socket("rpc"),
        p2p: "tcp://127.0.0.1:0".into(),
        external_address: String::new(),
        persistent_peers: Vec::new(),
        block_interval: Duration::from_millis(50),
        mempool: Limits::default(),
        signer: None,
        state_sync: None,
    };
    let genesis = ledger_genesis();
    let chain = Genesis::of_network(&genesis).unwrap();
    let validators = genesis.validators.iter();
    let validators = validators.map(|validator| (validator.key, validator.power));
    let file = genesis_file(&chain, validators, &genesis.encode());
    let home = CometHome::new(directory.join("comet"));
    let node = ValidatorKey::from_seed(&[6; 32]);
    home.write(&settings, file.as_bytes(), Some(&validator_key()), &node)
        .unwrap();
    remove_socket(&directory.join("rpc")).unwrap();
    let child = Command::new(program)
        .args(["start", "--home"])
        .arg(home.root())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn();
    Comet(child.unwrap())
}

/// The ledger listening for CometBFT, and the RPC in front of it.
pub(super) struct Relayed {
    chain: Chain,
    pub(super) url: String,
    shutdown: CancellationToken,
    server: JoinHandle<()>,
    engine: JoinHandle<Result<(), EngineError>>,
}

impl Relayed {
    pub(super) async fn start(directory: &Path, limits: RpcLimits) -> Self {
        let genesis = ledger_genesis();
        let chain = Genesis::of_network(&genesis).unwrap();
        let beacon = HashChains::new(DEVELOPMENT_SECRET, DEVELOPMENT_CHAIN);
        let storage = Storage::memory(storage_options()).unwrap();
        let app = Arc::new(LedgerApp::new(genesis, storage, Some(beacon)));
        let (engine, handle) = open(Parts::new(chain, app)).unwrap();
        let shutdown = CancellationToken::new();
        let listener = Listener::unix(&directory.join("abci")).unwrap();
        let engine = tokio::spawn(engine.run(listener, shutdown.clone()));
        let upstream = format!("unix://{}", directory.join("rpc").display());
        let relay = Relay::new(handle, &upstream, limits).unwrap();
        let chain = Chain::CometBft(relay);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = router(chain.clone());
        let limits = server::Limits::default();
        let server = tokio::spawn(server::serve(listener, router, limits, shutdown.clone()));
        Self {
            chain,
            url,
            shutdown,
            server,
            engine,
        }
    }

    pub(super) async fn stop(self) {
        self.shutdown.cancel();
        self.server.await.unwrap();
        self.engine.await.unwrap().unwrap();
    }
}

/// Waits for the first block.
pub(super) async fn has_begun(client: &Client) {
    while client.wait_height(0).await.unwrap() == 0 {}
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_work_unchanged_over_cometbft_and_wait_while_it_is_away() {
    let Some(program) = program("cometbft") else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let genesis = ledger_genesis();
    let limits = RpcLimits {
        longest_wait: Duration::from_millis(500),
        ..RpcLimits::default()
    };
    let relayed = Relayed::start(directory.path(), limits).await;
    let url = relayed.url.clone();
    let client = Client::new(&url).unwrap();

    // The client asks before there is a CometBFT, or a block, and gets its answers.
    let asked = tokio::spawn({
        let client = client.clone();
        async move { (client.genesis().await, client.committed().await) }
    });
    let mut comet = start_comet(&program, directory.path());
    let (asked, begun) = asked.await.unwrap();
    assert_eq!(asked.unwrap(), genesis.encode());
    // Before the first block that is the state of the genesis.
    begun.unwrap();
    has_begun(&client).await;
    let status = client.status().await.unwrap();
    assert_eq!(status.chain_id, genesis.chain_id.to_string());
    assert_eq!(status.moniker, "relayed");

    let sender = TxClient::new(client.clone(), key(1));
    let outcome = sender
        .send(send(&key(1), &key(2), Amount::remes(3)))
        .await
        .unwrap();
    let balance = QueryBalance {
        address: key(2).address(),
    };
    let balance = client.query(&balance).await.unwrap();
    assert_eq!(balance.amount, Amount::remes(1_003));
    let tx = client.tx(&outcome.hash).await.unwrap().unwrap();
    assert_eq!(tx, outcome);
    let (height, root) = client.committed().await.unwrap();
    while client.status().await.unwrap().height <= height {
        client.wait_height(height).await.unwrap();
    }
    assert_eq!(client.app_hash_after(height).await.unwrap(), root);

    // A subscription goes through to CometBFT and back.
    let mut socket = Socket::open(&url).await;
    let begun = socket
        .call(2, "subscribe", json!(["tm.event='NewBlock'"]))
        .await;
    assert_eq!(begun["result"], json!({}), "{begun}");
    let told = socket.next(2).await;
    let kind = &told["result"]["data"]["type"];
    assert_eq!(kind, "tendermint/event/NewBlock", "{told}");
    // Who else wants the same may come and go.
    let mut other = Socket::open(&url).await;
    for id in 2..7 {
        let query = format!("tm.event='NewBlock' AND block.height > {id}");
        let query = if id == 2 {
            "tm.event='NewBlock'"
        } else {
            &query
        };
        let begun = other.call(id, "subscribe", json!([query])).await;
        assert_eq!(begun["result"], json!({}), "{begun}");
    }
    other.next(2).await;
    other.close().await;
    let height = |told: &Value| {
        let height = &told["result"]["data"]["value"]["block"]["header"]["height"];
        height.as_str().unwrap().parse::<u64>().unwrap()
    };
    let now = client.status().await.unwrap().height;
    while height(&socket.next(2).await) <= now + 1 {}

    commit_many_at_once(&client).await;

    // What only CometBFT has, by both ways of asking.
    let query = format!("tx.height={}", outcome.height);
    let found = client.raw("tx_search", json!({"query": query, "prove": true}));
    let found = found.await.unwrap();
    assert_eq!(found["txs"].as_array().unwrap().len(), 2, "{found}");
    let by_uri = format!("{url}/tx_search?query=\"{query}\"");
    let answer = support::client().get(by_uri).send().await.unwrap();
    let answer: Value = answer.json().await.unwrap();
    assert_eq!(answer["result"]["total_count"], "2", "{answer}");
    let refused = client.raw("block", json!({"height": "1000000"})).await;
    assert!(
        matches!(&refused, Err(ClientError::Call { message, .. })
        if message.contains("must be less than or equal")),
        "{refused:?}"
    );
    let refused = client.raw("no_such", json!({})).await;
    assert!(matches!(refused, Err(ClientError::Call { .. })));

    // While it is away, state can be read, and what needs it waits, and is told in the end.
    drop(comet);
    assert!(
        client
            .query(&QueryBalance {
                address: key(2).address()
            })
            .await
            .is_ok()
    );
    let hasty = client.clone().retry_for(Duration::ZERO);
    let refused = hasty.status().await;
    assert!(
        matches!(refused, Err(ClientError::Unreachable { .. })),
        "{refused:?}"
    );
    let waiting = tokio::spawn({
        let sender = sender.clone();
        async move { sender.send(send(&key(1), &key(2), Amount::remes(1))).await }
    });
    comet = start_comet(&program, directory.path());
    let outcome = tokio::time::timeout(PATIENCE, waiting).await.unwrap();
    let outcome = outcome.unwrap().unwrap();
    // A transaction of before is found in CometBFT's index.
    let state = client.wait_tx(&tx.hash, Duration::ZERO).await.unwrap();
    assert!(matches!(state, TxState::Included(included) if included == tx));
    assert!(outcome.height > tx.height);

    drop(comet);
    relayed.stop().await;
}

/// More at once than CometBFT lets one subscriber wait for; each gets its own answer.
async fn commit_many_at_once(client: &Client) {
    let senders: Vec<u8> = (40..50).collect();
    let purse = TxClient::new(client.clone(), key(3));
    let coins = senders
        .iter()
        .flat_map(|sender| send(&key(3), &key(*sender), Amount::remes(9)));
    purse.send(coins.collect()).await.unwrap();
    let mut asked = JoinSet::new();
    for sender in senders.clone() {
        let client = client.clone();
        asked.spawn(async move {
            let address = key(sender).address();
            let account = client.query(&QueryAccount { address }).await.unwrap();
            let signer = Signer {
                chain_id: "rpc-1",
                account_number: account.account.unwrap().number,
                sequence: 0,
            };
            let tx = Unsigned::new(send(&key(sender), &key(2), Amount::new(1)))
                .with_fee(Fee::of(Amount::remes(1), 1_000_000))
                .sign(&key(sender), &signer)
                .unwrap();
            let tx = json!({"tx": STANDARD.encode(&tx)});
            client.raw("broadcast_tx_commit", tx).await
        });
    }
    let mut hashes = BTreeSet::new();
    while let Some(answer) = asked.join_next().await {
        let answer = answer.unwrap().unwrap();
        assert_eq!(answer["tx_result"]["code"], 0, "{answer}");
        assert!(answer["height"].as_str().unwrap().parse::<u64>().unwrap() > 1);
        hashes.insert(answer["hash"].to_string());
    }
    assert_eq!(hashes.len(), senders.len());
}

#[tokio::test]
async fn a_ledger_s_first_state_is_waited_for_or_said_to_be_missing() {
    // What CometBFT answers about a ledger: what is empty is left out.
    let (may_begin, height) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let answers = {
        let may_begin = may_begin.clone();
        move |Json(call): Json<Value>| {
            let (may_begin, height) = (may_begin.clone(), height.clone());
            async move {
                if call["method"] == "wait_height" && may_begin.load(Ordering::Relaxed) {
                    height.store(1, Ordering::Relaxed);
                }
                let height = height.load(Ordering::Relaxed);
                let mut response = json!({"data": "r3mes", "version": "1", "app_version": "1"});
                if height > 0 {
                    response["last_block_height"] = height.to_string().into();
                    response["last_block_app_hash"] = STANDARD.encode([7; 32]).into();
                }
                let result = match call["method"].as_str() {
                    Some("abci_info") => json!({"response": response}),
                    _ => json!({"height": height.to_string()}),
                };
                Json(json!({"jsonrpc": "2.0", "id": call["id"], "result": result}))
            }
        }
    };
    let node = Running::start(Router::new().route("/", post(answers))).await;
    let client = Client::new(&node.url("")).unwrap();
    let refused = client.committed().await.unwrap_err();
    assert!(
        matches!(refused, ClientError::NoState { .. }),
        "{refused:?}"
    );
    assert!(
        refused
            .to_string()
            .contains("has no state of the ledger yet"),
        "{refused}"
    );
    may_begin.store(true, Ordering::Relaxed);
    assert_eq!(client.committed().await.unwrap(), (1, [7; 32]));
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_the_cosmos_sdk_work_over_cometbft() {
    let Some(program) = program("cometbft") else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let relayed = Relayed::start(directory.path(), RpcLimits::default()).await;
    let comet = start_comet(&program, directory.path());
    let client = Client::new(&relayed.url).unwrap();
    has_begun(&client).await;
    let [grpc, rest] = cosmos::serve(relayed.chain.clone(), &relayed.shutdown).await;
    // Balance, account, simulation, broadcast, transaction and newest block over gRPC.
    cosmos::cosmpy(&grpc).await;
    // The RPC as wallets in browsers use it.
    cosmos::cosmjs(&relayed.url).await;

    // The same over REST.
    let http = support::client();
    let get = async |path: String| {
        let answer = http
            .get(format!("http://{rest}{path}"))
            .send()
            .await
            .unwrap();
        (
            answer.status().as_u16(),
            answer.json::<Value>().await.unwrap(),
        )
    };
    let (from, to) = (key(1), key(4));
    let me = from.address();
    let (_, account) = get(format!("/cosmos/auth/v1beta1/accounts/{me}")).await;
    let number = |value: &Value| {
        value
            .as_str()
            .unwrap_or_else(|| panic!("{value}"))
            .parse::<u64>()
            .unwrap()
    };
    let signer = Signer {
        chain_id: "rpc-1",
        account_number: number(&account["account"]["account_number"]),
        sequence: number(&account["account"]["sequence"]),
    };
    let tx = Unsigned::new(send(&from, &to, Amount::remes(5)))
        .with_fee(Fee::of(Amount::remes(1), 1_000_000))
        .sign(&from, &signer)
        .unwrap();
    let post = async |path: &str, body: Value| {
        let request = http.post(format!("http://{rest}{path}")).json(&body);
        request.send().await.unwrap().json::<Value>().await.unwrap()
    };
    let bytes = STANDARD.encode(&tx);
    let simulated = post("/cosmos/tx/v1beta1/simulate", json!({"tx_bytes": bytes})).await;
    let gas = number(&simulated["gas_info"]["gas_used"]);
    let mode = "BROADCAST_MODE_SYNC";
    let order = json!({"tx_bytes": bytes, "mode": mode});
    let sent = post("/cosmos/tx/v1beta1/txs", order.clone()).await;
    assert_eq!(sent["tx_response"]["code"], 0, "{sent}");
    let hash = sent["tx_response"]["txhash"].as_str().unwrap().to_owned();
    let raw: [u8; 32] = hex::decode(&hash).unwrap().try_into().unwrap();
    let state = client.wait_tx(&raw, PATIENCE).await.unwrap();
    let TxState::Included(included) = state else {
        panic!("{state:?}")
    };
    assert_eq!(included.gas_used, gas);
    // CometBFT's index has a transaction a moment after its block.
    let found = loop {
        match get(format!("/cosmos/tx/v1beta1/txs/{hash}")).await {
            (200, found) => break found,
            (404, _) => client
                .wait_height(client.status().await.unwrap().height)
                .await
                .unwrap(),
            (status, answer) => panic!("{status}: {answer}"),
        };
    };
    assert_eq!(
        number(&found["tx_response"]["height"]),
        included.height,
        "{found}"
    );
    assert_eq!(number(&found["tx_response"]["gas_used"]), gas, "{found}");
    let path = format!(
        "/cosmos/bank/v1beta1/balances/{}/by_denom?denom=uremes",
        to.address()
    );
    let (_, balance) = get(path).await;
    assert_eq!(balance["balance"]["amount"], "5000000", "{balance}");
    let again = post("/cosmos/tx/v1beta1/txs", order).await;
    assert_ne!(again["tx_response"]["code"], 0, "{again}");
    let (_, block) = get("/cosmos/base/tendermint/v1beta1/blocks/latest".into()).await;
    assert!(
        number(&block["block"]["header"]["height"]) >= included.height,
        "{block}"
    );
    let (status, set) = get("/cosmos/base/tendermint/v1beta1/validatorsets/latest".into()).await;
    assert_eq!(
        (status, set["validators"].as_array().unwrap().len()),
        (200, 1)
    );

    drop(comet);
    relayed.stop().await;
}

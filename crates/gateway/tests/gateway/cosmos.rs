//! The chain as the Cosmos SDK shows it: clients that nobody here wrote, and the published files.

use std::path::Path;

use r3mes_gateway::cosmos::{Node as CosmosNode, grpc_router, proto, rest_router};
use r3mes_gateway::rpc::{Chain, RpcLimits, Service, TxClient};
use r3mes_http::server;
use r3mes_types::Amount;
use r3mes_types::wire::Wire;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::outside::{Runs, judged};
use super::rpc::{Node, key, ledger_genesis, send};
use super::support;

/// A node with gRPC and REST beside its RPC.
pub(super) struct Served {
    pub(super) node: Node,
    pub(super) grpc: String,
    rest: String,
    _running: DropGuard,
}

impl Served {
    pub(super) async fn start(folder: &Path) -> Self {
        let node = Node::start(folder).await;
        let service = Service {
            handle: node.handle.clone(),
            genesis: ledger_genesis().encode().into(),
            moniker: "test".into(),
            limits: RpcLimits::default(),
        };
        let shutdown = CancellationToken::new();
        let [grpc, rest] = serve(Chain::Local(service), &shutdown).await;
        node.handle.make_block().await.unwrap();
        let rest = format!("http://{rest}");
        let _running = shutdown.drop_guard();
        Self {
            node,
            grpc,
            rest,
            _running,
        }
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        let answer = support::client()
            .get(format!("{}{path}", self.rest))
            .send()
            .await
            .unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }
}

/// Serves gRPC and REST; their addresses.
pub(super) async fn serve(chain: Chain, shutdown: &CancellationToken) -> [String; 2] {
    let cosmos = CosmosNode::new(chain);
    let routers = [grpc_router(cosmos.clone()).unwrap(), rest_router(cosmos)];
    let mut addresses = [const { String::new() }; 2];
    for (router, address) in routers.into_iter().zip(&mut addresses) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        *address = listener.local_addr().unwrap().to_string();
        let limits = server::Limits::default();
        tokio::spawn(server::serve(listener, router, limits, shutdown.clone()));
    }
    addresses
}

#[tokio::test(flavor = "multi_thread")]
async fn cosmjs_reads_simulates_signs_sends_and_searches() {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start(folder.path()).await;
    cosmjs(&served.node.url).await;
}

/// Lets CosmJS read, simulate, sign, send and search over an RPC, unless it is to be left out. The chain
/// is as [`ledger_genesis`] begins it, as far as keys 28 and 29 are concerned.
pub(super) async fn cosmjs(rpc: &str) {
    judged(Runs::Node, "cosmjs_client.mjs", |command| {
        let other = key(29).address().to_string();
        command.args([rpc, &hex::encode([28; 32]), &other]);
    })
    .await;
}

/// Lets cosmpy read and send over gRPC, unless it is to be left out. The chain is as [`ledger_genesis`]
/// begins it.
pub(super) async fn cosmpy(grpc: &str) {
    judged(Runs::Python, "cosmpy_client.py", |command| {
        let other = key(3).address().to_string();
        command.args([grpc, &hex::encode([2; 32]), &other]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cosmpy_reads_and_sends_over_grpc() {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start(folder.path()).await;
    cosmpy(&served.grpc).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rest_answers_as_grpc_gateway_does() {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start(folder.path()).await;
    let me = key(2).address();
    let (status, account) = served
        .get(&format!("/cosmos/auth/v1beta1/accounts/{me}"))
        .await;
    assert_eq!(status, 200, "{account}");
    let account = &account["account"];
    assert_eq!(account["@type"], "/cosmos.auth.v1beta1.BaseAccount");
    assert_eq!(account["address"], me.to_string());
    assert_eq!(account["sequence"], "0");
    let (_, balances) = served
        .get(&format!("/cosmos/bank/v1beta1/balances/{me}"))
        .await;
    assert_eq!(balances["balances"][0]["amount"], "1000000000");
    assert_eq!(balances["pagination"]["total"], "1");
    let (_, one) = served
        .get(&format!(
            "/cosmos/bank/v1beta1/balances/{me}/by_denom?denom=uremes"
        ))
        .await;
    assert_eq!(one["balance"]["denom"], "uremes");
    let (_, block) = served
        .get("/cosmos/base/tendermint/v1beta1/blocks/latest")
        .await;
    assert_eq!(block["block"]["header"]["chain_id"], "rpc-1");
    let height: u64 = block["block"]["header"]["height"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!(height > 0);
    let (_, set) = served
        .get("/cosmos/base/tendermint/v1beta1/validatorsets/latest")
        .await;
    let validator = set["validators"][0]["address"].as_str().unwrap();
    assert!(validator.starts_with("remesvalcons1"), "{validator}");
    let (_, info) = served
        .get("/cosmos/base/tendermint/v1beta1/node_info")
        .await;
    assert_eq!(info["default_node_info"]["network"], "rpc-1");
    let (_, config) = served.get("/cosmos/base/node/v1beta1/config").await;
    assert_eq!(config["minimum_gas_price"], "0.001000uremes");
    let (_, own) = served
        .get(&format!("/r3mes/bank/v1/Balance?address={me}"))
        .await;
    assert_eq!(own["amount"], "1000000000");
    // As curl sends it, without a word on what it is.
    for body in ["{", "{\"tx_bytes\": \"!\"}"] {
        let url = format!("{}/cosmos/tx/v1beta1/txs", served.rest);
        let answer = support::client().post(url).body(body).send().await;
        let answer = answer.unwrap();
        assert_eq!(answer.status(), 400);
        let refusal: Value = answer.json().await.unwrap();
        assert_eq!(refusal["code"], 3, "{refusal}");
    }
    let stranger = key(9).address();
    for (path, expected, code) in [
        (format!("/cosmos/auth/v1beta1/accounts/{stranger}"), 404, 5),
        ("/cosmos/auth/v1beta1/accounts/nobody".into(), 400, 3),
        ("/cosmos/tx/v1beta1/txs/00".into(), 400, 3),
        (
            format!("/cosmos/tx/v1beta1/txs/{}", "00".repeat(32)),
            404,
            5,
        ),
        ("/cosmos/gov/v1/proposals".into(), 501, 12),
        ("/r3mes/bank/v1/Nothing".into(), 501, 12),
    ] {
        let (status, refusal) = served.get(&path).await;
        assert_eq!(
            (status, refusal["code"].as_i64()),
            (expected, Some(code)),
            "{path}: {refusal}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rest_finds_transactions_page_by_page() {
    const SENT: usize = 5;
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start(folder.path()).await;
    let (from, to) = (key(1), key(2));
    let sender = TxClient::new(served.node.client(), from.clone());
    for _ in 0..SENT {
        sender
            .send(send(&from, &to, Amount::remes(1)))
            .await
            .unwrap();
    }
    let me = from.address();
    let found = async |more: &str| {
        let path = format!("/cosmos/tx/v1beta1/txs?query=transfer.sender='{me}'{more}");
        let (status, found) = served.get(&path).await;
        assert_eq!(
            (status, found["total"].as_str()),
            (200, Some("5")),
            "{found}"
        );
        let responses = found["tx_responses"].as_array().unwrap();
        let hash = |response: &Value| response["txhash"].as_str().unwrap().to_owned();
        responses.iter().map(hash).collect::<Vec<String>>()
    };
    let all = found("").await;
    assert_eq!(all.len(), SENT);
    // By a page's number, or by what older clients say.
    assert_eq!(found("&limit=2&page=2").await, all[2..4]);
    let offset = "&pagination.limit=2&pagination.offset=4";
    assert_eq!(found(offset).await, all[4..]);
    assert!(
        found(&format!("&limit=1&pagination.offset={}", u64::MAX))
            .await
            .is_empty()
    );
    let mut backward = all;
    backward.reverse();
    for order in ["2", "ORDER_BY_DESC"] {
        assert_eq!(found(&format!("&order_by={order}")).await, backward);
    }
    for wrong in ["&limit=many", "&order_by=upward"] {
        let path = format!("/cosmos/tx/v1beta1/txs?query=tx.height>=1{wrong}");
        assert_eq!(served.get(&path).await.0, 400, "{wrong}");
    }
    // A text stays a text.
    let path = format!("/cosmos/bank/v1beta1/balances/{me}/by_denom?denom=true");
    let (status, none) = served.get(&path).await;
    assert_eq!(
        (status, &none["balance"]["amount"]),
        (200, &"0".into()),
        "{none}"
    );
}

#[test]
fn proto_files_are_what_is_encoded() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
    for (path, text) in proto::texts() {
        let file = folder.join(&path);
        if std::env::var_os("R3MES_WRITE_PROTO").is_some() {
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(&file, &text).unwrap();
        }
        let published = std::fs::read_to_string(&file).unwrap_or_default();
        assert_eq!(
            published, text,
            "proto/{path} is not up to date: run this test with R3MES_WRITE_PROTO=1"
        );
    }
}

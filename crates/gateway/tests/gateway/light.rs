//! The light client against nodes that lie.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use r3mes_gateway::rpc::light::{
    LightBlock, LightClient, LightError, Root, Settings, TrustOptions,
};
use r3mes_gateway::rpc::{Client, ClientError, TxClient};
use r3mes_http::server;
use r3mes_ledger::Genesis;
use r3mes_ledger::genesis::GenesisValidator;
use r3mes_types::bank::QueryBalance;
use r3mes_types::nodes::QueryNodes;
use r3mes_types::training::QueryRun;
use r3mes_types::wire::List;
use r3mes_types::{Amount, ConsensusKey};
use serde_json::{Value, json};
use tendermint::block::CommitSig;
use tendermint::vote::{self, SignedVote, Vote};
use tendermint::{PublicKey, Signature, validator};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::rpc::{Node, key, ledger_genesis, send, validator_key};
use super::support;

/// What a proxy makes of an answer to a method with its parameters.
type Lie = Box<dyn Fn(&str, &Value, &mut Value) + Send>;

/// A node's RPC with somebody in between.
struct Proxy {
    url: String,
    lie: Arc<Mutex<Lie>>,
    shutdown: CancellationToken,
}

#[derive(Clone)]
struct Between {
    upstream: String,
    lie: Arc<Mutex<Lie>>,
}

impl Proxy {
    async fn start(node: &Node) -> Self {
        let lie: Arc<Mutex<Lie>> = Arc::new(Mutex::new(Box::new(|_, _, _| ())));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let between = Between {
            upstream: node.url.clone(),
            lie: lie.clone(),
        };
        let shutdown = CancellationToken::new();
        let router = Router::new().route("/", post(pass)).with_state(between);
        let limits = server::Limits::default();
        tokio::spawn(server::serve(listener, router, limits, shutdown.clone()));
        Self { url, lie, shutdown }
    }

    fn lies(&self, lie: impl Fn(&str, &Value, &mut Value) + Send + 'static) {
        *self.lie.lock().unwrap() = Box::new(lie);
    }

    fn client(&self, genesis: Genesis, settings: Settings) -> Client {
        let light = LightClient::new(genesis, settings).unwrap();
        Client::new(&self.url).unwrap().verified_by(Arc::new(light))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

async fn pass(State(between): State<Between>, Json(request): Json<Value>) -> Json<Value> {
    let answer = support::client().post(&between.upstream).json(&request);
    let mut answer: Value = answer.send().await.unwrap().json().await.unwrap();
    let method = request["method"].as_str().unwrap();
    let lie = between.lie.lock().unwrap();
    lie(method, &request["params"], &mut answer["result"]);
    drop(lie);
    // A liar may answer what the node refuses.
    if !answer["result"].is_null() {
        answer.as_object_mut().unwrap().remove("error");
    }
    Json(answer)
}

fn from_genesis() -> Settings {
    Settings {
        root: Root::Genesis,
        options: TrustOptions {
            // The genesis of these tests is of 2023.
            period: Duration::from_secs(100 * 365 * 24 * 3600),
            ..TrustOptions::default()
        },
        max_age: None,
        first_wait: Duration::ZERO,
        patience: Settings::PATIENCE,
        file: None,
    }
}

/// A node with a few transfers, and the block that proves the state after them.
async fn node(directory: &std::path::Path) -> Node {
    let node = Node::start(directory).await;
    let sender = TxClient::new(node.client(), key(1));
    for _ in 0..4 {
        let messages = send(&key(1), &key(2), Amount::remes(1));
        sender.send(messages).await.unwrap();
    }
    node.handle.make_block().await.unwrap();
    node
}

fn of(number: u8) -> QueryBalance {
    QueryBalance {
        address: key(number).address(),
    }
}

/// What the light client found false.
fn found(error: ClientError) -> LightError {
    match error {
        ClientError::False { source, .. } => *source,
        other => panic!("not found out: {other}"),
    }
}

async fn caught(client: &Client) -> LightError {
    found(client.query(&of(2)).await.unwrap_err())
}

#[tokio::test]
async fn an_honest_node_is_believed_whatever_is_asked() {
    let directory = tempfile::tempdir().unwrap();
    let node = node(directory.path()).await;
    let proxy = Proxy::start(&node).await;
    let client = proxy.client(ledger_genesis(), from_genesis());
    let amount = client.query(&of(2)).await.unwrap().amount;
    assert_eq!(amount, node.client().query(&of(2)).await.unwrap().amount);
    assert_eq!(amount, Amount::remes(1_004));
    // An account that is not there, a list, and a refusal have proofs as well.
    let nobody = client.query(&of(9)).await.unwrap().amount;
    assert_eq!(nobody, Amount::ZERO);
    client.query(&QueryNodes::default()).await.unwrap();
    let refusal = client.query(&QueryRun { run: 7 }).await.unwrap_err();
    assert!(matches!(refusal, ClientError::Query { .. }), "{refusal}");
    // An older state, whose header comes before the newest verified one.
    let before = client.query_at(&of(2), Some(1)).await.unwrap().amount;
    assert_eq!(before, Amount::remes(1_001));
    node.stop().await;
}

#[tokio::test]
async fn one_s_own_transaction_is_in_the_next_answer() {
    let directory = tempfile::tempdir().unwrap();
    let node = node(directory.path()).await;
    let proxy = Proxy::start(&node).await;
    let client = proxy.client(ledger_genesis(), from_genesis());
    let sender = TxClient::new(client.clone(), key(1));
    let messages = send(&key(1), &key(2), Amount::remes(1));
    let sent = sender.send(messages).await.unwrap();
    let question = of(2);
    let (answer, made) = tokio::join!(client.query(&question), node.handle.make_block());
    assert_eq!(answer.unwrap().amount, Amount::remes(1_005));
    assert_eq!(made.unwrap().height, sent.height + 1);
    node.stop().await;
}

#[tokio::test]
async fn a_block_that_is_not_there_is_forgotten_again() {
    let directory = tempfile::tempdir().unwrap();
    let node = node(directory.path()).await;
    let proxy = Proxy::start(&node).await;
    let settings = Settings {
        patience: Duration::from_millis(50),
        ..from_genesis()
    };
    let client = proxy.client(ledger_genesis(), settings);
    proxy.lies(|method, _, answer| {
        if method == "wait_tx" {
            answer["tx"]["height"] = u64::MAX.to_string().into();
        }
    });
    let sender = TxClient::new(client.clone(), key(1));
    let messages = send(&key(1), &key(2), Amount::remes(1));
    assert_eq!(sender.send(messages).await.unwrap().height, u64::MAX);
    let lie = caught(&client).await;
    assert!(
        matches!(lie, LightError::NoHeader { height: u64::MAX }),
        "{lie}"
    );
    // The next question is not about that block any more.
    assert_eq!(
        client.query(&of(2)).await.unwrap().amount,
        Amount::remes(1_004)
    );
    let refused = client.app_hash_after(u64::MAX).await.unwrap_err();
    assert!(matches!(refused, ClientError::Call { .. }), "{refused}");
    let refused = client.query_at(&of(2), Some(u64::MAX)).await;
    assert!(refused.is_err());
    node.stop().await;
}

#[tokio::test]
async fn a_falsified_value_is_found_out() {
    let directory = tempfile::tempdir().unwrap();
    let node = node(directory.path()).await;
    let proxy = Proxy::start(&node).await;
    let client = proxy.client(ledger_genesis(), from_genesis());

    proxy.lies(|method, _, result| {
        if method == "abci_query" {
            result["response"]["value"] = STANDARD.encode([8, 1]).into();
        }
    });
    let error = caught(&client).await;
    assert!(matches!(error, LightError::Value { .. }), "{error}");

    proxy.lies(|method, _, result| {
        if method == "abci_query" {
            result["response"]["code"] = 5.into();
        }
    });
    let error = caught(&client).await;
    assert!(matches!(error, LightError::Value { .. }), "{error}");

    proxy.lies(|method, _, result| {
        if method == "abci_query" {
            result["response"]["proofOps"] = Value::Null;
        }
    });
    let error = caught(&client).await;
    assert!(matches!(error, LightError::Unproved { .. }), "{error}");
    assert!(error.to_string().contains("bank/"), "{error}");
    node.stop().await;
}

#[tokio::test]
async fn proofs_of_another_state_are_found_out() {
    let directory = tempfile::tempdir().unwrap();
    let node = node(directory.path()).await;
    let proxy = Proxy::start(&node).await;
    let client = proxy.client(ledger_genesis(), from_genesis());
    let question = json!({
        "path": "/r3mes.bank.v1.Query/Balance",
        "data": hex::encode(r3mes_types::wire::Wire::encode(&of(2))),
        "height": "1",
        "prove": true,
    });
    let old = node.client().raw("abci_query", question).await.unwrap();
    proxy.lies(move |method, _, result| {
        if method == "abci_query" {
            *result = old.clone();
        }
    });
    let error = caught(&client).await;
    assert!(matches!(error, LightError::Proof { .. }), "{error}");
    node.stop().await;
}

#[tokio::test]
async fn a_falsified_header_is_found_out() {
    let directory = tempfile::tempdir().unwrap();
    let node = node(directory.path()).await;
    let proxy = Proxy::start(&node).await;
    let client = proxy.client(ledger_genesis(), from_genesis());
    let fields = [
        ("app_hash", json!("AB".repeat(32))),
        ("time", json!("2024-01-01T00:00:00Z")),
        ("data_hash", json!("AB".repeat(32))),
    ];
    for (field, value) in fields {
        proxy.lies(move |method, _, result| {
            if method == "commit" {
                result["signed_header"]["header"][field] = value.clone();
            }
        });
        let error = caught(&client).await;
        assert!(matches!(error, LightError::Header { .. }), "{error}");
    }

    proxy.lies(|method, _, result| {
        if method == "commit" {
            let signature = &mut result["signed_header"]["commit"]["signatures"][0]["signature"];
            *signature = STANDARD.encode([7; 64]).into();
        }
    });
    let error = caught(&client).await;
    assert!(matches!(error, LightError::Signature { .. }), "{error}");
    node.stop().await;
}

/// Two validators, of whom the node's key has a third of the power.
fn two_validators() -> (Genesis, validator::Set) {
    let mut genesis = ledger_genesis();
    let ours = genesis.validators[0];
    let other = r3mes_consensus::key::ValidatorKey::from_seed(&[6; 32]);
    let other = GenesisValidator {
        key: other.public_key(),
        power: 2,
        ..ours
    };
    genesis.validators = List::new(vec![ours, other]).unwrap();
    let info = |key: ConsensusKey, power: u32| {
        let key = PublicKey::from_raw_ed25519(key.as_bytes()).unwrap();
        validator::Info::new(key, power.into())
    };
    let infos = vec![info(ours.key, 1), info(other.key, 2)];
    (genesis, validator::Set::without_proposer(infos))
}

/// The same block as the node's, for those validators, signed with the node's key alone.
fn forged(mut block: LightBlock, set: &validator::Set) -> LightBlock {
    block.validators = set.clone();
    block.next_validators = set.clone();
    let header = &mut block.signed.header;
    header.validators_hash = set.hash();
    header.next_validators_hash = set.hash();
    let commit = &mut block.signed.commit;
    commit.block_id.hash = header.hash();
    let vote = |signature| Vote {
        vote_type: vote::Type::Precommit,
        height: commit.height,
        round: commit.round,
        block_id: Some(commit.block_id),
        timestamp: Some(header.time),
        validator_address: header.proposer_address,
        validator_index: 0u32.try_into().unwrap(),
        signature: Some(signature),
        extension: Vec::new(),
        extension_signature: None,
    };
    let unsigned = vote(Signature::try_from([0; 64].as_slice()).unwrap());
    let unsigned = SignedVote::from_vote(unsigned, header.chain_id.clone()).unwrap();
    let key = ed25519_consensus::SigningKey::from(*validator_key().to_seed());
    let signature = key.sign(&unsigned.sign_bytes()).to_bytes();
    let ours = CommitSig::BlockIdFlagCommit {
        validator_address: header.proposer_address,
        timestamp: header.time,
        signature: Some(Signature::try_from(signature.as_slice()).unwrap()),
    };
    commit.signatures = vec![CommitSig::BlockIdFlagAbsent, ours];
    block
}

#[tokio::test]
async fn a_fork_that_too_little_power_signed_is_found_out() {
    let directory = tempfile::tempdir().unwrap();
    let node = node(directory.path()).await;
    let proxy = Proxy::start(&node).await;
    let (genesis, set) = two_validators();
    let honest = proxy.client(ledger_genesis(), from_genesis());
    let light = honest.light().unwrap();
    let mut blocks = Vec::new();
    for height in 1..=5 {
        let block = light.block(&honest, Some(height)).await.unwrap();
        blocks.push(forged(block, &set));
    }
    let signers = serde_json::to_value(set.validators()).unwrap();
    proxy.lies(move |method, params, result| match method {
        "commit" => {
            let height: usize = params["height"].as_str().unwrap().parse().unwrap();
            result["signed_header"] = serde_json::to_value(&blocks[height - 1].signed).unwrap();
        }
        "validators" => {
            result["validators"] = signers.clone();
            result["total"] = "2".into();
        }
        _ => {}
    });
    let client = proxy.client(genesis, from_genesis());
    let error = caught(&client).await;
    assert!(matches!(error, LightError::Power { .. }), "{error}");

    // With other validators than the genesis has, it is no block of this network at all.
    let client = proxy.client(ledger_genesis(), from_genesis());
    let light = client.light().unwrap();
    let error = light.block(&client, Some(1)).await.unwrap_err();
    assert!(matches!(error, LightError::Validators { .. }), "{error}");
    node.stop().await;
}

#[tokio::test]
async fn an_old_header_is_found_out() {
    let directory = tempfile::tempdir().unwrap();
    let node = node(directory.path()).await;
    let proxy = Proxy::start(&node).await;
    let client = proxy.client(ledger_genesis(), from_genesis());
    client.query(&of(2)).await.unwrap();

    // The node goes on with a state from before.
    proxy.lies(|method, _, result| {
        if method == "status" {
            result["sync_info"]["latest_block_height"] = "3".into();
        }
    });
    let error = caught(&client).await;
    assert!(
        matches!(
            error,
            LightError::Behind {
                newest: 3,
                verified: 5
            }
        ),
        "{error}"
    );

    // It gives an old header for a new one.
    let old = node.client().raw("commit", json!({"height": "2"})).await;
    let old = old.unwrap();
    proxy.lies(move |method, _, result| {
        if method == "commit" {
            *result = old.clone();
        }
    });
    let again = proxy.client(ledger_genesis(), from_genesis());
    let error = caught(&again).await;
    assert!(
        matches!(error, LightError::Height { asked: 5, got: 2 }),
        "{error}"
    );
    node.stop().await;
}

#[tokio::test]
async fn a_network_that_stands_still_and_an_expired_trust_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let node = node(directory.path()).await;
    let proxy = Proxy::start(&node).await;
    let impatient = Settings {
        max_age: Some(Duration::ZERO),
        ..from_genesis()
    };
    let error = caught(&proxy.client(ledger_genesis(), impatient)).await;
    assert!(matches!(error, LightError::Stale { .. }), "{error}");
    let strict = Settings {
        options: TrustOptions::default(),
        ..from_genesis()
    };
    let error = caught(&proxy.client(ledger_genesis(), strict)).await;
    assert!(matches!(error, LightError::Expired { .. }), "{error}");
    node.stop().await;
}

#[tokio::test]
async fn trust_begins_with_a_header_and_outlives_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let node = node(directory.path()).await;
    let proxy = Proxy::start(&node).await;
    let hash = node.client().block_hash(3).await.unwrap();
    let file = directory.path().join("light.json");
    let settings = |hash| Settings {
        root: Root::Header { height: 3, hash },
        options: TrustOptions::default(),
        max_age: None,
        first_wait: Duration::ZERO,
        patience: Settings::PATIENCE,
        file: Some(file.clone()),
    };
    let client = proxy.client(ledger_genesis(), settings([9; 32]));
    let error = caught(&client).await;
    assert!(
        matches!(error, LightError::Fork { height: 3, .. }),
        "{error}"
    );

    let client = proxy.client(ledger_genesis(), settings(hash));
    client.query(&of(2)).await.unwrap();
    // A header before the trusted one is reached by the links between blocks.
    let light = client.light().unwrap();
    let first = light.block(&client, Some(1)).await.unwrap();
    let theirs = node.client().block_hash(1).await.unwrap();
    assert_eq!(first.hash().as_bytes(), theirs);

    // What was verified is the root from now on: block 3 is not asked for again.
    proxy.lies(|method, params, result| {
        if method == "commit" && params["height"] == "3" {
            *result = Value::Null;
        }
    });
    let client = proxy.client(ledger_genesis(), settings(hash));
    client.query(&of(2)).await.unwrap();

    // What was verified from another beginning is not believed from this one.
    let client = proxy.client(ledger_genesis(), settings([9; 32]));
    assert!(client.query(&of(2)).await.is_err());
    node.stop().await;
}

#[tokio::test]
async fn a_trusted_header_is_not_talked_away_by_a_node_that_claims_to_have_no_blocks() {
    let directory = tempfile::tempdir().unwrap();
    let node = node(directory.path()).await;
    let proxy = Proxy::start(&node).await;
    proxy.lies(|method, _, result| {
        if method == "status" {
            result["sync_info"]["latest_block_height"] = "0".into();
        }
    });
    let hash = node.client().block_hash(3).await.unwrap();
    let settings = Settings {
        root: Root::Header { height: 3, hash },
        ..from_genesis()
    };
    let client = proxy.client(ledger_genesis(), settings);
    let error = caught(&client).await;
    assert!(
        matches!(
            error,
            LightError::Behind {
                newest: 0,
                verified: 3
            }
        ),
        "{error}"
    );
    let light = client.light().unwrap();
    let asked = light.ask(&client, "/r3mes.bank.v1.Query/Balance", &[], Some(0));
    let error = asked.await.unwrap_err();
    assert!(matches!(error, LightError::NoHeader { .. }), "{error}");
    node.stop().await;
}

#[tokio::test]
async fn before_the_first_block_the_genesis_answers() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path()).await;
    let proxy = Proxy::start(&node).await;
    let client = proxy.client(ledger_genesis(), from_genesis());
    let amount = client.query(&of(2)).await.unwrap().amount;
    assert_eq!(amount, Amount::remes(1_000));
    node.stop().await;
}

#[tokio::test]
async fn a_block_before_the_first_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let node = node(directory.path()).await;
    let proxy = Proxy::start(&node).await;
    let honest = proxy.client(ledger_genesis(), from_genesis());
    let block = honest.light().unwrap().block(&honest, Some(1)).await;
    let mut block = block.unwrap();
    block.signed.header.height = 0u32.into();
    block.signed.commit.height = 0u32.into();
    let (_, foreign) = two_validators();
    let block = forged(block, &foreign);
    proxy.lies(move |method, _, result| match method {
        "status" => result["sync_info"]["latest_block_height"] = "0".into(),
        "commit" => *result = json!({"signed_header": block.signed}),
        "validators" => *result = json!({"validators": foreign.validators(), "total": "2"}),
        _ => {}
    });
    let client = proxy.client(ledger_genesis(), from_genesis());
    let light = client.light().unwrap();
    // By its height, and as the newest that the node claims to have.
    for asked in [Some(0), None] {
        let error = light.block(&client, asked).await.unwrap_err();
        let is_refused = matches!(
            error,
            LightError::BeforeFirst {
                height: 0,
                first: 1
            }
        );
        assert!(is_refused, "{error}");
    }
    node.stop().await;
}

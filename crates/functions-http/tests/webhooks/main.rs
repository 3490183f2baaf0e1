#![expect(clippy::unwrap_used, reason = "a test")]
//! Callers that are told at a URL how their asynchronous calls ended.

mod receiver;

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use ed25519_consensus::SigningKey;
use hmac::{Hmac, Mac};
use r3mes_functions::{
    Failure, Reason,
    broker::{Broker, Limits},
    node::{self, Node, NodeConfig},
    registry::FunctionInfo,
    serve::Hub,
    tokens::{Secret, Tokens},
};
use r3mes_functions_http::{Functions, HttpLimits, WebhookHosts};
use reqwest::{RequestBuilder, StatusCode};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::{net::TcpListener, sync::mpsc};
use tokio_util::sync::{CancellationToken, DropGuard};

use self::receiver::Receiver;

/// Long enough for anything that should happen; only failures wait so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// A gateway, and a node that offers `long`, `raise` and `forever`.
struct Network {
    address: SocketAddr,
    http: reqwest::Client,
    alice: String,
    _stop: DropGuard,
}

impl Network {
    async fn open(webhooks: WebhookHosts) -> Self {
        let secret = Secret::new().unwrap();
        let tokens = Tokens::new([secret.kept("alice", Vec::new(), None)]);
        let broker = Broker::new(Limits::default(), tokens, BTreeMap::new(), 1);
        let hub = Arc::new(Hub::new(broker, mpsc::unbounded_channel().0));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let limits = HttpLimits {
            webhooks,
            ..HttpLimits::default()
        };
        let api = Functions::new(hub, limits, None);
        let stopping = stop.clone();
        tokio::spawn(async move { api.serve(listener, None, stopping).await });
        let network = Self {
            address,
            http: reqwest::Client::new(),
            alice: secret.expose().to_owned(),
            _stop: stop.clone().drop_guard(),
        };
        tokio::spawn(network.node().run(stop));
        let there = |nodes: &Value| nodes["nodes"][0]["functions"][2].is_string();
        network.until("/api/nodes", there).await;
        network
    }

    fn node(&self) -> Node {
        let mut node = Node::new(NodeConfig {
            broker: self.address.to_string(),
            id: "lab".into(),
            key: SigningKey::from([1; 32]),
            token: None,
            ca: None,
            capabilities: Default::default(),
            max_concurrent: 8,
            resources: BTreeMap::new(),
        });
        // A text as long as the first argument says: MessagePack of it.
        let long = |call| {
            node::answer(call, async |bytes| {
                let arguments = rmpv::decode::read_value(&mut &bytes[..]).unwrap();
                let letters = arguments[0][0].as_u64().unwrap() as usize;
                let mut text = Vec::new();
                rmp::encode::write_str(&mut text, &"x".repeat(letters)).unwrap();
                Ok(text.into())
            })
        };
        node.register(FunctionInfo::new("long"), long).unwrap();
        let raise = |_| async { Err(Failure::new(Reason::Raised, "division by zero")) };
        node.register(FunctionInfo::new("raise"), raise).unwrap();
        let forever = |call: node::Invocation| async move {
            call.output.cancelled().cancelled().await;
            Err(Failure::new(Reason::Cancelled, "told so"))
        };
        node.register(FunctionInfo::new("forever"), forever)
            .unwrap();
        node
    }

    fn post(&self, function: &str) -> RequestBuilder {
        let url = format!("http://{}/api/fn/{function}", self.address);
        self.http.post(url).json(&json!([3]))
    }

    /// Begins an asynchronous call whose end `url` is told; its path.
    async fn begin(&self, call: RequestBuilder, url: &str) -> String {
        let asked = call.header("prefer", "respond-async");
        let asked = asked.header("callback-url", url).bearer_auth(&self.alice);
        let answer = asked.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::ACCEPTED);
        answer.headers()["location"].to_str().unwrap().to_owned()
    }

    async fn get(&self, path: &str) -> Value {
        let url = format!("http://{}{path}", self.address);
        let asked = self.http.get(url).bearer_auth(&self.alice);
        asked.send().await.unwrap().json().await.unwrap()
    }

    async fn until(&self, path: &str, good: impl Fn(&Value) -> bool) -> Value {
        let asking = async {
            let mut pace = tokio::time::interval(Duration::from_millis(20));
            loop {
                pace.tick().await;
                let answer = self.get(path).await;
                if good(&answer) {
                    return answer;
                }
            }
        };
        tokio::time::timeout(PATIENCE, asking).await.unwrap()
    }
}

fn loopback() -> WebhookHosts {
    WebhookHosts::Only(vec!["127.0.0.1".into()])
}

fn delivered(call: &Value) -> bool {
    call["webhook"]["status"] == "delivered"
}

#[tokio::test]
async fn a_caller_is_told_of_the_result_in_a_message_that_it_can_check() {
    let network = Network::open(loopback()).await;
    let mut receiver = Receiver::start([]).await;
    let path = network.begin(network.post("long"), &receiver.url()).await;
    let message = receiver.next().await;
    let told = message.json();
    assert_eq!(told["type"], "call.succeeded");
    assert_eq!(told["data"]["result"], "xxx");
    assert_eq!(told["data"]["location"], path);
    assert_eq!(message.header("webhook-id"), told["data"]["id"]);

    let secret = network.get("/api/webhook-secret").await["secret"].clone();
    let secret = secret.as_str().unwrap().strip_prefix("whsec_").unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(&STANDARD.decode(secret).unwrap()).unwrap();
    let (id, at) = (
        message.header("webhook-id"),
        message.header("webhook-timestamp"),
    );
    mac.update(format!("{id}.{at}.").as_bytes());
    mac.update(&message.body);
    let signature = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
    assert_eq!(message.header("webhook-signature"), signature);

    let call = network.until(&path, delivered).await;
    assert_eq!(call["webhook"]["attempts"], 1);
    assert_eq!(call["webhook"]["url"], receiver.url());
}

#[tokio::test]
async fn a_receiver_that_fails_or_sends_elsewhere_is_told_again_and_no_other_is() {
    let network = Network::open(loopback()).await;
    let failing = Some(StatusCode::INTERNAL_SERVER_ERROR);
    let mut receiver = Receiver::start([failing]).await;
    let path = network.begin(network.post("long"), &receiver.url()).await;
    let (first, second) = (receiver.next().await, receiver.next().await);
    assert_eq!(first.header("webhook-id"), second.header("webhook-id"));
    assert_eq!(first.body, second.body);
    let call = network.until(&path, delivered).await;
    assert_eq!(call["webhook"]["attempts"], 2);

    let mut receiver = Receiver::start([Some(StatusCode::TEMPORARY_REDIRECT)]).await;
    let path = network.begin(network.post("long"), &receiver.url()).await;
    let call = network.until(&path, delivered).await;
    assert_eq!(call["webhook"]["attempts"], 2);
    assert!(receiver.came.try_recv().is_ok() && receiver.came.try_recv().is_ok());
    assert!(receiver.came.try_recv().is_err());

    let mut gone = Receiver::start([Some(StatusCode::GONE)]).await;
    let path = network.begin(network.post("long"), &gone.url()).await;
    gone.next().await;
    let abandoned = |call: &Value| call["webhook"]["status"] == "abandoned";
    let call = network.until(&path, abandoned).await;
    assert_eq!(call["webhook"]["attempts"], 1);
    assert!(call["webhook"]["error"].as_str().unwrap().contains("410"));
}

#[tokio::test]
async fn a_caller_is_told_of_failures_and_where_a_long_result_is() {
    let network = Network::open(loopback()).await;
    let mut receiver = Receiver::start([]).await;
    network.begin(network.post("raise"), &receiver.url()).await;
    let told = receiver.next().await.json();
    assert_eq!(told["type"], "call.failed");
    assert_eq!(told["data"]["error"]["detail"], "division by zero");

    let path = network
        .begin(network.post("forever"), &receiver.url())
        .await;
    let url = format!("http://{}{path}", network.address);
    let cancelled = network.http.delete(url).bearer_auth(&network.alice);
    cancelled.send().await.unwrap();
    let told = receiver.next().await.json();
    assert_eq!(told["type"], "call.cancelled");

    let long = network.post("long").json(&json!([300_000]));
    let path = network.begin(long, &receiver.url()).await;
    let told = receiver.next().await.json();
    assert_eq!(told["data"]["result"], Value::Null);
    let location = told["data"]["location"].as_str().unwrap();
    assert_eq!(location, path);
    let result = network.get(location).await["result"].clone();
    assert_eq!(result.as_str().unwrap().len(), 300_000);
}

#[tokio::test]
async fn a_receiver_that_may_not_be_told_is_refused_and_never_connected_to() {
    let network = Network::open(WebhookHosts::Public).await;
    let near = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = near.local_addr().unwrap().port();
    let refused = async |url: &str, with: &[&str]| {
        let mut asked = network.post("long").header("callback-url", url);
        if with.contains(&"prefer") {
            asked = asked.header("prefer", "respond-async");
        }
        if with.contains(&"token") {
            asked = asked.bearer_auth(&network.alice);
        }
        let answer = asked.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{url}");
        let problem: Value = answer.json().await.unwrap();
        problem["detail"].as_str().unwrap().to_owned()
    };
    let (public, all) = ("https://example.com/", &["prefer", "token"][..]);
    assert!(refused(public, &["prefer"]).await.contains("token"));
    assert!(refused(public, &["token"]).await.contains("respond-async"));
    assert!(
        refused("http://example.com/", all)
            .await
            .contains("https://")
    );
    let here = format!("https://127.0.0.1:{port}/");
    assert!(refused(&here, all).await.contains("webhook_hosts"));
    refused("nonsense", all).await;
    // These names lead here, which shows only once they are looked up.
    for host in ["localhost", "2130706433"] {
        let url = format!("https://{host}:{port}/");
        let path = network.begin(network.post("long"), &url).await;
        let abandoned = |call: &Value| call["webhook"]["status"] == "abandoned";
        let call = network.until(&path, abandoned).await;
        let error = call["webhook"]["error"].as_str().unwrap();
        assert!(error.contains("no public address"), "{error}");
    }
    let connected = tokio::select! {
        biased;
        _ = near.accept() => true,
        () = std::future::ready(()) => false,
    };
    assert!(!connected);
}

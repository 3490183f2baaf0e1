#![expect(clippy::unwrap_used, reason = "a test")]
//! Asynchronous calls that outlast gateways and servers of a real NATS cluster.

#[path = "../../functions/tests/federation/cluster.rs"]
mod cluster;
#[path = "webhooks/receiver.rs"]
mod receiver;

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use ed25519_consensus::SigningKey;
use r3mes_functions::{
    Failure, Reason,
    broker::{Broker, Limits},
    federation::{Federation, FederationConfig},
    node::{self, Invocation, Node, NodeConfig},
    registry::FunctionInfo,
    serve::Hub,
    tokens::{Secret, Tokens},
};
use r3mes_functions_http::{Functions, HttpLimits, WebhookHosts};
use reqwest::{RequestBuilder, Response, StatusCode};
use rmpv::Value as Packed;
use serde_json::{Value, json};
use tokio::{
    runtime::Runtime,
    sync::{mpsc, watch},
};
use tokio_util::sync::CancellationToken;

use self::{cluster::Cluster, receiver::Receiver};

/// Long enough for anything that should happen; only failures wait so long.
const PATIENCE: Duration = Duration::from_secs(120);

/// A gateway with a runtime of its own, so that it can be killed with all its sockets.
struct Gateway {
    address: SocketAddr,
    runtime: Option<Runtime>,
    stop: CancellationToken,
    http: reqwest::Client,
    token: String,
}

impl Gateway {
    /// One that knows `secret` as alice's and listens on `listener`.
    async fn join(cluster: &Cluster, first: usize, listener: TcpListener, secret: &Secret) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let config = FederationConfig {
            servers: cluster.urls(first),
            ca: None,
            credentials: None,
            name: first.to_string(),
            prefix: "test".into(),
            replicas: cluster.len(),
        };
        let address = listener.local_addr().unwrap();
        let tokens = Tokens::new([secret.kept("alice", Vec::new(), None)]);
        let stop = CancellationToken::new();
        let stopping = stop.clone();
        let started = runtime.spawn(async move {
            let mut pace = tokio::time::interval(Duration::from_millis(20));
            let joining = async {
                loop {
                    pace.tick().await;
                    if let Ok(federation) = Federation::connect(config.clone()).await {
                        return federation;
                    }
                }
            };
            let federation = tokio::time::timeout(PATIENCE, joining).await.unwrap();
            let broker = Broker::new(Limits::default(), tokens, BTreeMap::new(), 1);
            let hub = Arc::new(Hub::new(broker, mpsc::unbounded_channel().0));
            let calls = Some(Arc::clone(federation.calls()));
            let limits = HttpLimits {
                webhooks: WebhookHosts::Only(vec!["127.0.0.1".into()]),
                ..HttpLimits::default()
            };
            let api = Functions::new(Arc::clone(&hub), limits, calls);
            let meet_stop = stopping.clone();
            tokio::spawn(async move { federation.run(hub, meet_stop).await.unwrap() });
            listener.set_nonblocking(true).unwrap();
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            tokio::spawn(async move { api.serve(listener, None, stopping).await });
        });
        started.await.unwrap();
        Self {
            address,
            runtime: Some(runtime),
            stop,
            http: reqwest::Client::new(),
            token: secret.expose().to_owned(),
        }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn post(&self, path: &str) -> RequestBuilder {
        self.http.post(self.url(path)).bearer_auth(&self.token)
    }

    /// Begins an asynchronous call; its path.
    async fn begin(&self, function: &str, arguments: &Value) -> String {
        let asked = self.post(&format!("/api/fn/{function}")).json(arguments);
        self.ask(asked).await
    }

    async fn ask(&self, asked: RequestBuilder) -> String {
        let asked = asked.header("prefer", "respond-async");
        let answer = asked.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::ACCEPTED);
        answer.headers()["location"].to_str().unwrap().to_owned()
    }

    async fn get(&self, path: &str) -> Option<Value> {
        let asked = self.http.get(self.url(path)).bearer_auth(&self.token);
        asked.send().await.ok()?.json().await.ok()
    }

    /// Asks until the answer is as it should be.
    async fn until(&self, path: &str, good: impl Fn(&Value) -> bool) -> Value {
        let asking = async {
            let mut pace = tokio::time::interval(Duration::from_millis(20));
            loop {
                pace.tick().await;
                if let Some(answer) = self.get(path).await.filter(&good) {
                    return answer;
                }
            }
        };
        let asked = tokio::time::timeout(PATIENCE, asking).await;
        asked.unwrap_or_else(|_| panic!("{path} never came to be as it should"))
    }

    async fn sees_functions(&self) {
        let many = |nodes: &Value| nodes["nodes"][0]["functions"][2].is_string();
        self.until("/api/nodes", many).await;
    }

    /// Ends it as a killed process ends: everything at once.
    fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.stop.cancel();
        self.kill();
    }
}

/// A node whose functions wait for a gate.
struct Gated {
    gate: watch::Sender<bool>,
    begun: Arc<AtomicU32>,
}

impl Gated {
    fn start(gateways: &[SocketAddr]) -> Self {
        let gateways: Vec<_> = gateways.iter().map(ToString::to_string).collect();
        let mut node = Node::new(NodeConfig {
            broker: gateways.join(","),
            id: "far".into(),
            key: SigningKey::from([1; 32]),
            token: None,
            ca: None,
            capabilities: Default::default(),
            max_concurrent: 64,
            resources: BTreeMap::new(),
        });
        let gated = Self {
            gate: watch::Sender::new(false),
            begun: Arc::default(),
        };
        for (name, idempotent) in [("once", false), ("again", true)] {
            let info = FunctionInfo {
                max_concurrent: 64,
                idempotent,
                ..FunctionInfo::new(name)
            };
            let (gate, begun) = (gated.gate.subscribe(), Arc::clone(&gated.begun));
            let wait = move |mut call: Invocation| {
                let (mut gate, begun) = (gate.clone(), Arc::clone(&begun));
                async move {
                    let arguments = call.input.item().await.unwrap_or_default();
                    begun.fetch_add(1, Ordering::Relaxed);
                    let told = call.output.cancelled();
                    tokio::select! {
                        _ = gate.wait_for(|open| *open) => {}
                        () = told.cancelled() => {
                            return Err(Failure::new(Reason::Cancelled, "told so"));
                        }
                    }
                    let _ = call.output.last(first_argument(&arguments)).await;
                    Ok(())
                }
            };
            node.register(info, wait).unwrap();
        }
        let echo = |call| {
            node::answer(call, async |bytes: bytes::Bytes| {
                Ok(first_argument(&bytes).into())
            })
        };
        node.register(FunctionInfo::new("echo"), echo).unwrap();
        tokio::spawn(node.run(CancellationToken::new()));
        gated
    }

    async fn has_begun(&self, calls: u32) {
        let looking = async {
            let mut pace = tokio::time::interval(Duration::from_millis(20));
            while self.begun.load(Ordering::Relaxed) < calls {
                pace.tick().await;
            }
        };
        tokio::time::timeout(PATIENCE, looking).await.unwrap();
    }
}

fn first_argument(item: &[u8]) -> Vec<u8> {
    let whole = rmpv::decode::read_value(&mut &item[..]).unwrap();
    let first = whole[0].as_array().and_then(|args| args.first());
    let mut bytes = Vec::new();
    rmpv::encode::write_value(&mut bytes, first.unwrap_or(&Packed::Nil)).unwrap();
    bytes
}

fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_known_at_every_gateway_and_its_key_makes_it_happen_once() {
    let Some(cluster) = Cluster::start(1) else {
        return;
    };
    let secret = Secret::new().unwrap();
    let one = Gateway::join(&cluster, 0, listener(), &secret).await;
    let other = Gateway::join(&cluster, 0, listener(), &secret).await;
    let node = Gated::start(&[other.address]);
    one.sees_functions().await;
    let long = json!(["x".repeat(600_000)]);
    let path = one.begin("echo", &long).await;
    let over = |view: &Value| view["status"] == "succeeded";
    assert_eq!(other.until(&path, over).await["result"], long[0]);
    let listed = other.get("/api/calls").await.unwrap();
    assert_eq!(listed["calls"][0]["status"], "succeeded");
    assert!(listed["calls"][0]["result"].is_null());

    node.gate.send_replace(true);
    let call = async |gateway: &Gateway, number: u32| {
        let asked = gateway.post("/api/fn/once").header("idempotency-key", "k");
        asked.json(&json!([number])).send().await.unwrap()
    };
    // At the same time at both: one of them is the first.
    let both = tokio::join!(call(&one, 7), call(&other, 7));
    let replayed = |answer: &Response| answer.headers().contains_key("idempotency-replayed");
    assert!(replayed(&both.0) != replayed(&both.1));
    assert_eq!(both.0.json::<Value>().await.unwrap(), 7);
    assert_eq!(both.1.json::<Value>().await.unwrap(), 7);
    let again = call(&other, 7).await;
    assert_eq!(again.headers()["idempotency-replayed"], "true");
    assert_eq!(again.json::<Value>().await.unwrap(), 7);
    let different = call(&other, 8).await;
    assert_eq!(different.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(node.begun.load(Ordering::Relaxed), 1);

    let unknown = one
        .post("/api/fn/nothing")
        .header("prefer", "respond-async");
    let unknown = unknown.send().await.unwrap();
    assert_eq!(unknown.status(), StatusCode::NOT_FOUND);
    let odd = other.http.delete(other.url("/api/calls/a%20b"));
    let odd = odd.bearer_auth(&other.token).send().await.unwrap();
    assert_eq!(odd.status(), StatusCode::NOT_FOUND);
    let stranger = one.http.get(one.url(&path)).send().await.unwrap();
    assert_eq!(stranger.status(), StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_waits_for_the_node_that_offers_its_function() {
    let Some(cluster) = Cluster::start(1) else {
        return;
    };
    let secret = Secret::new().unwrap();
    let one = Gateway::join(&cluster, 0, listener(), &secret).await;
    let asked = one.post("/api/fn/once").header("idempotency-key", "k");
    let asked = asked
        .header("prefer", "respond-async")
        .json(&json!(["come"]));
    let answer = asked.send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
    let path = answer.headers()["location"].to_str().unwrap().to_owned();
    let node = Gated::start(&[one.address]);
    node.has_begun(1).await;
    node.gate.send_replace(true);
    let over = |view: &Value| view["status"] == "succeeded" || view["status"] == "failed";
    assert_eq!(one.until(&path, over).await["result"], "come");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_cancelled_at_another_gateway() {
    let Some(cluster) = Cluster::start(1) else {
        return;
    };
    let secret = Secret::new().unwrap();
    let one = Gateway::join(&cluster, 0, listener(), &secret).await;
    let node = Gated::start(&[one.address]);
    one.sees_functions().await;
    let path = one.begin("once", &json!([])).await;
    node.has_begun(1).await;
    let other = Gateway::join(&cluster, 0, listener(), &secret).await;
    let asked = other.http.delete(other.url(&path));
    let answer = asked.bearer_auth(&other.token).send().await.unwrap();
    assert_eq!(answer.json::<Value>().await.unwrap()["status"], "cancelled");
    let idle = |nodes: &Value| nodes["nodes"][0]["running"] == 0;
    one.until("/api/nodes", idle).await;
    assert_eq!(one.get(&path).await.unwrap()["status"], "cancelled");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_that_was_taken_is_lost_with_a_server() {
    let Some(mut cluster) = Cluster::start(3) else {
        return;
    };
    let secret = Secret::new().unwrap();
    let one = Gateway::join(&cluster, 0, listener(), &secret).await;
    let other = Gateway::join(&cluster, 1, listener(), &secret).await;
    let node = Gated::start(&[one.address, other.address]);
    one.sees_functions().await;
    other.sees_functions().await;
    let mut paths = Vec::new();
    for number in 0..8 {
        let gateway = if number % 2 == 0 { &one } else { &other };
        paths.push(gateway.begin("again", &json!([number])).await);
    }
    cluster.kill(0);
    node.gate.send_replace(true);
    for (number, path) in paths.iter().enumerate() {
        let over = |view: &Value| view["status"] == "succeeded" || view["status"] == "failed";
        let view = other.until(path, over).await;
        assert_eq!(view["result"], number, "{view}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_a_killed_gateway_run_again_where_they_may_and_fail_where_not() {
    let Some(cluster) = Cluster::start(1) else {
        return;
    };
    let secret = Secret::new().unwrap();
    let (here, there) = (listener(), listener());
    let addresses = [here.local_addr().unwrap(), there.local_addr().unwrap()];
    let mut one = Gateway::join(&cluster, 0, here, &secret).await;
    let node = Gated::start(&addresses);
    one.sees_functions().await;
    let again = one.begin("again", &json!([1])).await;
    let once = one.begin("once", &json!([2])).await;
    node.has_begun(2).await;
    let other = Gateway::join(&cluster, 0, there, &secret).await;
    one.kill();
    node.gate.send_replace(true);
    let over = |view: &Value| view["status"] == "succeeded" || view["status"] == "failed";
    let failed = other.until(&once, over).await;
    assert_eq!(failed["error"]["reason"], "node_lost", "{failed}");
    let succeeded = other.until(&again, over).await;
    assert_eq!(succeeded["result"], 1, "{succeeded}");
    assert_eq!(node.begun.load(Ordering::Relaxed), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_is_told_by_another_gateway_when_one_dies_before_it_has_told() {
    let Some(cluster) = Cluster::start(1) else {
        return;
    };
    let secret = Secret::new().unwrap();
    let mut one = Gateway::join(&cluster, 0, listener(), &secret).await;
    let _node = Gated::start(&[one.address]);
    one.sees_functions().await;
    let mut receiver = Receiver::start([None]).await;
    let asked = one.post("/api/fn/echo").json(&json!(["done"]));
    let asked = asked.header("callback-url", receiver.url());
    let path = one.ask(asked).await;
    let first = receiver.next().await;
    let other = Gateway::join(&cluster, 0, listener(), &secret).await;
    one.kill();
    let second = receiver.next().await;
    assert_eq!(second.json()["data"]["result"], "done");
    assert_eq!(first.header("webhook-id"), second.header("webhook-id"));
    let delivered = |call: &Value| call["webhook"]["status"] == "delivered";
    let call = other.until(&path, delivered).await;
    assert_eq!(call["result"], "done");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_is_told_again_and_of_a_call_that_was_cancelled() {
    let Some(cluster) = Cluster::start(1) else {
        return;
    };
    let secret = Secret::new().unwrap();
    let one = Gateway::join(&cluster, 0, listener(), &secret).await;
    let node = Gated::start(&[one.address]);
    one.sees_functions().await;
    let failing = Some(StatusCode::SERVICE_UNAVAILABLE);
    let mut receiver = Receiver::start([failing]).await;
    let long = json!(["x".repeat(300_000)]);
    let asked = one.post("/api/fn/echo").json(&long);
    let path = one.ask(asked.header("callback-url", receiver.url())).await;
    let (first, second) = (receiver.next().await, receiver.next().await);
    assert_eq!(first.body, second.body);
    assert_eq!(first.json()["type"], "call.succeeded");
    assert_eq!(first.json()["data"]["result"], Value::Null);
    let delivered = |call: &Value| call["webhook"]["status"] == "delivered";
    let call = one.until(&path, delivered).await;
    assert_eq!(call["webhook"]["attempts"], 2);

    let asked = one.post("/api/fn/once").json(&json!([1]));
    let path = one.ask(asked.header("callback-url", receiver.url())).await;
    node.has_begun(1).await;
    let cancelled = one.http.delete(one.url(&path)).bearer_auth(&one.token);
    cancelled.send().await.unwrap();
    assert_eq!(receiver.next().await.json()["type"], "call.cancelled");
}

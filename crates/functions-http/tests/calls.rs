#![expect(clippy::unwrap_used, reason = "a test")]
//! Remote functions over HTTP: a gateway, a node and callers over real sockets.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    num::NonZeroU32,
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
    client::{Client, ClientConfig},
    node::{Invocation, Node, NodeConfig},
    registry::FunctionInfo,
    serve::Hub,
    tokens::{Secret, Tokens},
    wire::messages::CallHead,
};
use r3mes_functions_http::{Functions, HttpLimits};
use reqwest::{Response, StatusCode, header};
use rmpv::Value as Packed;
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::{Notify, mpsc},
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Long enough for anything that should happen; only failures wait so long.
const PATIENCE: Duration = Duration::from_secs(60);

struct Network {
    address: SocketAddr,
    http: reqwest::Client,
    alice: String,
    /// How often `add` ran.
    added: Arc<AtomicU32>,
    /// Told when `forever` learns that nobody waits.
    cancelled: Arc<Notify>,
    _stop: DropGuard,
}

impl Network {
    async fn open() -> Self {
        Self::with(HttpLimits::default()).await
    }

    async fn with(limits: HttpLimits) -> Self {
        let secret = Secret::new().unwrap();
        let tokens = Tokens::new([secret.kept("alice", vec!["academic".into()], None)]);
        let broker = Broker::new(Limits::default(), tokens, BTreeMap::new(), 1);
        let hub = Arc::new(Hub::new(broker, mpsc::unbounded_channel().0));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let api = Functions::new(hub, limits, None);
        let stopping = stop.clone();
        tokio::spawn(async move { api.serve(listener, None, stopping).await });
        let network = Self {
            address,
            http: reqwest::Client::new(),
            alice: secret.expose().to_owned(),
            added: Arc::default(),
            cancelled: Arc::default(),
            _stop: stop.clone().drop_guard(),
        };
        tokio::spawn(network.node().run(stop));
        network
            .until("/api/nodes", |nodes| {
                nodes["nodes"][0]["functions"][0].is_string()
            })
            .await;
        network
    }

    fn node(&self) -> Node {
        let mut node = Node::new(NodeConfig {
            broker: self.address.to_string(),
            id: "lab.gpu".into(),
            key: SigningKey::from([1; 32]),
            token: None,
            ca: None,
            capabilities: Default::default(),
            max_concurrent: 8,
            resources: BTreeMap::new(),
        });
        let info = |name: &str| FunctionInfo {
            max_concurrent: 8,
            ..FunctionInfo::new(name)
        };
        let added = Arc::clone(&self.added);
        let add = move |call| {
            added.fetch_add(1, Ordering::Relaxed);
            add(call)
        };
        let cacheable = FunctionInfo {
            cacheable: true,
            ..info("sum")
        };
        node.register(cacheable, add.clone()).unwrap();
        node.register(info("add"), add).unwrap();
        let streams = FunctionInfo {
            streams: true,
            ..info("count")
        };
        node.register(streams, count).unwrap();
        let guarded = FunctionInfo {
            access: "academic".parse().unwrap(),
            quota: Some("4_calls_daily".parse().unwrap()),
            ..info("simulate")
        };
        node.register(guarded, add_nothing).unwrap();
        node.register(info("size"), size).unwrap();
        node.register(info("raise"), |_| async {
            let mut failure = Failure::new(Reason::Raised, "division by zero");
            failure.exception = Some("ZeroDivisionError".into());
            Err(failure)
        })
        .unwrap();
        let cancelled = Arc::clone(&self.cancelled);
        node.register(info("forever"), move |call: Invocation| {
            let cancelled = Arc::clone(&cancelled);
            async move {
                call.output.cancelled().cancelled().await;
                cancelled.notify_one();
                Ok(())
            }
        })
        .unwrap();
        node
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn post(&self, path: &str) -> reqwest::RequestBuilder {
        self.http.post(self.url(path))
    }

    async fn get(&self, path: &str) -> Value {
        let answer = self.http.get(self.url(path)).send().await.unwrap();
        answer.json().await.unwrap()
    }

    /// Asks until the answer is as it should be.
    async fn until(&self, path: &str, good: impl Fn(&Value) -> bool) -> Value {
        let asking = async {
            let mut pace = tokio::time::interval(Duration::from_millis(10));
            loop {
                pace.tick().await;
                let answer = self.get(path).await;
                if good(&answer) {
                    return answer;
                }
            }
        };
        let asked = tokio::time::timeout(PATIENCE, asking).await;
        asked.unwrap_or_else(|_| panic!("{path} never came to be as it should"))
    }
}

/// Positional and named arguments.
async fn arguments(call: &mut Invocation) -> (Vec<Packed>, BTreeMap<String, Packed>) {
    let item = call.input.item().await.unwrap();
    let whole = rmpv::decode::read_value(&mut &item[..]).unwrap();
    let pair = whole.as_array().unwrap();
    let named = pair[1].as_map().unwrap().iter();
    let named = named.map(|(key, value)| (key.as_str().unwrap().to_owned(), value.clone()));
    (pair[0].as_array().unwrap().clone(), named.collect())
}

fn packed(value: impl Into<Packed>) -> Vec<u8> {
    let mut bytes = Vec::new();
    rmpv::encode::write_value(&mut bytes, &value.into()).unwrap();
    bytes
}

async fn add(mut call: Invocation) -> Result<(), Failure> {
    let (args, kwargs) = arguments(&mut call).await;
    let numbers = args.iter().chain(kwargs.values());
    let sum: i64 = numbers
        .map(|number| number.as_i64().unwrap_or_default())
        .sum();
    let _ = call.output.last(packed(sum)).await;
    Ok(())
}

async fn add_nothing(call: Invocation) -> Result<(), Failure> {
    let _ = call.output.last(packed(call.caller.user.clone())).await;
    Ok(())
}

async fn count(mut call: Invocation) -> Result<(), Failure> {
    let (args, _) = arguments(&mut call).await;
    for item in 0..args[0].as_u64().unwrap() {
        call.output.progress(None, format!("item {item}"));
        if call.output.item(packed(item)).await.is_err() {
            return Err(Failure::new(Reason::Cancelled, "nobody reads"));
        }
    }
    if args.len() > 1 {
        return Err(Failure::new(Reason::Raised, "broken off"));
    }
    Ok(())
}

async fn size(mut call: Invocation) -> Result<(), Failure> {
    let (_, kwargs) = arguments(&mut call).await;
    let bytes = kwargs["file"].as_slice().unwrap().len() as u64;
    let name = kwargs["name"].as_str().unwrap().to_owned();
    let answer = Packed::Array(vec![name.into(), bytes.into(), kwargs["times"].clone()]);
    let _ = call.output.last(packed(answer)).await;
    Ok(())
}

async fn problem(answer: Response, status: StatusCode) -> Value {
    assert_eq!(answer.status(), status);
    assert_eq!(
        answer.headers()[header::CONTENT_TYPE],
        "application/problem+json"
    );
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["status"], status.as_u16());
    body
}

#[tokio::test]
async fn arguments_go_by_name_and_by_position() {
    let network = Network::open().await;
    let named = network
        .post("/api/lab.gpu.add")
        .json(&json!({"a": 2, "b": 3}));
    let answer = named.send().await.unwrap();
    assert!(answer.headers().contains_key("x-r3mes-call"));
    assert_eq!(answer.json::<Value>().await.unwrap(), 5);
    let listed = network.post("/api/fn/add").json(&json!([1, 2, 3]));
    assert_eq!(
        listed.send().await.unwrap().json::<Value>().await.unwrap(),
        6
    );
    let nothing = network.post("/api/fn/add").send().await.unwrap();
    assert_eq!(nothing.json::<Value>().await.unwrap(), 0);
}

#[tokio::test]
async fn a_form_brings_files_and_fields() {
    let network = Network::open().await;
    let boundary = "x-x";
    let body = "--x-x\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a.bin\"\r\n\r\n\
        12345\r\n--x-x\r\ncontent-disposition: form-data; name=\"name\"\r\n\r\nplain words\r\n\
        --x-x\r\ncontent-disposition: form-data; name=\"times\"\r\n\r\n7\r\n--x-x--\r\n";
    let kind = format!("multipart/form-data; boundary={boundary}");
    let asked = network
        .post("/api/fn/size")
        .header(header::CONTENT_TYPE, kind)
        .body(body);
    let answer: Value = asked.send().await.unwrap().json().await.unwrap();
    assert_eq!(answer, json!(["plain words", 5, 7]));
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_said() {
    let limits = HttpLimits {
        body_bytes: 1000,
        ..HttpLimits::default()
    };
    let network = Network::with(limits).await;
    let send = async |request: reqwest::RequestBuilder| request.send().await.unwrap();
    let no_function = send(network.post("/api/lab.gpu.sub").json(&json!({}))).await;
    let said = problem(no_function, StatusCode::NOT_FOUND).await;
    assert_eq!(said["type"], "urn:r3mes:functions:not_found");
    assert!(said["detail"].to_string().contains("sub"));
    let no_node = send(network.post("/api/add")).await;
    problem(no_node, StatusCode::NOT_FOUND).await;
    let no_path = send(network.http.get(network.url("/nowhere"))).await;
    problem(no_path, StatusCode::NOT_FOUND).await;
    let no_json = network.post("/api/fn/add").body("{");
    problem(send(no_json).await, StatusCode::BAD_REQUEST).await;
    let scalar = network.post("/api/fn/add").json(&json!(5));
    problem(send(scalar).await, StatusCode::BAD_REQUEST).await;
    let image = network
        .post("/api/fn/add")
        .header(header::CONTENT_TYPE, "image/png")
        .body("x");
    problem(send(image).await, StatusCode::UNSUPPORTED_MEDIA_TYPE).await;
    let wants_image = network
        .post("/api/fn/add")
        .header(header::ACCEPT, "image/png");
    problem(send(wants_image).await, StatusCode::NOT_ACCEPTABLE).await;
    let long = network
        .post("/api/fn/add")
        .json(&json!({ "a": "x".repeat(2000) }));
    problem(send(long).await, StatusCode::PAYLOAD_TOO_LARGE).await;
    let requirements = network.post("/api/fn/add?requirements=5").json(&json!([]));
    problem(send(requirements).await, StatusCode::BAD_REQUEST).await;
    let deadline = network.post("/api/fn/add?deadline_ms=soon");
    let said = problem(send(deadline).await, StatusCode::BAD_REQUEST).await;
    assert!(said["detail"].to_string().contains("deadline_ms"), "{said}");
    let method = send(network.http.get(network.url("/api/fn/add"))).await;
    problem(method, StatusCode::METHOD_NOT_ALLOWED).await;
    let none_such = network
        .post("/api/fn/add?requirements={\"gpu_memory\":\"16GB\"}")
        .json(&json!([]));
    let said = problem(send(none_such).await, StatusCode::SERVICE_UNAVAILABLE).await;
    assert!(said["detail"].to_string().contains("gpu_memory"), "{said}");
}

#[tokio::test]
async fn what_a_function_raises_is_a_problem_with_its_exception() {
    let network = Network::open().await;
    let answer = network.post("/api/fn/raise").send().await.unwrap();
    let said = problem(answer, StatusCode::INTERNAL_SERVER_ERROR).await;
    assert_eq!(said["exception"], "ZeroDivisionError");
    assert_eq!(said["detail"], "division by zero");
}

#[tokio::test]
async fn a_stream_comes_as_lines_or_as_events() {
    let network = Network::open().await;
    let lines = network
        .post("/api/fn/count")
        .json(&json!([3]))
        .send()
        .await
        .unwrap();
    assert_eq!(lines.headers()[header::CONTENT_TYPE], "application/jsonl");
    let lines = lines.text().await.unwrap();
    assert_eq!(lines, "{\"item\":0}\n{\"item\":1}\n{\"item\":2}\n");
    let broken = network
        .post("/api/fn/count")
        .json(&json!([1, "then break"]));
    let broken = broken.send().await.unwrap().text().await.unwrap();
    let last: Value = serde_json::from_str(broken.lines().last().unwrap()).unwrap();
    assert_eq!(last["error"]["detail"], "broken off");
    let events = network
        .post("/api/fn/count")
        .header(header::ACCEPT, "text/event-stream")
        .json(&json!([2]));
    let events = events.send().await.unwrap().text().await.unwrap();
    let names: Vec<&str> = events
        .lines()
        .filter_map(|line| line.strip_prefix("event: "))
        .collect();
    let without_progress: Vec<_> = names.iter().filter(|name| **name != "progress").collect();
    assert_eq!(without_progress, [&"item", &"item", &"end"]);
    assert!(names.contains(&"progress"), "{events}");
}

#[tokio::test]
async fn messagepack_passes_as_it_is() {
    let network = Network::open().await;
    let item = packed(Packed::Array(vec![
        Packed::Array(vec![4.into(), 5.into()]),
        Packed::Map(Vec::new()),
    ]));
    let asked = network
        .post("/api/fn/add")
        .header(header::CONTENT_TYPE, "application/msgpack")
        .header(header::ACCEPT, "application/msgpack");
    let answer = asked.body(item).send().await.unwrap();
    assert_eq!(answer.bytes().await.unwrap(), packed(9));
    let odd = network
        .post("/api/fn/add")
        .header(header::CONTENT_TYPE, "application/msgpack");
    problem(odd.body("x").send().await.unwrap(), StatusCode::BAD_REQUEST).await;
}

#[tokio::test]
async fn tokens_open_what_is_not_public() {
    let network = Network::open().await;
    let path = "/api/lab.gpu.simulate";
    let stranger = network.post(path).send().await.unwrap();
    problem(stranger, StatusCode::FORBIDDEN).await;
    let forged = network
        .post(path)
        .bearer_auth("r3fn_none")
        .send()
        .await
        .unwrap();
    assert_eq!(forged.headers()[header::WWW_AUTHENTICATE], "Bearer");
    problem(forged, StatusCode::UNAUTHORIZED).await;
    let basic = network
        .post(path)
        .basic_auth("alice", Some("x"))
        .send()
        .await
        .unwrap();
    problem(basic, StatusCode::UNAUTHORIZED).await;
    let alice = network
        .post(path)
        .bearer_auth(&network.alice)
        .send()
        .await
        .unwrap();
    assert_eq!(alice.json::<Value>().await.unwrap(), "alice");
    let listed = network.get("/api/functions").await;
    assert!(
        !listed.to_string().contains("simulate"),
        "not for strangers: {listed}"
    );
    let usage = network
        .http
        .get(network.url("/api/usage"))
        .bearer_auth(&network.alice);
    let usage: Value = usage.send().await.unwrap().json().await.unwrap();
    assert_eq!(usage["usage"][0]["function"], "simulate");
    assert_eq!(usage["usage"][0]["calls"], 1);
}

#[tokio::test]
async fn a_call_may_be_asked_for_and_looked_at_later() {
    let network = Network::open().await;
    let asked = network
        .post("/api/fn/add")
        .header("prefer", "respond-async")
        .json(&json!([1, 1]));
    let answer = asked.send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
    let path = answer.headers()[header::LOCATION]
        .to_str()
        .unwrap()
        .to_owned();
    let done = network
        .until(&path, |view| view["status"] == "succeeded")
        .await;
    assert_eq!(done["result"], 2);
    let other = network
        .http
        .get(network.url(&path))
        .bearer_auth(&network.alice);
    problem(other.send().await.unwrap(), StatusCode::NOT_FOUND).await;
    let asked = network
        .post("/api/fn/count")
        .header("prefer", "respond-async")
        .json(&json!([2]));
    let answer: Value = asked.send().await.unwrap().json().await.unwrap();
    let path = format!("/api/calls/{}", answer["id"].as_str().unwrap());
    let done = network
        .until(&path, |view| view["status"] == "succeeded")
        .await;
    assert_eq!(done["items"], json!([0, 1]));
}

#[tokio::test]
async fn an_asynchronous_call_is_cancelled() {
    let network = Network::open().await;
    let asked = network
        .post("/api/fn/forever")
        .header("prefer", "respond-async");
    let answer = asked.send().await.unwrap();
    let path = answer.headers()[header::LOCATION]
        .to_str()
        .unwrap()
        .to_owned();
    network
        .until("/api/nodes", |nodes| nodes["nodes"][0]["running"] == 1)
        .await;
    let cancelled = network
        .http
        .delete(network.url(&path))
        .send()
        .await
        .unwrap();
    assert_eq!(
        cancelled.json::<Value>().await.unwrap()["status"],
        "cancelled"
    );
    let told = network.cancelled.notified();
    tokio::time::timeout(PATIENCE, told).await.unwrap();
    assert_eq!(network.get(&path).await["error"]["reason"], "cancelled");
}

#[tokio::test]
async fn a_caller_that_goes_away_cancels_its_call() {
    let network = Network::open().await;
    let waiting = tokio::spawn(network.post("/api/fn/forever").send());
    network
        .until("/api/nodes", |nodes| nodes["nodes"][0]["running"] == 1)
        .await;
    waiting.abort();
    let told = network.cancelled.notified();
    tokio::time::timeout(PATIENCE, told).await.unwrap();
}

#[tokio::test]
async fn a_key_makes_a_call_happen_once() {
    let network = Network::open().await;
    let call = async |key: &str, number: u32| {
        let asked = network.post("/api/fn/add").header("idempotency-key", key);
        asked.json(&json!([number])).send().await.unwrap()
    };
    let first = call("a", 1).await;
    assert!(!first.headers().contains_key("idempotency-replayed"));
    assert_eq!(first.json::<Value>().await.unwrap(), 1);
    let again = call("a", 1).await;
    assert_eq!(again.headers()["idempotency-replayed"], "true");
    assert_eq!(again.json::<Value>().await.unwrap(), 1);
    assert_eq!(network.added.load(Ordering::Relaxed), 1);
    problem(call("a", 2).await, StatusCode::UNPROCESSABLE_ENTITY).await;
    assert_eq!(call("b", 2).await.json::<Value>().await.unwrap(), 2);
    problem(call("", 2).await, StatusCode::BAD_REQUEST).await;
}

#[tokio::test]
async fn many_short_items_count_for_the_memory_that_they_take() {
    let limits = HttpLimits {
        job_bytes: 2000,
        ..HttpLimits::default()
    };
    let network = Network::with(limits).await;
    let count = async |to: u32| {
        let asked = network.post("/api/fn/count").json(&json!([to]));
        let asked = asked.header("prefer", "respond-async");
        let answer = asked.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::ACCEPTED);
        let path = answer.headers()["location"].to_str().unwrap().to_owned();
        let over = |call: &Value| {
            !["waiting", "running"]
                .map(Value::from)
                .contains(&call["status"])
        };
        network.until(&path, over).await
    };
    let kept = count(10).await;
    assert_eq!(kept["items"].as_array().unwrap().len(), 10, "{kept}");
    // 100 bytes, but 100 items.
    let refused = count(100).await;
    let detail = refused["error"]["detail"].as_str().unwrap();
    assert!(detail.contains("128 of them for each item"), "{detail}");
}

#[tokio::test]
async fn a_result_that_was_kept_tells_its_age() {
    let network = Network::open().await;
    let sum = async |path: &str| {
        let asked = network.post(path).json(&json!([20, 22]));
        let answer = asked.send().await.unwrap();
        let age = answer.headers().get(header::AGE).cloned();
        assert_eq!(answer.json::<Value>().await.unwrap(), 42);
        age.map(|age| age.to_str().unwrap().parse::<u64>().unwrap())
    };
    let runs = || network.added.load(Ordering::Relaxed);
    assert_eq!(sum("/api/fn/sum?max_age_ms=3600000").await, None);
    assert!(sum("/api/fn/sum?max_age_ms=3600000").await.is_some());
    assert_eq!(runs(), 1);
    assert_eq!(sum("/api/fn/sum").await, None);
    assert_eq!(sum("/api/fn/add?max_age_ms=3600000").await, None);
    assert_eq!(sum("/api/fn/add?max_age_ms=3600000").await, None);
    assert_eq!(runs(), 4);
    let functions = network.get("/api/functions").await;
    let listed = functions["functions"].as_array().unwrap().iter();
    let sum = listed
        .into_iter()
        .find(|f| f["function_name"] == "sum")
        .unwrap();
    assert_eq!(
        (&sum["cacheable"], &sum["expected_wait_s"]),
        (&json!(true), &json!(0.0))
    );
    let metrics = network
        .http
        .get(network.url("/metrics"))
        .send()
        .await
        .unwrap();
    let metrics = metrics.text().await.unwrap();
    assert!(
        metrics.contains("r3mes_functions_cache_hits 1"),
        "{metrics}"
    );
}

#[tokio::test]
async fn too_many_calls_are_told_when_to_come_back() {
    let limits = HttpLimits {
        calls_per_minute: NonZeroU32::new(2).unwrap(),
        ..HttpLimits::default()
    };
    let network = Network::with(limits).await;
    for _ in 0..2 {
        assert!(
            network
                .post("/api/fn/add")
                .send()
                .await
                .unwrap()
                .status()
                .is_success()
        );
    }
    let refused = network.post("/api/fn/add").send().await.unwrap();
    assert!(refused.headers().contains_key(header::RETRY_AFTER));
    problem(refused, StatusCode::TOO_MANY_REQUESTS).await;
}

#[tokio::test]
async fn what_there_is_can_be_read() {
    let network = Network::open().await;
    network.post("/api/fn/add").send().await.unwrap();
    let openapi = network.get("/openapi.json").await;
    assert_eq!(
        openapi["paths"]["/api/lab.gpu.add"]["post"]["tags"][0],
        "lab.gpu"
    );
    let docs = network
        .http
        .get(network.url("/docs/"))
        .send()
        .await
        .unwrap();
    let docs = docs.text().await.unwrap();
    let loaded = docs
        .split(['"', '\''])
        .filter_map(|part| part.strip_prefix("./"));
    let loaded: Vec<&str> = loaded.collect();
    assert!(loaded.contains(&"swagger-ui-bundle.js"), "{docs}");
    let size = async |file: &str| {
        let sent = network.http.get(network.url(&format!("/docs/{file}")));
        let answer = sent.send().await.unwrap().error_for_status().unwrap();
        answer.bytes().await.unwrap().len()
    };
    for file in loaded {
        assert_ne!(size(file).await, 0, "{file}");
    }
    // What no page loads is left out: .cargo/config.toml, which cargo does not track.
    let built_before = "built before that was set: run `cargo clean -p utoipa-swagger-ui`";
    assert_eq!(size("swagger-ui-bundle.js.map").await, 0, "{built_before}");
    assert_eq!(network.get("/health").await["broker"]["nodes"], 1);
    let metrics = network.get("/api/metrics").await;
    assert_eq!(metrics["gateway"]["connected_nodes"], 1);
    assert_eq!(metrics["gateway"]["error_rate"], 0.0);
    assert_eq!(metrics["nodes"][0]["functions_executed"], 1);
    assert_eq!(metrics["nodes"][0]["gpu_usage"], Value::Null);
    assert!(metrics["nodes"][0]["data_transfer_rate"].as_f64().unwrap() > 0.0);
    assert_eq!(metrics["nodes"][0]["revenue_generated"], Value::Null);
    assert_eq!(metrics["billing"], Value::Null);
    let text = network
        .http
        .get(network.url("/metrics"))
        .send()
        .await
        .unwrap();
    let text = text.text().await.unwrap();
    assert!(text.contains("r3mes_functions_calls_ended 1"), "{text}");
}

#[tokio::test]
async fn what_would_take_far_more_memory_than_it_has_bytes_is_refused() {
    let network = Network::open().await;
    let list = format!("[{}0]", "0,".repeat(1 << 20));
    let field = format!(
        "--x\r\ncontent-disposition: form-data; name=\"a\"\r\n\r\n{}\r\n--x--\r\n",
        " ".repeat((2 << 20) + 1)
    );
    for (kind, body, status, word) in [
        ("application/json", list, 400, "values"),
        ("multipart/form-data; boundary=x", field, 413, "as files"),
    ] {
        let asked = network.post("/api/fn/add").body(body);
        let asked = asked
            .header(header::CONTENT_TYPE, kind)
            .send()
            .await
            .unwrap();
        assert_eq!(asked.status().as_u16(), status);
        let problem: Value = asked.json().await.unwrap();
        assert!(
            problem["detail"].as_str().unwrap().contains(word),
            "{problem}"
        );
    }
}

#[tokio::test]
async fn what_is_used_of_a_quota_is_told() {
    let network = Network::open().await;
    let called = network.post("/api/fn/simulate").bearer_auth(&network.alice);
    assert_eq!(called.send().await.unwrap().status(), StatusCode::OK);
    let asked = network.http.get(network.url("/api/functions"));
    let listed = asked.bearer_auth(&network.alice).send().await.unwrap();
    let listed: Value = listed.json().await.unwrap();
    let used = |name: &str| {
        let functions = listed["functions"].as_array().unwrap();
        let function = functions.iter().find(|f| f["function_name"] == name);
        function.unwrap()["quota_used"].clone()
    };
    assert_eq!((used("simulate"), used("add")), (json!(0.25), Value::Null));
}

#[tokio::test]
async fn the_page_finds_all_its_parts_and_runs_nothing_else() {
    let network = Network::open().await;
    let page = network.http.get(network.url("/")).send().await.unwrap();
    let policy = page.headers()[header::CONTENT_SECURITY_POLICY].clone();
    assert!(policy.to_str().unwrap().contains("script-src 'self'"));
    let page = page.text().await.unwrap();
    for (part, kind) in [
        ("/dashboard.js", "text/javascript"),
        ("/dashboard.css", "text/css"),
    ] {
        assert!(page.contains(&format!("\"{part}\"")), "{part}");
        let found = network.http.get(network.url(part)).send().await.unwrap();
        assert_eq!(found.status(), StatusCode::OK);
        let found = found.headers()[header::CONTENT_TYPE].to_str().unwrap();
        assert!(found.starts_with(kind), "{found}");
    }
}

#[tokio::test]
async fn frames_and_http_share_the_port() {
    let network = Network::open().await;
    let config = ClientConfig {
        broker: network.address.to_string(),
        token: None,
        ca: None,
    };
    let client = Client::connect(&config).await.unwrap();
    let arguments = packed(Packed::Array(vec![
        Packed::Array(vec![20.into(), 22.into()]),
        Packed::Map(Vec::new()),
    ]));
    let reply = client.call(&CallHead::new("add"), arguments).await.unwrap();
    assert_eq!(reply.result().await.unwrap(), packed(42));
}

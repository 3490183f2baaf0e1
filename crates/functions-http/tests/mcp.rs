#![expect(clippy::unwrap_used, reason = "a test")]
//! Functions as tools, over the Model Context Protocol. Its Python client, which nobody here wrote, is
//! the judge.

#[path = "../../gateway/tests/gateway/outside.rs"]
#[expect(
    dead_code,
    reason = "the gateway's tests have judges of other kinds too"
)]
mod outside;

use std::{collections::BTreeMap, sync::Arc};

use ed25519_consensus::SigningKey;
use r3mes_functions::{
    Failure, Moment, Reason,
    billing::{Bill, Price, Purse, Unpaid},
    broker::{Broker, Limits},
    node::{Invocation, Node, NodeConfig, answer},
    registry::{Access, FunctionInfo},
    serve::Hub,
    tokens::{Secret, Tokens},
};
use r3mes_functions_http::{Functions, HttpLimits};
use rmpv::Value as Packed;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

use self::outside::{Runs, judged};

/// A client that meets the gateway directly.
fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// Pays for everybody.
#[derive(Debug)]
struct Deep;

impl Purse for Deep {
    fn check(&self, _: &Price) -> Result<(), String> {
        Ok(())
    }

    fn reserve(&mut self, _: &str, price: &Price, _: Moment) -> Result<Bill, String> {
        Ok(Bill {
            escrow: 1,
            ends_ns: u64::MAX,
            price: price.clone(),
        })
    }

    fn settle(&mut self, _: &Bill, _: bool) {}

    fn unpaid(&self) -> Unpaid {
        Unpaid::default()
    }
}

/// A gateway with two nodes, and a token of alice's, who is in the team.
struct Network {
    url: String,
    token: Secret,
    /// Told of each call of `forever` and `babble` that nobody waits for any more.
    stopped: mpsc::UnboundedReceiver<()>,
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

impl Network {
    async fn new() -> Self {
        let token = Secret::new().unwrap();
        let tokens = Tokens::new([token.kept("alice", vec!["team".into()], None)]);
        let broker =
            Broker::new(Limits::default(), tokens, BTreeMap::new(), 1).with_purse(Box::new(Deep));
        let hub = Arc::new(Hub::new(broker, mpsc::unbounded_channel().0));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        let api = Functions::new(Arc::clone(&hub), HttpLimits::default(), None);
        let stopping = stop.clone();
        tasks.spawn(async move { api.serve(listener, None, stopping).await });
        let (told, stopped) = mpsc::unbounded_channel();
        for id in ["one", "two"] {
            let node = node(id, &address.to_string(), &told);
            let stopping = stop.clone();
            tasks.spawn(async move { node.run(stopping).await.unwrap() });
        }
        while hub.with(|broker, _| broker.view().functions) < 20 {
            tokio::task::yield_now().await;
        }
        Self {
            url: format!("http://{address}"),
            token,
            stopped,
            tasks,
            stop,
        }
    }

    async fn end(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
    }

    /// Asks as a program without any library would.
    async fn ask(&self, request: Value) -> reqwest::Response {
        client()
            .post(format!("{}/mcp", self.url))
            .header("accept", "application/json, text/event-stream")
            .json(&request)
            .send()
            .await
            .unwrap()
    }
}

fn node(id: &'static str, broker: &str, told: &mpsc::UnboundedSender<()>) -> Node {
    let mut node = Node::new(NodeConfig {
        broker: broker.into(),
        id: id.into(),
        key: SigningKey::from([id.len() as u8 + id.as_bytes()[0]; 32]),
        token: None,
        ca: None,
        capabilities: Default::default(),
        max_concurrent: 16,
        resources: BTreeMap::new(),
    });
    let described = |name: &str, description: &str| FunctionInfo {
        description: description.into(),
        max_concurrent: 16,
        ..FunctionInfo::new(name)
    };
    let add = FunctionInfo {
        parameters: schema(json!({
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        })),
        ..described("add", "Adds two numbers.")
    };
    node.register(add, |call| {
        with(call, |named| {
            (named["a"].as_i64().unwrap() + named["b"].as_i64().unwrap()).into()
        })
    })
    .unwrap();
    node.register(described("echo", ""), |call| with(call, |named| named))
        .unwrap();
    node.register(described("twice", &format!("Of {id}.")), move |call| {
        with(call, move |named| {
            let text = named["text"].as_str().unwrap().repeat(2);
            format!("{id}: {text}").into()
        })
    })
    .unwrap();
    let secret = FunctionInfo {
        access: Access::Group("team".into()),
        ..described("secret", "")
    };
    node.register(secret, |call| {
        let user = call.caller.user.clone();
        with(call, move |_| format!("for {user}").into())
    })
    .unwrap();
    let count = FunctionInfo {
        streams: true,
        ..described("count", "")
    };
    node.register(count, count_up).unwrap();
    let sold = FunctionInfo {
        price: Some(Price {
            uremes: 700,
            payee: "somebody".into(),
        }),
        ..described("sold", "Dear.")
    };
    node.register(sold, |call| with(call, |_| "worth it".into()))
        .unwrap();
    node.register(described("slow", ""), |call| async move {
        call.output.progress(Some(0.5), "half");
        let _ = call.output.last(packed(&Packed::Nil)).await;
        Ok(())
    })
    .unwrap();
    node.register(described("fail", ""), |call| {
        answer(call, async |_| {
            let mut failure = Failure::new(Reason::Raised, "no such thing");
            failure.exception = Some("ValueError".into());
            Err(failure)
        })
    })
    .unwrap();
    let (told, also_told) = (told.clone(), told.clone());
    node.register(described("babble", ""), move |call| {
        babble(call, also_told.clone())
    })
    .unwrap();
    node.register(described("forever", ""), move |call| {
        let told = told.clone();
        async move {
            call.output.cancelled().cancelled().await;
            told.send(()).unwrap();
            Err(Failure::new(Reason::Cancelled, "told so"))
        }
    })
    .unwrap();
    node
}

fn schema(schema: Value) -> Packed {
    rmpv::ext::to_value(schema).unwrap()
}

fn packed(value: &Packed) -> Vec<u8> {
    let mut bytes = Vec::new();
    rmpv::encode::write_value(&mut bytes, value).unwrap();
    bytes
}

/// A call's arguments by name.
fn named(item: &[u8]) -> Packed {
    let Packed::Array(pair) = rmpv::decode::read_value(&mut &*item).unwrap() else {
        panic!("not [args, kwargs]");
    };
    let [Packed::Array(args), named] = <[Packed; 2]>::try_from(pair).unwrap() else {
        panic!("not [args, kwargs]");
    };
    assert_eq!(args, []);
    named
}

async fn with(call: Invocation, function: impl FnOnce(Packed) -> Packed) -> Result<(), Failure> {
    answer(
        call,
        async |item| Ok(packed(&function(named(&item))).into()),
    )
    .await
}

async fn count_up(mut call: Invocation) -> Result<(), Failure> {
    let to = named(&call.input.item().await.unwrap())["to"]
        .as_u64()
        .unwrap();
    for number in 0..to {
        if call.output.item(packed(&number.into())).await.is_err() {
            return Err(Failure::new(Reason::Cancelled, "nobody reads"));
        }
    }
    Ok(())
}

/// Yields long texts until nobody reads any more, and tells of that.
async fn babble(call: Invocation, told: mpsc::UnboundedSender<()>) -> Result<(), Failure> {
    let text = packed(&"la".repeat(5000).into());
    while call.output.item(text.clone()).await.is_ok() {}
    told.send(()).unwrap();
    Err(Failure::new(Reason::Cancelled, "nobody reads"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_client_of_the_protocol_finds_nothing_amiss() {
    let mut network = Network::new().await;
    for mode in ["auto", "legacy"] {
        let ran = judged(Runs::Python, "mcp_client.py", |command| {
            command.args([
                &format!("{}/mcp", network.url),
                network.token.expose(),
                mode,
            ]);
        })
        .await;
        if ran.is_some() {
            network.stopped.recv().await.unwrap();
        }
    }
    network.end().await;
}

#[tokio::test]
async fn a_tool_is_called_without_any_library() {
    let network = Network::new().await;
    let request = json!({
        "jsonrpc": "2.0", "id": 7, "method": "tools/call",
        "params": {"name": "one.add", "arguments": {"a": 1, "b": 2}},
    });
    let answer: Value = network.ask(request).await.json().await.unwrap();
    assert_eq!(
        (&answer["id"], &answer["result"]["content"][0]["text"]),
        (&json!(7), &json!("3"))
    );
    network.end().await;
}

#[tokio::test]
async fn who_comes_with_a_token_that_is_not_known_is_refused_before_anything_is_read() {
    let network = Network::new().await;
    let answer = client()
        .post(format!("{}/mcp", network.url))
        .bearer_auth("r3fn_00")
        .body("not JSON at all")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 401);
    assert_eq!(answer.headers()["www-authenticate"], "Bearer");
    let problem: Value = answer.json().await.unwrap();
    assert_eq!(problem["reason"], "unauthenticated");
    network.end().await;
}

#[tokio::test]
async fn a_result_that_is_too_long_for_a_model_is_refused_and_the_call_ends() {
    let mut network = Network::new().await;
    let request = json!({
        "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": "babble", "arguments": {}},
    });
    let answer: Value = network.ask(request).await.json().await.unwrap();
    assert_eq!(answer["result"]["isError"], true);
    let words = answer["result"]["content"][0]["text"].as_str().unwrap();
    assert!(words.contains("longer than the 4194304 bytes"), "{words}");
    network.stopped.recv().await.unwrap();
    network.end().await;
}

//! The network gateway before several serving nodes.

use std::{
    future,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Body, routing};
use futures::StreamExt;
use r3mes_gateway::openai::{
    ApiLimits, Network, NetworkLimits, RECEIPT_HEADER, ServingDirectory, ServingNode,
};
use r3mes_http::metrics::Metrics;
use r3mes_inference::Receipt;
use serde_json::{Value, json};

use super::{
    openai::{get_json, json_of, node, post},
    parrot::Parrot,
    support::{Running, client},
};

/// A directory that tests change.
#[derive(Default)]
struct Directory(Mutex<Vec<ServingNode>>);

impl Directory {
    fn of(nodes: &[&Running]) -> Arc<Self> {
        let node = |(index, running): (usize, &&Running)| ServingNode {
            address: format!("remes1node{index}"),
            api: running.url(""),
        };
        Arc::new(Self(Mutex::new(
            nodes.iter().enumerate().map(node).collect(),
        )))
    }
}

impl ServingDirectory for Directory {
    fn serving_nodes(&self) -> Vec<ServingNode> {
        self.0.lock().unwrap().clone()
    }
}

async fn gateway(directory: Arc<Directory>, limits: NetworkLimits) -> Running {
    let network = Network::new(directory, &Metrics::new(), limits).unwrap();
    let network = network.with_report(|| json!({ "height": 5 }));
    Running::start(network.router()).await
}

async fn serving(parrot: &Arc<Parrot>) -> Running {
    Running::start(node(parrot, ApiLimits::default())).await
}

fn ask(model: &str) -> Value {
    json!({ "model": model, "prompt": "a b c" })
}

#[tokio::test]
async fn a_request_goes_to_a_node_that_has_the_model() {
    let (one, two) = (
        Arc::new(Parrot::new(&["one"])),
        Arc::new(Parrot::new(&["two"])),
    );
    let (first, second) = (serving(&one).await, serving(&two).await);
    let gateway = gateway(Directory::of(&[&first, &second]), NetworkLimits::default()).await;
    for _ in 0..3 {
        let answer = json_of(post(&gateway, "/v1/completions", &ask("two")).await).await;
        assert_eq!(answer["choices"][0]["text"], "a b c");
        assert_eq!(answer["model"], "two");
    }
    assert_eq!(one.asked.load(Ordering::Relaxed), 0);
    assert_eq!(two.asked.load(Ordering::Relaxed), 3);
    let models = get_json(&gateway, "/v1/models").await;
    assert_eq!(models["data"].as_array().unwrap().len(), 2);
    assert_eq!(
        get_json(&gateway, "/v1/models/one").await["serving_nodes"],
        1
    );

    let refused = post(&gateway, "/v1/completions", &ask("three")).await;
    assert_eq!(refused.status(), 404);
    let error = json_of(refused).await;
    assert!(
        error["error"]["message"]
            .as_str()
            .unwrap()
            .contains("one, two"),
        "{error}"
    );
}

#[tokio::test]
async fn nodes_with_one_model_share_the_work() {
    let parrots = [0, 1].map(|_| Arc::new(Parrot::held(&["parrot"])));
    let (first, second) = (serving(&parrots[0]).await, serving(&parrots[1]).await);
    let gateway = gateway(Directory::of(&[&first, &second]), NetworkLimits::default()).await;
    let body = json!({ "model": "parrot", "prompt": "a b", "stream": true });
    // Open streams count, so four of them are two for each.
    let mut open = Vec::new();
    for _ in 0..4 {
        open.push(post(&gateway, "/v1/completions", &body).await);
    }
    for parrot in &parrots {
        assert_eq!(parrot.asked.load(Ordering::Relaxed), 2);
        parrot.gate.add_permits(10);
    }
    for answer in open {
        assert!(answer.text().await.unwrap().ends_with("data: [DONE]\n\n"));
    }
}

#[tokio::test]
async fn a_stream_passes_through_token_by_token() {
    let parrot = Arc::new(Parrot::held(&["parrot"]));
    let running = serving(&parrot).await;
    let gateway = gateway(Directory::of(&[&running]), NetworkLimits::default()).await;
    let body = json!({ "model": "parrot", "prompt": "a b", "stream": true });
    let response = post(&gateway, "/v1/completions", &body).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut stream = response.bytes_stream();
    let first = stream.next().await.unwrap().unwrap();
    assert!(str::from_utf8(&first).unwrap().contains("\"a \""));
    parrot.gate.add_permits(1);
    let second = stream.next().await.unwrap().unwrap();
    assert!(str::from_utf8(&second).unwrap().contains("\"b\""));
}

#[tokio::test]
async fn a_client_that_goes_away_stops_the_generation_on_the_node() {
    let parrot = Arc::new(Parrot::held(&["parrot"]));
    let running = serving(&parrot).await;
    let gateway = gateway(Directory::of(&[&running]), NetworkLimits::default()).await;
    let body = json!({ "model": "parrot", "prompt": "a b c", "stream": true });
    let response = post(&gateway, "/v1/completions", &body).await;
    drop(response);
    let _cancelled = parrot.cancelled.acquire().await.unwrap();
}

#[tokio::test]
async fn a_gateway_is_well_only_while_answers_can_be_had() {
    let none = Directory::of(&[]);
    let idle = serving(&Arc::new(Parrot::new(&[]))).await;
    let gone = serving(&Arc::new(Parrot::new(&["parrot"]))).await;
    let unreachable = Directory::of(&[&gone]);
    gone.stop().await;
    for (directory, reason) in [
        (none, "registered"),
        (unreachable, "reached"),
        (Directory::of(&[&idle]), "no model"),
    ] {
        let gateway = gateway(directory, NetworkLimits::default()).await;
        let health = client().get(gateway.url("/health")).send().await.unwrap();
        assert_eq!(health.status(), 503);
        let answer = json_of(health).await;
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains(reason), "{message}");
    }
}

#[tokio::test]
async fn a_node_that_is_busy_or_gone_is_passed_over() {
    let mut full = Parrot::new(&["parrot"]);
    full.full = true;
    let (full, well) = (Arc::new(full), Arc::new(Parrot::new(&["parrot"])));
    let gone = serving(&Arc::new(Parrot::new(&["parrot"]))).await;
    let (busy, good) = (serving(&full).await, serving(&well).await);
    let directory = Directory::of(&[&gone, &busy, &good]);
    let limits = NetworkLimits {
        list_age: Duration::from_secs(3600),
        ..NetworkLimits::default()
    };
    let gateway = gateway(directory, limits).await;
    assert_eq!(get_json(&gateway, "/health").await["serving_nodes"], 3);
    gone.stop().await;
    // Whichever comes first in turn, each request is answered.
    for _ in 0..6 {
        let response = post(&gateway, "/v1/completions", &ask("parrot")).await;
        assert_eq!(response.status(), 200);
    }
    assert_eq!(well.asked.load(Ordering::Relaxed), 6);
    assert!(full.asked.load(Ordering::Relaxed) > 0);
}

#[tokio::test]
async fn the_last_refusal_is_passed_on_when_no_node_takes_the_request() {
    let mut full = Parrot::new(&["parrot"]);
    full.full = true;
    let running = serving(&Arc::new(full)).await;
    let gateway = gateway(Directory::of(&[&running]), NetworkLimits::default()).await;
    let response = post(&gateway, "/v1/completions", &ask("parrot")).await;
    assert_eq!(response.status(), 429);
    assert_eq!(response.headers()["retry-after"], "1");
    assert!(
        json_of(response).await["error"]["message"]
            .as_str()
            .unwrap()
            .contains("busy")
    );
}

#[tokio::test]
async fn requests_over_the_gateway_s_own_limit_are_told_to_come_back() {
    let parrot = Arc::new(Parrot::held(&["parrot"]));
    let running = serving(&parrot).await;
    let limits = NetworkLimits {
        concurrent_requests: 1,
        ..NetworkLimits::default()
    };
    let gateway = gateway(Directory::of(&[&running]), limits).await;
    let mut body = ask("parrot");
    body["stream"] = json!(true);
    let held = post(&gateway, "/v1/completions", &body).await;
    let refused = post(&gateway, "/v1/completions", &body).await;
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.headers()["retry-after"], "1");
    assert_eq!(json_of(refused).await["error"]["type"], "rate_limit_error");
    assert_eq!(
        parrot.asked.load(Ordering::Relaxed),
        1,
        "the node was not asked"
    );
    // Once the first has ended there is room.
    parrot.gate.add_permits(100);
    assert!(held.text().await.unwrap().ends_with("data: [DONE]\n\n"));
    while post(&gateway, "/v1/completions", &body).await.status() == 429 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_body_over_the_gateway_s_own_limit_reaches_no_node() {
    let parrot = Arc::new(Parrot::new(&["parrot"]));
    let running = serving(&parrot).await;
    let limits = NetworkLimits {
        body_bytes: 1000,
        ..NetworkLimits::default()
    };
    let gateway = gateway(Directory::of(&[&running]), limits).await;
    let mut body = ask("parrot");
    body["prompt"] = "a".repeat(2000).into();
    let refused = post(&gateway, "/v1/completions", &body).await;
    assert_eq!(refused.status(), 413);
    let error = json_of(refused).await;
    let message = error["error"]["message"].as_str().unwrap();
    assert!(message.contains("1000 bytes"), "{message}");
    assert_eq!(parrot.asked.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_not_begun_again_elsewhere() {
    let models = json!({ "data": [{ "id": "parrot" }] });
    let breaking = Router::new()
        .route(
            "/v1/models",
            routing::get(move || async { axum::Json(models) }),
        )
        .route(
            "/v1/completions",
            routing::post(|| async {
                let chunks = [Ok("data: first\n\n"), Err(std::io::Error::other("cut"))];
                // The pause keeps the two from being one.
                let chunks = futures::stream::iter(chunks).then(|chunk| async {
                    tokio::task::yield_now().await;
                    chunk
                });
                Body::from_stream(chunks)
            }),
        );
    let breaking = Running::start(breaking).await;
    let well = Arc::new(Parrot::new(&["parrot"]));
    let good = serving(&well).await;
    let gateway = gateway(Directory::of(&[&breaking, &good]), NetworkLimits::default()).await;
    let mut broken = 0;
    for _ in 0..2 {
        let response = post(&gateway, "/v1/completions", &ask("parrot")).await;
        assert_eq!(response.status(), 200);
        broken += usize::from(response.bytes().await.is_err());
    }
    assert_eq!((broken, well.asked.load(Ordering::Relaxed)), (1, 1));
}

/// As long as a node may pause in these tests: short, since all of it is waited for.
const STALL: Duration = Duration::from_millis(300);

fn impatient() -> NetworkLimits {
    NetworkLimits {
        concurrent_requests: 1,
        stall_timeout: STALL,
        ..NetworkLimits::default()
    }
}

#[tokio::test]
async fn a_stream_whose_node_stalls_ends_with_an_error_and_frees_its_place() {
    let parrot = Arc::new(Parrot::held(&["parrot"]));
    let running = serving(&parrot).await;
    let gateway = gateway(Directory::of(&[&running]), impatient()).await;
    let mut body = ask("parrot");
    body["stream"] = json!(true);
    let stalled = post(&gateway, "/v1/completions", &body).await;
    assert_eq!(stalled.status(), 200);
    let text = stalled.text().await.unwrap();
    let mut events = text.trim_end().split("\n\n");
    assert!(events.next().unwrap().contains("\"a \""), "{text}");
    let last = events.last().unwrap().strip_prefix("data: ").unwrap();
    let error: Value = serde_json::from_str(last).unwrap();
    assert_eq!(error["error"]["code"], "serving_node_stalled", "{error}");
    assert_eq!(error["error"]["type"], "server_error", "{error}");
    let message = error["error"]["message"].as_str().unwrap();
    assert!(message.contains("nothing for 0.3 s"), "{message}");
    // The node generates for nobody no more, and the one place there is has become free.
    let _cancelled = parrot.cancelled.acquire().await.unwrap();
    let status = get_json(&gateway, "/v1/status").await;
    assert_eq!(status["serving_nodes"][0]["open_requests"], 0, "{status}");
    parrot.gate.add_permits(100);
    let next = post(&gateway, "/v1/completions", &body).await;
    assert_eq!(next.status(), 200);
    assert!(next.text().await.unwrap().ends_with("data: [DONE]\n\n"));
}

#[tokio::test]
async fn nodes_that_take_a_request_and_say_nothing_are_waited_for_twice_at_most() {
    let asked = Arc::new(AtomicUsize::new(0));
    let models = json!({ "data": [{ "id": "parrot" }] });
    let silent = || {
        let (models, asked) = (models.clone(), Arc::clone(&asked));
        let router = Router::new()
            .route(
                "/v1/models",
                routing::get(move || async move { axum::Json(models) }),
            )
            .route(
                "/v1/completions",
                routing::post(move || async move {
                    asked.fetch_add(1, Ordering::Relaxed);
                    future::pending::<()>().await;
                }),
            );
        Running::start(router)
    };
    let nodes = [silent().await, silent().await, silent().await];
    let well = Arc::new(Parrot::new(&["parrot"]));
    let good = serving(&well).await;
    // Whichever is asked first, the good one answers.
    let both = gateway(Directory::of(&[&nodes[0], &good]), impatient()).await;
    for _ in 0..2 {
        let answer = post(&both, "/v1/completions", &ask("parrot")).await;
        assert_eq!(answer.status(), 200);
    }
    assert_eq!(asked.swap(0, Ordering::Relaxed), 1);

    let all = Directory::of(&[&nodes[0], &nodes[1], &nodes[2]]);
    let gateway = gateway(all, impatient()).await;
    let refused = post(&gateway, "/v1/completions", &ask("parrot")).await;
    assert_eq!(refused.status(), 504);
    assert_eq!(asked.load(Ordering::Relaxed), 2);
    let error = json_of(refused).await;
    assert_eq!(error["error"]["code"], "serving_node_stalled", "{error}");
    let message = error["error"]["message"].as_str().unwrap();
    assert!(message.contains("nothing for 0.3 s"), "{message}");
    // Its place is free again: the next one is not told to come back.
    let refused = post(&gateway, "/v1/completions", &ask("parrot")).await;
    assert_eq!(refused.status(), 504);
}

#[tokio::test]
async fn without_nodes_it_says_so_and_finds_them_when_they_come() {
    let directory = Arc::new(Directory::default());
    let limits = NetworkLimits {
        list_age: Duration::ZERO,
        ..NetworkLimits::default()
    };
    let gateway = gateway(directory.clone(), limits).await;
    let response = post(&gateway, "/v1/completions", &ask("parrot")).await;
    assert_eq!(response.status(), 503);
    assert!(response.headers().contains_key("retry-after"));
    assert_eq!(json_of(response).await["error"]["code"], "no_serving_node");

    let running = serving(&Arc::new(Parrot::new(&["parrot"]))).await;
    *directory.0.lock().unwrap() = Directory::of(&[&running]).serving_nodes();
    let response = post(&gateway, "/v1/completions", &ask("parrot")).await;
    assert_eq!(response.status(), 200);
    let status = get_json(&gateway, "/v1/status").await;
    assert_eq!(status["service"], "gateway");
    assert_eq!(status["network"]["height"], 5);
    assert_eq!(status["serving_nodes"][0]["reachable"], true);
}

#[tokio::test]
async fn receipts_are_had_through_the_gateway_from_the_node_that_answered() {
    let parrots = [0, 1].map(|_| Arc::new(Parrot::new(&["parrot"])));
    let (first, second) = (serving(&parrots[0]).await, serving(&parrots[1]).await);
    let gateway = gateway(Directory::of(&[&first, &second]), NetworkLimits::default()).await;
    for _ in 0..2 {
        let response = post(&gateway, "/v1/completions", &ask("parrot")).await;
        let url = response.headers()[RECEIPT_HEADER]
            .to_str()
            .unwrap()
            .to_owned();
        let answer = json_of(response).await;
        let cid = answer["choices"][0]["r3mes_receipt"].as_str().unwrap();
        for url in [url, format!("/v1/receipts/{cid}")] {
            let response = client().get(gateway.url(&url)).send().await.unwrap();
            assert_eq!(response.status(), 200);
            let bytes = response.bytes().await.unwrap();
            assert!(Receipt::from_bytes(&bytes).unwrap().is_signed());
        }
    }
    for (id, status) in [("cmpl-none", 404), ("a%2Fb", 400)] {
        let url = gateway.url(&format!("/v1/receipts/{id}"));
        assert_eq!(client().get(url).send().await.unwrap().status(), status);
    }
}

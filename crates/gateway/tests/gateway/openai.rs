//! The OpenAI API of a serving node.

use std::{collections::BTreeMap, sync::Arc};

use axum::Router;
use futures::StreamExt;
use r3mes_blobs::{BlobStore, MemoryStore};
use r3mes_gateway::{
    ipfs::{self, GatewayLimits},
    openai::{Api, ApiLimits, NONCE_HEADER, RECEIPT_HEADER},
};
use r3mes_http::metrics::Metrics;
use r3mes_inference::Receipt;
use r3mes_types::Hash;
use reqwest::{Response, header};
use serde_json::{Value, json};

use super::{
    parrot::Parrot,
    support::{Running, client},
};

/// A serving node over `parrot`, with its blobs and figures.
pub(crate) fn node(parrot: &Arc<Parrot>, limits: ApiLimits) -> Router {
    let store = Arc::new(MemoryStore::new());
    let metrics = Metrics::new();
    let aliases = BTreeMap::from([("newest".to_owned(), "parrot".to_owned())]);
    let api = Api::new(parrot.clone(), store.clone(), &metrics, limits).unwrap();
    let blobs = ipfs::router(store, GatewayLimits::default());
    let api = api.with_aliases(aliases).router();
    api.merge(metrics.router()).merge(blobs)
}

async fn start(parrot: &Arc<Parrot>) -> Running {
    Running::start(node(parrot, ApiLimits::default())).await
}

pub(crate) async fn post(running: &Running, path: &str, body: &Value) -> Response {
    client()
        .post(running.url(path))
        .json(body)
        .send()
        .await
        .unwrap()
}

pub(crate) async fn json_of(response: Response) -> Value {
    response.json().await.unwrap()
}

pub(crate) async fn get_json(running: &Running, path: &str) -> Value {
    json_of(client().get(running.url(path)).send().await.unwrap()).await
}

/// The data of a stream's events, and whether it ended as it should.
fn events(stream: &str) -> (Vec<Value>, bool) {
    let mut data: Vec<_> = stream
        .split("\n\n")
        .filter_map(|event| event.strip_prefix("data: "))
        .collect();
    let done = data.pop_if(|last| *last == "[DONE]").is_some();
    let data = data.iter().map(|data| serde_json::from_str(data).unwrap());
    (data.collect(), done)
}

fn ask(prompt: impl Into<Value>) -> Value {
    json!({ "model": "parrot", "prompt": prompt.into(), "max_tokens": 3 })
}

fn say(content: &str) -> Value {
    json!({ "model": "parrot", "messages": [{ "role": "user", "content": content }] })
}

#[tokio::test]
async fn a_completion_has_the_fields_of_openai() {
    let running = start(&Arc::new(Parrot::new(&["parrot"]))).await;
    let answer = json_of(post(&running, "/v1/completions", &ask("a b c d")).await).await;
    assert_eq!(answer["object"], "text_completion");
    assert_eq!(answer["model"], "parrot");
    assert!(answer["id"].as_str().unwrap().starts_with("cmpl-"));
    assert!(answer["created"].as_u64().unwrap() > 1_700_000_000);
    assert_eq!(answer["system_fingerprint"].as_str().unwrap().len(), 33);
    let choice = &answer["choices"][0];
    assert_eq!(choice["text"], "a b c ");
    assert_eq!(choice["index"], 0);
    assert_eq!(choice["finish_reason"], "length");
    assert_eq!(choice["logprobs"], Value::Null);
    let usage = json!({ "prompt_tokens": 4, "completion_tokens": 3, "total_tokens": 7 });
    assert_eq!(answer["usage"], usage);
}

#[tokio::test]
async fn a_chat_answer_is_a_message() {
    let running = start(&Arc::new(Parrot::new(&["parrot"]))).await;
    let answer = json_of(post(&running, "/v1/chat/completions", &say("hi you")).await).await;
    assert_eq!(answer["object"], "chat.completion");
    let choice = &answer["choices"][0];
    assert_eq!(choice["message"]["role"], "assistant");
    assert_eq!(choice["message"]["content"], "hi you");
    assert_eq!(choice["finish_reason"], "stop");
}

#[tokio::test]
async fn several_answers_to_several_prompts_are_numbered_and_counted_once() {
    let running = start(&Arc::new(Parrot::new(&["parrot"]))).await;
    let mut body = ask(json!(["a b", "c"]));
    body["n"] = json!(2);
    let response = post(&running, "/v1/completions", &body).await;
    let receipts = response.headers()[RECEIPT_HEADER]
        .to_str()
        .unwrap()
        .split(", ");
    assert_eq!(receipts.count(), 4);
    let answer = json_of(response).await;
    let texts: Vec<_> = (0..4)
        .map(|i| answer["choices"][i]["text"].as_str().unwrap())
        .collect();
    assert_eq!(texts, ["a b", "a b", "c", "c"]);
    let usage = json!({ "prompt_tokens": 3, "completion_tokens": 6, "total_tokens": 9 });
    assert_eq!(answer["usage"], usage);
}

#[tokio::test]
async fn log_probabilities_come_in_the_shape_of_their_endpoint() {
    let running = start(&Arc::new(Parrot::new(&["parrot"]))).await;
    let mut body = ask("é b");
    body["logprobs"] = json!(2);
    let answer = json_of(post(&running, "/v1/completions", &body).await).await;
    let expected = json!({
        "tokens": ["é ", "b"],
        "token_logprobs": [-0.5, -0.5],
        "top_logprobs": [{ "é 0": 0.0, "é 1": -1.0 }, { "b0": 0.0, "b1": -1.0 }],
        "text_offset": [0, 2],
    });
    assert_eq!(answer["choices"][0]["logprobs"], expected);

    let mut body = say("é");
    body["logprobs"] = json!(true);
    body["top_logprobs"] = json!(1);
    let answer = json_of(post(&running, "/v1/chat/completions", &body).await).await;
    let expected = json!({ "content": [{
        "token": "é", "logprob": -0.5, "bytes": [195, 169],
        "top_logprobs": [{ "token": "é0", "logprob": 0.0, "bytes": [195, 169, 48] }],
    }], "refusal": null });
    assert_eq!(answer["choices"][0]["logprobs"], expected);
}

#[tokio::test]
async fn a_chat_stream_says_who_speaks_then_the_words_then_why_it_ended() {
    let running = start(&Arc::new(Parrot::new(&["parrot"]))).await;
    let mut body = say("hi you");
    body["stream"] = json!(true);
    body["stream_options"] = json!({ "include_usage": true });
    let response = post(&running, "/v1/chat/completions", &body).await;
    assert_eq!(
        response.headers()[header::CONTENT_TYPE],
        "text/event-stream"
    );
    let (chunks, done) = events(&response.text().await.unwrap());
    assert!(done);
    let deltas: Vec<_> = chunks[..4]
        .iter()
        .map(|c| c["choices"][0]["delta"].clone())
        .collect();
    let expected = [
        json!({ "role": "assistant", "content": "" }),
        json!({ "content": "hi " }),
        json!({ "content": "you" }),
        json!({}),
    ];
    assert_eq!(deltas, expected);
    assert!(
        chunks
            .iter()
            .all(|chunk| chunk["object"] == "chat.completion.chunk")
    );
    assert!(chunks.iter().all(|chunk| chunk["id"] == chunks[0]["id"]));
    assert_eq!(chunks[3]["choices"][0]["finish_reason"], "stop");
    assert!(
        chunks[..4]
            .iter()
            .all(|chunk| chunk["usage"] == Value::Null)
    );
    assert_eq!((chunks.len(), &chunks[4]["choices"]), (5, &json!([])));
    assert_eq!(chunks[4]["usage"]["total_tokens"], 4);
}

#[tokio::test]
async fn a_completion_stream_joins_to_the_whole_answer() {
    let running = start(&Arc::new(Parrot::new(&["parrot"]))).await;
    let mut body = ask(json!(["a b c", "d e"]));
    body["logprobs"] = json!(0);
    body["stream"] = json!(true);
    let stream = post(&running, "/v1/completions", &body)
        .await
        .text()
        .await
        .unwrap();
    let (chunks, done) = events(&stream);
    assert!(done);
    let mut texts = [String::new(), String::new()];
    for chunk in &chunks {
        assert_eq!(chunk["object"], "text_completion");
        assert!(chunk.get("usage").is_none());
        let choice = &chunk["choices"][0];
        let text = &mut texts[choice["index"].as_u64().unwrap() as usize];
        if choice["logprobs"] != Value::Null {
            let offset = choice["logprobs"]["text_offset"][0].as_u64().unwrap();
            assert_eq!(offset as usize, text.chars().count());
        }
        text.push_str(choice["text"].as_str().unwrap());
    }
    assert_eq!(texts, ["a b c", "d e"]);
}

#[tokio::test]
async fn a_token_is_sent_before_the_next_is_made() {
    let parrot = Arc::new(Parrot::held(&["parrot"]));
    let running = start(&parrot).await;
    let mut body = ask("a b c");
    body["stream"] = json!(true);
    let response = post(&running, "/v1/completions", &body).await;
    let mut stream = response.bytes_stream();
    for (word, next) in [("a ", 1), ("b ", 1), ("c", 0)] {
        let chunk = stream.next().await.unwrap().unwrap();
        let (chunks, _) = events(str::from_utf8(&chunk).unwrap());
        assert_eq!(chunks[0]["choices"][0]["text"], word);
        parrot.gate.add_permits(next);
    }
}

#[tokio::test]
async fn every_answer_has_a_receipt_that_binds_the_clients_nonce() {
    let running = start(&Arc::new(Parrot::new(&["parrot"]))).await;
    let nonce = "0123456789abcdef".repeat(4);
    for stream in [false, true] {
        let mut body = ask("a b");
        body["seed"] = json!(-1);
        body["stream"] = json!(stream);
        let request = client().post(running.url("/v1/completions")).json(&body);
        let response = request.header(NONCE_HEADER, &nonce).send().await.unwrap();
        let url = response.headers()[RECEIPT_HEADER]
            .to_str()
            .unwrap()
            .to_owned();
        let text = response.text().await.unwrap();
        let answer = match stream {
            true => events(&text).0.pop().unwrap(),
            false => serde_json::from_str(&text).unwrap(),
        };
        let id = answer["id"].as_str().unwrap();
        assert_eq!(url, format!("/v1/receipts/{id}"));
        let cid = answer["choices"][0]["r3mes_receipt"].as_str().unwrap();

        let mut forms = Vec::new();
        let by_cid = format!("/v1/receipts/{cid}");
        let as_blob = format!("/ipfs/{cid}?format=raw");
        for url in [url, by_cid, as_blob] {
            let response = client().get(running.url(&url)).send().await.unwrap();
            assert_eq!(response.status(), 200, "{url}");
            forms.push(response.bytes().await.unwrap());
        }
        assert!(forms.iter().all(|bytes| *bytes == forms[0]));
        let receipt = Receipt::from_bytes(&forms[0]).unwrap();
        assert!(receipt.is_signed());
        assert_eq!(receipt.claim.nonce, nonce.parse::<Hash>().unwrap());
        assert_eq!(receipt.claim.sampling.seed, u64::MAX);
    }
    let absent = client()
        .get(running.url("/v1/receipts/cmpl-none"))
        .send()
        .await
        .unwrap();
    assert_eq!(absent.status(), 404);
}

#[tokio::test]
async fn an_answer_without_a_seed_gets_another_one_each_time() {
    let running = start(&Arc::new(Parrot::new(&["parrot"]))).await;
    let mut seeds = Vec::new();
    for _ in 0..2 {
        let response = post(&running, "/v1/completions", &ask("a")).await;
        let url = running.url(response.headers()[RECEIPT_HEADER].to_str().unwrap());
        response.bytes().await.unwrap();
        let receipt = client()
            .get(url)
            .send()
            .await
            .unwrap()
            .bytes()
            .await
            .unwrap();
        seeds.push(Receipt::from_bytes(&receipt).unwrap().claim.sampling.seed);
    }
    assert_ne!(seeds[0], seeds[1]);
}

#[tokio::test]
async fn a_model_is_found_by_alias_and_by_hash() {
    let running = start(&Arc::new(Parrot::new(&["parrot"]))).await;
    let models = get_json(&running, "/v1/models").await;
    assert_eq!(models["object"], "list");
    let model = &models["data"][0];
    assert_eq!(
        (&model["id"], &model["aliases"]),
        (&json!("parrot"), &json!(["newest"]))
    );
    for name in ["parrot", "newest", model["adapter"].as_str().unwrap()] {
        let shown = get_json(&running, &format!("/v1/models/{name}")).await;
        assert_eq!(shown["id"], "parrot");
        let mut body = ask("a");
        body["model"] = json!(name);
        assert_eq!(post(&running, "/v1/completions", &body).await.status(), 200);
    }
}

#[tokio::test]
async fn a_refusal_says_what_is_wrong_in_openais_shape() {
    let running = start(&Arc::new(Parrot::new(&["parrot"]))).await;
    let refused = async |path: &str, body: String| {
        let request = client().post(running.url(path)).body(body);
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        (status, json_of(response).await["error"].clone())
    };
    let mut hot = ask("a");
    hot["temperature"] = json!(9);
    let mut other = ask("a");
    other["model"] = json!("gpt-4");
    let mut tools = say("a");
    tools["tools"] = json!([{ "type": "function" }]);
    let text = "/v1/completions";
    for (path, body, status, param, says) in [
        (text, "{".to_owned(), 400, Value::Null, "JSON"),
        (text, "[]".to_owned(), 400, Value::Null, "object"),
        (
            "/v1/engines",
            String::new(),
            404,
            Value::Null,
            "no /v1/engines",
        ),
        (
            "/v1/models",
            String::new(),
            405,
            Value::Null,
            "does not take POST",
        ),
        (
            text,
            json!({ "prompt": "a" }).to_string(),
            400,
            json!("model"),
            "required",
        ),
        (
            text,
            hot.to_string(),
            400,
            json!("temperature"),
            "between 0 and 2",
        ),
        (text, ask("").to_string(), 400, json!("prompt"), "empty"),
        (text, other.to_string(), 404, json!("model"), "parrot"),
        (text, ask("fail").to_string(), 500, Value::Null, "asked to"),
        (
            "/v1/chat/completions",
            tools.to_string(),
            400,
            json!("tools"),
            "not supported",
        ),
    ] {
        let (got, error) = refused(path, body).await;
        assert_eq!((got, &error["param"]), (status, &param), "{error}");
        let kind = if status == 500 {
            "server_error"
        } else {
            "invalid_request_error"
        };
        assert_eq!(error["type"], kind);
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(says), "{message}");
    }
    let mut nonce = client().post(running.url(text)).json(&ask("a"));
    nonce = nonce.header(NONCE_HEADER, "xyz");
    assert_eq!(nonce.send().await.unwrap().status(), 400);
}

#[tokio::test]
async fn a_failure_before_the_first_token_of_a_stream_has_its_own_status() {
    let running = start(&Arc::new(Parrot::new(&["parrot"]))).await;
    let mut body = ask("fail");
    body["stream"] = json!(true);
    let response = post(&running, "/v1/completions", &body).await;
    assert_eq!(response.status(), 500);
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused() {
    let limits = ApiLimits {
        body_bytes: 1000,
        ..ApiLimits::default()
    };
    let parrot = Arc::new(Parrot::new(&["parrot"]));
    let running = Running::start(node(&parrot, limits)).await;
    let response = post(&running, "/v1/completions", &ask("a".repeat(2000))).await;
    assert_eq!(response.status(), 413);
    let error = json_of(response).await;
    assert!(
        error["error"]["message"]
            .as_str()
            .unwrap()
            .contains("1000 bytes")
    );
}

#[tokio::test]
async fn requests_over_the_limit_are_told_to_come_back() {
    let limits = ApiLimits {
        concurrent_requests: 1,
        ..ApiLimits::default()
    };
    let parrot = Arc::new(Parrot::held(&["parrot"]));
    let running = Running::start(node(&parrot, limits)).await;
    let mut body = ask("a b");
    body["stream"] = json!(true);
    let held = post(&running, "/v1/completions", &body).await;
    let refused = post(&running, "/v1/completions", &body).await;
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.headers()[header::RETRY_AFTER], "1");
    assert_eq!(json_of(refused).await["error"]["type"], "rate_limit_error");
    // Once the first has ended there is room.
    parrot.gate.add_permits(100);
    assert!(events(&held.text().await.unwrap()).1);
    while post(&running, "/v1/completions", &body).await.status() == 429 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_full_engine_is_429_and_an_empty_one_503() {
    let mut full = Parrot::new(&["parrot"]);
    full.full = true;
    let running = start(&Arc::new(full)).await;
    let response = post(&running, "/v1/completions", &ask("a")).await;
    assert_eq!(response.status(), 429);

    let running = start(&Arc::new(Parrot::new(&[]))).await;
    let response = post(&running, "/v1/completions", &ask("a")).await;
    assert_eq!(response.status(), 503);
    assert!(response.headers().contains_key(header::RETRY_AFTER));
    let health = client().get(running.url("/health")).send().await.unwrap();
    assert_eq!(health.status(), 503);
}

#[tokio::test]
async fn a_client_that_goes_away_stops_the_generation() {
    for stream in [true, false] {
        let parrot = Arc::new(Parrot::held(&["parrot"]));
        let running = start(&parrot).await;
        let mut body = ask("a b c");
        body["stream"] = json!(stream);
        let request = client()
            .post(running.url("/v1/completions"))
            .json(&body)
            .send();
        let request = tokio::spawn(async move {
            let mut response = request.await.unwrap();
            response.chunk().await.unwrap();
            response.chunk().await.unwrap();
        });
        while parrot.asked.load(std::sync::atomic::Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        request.abort();
        let _cancelled = parrot.cancelled.acquire().await.unwrap();
    }
}

#[tokio::test]
async fn figures_count_requests_and_name_their_units() {
    let running = start(&Arc::new(Parrot::new(&["parrot"]))).await;
    post(&running, "/v1/completions", &ask("a"))
        .await
        .bytes()
        .await
        .unwrap();
    post(&running, "/v1/completions", &ask(""))
        .await
        .bytes()
        .await
        .unwrap();
    let counted = "r3mes_api_requests_total{endpoint=\"completions\",status=\"200\"} 1";
    let mut text = String::new();
    // A request is counted when the server has let go of it.
    while !text.contains(counted) {
        let response = client().get(running.url("/metrics")).send().await.unwrap();
        text = response.text().await.unwrap();
    }
    for line in [
        "r3mes_api_requests_total{endpoint=\"completions\",status=\"400\"} 1",
        "r3mes_api_open_requests 0",
        "r3mes_api_request_duration_seconds_count 2",
        "r3mes_api_first_byte_seconds_count 2",
        "r3mes_engine_generated_tokens_total 42",
        "r3mes_engine_slots 4",
    ] {
        assert!(text.contains(line), "no {line} in\n{text}");
    }
}

#[tokio::test]
async fn status_shows_models_and_load() {
    let running = start(&Arc::new(Parrot::new(&["parrot"]))).await;
    let status = get_json(&running, "/v1/status").await;
    assert_eq!(status["service"], "serving");
    assert_eq!(status["models"][0]["id"], "parrot");
    assert_eq!(status["models"][0]["round"], 7);
    assert_eq!(status["load"]["slots"], 4);
    let health = get_json(&running, "/health").await;
    assert_eq!(health["status"], "ok");
}

#[tokio::test]
async fn receipts_of_an_earlier_run_are_still_had() {
    let store = Arc::new(MemoryStore::new());
    let parrot = Arc::new(Parrot::new(&["parrot"]));
    let api = |store: &Arc<MemoryStore>| {
        let metrics = Metrics::new();
        Api::new(
            parrot.clone(),
            store.clone(),
            &metrics,
            ApiLimits::default(),
        )
        .unwrap()
        .router()
    };
    let running = Running::start(api(&store)).await;
    let answer = json_of(post(&running, "/v1/completions", &ask("a")).await).await;
    let cid = answer["choices"][0]["r3mes_receipt"]
        .as_str()
        .unwrap()
        .to_owned();
    running.stop().await;
    assert_eq!(store.pins().unwrap().len(), 1);

    let running = Running::start(api(&store)).await;
    let url = running.url(&format!("/v1/receipts/{cid}"));
    assert_eq!(client().get(url).send().await.unwrap().status(), 200);
}

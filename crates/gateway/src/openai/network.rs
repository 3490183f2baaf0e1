use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, State, rejection::BytesRejection},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures::future;
use r3mes_http::metrics::Metrics;
use reqwest::redirect::Policy;
use serde_json::{Value, json};
use tokio::sync::{Mutex as AsyncMutex, Semaphore};

use super::{
    answers::{PASSED_OUT, first_byte, has_stalled, passed, read_bounded},
    api::{read_body, respond_counted},
    error::{self, ApiError},
    figures::{Figures, Open},
    receipts::{NONCE_HEADER, RECEIPT_HEADER},
    request,
};

/// Serving nodes asked at most.
const MAX_NODES: usize = 64;

/// Longest list of models that a node may answer, in bytes.
const MAX_MODELS_BYTES: usize = 1 << 20;

/// Longest receipt passed on, in bytes.
const MAX_RECEIPT_BYTES: usize = 16 << 20;

/// Nodes that may take a request and send nothing for as long as they may: a client is told after them, and
/// no others are asked.
const MAX_STALLED: usize = 2;

/// Answers of which it is remembered who gave them.
const MAX_REMEMBERED: usize = 16_384;

/// Longest id of an answer or receipt.
const MAX_ID_CHARS: usize = 128;

/// Headers of a request that a serving node needs.
const PASSED_IN: [&str; 2] = ["content-type", NONCE_HEADER];

/// Who serves, as the ledger has it. The call must not block: it is asked for every request.
pub trait ServingDirectory: Send + Sync {
    /// The active serving nodes.
    fn serving_nodes(&self) -> Vec<ServingNode>;
}

/// A serving node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServingNode {
    /// Its account on the ledger.
    pub address: String,
    /// Base URL of its API, such as `http://10.0.0.7:8001`.
    pub api: String,
}

/// Limits of a [`Network`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetworkLimits {
    /// Requests being answered at once; more are told to come back.
    pub concurrent_requests: usize,
    /// Longest request body in bytes.
    pub body_bytes: usize,
    /// Time to connect to a node, and for it to list its models.
    pub connect_timeout: Duration,
    /// Longest pause of a node before or within an answer.
    pub stall_timeout: Duration,
    /// Age at which the list of who serves what is made anew.
    pub list_age: Duration,
}

impl Default for NetworkLimits {
    /// 256 requests at once of 4 MiB, three seconds to connect, two minutes without a byte.
    fn default() -> Self {
        Self {
            concurrent_requests: 256,
            body_bytes: 4 << 20,
            connect_timeout: Duration::from_secs(3),
            stall_timeout: Duration::from_secs(120),
            list_age: Duration::from_secs(2),
        }
    }
}

/// Something that adds the network's own state to `/v1/status`.
type Report = dyn Fn() -> Value + Send + Sync;

/// The OpenAI API over the serving nodes of the network.
///
/// A request goes to the node with the fewest open requests of those that have the model. When
/// that node fails before the first byte of its answer, the next one is asked, unless two have sent
/// nothing for too long. A client that goes away closes the connection to the node, which stops the
/// generation.
#[derive(Clone)]
pub struct Network {
    inner: Arc<Inner>,
}

struct Inner {
    directory: Arc<dyn ServingDirectory>,
    client: reqwest::Client,
    figures: Figures,
    places: Arc<Semaphore>,
    limits: NetworkLimits,
    listed: AsyncMutex<Listed>,
    /// Which node gave which answer, the oldest first.
    remembered: Mutex<Remembered>,
    turn: AtomicUsize,
    since: Instant,
    report: Option<Box<Report>>,
}

/// What the nodes said when they were last asked.
#[derive(Default)]
struct Listed {
    at: Option<Instant>,
    nodes: Vec<Arc<Node>>,
}

/// A node and what it serves.
#[derive(Debug)]
struct Node {
    node: ServingNode,
    /// Its models as it lists them, or nothing when it did not answer.
    models: Option<Vec<Value>>,
    open: Arc<AtomicUsize>,
}

#[derive(Default)]
struct Remembered {
    order: VecDeque<String>,
    by_answer: HashMap<String, ServingNode>,
}

impl Network {
    /// A gateway to the nodes of `directory`, which counts in `metrics`.
    ///
    /// # Errors
    /// When the operating system does not let it make an HTTP client.
    pub fn new(
        directory: Arc<dyn ServingDirectory>,
        metrics: &Metrics,
        limits: NetworkLimits,
    ) -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(Policy::none())
            .tcp_nodelay(true)
            .connect_timeout(limits.connect_timeout)
            .read_timeout(limits.stall_timeout)
            .build()?;
        let inner = Inner {
            directory,
            client,
            figures: Figures::new(metrics),
            places: Arc::new(Semaphore::new(limits.concurrent_requests)),
            limits,
            listed: AsyncMutex::default(),
            remembered: Mutex::default(),
            turn: AtomicUsize::new(0),
            since: Instant::now(),
            report: None,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Adds what `report` returns to `/v1/status`, as `network`.
    ///
    /// # Panics
    /// When the gateway is in use already.
    #[must_use]
    pub fn with_report(mut self, report: impl Fn() -> Value + Send + Sync + 'static) -> Self {
        let inner = Arc::get_mut(&mut self.inner).expect("a gateway is set up before it is used");
        inner.report = Some(Box::new(report));
        self
    }

    /// The routes. `/metrics` is [`Metrics::router`]'s.
    pub fn router(self) -> Router {
        Router::new()
            .route("/v1/completions", post(complete))
            .route("/v1/chat/completions", post(chat))
            .route("/v1/models", get(list_models))
            .route("/v1/models/{model}", get(show_model))
            .route("/v1/receipts/{id}", get(show_receipt))
            .route("/v1/status", get(status))
            .route("/health", get(health))
            .fallback(error::no_such_path)
            .method_not_allowed_fallback(error::no_such_method)
            .layer(DefaultBodyLimit::max(self.inner.limits.body_bytes))
            .with_state(self.inner)
    }
}

impl Node {
    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.node.api.trim_end_matches('/'))
    }

    fn serves(&self, model: &str) -> bool {
        let is = |value: &Value| value.as_str() == Some(model);
        let models = self.models.iter().flatten();
        models.into_iter().any(|known| {
            let alias = known["aliases"]
                .as_array()
                .is_some_and(|all| all.iter().any(is));
            let base = known["adapter"].is_null() && is(&known["base_model"]);
            is(&known["id"]) || alias || is(&known["adapter"]) || base
        })
    }
}

impl Inner {
    /// Who serves what, asked anew when the last answer is too old.
    async fn nodes(&self) -> Vec<Arc<Node>> {
        let mut listed = self.listed.lock().await;
        let fresh = listed
            .at
            .is_some_and(|at| at.elapsed() < self.limits.list_age);
        if !fresh {
            let mut directory = self.directory.serving_nodes();
            directory.truncate(MAX_NODES);
            let asked = directory.into_iter().map(|node| {
                let known = listed.nodes.iter().find(|known| known.node == node);
                let open = known
                    .map(|known| Arc::clone(&known.open))
                    .unwrap_or_default();
                self.ask_models(node, open)
            });
            listed.nodes = future::join_all(asked).await;
            listed.at = Some(Instant::now());
        }
        listed.nodes.clone()
    }

    async fn ask_models(&self, node: ServingNode, open: Arc<AtomicUsize>) -> Arc<Node> {
        let mut node = Node {
            node,
            models: None,
            open,
        };
        let request = self.client.get(node.url("/v1/models"));
        let sent = request.timeout(self.limits.connect_timeout).send().await;
        if let Ok(answer) = sent
            && answer.status().is_success()
            && let Some(body) = read_bounded(answer, MAX_MODELS_BYTES).await
            && let Ok(mut list) = serde_json::from_slice::<Value>(&body)
            && let Value::Array(models) = list["data"].take()
        {
            node.models = Some(models);
        }
        Arc::new(node)
    }

    /// Nodes that have the model, the one with the fewest open requests first, equal ones in turn.
    async fn candidates(&self, model: &str) -> Result<Vec<Arc<Node>>, ApiError> {
        let mut nodes = self.nodes().await;
        nodes.retain(|node| node.models.is_some());
        if nodes.is_empty() {
            let message = "no serving node can be reached: try again later, or start one";
            return Err(ApiError::unavailable(message));
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % nodes.len();
        nodes.rotate_left(turn);
        let served = names(&nodes);
        nodes.retain(|node| node.serves(model));
        if nodes.is_empty() {
            let served = served.join(", ");
            let message = format!("the model `{model}` is not served now; served are: {served}");
            return Err(ApiError::unknown_model(message));
        }
        nodes.sort_by_key(|node| node.open.load(Ordering::Relaxed));
        Ok(nodes)
    }

    async fn answer(
        &self,
        path: &str,
        headers: &HeaderMap,
        body: Result<Bytes, BytesRejection>,
        open: Arc<Open>,
    ) -> Result<Response, ApiError> {
        let body = read_body(body, self.limits.body_bytes)?;
        let model = request::model_of(&body)?;
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            return Err(ApiError::busy("too many requests at once: try again later"));
        };
        let patience = self.limits.stall_timeout;
        let (mut refusal, mut stalled) = (None, 0);
        let candidates = self.candidates(&model).await?;
        for node in candidates {
            let held = Held::new(&node);
            let mut request = self.client.post(node.url(path)).body(body.clone());
            for (name, value) in passed(headers, &PASSED_IN) {
                request = request.header(name, value);
            }
            match first_byte(request).await {
                Ok(begun) if may_retry(begun.status) => refusal = Some(begun),
                Ok(begun) => {
                    self.remember(&begun.headers, &node.node);
                    open.begin(begun.status);
                    return Ok(begun.respond(patience, (held, place, open)));
                }
                Err(error) => {
                    let address = &node.node.address;
                    tracing::warn!(%address, %error, "a serving node failed; asking the next");
                    stalled += usize::from(has_stalled(&error));
                }
            }
            if stalled == MAX_STALLED {
                break;
            }
        }
        match refusal {
            // The last node's own words say more than ours would.
            Some(refusal) => {
                open.begin(refusal.status);
                Ok(refusal.respond(patience, (place, open)))
            }
            None if stalled > 0 => {
                let seconds = patience.as_secs_f64();
                let message = format!(
                    "the serving nodes that were asked sent nothing for {seconds} s: try again later, or ask for fewer tokens or a stream"
                );
                Err(ApiError::stalled(message))
            }
            None => {
                let message = "every serving node with this model failed: try again later";
                Err(ApiError::unavailable(message))
            }
        }
    }

    fn remember(&self, headers: &HeaderMap, node: &ServingNode) {
        let urls = headers
            .get(RECEIPT_HEADER)
            .and_then(|urls| urls.to_str().ok());
        let mut remembered = self
            .remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for url in urls.unwrap_or_default().split(',') {
            let id = url.rsplit('/').next().unwrap_or_default();
            if id.is_empty() || id.len() > MAX_ID_CHARS {
                continue;
            }
            remembered.order.push_back(id.to_owned());
            remembered.by_answer.insert(id.to_owned(), node.clone());
            if remembered.order.len() > MAX_REMEMBERED
                && let Some(oldest) = remembered.order.pop_front()
            {
                remembered.by_answer.remove(&oldest);
            }
        }
    }

    /// The receipt from the node that gave the answer, or from whichever has it.
    async fn receipt(&self, id: &str) -> Result<Response, ApiError> {
        let sound = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        if id.is_empty() || id.len() > MAX_ID_CHARS || !id.chars().all(sound) {
            let message = "a receipt is named by the id of its answer or by its CID";
            return Err(ApiError::field("id", message));
        }
        let giver = {
            let remembered = self
                .remembered
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            remembered.by_answer.get(id).cloned()
        };
        let mut nodes = self.nodes().await;
        nodes.sort_by_key(|node| Some(&node.node) != giver.as_ref());
        for node in nodes {
            let request = self.client.get(node.url(&format!("/v1/receipts/{id}")));
            let sent = request.timeout(self.limits.stall_timeout).send().await;
            let Ok(answer) = sent else {
                continue;
            };
            if answer.status() != StatusCode::OK {
                continue;
            }
            let headers: Vec<_> = passed(answer.headers(), &PASSED_OUT).collect();
            if let Some(bytes) = read_bounded(answer, MAX_RECEIPT_BYTES).await {
                let mut response = bytes.into_response();
                response.headers_mut().extend(headers);
                return Ok(response);
            }
        }
        let message = "no serving node has this receipt: it exists once the answer is complete, \
                       and the oldest are dropped";
        Err(ApiError::new(StatusCode::NOT_FOUND, message))
    }
}

/// Whether another node may do what this one would not.
fn may_retry(status: StatusCode) -> bool {
    status.is_server_error()
        || status == StatusCode::TOO_MANY_REQUESTS
        // The node has stopped serving the model since it was asked what it serves.
        || status == StatusCode::NOT_FOUND
}

/// Counts an open request of a node.
struct Held(Arc<AtomicUsize>);

impl Held {
    fn new(node: &Node) -> Self {
        node.open.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(&node.open))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Names of all models served, each once.
fn names(nodes: &[Arc<Node>]) -> Vec<String> {
    let mut names: Vec<_> = models(nodes)
        .iter()
        .filter_map(|model| model["id"].as_str().map(str::to_owned))
        .collect();
    names.sort();
    names
}

/// All models served, each once, with how many nodes serve it.
fn models(nodes: &[Arc<Node>]) -> Vec<Value> {
    let mut models: Vec<Value> = Vec::new();
    for model in nodes
        .iter()
        .filter_map(|node| node.models.as_ref())
        .flatten()
    {
        let known = models.iter_mut().find(|known| known["id"] == model["id"]);
        match known {
            Some(known) => {
                let count = known["serving_nodes"].as_u64().unwrap_or(1);
                known["serving_nodes"] = (count + 1).into();
            }
            None if model.is_object() => {
                let mut model = model.clone();
                model["serving_nodes"] = 1.into();
                models.push(model);
            }
            None => {}
        }
    }
    models
}

async fn complete(
    State(network): State<Arc<Inner>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let open = network.figures.open("completions");
    let answered = network.answer("/v1/completions", &headers, body, Arc::clone(&open));
    respond_counted(answered.await, &open)
}

async fn chat(
    State(network): State<Arc<Inner>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let open = network.figures.open("chat_completions");
    let answered = network.answer("/v1/chat/completions", &headers, body, Arc::clone(&open));
    respond_counted(answered.await, &open)
}

async fn list_models(State(network): State<Arc<Inner>>) -> Json<Value> {
    Json(json!({ "object": "list", "data": models(&network.nodes().await) }))
}

async fn show_model(State(network): State<Arc<Inner>>, Path(name): Path<String>) -> Response {
    let found = network.candidates(&name).await;
    let found = found.map(|nodes| {
        let all = models(&nodes);
        let exact = all.iter().find(|model| model["id"] == name.as_str());
        exact.or(all.first()).cloned()
    });
    match found {
        Ok(model) => Json(model).into_response(),
        Err(error) => error.into_response(),
    }
}

async fn show_receipt(State(network): State<Arc<Inner>>, Path(id): Path<String>) -> Response {
    let found = network.receipt(&id).await;
    found.unwrap_or_else(IntoResponse::into_response)
}

async fn status(State(network): State<Arc<Inner>>) -> Json<Value> {
    let nodes = network.nodes().await;
    let serving: Vec<_> = nodes
        .iter()
        .map(|node| {
            json!({
                "address": node.node.address,
                "api": node.node.api,
                "reachable": node.models.is_some(),
                "models": names(std::slice::from_ref(node)),
                "open_requests": node.open.load(Ordering::Relaxed),
            })
        })
        .collect();
    Json(json!({
        "service": "gateway",
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": network.since.elapsed().as_secs(),
        "serving_nodes": serving,
        "network": network.report.as_ref().map(|report| report()),
    }))
}

/// Whether answers can be had, or why not.
async fn health(State(network): State<Arc<Inner>>) -> Response {
    let nodes = network.nodes().await;
    let reachable = nodes.iter().filter(|node| node.models.is_some()).count();
    let has_models = |node: &Arc<Node>| node.models.as_ref().is_some_and(|all| !all.is_empty());
    if nodes.iter().any(has_models) {
        return Json(json!({ "status": "ok", "serving_nodes": reachable })).into_response();
    }
    let message = match (nodes.len(), reachable) {
        (0, _) => "no serving node is registered: start one (`r3mes start --roles serving`)",
        (_, 0) => "no registered serving node can be reached: /v1/status names them",
        _ => "no model is being served yet: try again later",
    };
    ApiError::unavailable(message).into_response()
}

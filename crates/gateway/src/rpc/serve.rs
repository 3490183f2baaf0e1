//! Answers HTTP requests by calling methods, of engine `local` or of CometBFT.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use r3mes_consensus::local::ConsensusHandle;
use r3mes_types::cosmos::tx::SimulateRequest;
use r3mes_types::query::Query as _;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tower_http::cors::{Any, CorsLayer};
use tower_http::timeout::TimeoutLayer;

use crate::rpc::methods;
use crate::rpc::relay::{self, Relay};
use crate::rpc::request::{Params, RpcError};
use crate::rpc::socket::{self, MAX_SOCKETS};

/// Transactions that this process simulates at once, over all its surfaces: they take the time of a
/// block's transaction and cost the asker nothing. More wait, without keeping other questions waiting.
static SIMULATIONS: Semaphore = Semaphore::const_new(2);

/// Searches that this process does at once, over all its surfaces: each may read thousands of blocks.
static SEARCHES: Semaphore = Semaphore::const_new(2);

/// What the methods work on under engine `local`.
#[derive(Clone, Debug)]
pub struct Service {
    /// The running engine.
    pub handle: ConsensusHandle,
    /// The ledger's genesis, canonically encoded, as `genesis` hands it out.
    pub genesis: Arc<[u8]>,
    /// The node's name, as `status` tells it.
    pub moniker: String,
    /// Bounds on requests.
    pub limits: RpcLimits,
}

/// Bounds on requests. Connections are bounded by [`r3mes_http::server`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RpcLimits {
    /// Bytes of a request's body.
    pub body_bytes: usize,
    /// Calls in one JSON-RPC batch.
    pub batch: usize,
    /// How long `wait_height`, `wait_tx` and `broadcast_tx_commit` wait at most, and any method for a
    /// CometBFT that is started again.
    pub longest_wait: Duration,
    /// How long any request may take.
    pub timeout: Duration,
}

impl Default for RpcLimits {
    fn default() -> Self {
        Self {
            body_bytes: 2 << 20,
            batch: 16,
            longest_wait: Duration::from_secs(10),
            timeout: Duration::from_secs(30),
        }
    }
}

/// Who answers.
#[derive(Clone, Debug)]
pub enum Chain {
    /// Engine `local`, in this process.
    Local(Service),
    /// CometBFT.
    CometBft(Relay),
}

/// Who answers, and how many WebSockets more.
pub(super) struct Served {
    pub(super) chain: Chain,
    pub(super) sockets: Arc<Semaphore>,
}

impl Chain {
    pub(super) fn limits(&self) -> RpcLimits {
        match self {
            Self::Local(service) => service.limits,
            Self::CometBft(relay) => relay.limits(),
        }
    }

    /// Names of a method's parameters, in CometBFT's order; `None` if there is no such method.
    fn parameters(&self, method: &str) -> Option<&'static [&'static str]> {
        let mut known = self.methods();
        let found = known.find(|(name, _)| *name == method);
        found.map(|(_, parameters)| *parameters)
    }

    fn methods(&self) -> impl Iterator<Item = &'static methods::Signature> {
        let more = match self {
            Self::Local(_) => &[][..],
            Self::CometBft(_) => relay::MORE_METHODS,
        };
        methods::METHODS.iter().chain(more)
    }

    /// Calls a method with named parameters.
    pub(crate) async fn ask(&self, method: &str, params: Value) -> Result<Value, RpcError> {
        self.call(method, &Params::from_json(Some(params), &[])?)
            .await
    }

    async fn call(&self, method: &str, params: &Params) -> Result<Value, RpcError> {
        if self.parameters(method).is_none() {
            return Err(RpcError::unknown_method(method));
        }
        let simulates = method == "abci_query" && params.text("path")? == SimulateRequest::PATH;
        let searches = matches!(method, "tx_search" | "block_search");
        let _place = match (simulates, searches) {
            (true, _) => SIMULATIONS.acquire().await.ok(),
            (_, true) => SEARCHES.acquire().await.ok(),
            _ => None,
        };
        match self {
            Self::Local(service) => methods::call(service, method, params).await,
            Self::CometBft(relay) => relay.call(method, params).await,
        }
    }
}

/// The RPC of a chain as a router, to be [served](r3mes_http::server::serve): our own under engine `local`,
/// and CometBFT's with what [`Relay`] adds to it.
pub fn router(chain: Chain) -> Router {
    let limits = chain.limits();
    let served = Served {
        chain,
        sockets: Arc::new(Semaphore::new(MAX_SOCKETS)),
    };
    let cors = CorsLayer::new()
        .allow_origin(Any)
        .allow_methods([Method::GET, Method::POST])
        .allow_headers([header::CONTENT_TYPE]);
    Router::new()
        .route("/", get(list).post(json_rpc))
        .route("/websocket", get(socket::upgrade))
        .route("/{method}", get(by_uri))
        .layer(DefaultBodyLimit::max(limits.body_bytes))
        .layer(TimeoutLayer::with_status_code(
            StatusCode::REQUEST_TIMEOUT,
            limits.timeout,
        ))
        .layer(cors)
        .with_state(Arc::new(served))
}

async fn list(State(served): State<Arc<Served>>) -> Response {
    let methods: serde_json::Map<String, Value> = served
        .chain
        .methods()
        .map(|(name, params)| ((*name).to_owned(), json!(params)))
        .collect();
    axum::Json(json!({"methods": methods})).into_response()
}

async fn by_uri(
    State(served): State<Arc<Served>>,
    Path(method): Path<String>,
    Query(params): Query<HashMap<String, String>>,
) -> Response {
    let answer = served.chain.call(&method, &Params::Uri(params)).await;
    let status = match &answer {
        Ok(_) => StatusCode::OK,
        Err(error) if error.code == -32601 => StatusCode::NOT_FOUND,
        Err(error) if error.is_unavailable() => StatusCode::SERVICE_UNAVAILABLE,
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (status, axum::Json(envelope(json!(-1), answer))).into_response()
}

async fn json_rpc(State(served): State<Arc<Served>>, body: Bytes) -> Response {
    if body.is_empty() {
        return list(State(served)).await;
    }
    let calls = match calls(&body, served.chain.limits().batch) {
        Ok(calls) => calls,
        Err(error) => return refuse(error),
    };
    let mut answers = Vec::with_capacity(calls.len());
    let mut status = StatusCode::OK;
    for (id, answer) in several(&served.chain, calls).await {
        if answer.as_ref().is_err_and(RpcError::is_unavailable) {
            status = StatusCode::SERVICE_UNAVAILABLE;
        }
        answers.push(envelope(id, answer));
    }
    let answer = match answers.len() {
        // Nobody waits for an answer.
        0 => return status.into_response(),
        1 => answers.swap_remove(0),
        _ => Value::Array(answers),
    };
    (status, axum::Json(answer)).into_response()
}

/// The calls of a request that want an answer: notifications, which have no id, do nothing.
fn calls(body: &[u8], most: usize) -> Result<Vec<Value>, RpcError> {
    let request = serde_json::from_slice(body);
    let request = request.map_err(|error| RpcError::parse(error.to_string()))?;
    let calls = match request {
        Value::Array(calls) => calls,
        request => vec![request],
    };
    if calls.len() > most {
        let why = format!("a batch has at most {most} calls");
        return Err(RpcError::invalid_request(why));
    }
    let calls = calls.into_iter().map(understood);
    let calls: Vec<Value> = calls.collect::<Result<_, _>>()?;
    let is_call = |call: &Value| !call["id"].is_null();
    Ok(calls.into_iter().filter(is_call).collect())
}

/// A call as it came, if it has the form of one.
///
/// # Errors
/// Says what has another form.
pub(super) fn understood(call: Value) -> Result<Value, RpcError> {
    let what = match (call.is_object(), &call["id"], &call["method"]) {
        (false, ..) => "a call is an object",
        (_, Value::Bool(_) | Value::Array(_) | Value::Object(_), _) => {
            "an id is a text or a number"
        }
        (_, _, Value::Null | Value::String(_)) => return Ok(call),
        _ => "a call's method is a text",
    };
    Err(RpcError::parse(what))
}

/// The ids of calls, and their answers, one after another. Transactions that are offered one after
/// another under engine `local` are offered together.
async fn several(chain: &Chain, requests: Vec<Value>) -> Vec<(Value, Result<Value, RpcError>)> {
    let calls = requests.into_iter().map(|request| parse(chain, request));
    let calls: Vec<_> = calls.collect();
    let mut answers = Vec::with_capacity(calls.len());
    let mut rest = calls.as_slice();
    while let Some(((id, call), after)) = rest.split_first() {
        let offers = |(_, call): &&(_, Call)| {
            let method = call.as_ref().map(|(method, _)| method.as_str());
            method.is_ok_and(methods::broadcasts)
        };
        let offered = rest.iter().take_while(offers).count();
        if let (Chain::Local(service), 1..) = (chain, offered) {
            let (together, after) = rest.split_at(offered);
            let offers = together.iter().filter_map(|(_, call)| call.as_ref().ok());
            let offers = offers.map(|(method, params)| (method.as_str(), params));
            let offers: Vec<(&str, &Params)> = offers.collect();
            let ids = together.iter().map(|(id, _)| id.clone());
            answers.extend(ids.zip(methods::broadcast_all(service, &offers).await));
            rest = after;
            continue;
        }
        let answer = match call {
            Ok((method, params)) => chain.call(method, params).await,
            Err(error) => Err(error.clone()),
        };
        answers.push((id.clone(), answer));
        rest = after;
    }
    answers
}

/// A call's method, which there is, with its parameters; or what is wrong with it.
type Call = Result<(String, Params), RpcError>;

/// The id of a call, and its answer.
pub(super) async fn one(chain: &Chain, request: Value) -> (Value, Result<Value, RpcError>) {
    let (id, call) = parse(chain, request);
    let answer = match call {
        Ok((method, params)) => chain.call(&method, &params).await,
        Err(error) => Err(error),
    };
    (id, answer)
}

/// The id of a call, and the call.
fn parse(chain: &Chain, request: Value) -> (Value, Call) {
    let Value::Object(mut request) = request else {
        let why = RpcError::invalid_request("a call is an object");
        return (Value::Null, Err(why));
    };
    let id = request.remove("id").unwrap_or(Value::Null);
    let method = match request.remove("method") {
        Some(Value::String(method)) => method,
        _ => String::new(),
    };
    let Some(names) = chain.parameters(&method) else {
        return (id, Err(RpcError::unknown_method(&method)));
    };
    let params = Params::from_json(request.remove("params"), names);
    (id, params.map(|params| (method, params)))
}

fn refuse(error: RpcError) -> Response {
    let body = axum::Json(envelope(Value::Null, Err(error)));
    (StatusCode::INTERNAL_SERVER_ERROR, body).into_response()
}

/// An answer as JSON-RPC writes it; without an id where the call was not understood.
pub(super) fn envelope(id: Value, answer: Result<Value, RpcError>) -> Value {
    let mut envelope = match answer {
        Ok(result) => json!({"jsonrpc": "2.0", "result": result}),
        Err(error) => json!({"jsonrpc": "2.0", "error": error.to_json()}),
    };
    if !id.is_null() {
        envelope["id"] = id;
    }
    envelope
}

//! Answers HTTP requests by calling methods.

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
use serde_json::{Value, json};
use tower_http::cors::{Any, CorsLayer};
use tower_http::timeout::TimeoutLayer;

use crate::rpc::methods::{METHODS, call};
use crate::rpc::request::{Params, RpcError};

/// What the methods work on.
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

/// Bounds on requests. Connections are bounded by [`crate::server`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RpcLimits {
    /// Bytes of a request's body.
    pub body_bytes: usize,
    /// Calls in one JSON-RPC batch.
    pub batch: usize,
    /// How long `wait_height`, `wait_tx` and `broadcast_tx_commit` wait at most.
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

/// The RPC as a router, to be [served](crate::server::serve).
pub fn router(service: Service) -> Router {
    let limits = service.limits;
    let cors = CorsLayer::new()
        .allow_origin(Any)
        .allow_methods([Method::GET, Method::POST])
        .allow_headers([header::CONTENT_TYPE]);
    Router::new()
        .route("/", get(list).post(json_rpc))
        .route("/{method}", get(by_uri))
        .layer(DefaultBodyLimit::max(limits.body_bytes))
        .layer(TimeoutLayer::with_status_code(
            StatusCode::REQUEST_TIMEOUT,
            limits.timeout,
        ))
        .layer(cors)
        .with_state(Arc::new(service))
}

async fn list() -> Response {
    let methods: serde_json::Map<String, Value> = METHODS
        .iter()
        .map(|(name, params)| ((*name).to_owned(), json!(params)))
        .collect();
    axum::Json(json!({"methods": methods})).into_response()
}

async fn by_uri(
    State(service): State<Arc<Service>>,
    Path(method): Path<String>,
    Query(params): Query<HashMap<String, String>>,
) -> Response {
    let answer = call(&service, &method, &Params::Uri(params)).await;
    let status = match &answer {
        Ok(_) => StatusCode::OK,
        Err(error) if error.code == -32601 => StatusCode::NOT_FOUND,
        Err(error) if error.code == -32602 => StatusCode::BAD_REQUEST,
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (status, axum::Json(envelope(json!(-1), answer))).into_response()
}

async fn json_rpc(State(service): State<Arc<Service>>, body: Bytes) -> Response {
    let request: Value = match serde_json::from_slice(&body) {
        Ok(request) => request,
        Err(error) => return refuse(RpcError::parse(error.to_string())),
    };
    let answer = match request {
        Value::Array(calls) if calls.is_empty() || calls.len() > service.limits.batch => {
            let most = service.limits.batch;
            return refuse(RpcError::invalid_request(format!(
                "a batch has 1 to {most} calls"
            )));
        }
        Value::Array(calls) => {
            let mut answers = Vec::with_capacity(calls.len());
            for request in calls {
                answers.push(one(&service, request).await);
            }
            Value::Array(answers)
        }
        request => one(&service, request).await,
    };
    axum::Json(answer).into_response()
}

async fn one(service: &Service, request: Value) -> Value {
    let Value::Object(mut request) = request else {
        return envelope(
            Value::Null,
            Err(RpcError::invalid_request("a call is an object")),
        );
    };
    let id = request.remove("id").unwrap_or(Value::Null);
    let Some(Value::String(method)) = request.remove("method") else {
        return envelope(
            id,
            Err(RpcError::invalid_request("a call names its method")),
        );
    };
    let known = METHODS.iter().find(|(name, _)| *name == method);
    let Some((_, names)) = known else {
        return envelope(id, Err(RpcError::unknown_method(&method)));
    };
    let answer = match Params::from_json(request.remove("params"), names) {
        Ok(params) => call(service, &method, &params).await,
        Err(error) => Err(error),
    };
    envelope(id, answer)
}

fn refuse(error: RpcError) -> Response {
    let body = axum::Json(envelope(Value::Null, Err(error)));
    (StatusCode::BAD_REQUEST, body).into_response()
}

fn envelope(id: Value, answer: Result<Value, RpcError>) -> Value {
    match answer {
        Ok(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}),
        Err(error) => json!({"jsonrpc": "2.0", "id": id, "error": error.to_json()}),
    }
}

//! REST: the calls of the services as JSON, at the addresses that grpc-gateway gives them.
//!
//! Our own questions are at `GET /r3mes/DOMAIN/v1/METHOD?field=value`.

use std::collections::HashMap;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use axum::{Json, Router};
use cosmos_sdk_proto::cosmos::base::abci::v1beta1::TxResponse;
use cosmos_sdk_proto::cosmos::base::node::v1beta1::{ConfigResponse, StatusResponse};
use cosmos_sdk_proto::cosmos::base::query::v1beta1::PageRequest;
use cosmos_sdk_proto::cosmos::base::tendermint::v1beta1::{
    AbciQueryRequest, AbciQueryResponse, GetBlockByHeightRequest, GetBlockByHeightResponse,
    GetNodeInfoResponse, GetSyncingResponse, GetValidatorSetByHeightRequest,
    GetValidatorSetByHeightResponse,
};
use cosmos_sdk_proto::cosmos::tx::v1beta1::{
    BroadcastMode, BroadcastTxRequest, BroadcastTxResponse, GetTxRequest, GetTxResponse,
    GetTxsEventRequest, GetTxsEventResponse, OrderBy, SimulateRequest, Tx,
};
use prost::Message;
use serde_json::{Map, Value, json};
use tonic::{Code, Status};
use tower_http::cors::{Any, CorsLayer};
use tower_http::timeout::TimeoutLayer;

use super::json::{self, base64, from_base64};
use super::node::{Node, parse};

/// Names the version of the state, in questions.
const HEIGHT: &str = "x-cosmos-block-height";
/// Bytes of a request's body.
const MAX_BODY_BYTES: usize = 2 << 20;
/// How long a request may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Questions of the SDK that the ledger answers: address, service, method.
const QUESTIONS: &[(&str, &str, &str)] = &[
    (
        "/cosmos/auth/v1beta1/accounts/{address}",
        "cosmos.auth.v1beta1.Query",
        "Account",
    ),
    (
        "/cosmos/auth/v1beta1/account_info/{address}",
        "cosmos.auth.v1beta1.Query",
        "AccountInfo",
    ),
    (
        "/cosmos/auth/v1beta1/params",
        "cosmos.auth.v1beta1.Query",
        "Params",
    ),
    (
        "/cosmos/auth/v1beta1/module_accounts",
        "cosmos.auth.v1beta1.Query",
        "ModuleAccounts",
    ),
    (
        "/cosmos/auth/v1beta1/bech32",
        "cosmos.auth.v1beta1.Query",
        "Bech32Prefix",
    ),
    (
        "/cosmos/bank/v1beta1/balances/{address}",
        "cosmos.bank.v1beta1.Query",
        "AllBalances",
    ),
    (
        "/cosmos/bank/v1beta1/balances/{address}/by_denom",
        "cosmos.bank.v1beta1.Query",
        "Balance",
    ),
    (
        "/cosmos/bank/v1beta1/spendable_balances/{address}",
        "cosmos.bank.v1beta1.Query",
        "SpendableBalances",
    ),
    (
        "/cosmos/bank/v1beta1/spendable_balances/{address}/by_denom",
        "cosmos.bank.v1beta1.Query",
        "SpendableBalanceByDenom",
    ),
    (
        "/cosmos/bank/v1beta1/supply",
        "cosmos.bank.v1beta1.Query",
        "TotalSupply",
    ),
    (
        "/cosmos/bank/v1beta1/supply/by_denom",
        "cosmos.bank.v1beta1.Query",
        "SupplyOf",
    ),
    (
        "/cosmos/bank/v1beta1/params",
        "cosmos.bank.v1beta1.Query",
        "Params",
    ),
    (
        "/cosmos/bank/v1beta1/denoms_metadata",
        "cosmos.bank.v1beta1.Query",
        "DenomsMetadata",
    ),
    (
        "/cosmos/bank/v1beta1/denoms_metadata/{denom}",
        "cosmos.bank.v1beta1.Query",
        "DenomMetadata",
    ),
];

/// The REST addresses of a node.
pub fn rest_router(node: Node) -> Router {
    let mut router = Router::new();
    for (address, service, method) in QUESTIONS {
        router = router.route(address, question(service, method));
    }
    let cors = CorsLayer::new()
        .allow_origin(Any)
        .allow_methods([Method::GET, Method::POST])
        .allow_headers([header::CONTENT_TYPE]);
    router
        .route("/r3mes/{domain}/v1/{method}", get(own))
        .route("/cosmos/tx/v1beta1/simulate", axum::routing::post(simulate))
        .route("/cosmos/tx/v1beta1/txs", get(search).post(broadcast))
        .route("/cosmos/tx/v1beta1/txs/{hash}", get(tx))
        .nest("/cosmos/base/tendermint/v1beta1", tendermint())
        .route("/cosmos/base/node/v1beta1/config", get(config))
        .route("/cosmos/base/node/v1beta1/status", get(status))
        .fallback(async || Failed(Status::unimplemented("unknown address")))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(TimeoutLayer::with_status_code(
            StatusCode::GATEWAY_TIMEOUT,
            TIMEOUT,
        ))
        .layer(cors)
        .with_state(node)
}

fn tendermint() -> Router<Node> {
    Router::new()
        .route("/node_info", get(node_info))
        .route("/syncing", get(syncing))
        .route("/blocks/{height}", get(block))
        .route("/validatorsets/{height}", get(validators))
        .route("/abci_query", get(abci_query))
}

/// What went wrong, as grpc-gateway says it.
struct Failed(Status);

impl From<Status> for Failed {
    fn from(status: Status) -> Self {
        Self(status)
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        let status = match self.0.code() {
            Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => {
                StatusCode::BAD_REQUEST
            }
            Code::NotFound => StatusCode::NOT_FOUND,
            Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
            Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let code = i32::from(self.0.code());
        let body = json!({"code": code, "message": self.0.message(), "details": []});
        (status, Json(body)).into_response()
    }
}

type Answer = Result<Json<Value>, Failed>;
type Params = HashMap<String, String>;

fn question(service: &'static str, method: &'static str) -> MethodRouter<Node> {
    get(
        move |State(node): State<Node>,
              Path(path): Path<Params>,
              Query(query): Query<Params>,
              headers: HeaderMap| async move {
            let given = path.into_iter().chain(query);
            ask(&node, service, method, given.collect(), &headers).await
        },
    )
}

async fn own(
    State(node): State<Node>,
    Path((domain, method)): Path<(String, String)>,
    Query(query): Query<Params>,
    headers: HeaderMap,
) -> Answer {
    ask(
        &node,
        &format!("r3mes.{domain}.v1.Query"),
        &method,
        query,
        &headers,
    )
    .await
}

/// Asks a question whose fields are given by name; those of messages in it as `message.field`.
async fn ask(
    node: &Node,
    service: &str,
    method: &str,
    given: Params,
    headers: &HeaderMap,
) -> Answer {
    let path = format!("/{service}/{method}");
    let described = json::method(service, method);
    let unknown = || Status::unimplemented(format!("unknown method {path}"));
    let (question, answer) = described.ok_or_else(unknown)?;
    let mut fields = Map::new();
    for (name, value) in given {
        let value = match json::is_flag(&question, &name).then(|| value.parse()) {
            Some(Ok(flag)) => Value::Bool(flag),
            _ => value.into(),
        };
        match name.split_once('.') {
            Some((outer, inner)) => fields
                .entry(outer)
                .or_insert_with(|| json!({}))
                .as_object_mut()
                .ok_or_else(|| Status::invalid_argument(format!("{outer} is given twice")))?
                .insert(inner.to_owned(), value),
            None => fields.insert(name, value),
        };
    }
    let question = json::write(question, &Value::Object(fields))?;
    let found = node.call(&path, &question, height(headers)?).await?;
    Ok(Json(json::read(answer, &found.value)?))
}

fn height(headers: &HeaderMap) -> Result<Option<u64>, Status> {
    let Some(value) = headers.get(HEIGHT) else {
        return Ok(None);
    };
    let height = value.to_str().ok().and_then(|text| text.parse().ok());
    let height: u64 = height
        .ok_or_else(|| Status::invalid_argument(format!("{HEIGHT} must be a whole number")))?;
    Ok((height > 0).then_some(height))
}

/// Calls a method with the SDK's own types.
async fn call<A: Message + Default>(
    node: &Node,
    path: &str,
    request: &impl Message,
) -> Result<A, Status> {
    let answer = node.call(path, &request.encode_to_vec(), None).await?;
    parse(&answer.value)
}

#[expect(deprecated, reason = "the field `tx` is part of the type")]
async fn simulate(State(node): State<Node>, body: Body) -> Answer {
    let body = json_of(body)?;
    let request = SimulateRequest {
        tx: None,
        tx_bytes: tx_bytes(&body)?,
    };
    let path = "/cosmos.tx.v1beta1.Service/Simulate";
    let answer = node.call(path, &request.encode_to_vec(), None).await?;
    let name = "cosmos.tx.v1beta1.SimulateResponse";
    Ok(Json(json::named(name, &answer.value)?))
}

/// A request's body, or why it could not be read.
type Body = Result<Bytes, BytesRejection>;

/// JSON, whatever the headers call it, as grpc-gateway takes it.
fn json_of(body: Body) -> Result<Value, Status> {
    let body = body.map_err(|refusal| Status::invalid_argument(refusal.body_text()))?;
    serde_json::from_slice(&body)
        .map_err(|error| Status::invalid_argument(format!("the body is not JSON: {error}")))
}

fn tx_bytes(body: &Value) -> Result<Vec<u8>, Status> {
    let bytes = body["tx_bytes"].as_str().and_then(from_base64);
    bytes.ok_or_else(|| Status::invalid_argument("tx_bytes must be a transaction in base64"))
}

async fn broadcast(State(node): State<Node>, body: Body) -> Answer {
    let body = json_of(body)?;
    let mode = match &body["mode"] {
        Value::String(name) => BroadcastMode::from_str_name(name).map(i32::from),
        number => number
            .as_i64()
            .and_then(|number| i32::try_from(number).ok()),
    };
    let request = BroadcastTxRequest {
        tx_bytes: tx_bytes(&body)?,
        mode: mode.unwrap_or_default(),
    };
    let path = "/cosmos.tx.v1beta1.Service/BroadcastTx";
    let answer: BroadcastTxResponse = call(&node, path, &request).await?;
    let response = answer.tx_response.unwrap_or_default();
    Ok(Json(json!({"tx_response": tx_response(&response)?})))
}

async fn tx(State(node): State<Node>, Path(hash): Path<String>) -> Answer {
    let path = "/cosmos.tx.v1beta1.Service/GetTx";
    let answer: GetTxResponse = call(&node, path, &GetTxRequest { hash }).await?;
    let tx = answer.tx.unwrap_or_default();
    let response = answer.tx_response.unwrap_or_default();
    Ok(Json(
        json!({"tx": tx_json(&tx)?, "tx_response": tx_response(&response)?}),
    ))
}

#[expect(deprecated, reason = "older clients send `events` and `pagination`")]
async fn search(State(node): State<Node>, Query(given): Query<Vec<(String, String)>>) -> Answer {
    let of = |wanted: &'static str| {
        let given = given.iter().filter(move |(name, _)| name == wanted);
        given.map(|(_, value)| value.clone())
    };
    let number = |name: &'static str| match of(name).next() {
        Some(text) => text
            .parse()
            .map_err(|_| Status::invalid_argument(format!("{name} must be a whole number"))),
        None => Ok(0),
    };
    let request = GetTxsEventRequest {
        events: of("events").collect(),
        pagination: Some(PageRequest {
            offset: number("pagination.offset")?,
            limit: number("pagination.limit")?,
            ..PageRequest::default()
        }),
        order_by: order(of("order_by").next().as_deref())?.into(),
        page: number("page")?,
        limit: number("limit")?,
        query: of("query").next().unwrap_or_default(),
    };
    let path = "/cosmos.tx.v1beta1.Service/GetTxsEvent";
    let answer: GetTxsEventResponse = call(&node, path, &request).await?;
    let txs: Result<Vec<Value>, Status> = answer.txs.iter().map(tx_json).collect();
    let responses: Result<Vec<Value>, Status> =
        answer.tx_responses.iter().map(tx_response).collect();
    Ok(Json(json!({
        "txs": txs?,
        "tx_responses": responses?,
        "pagination": null,
        "total": answer.total.to_string(),
    })))
}

/// An order by its name or number.
fn order(text: Option<&str>) -> Result<OrderBy, Status> {
    let Some(text) = text else {
        return Ok(OrderBy::Unspecified);
    };
    let number = text.parse().ok().and_then(|n: i32| n.try_into().ok());
    let order = OrderBy::from_str_name(text).or(number);
    order.ok_or_else(|| {
        Status::invalid_argument("order_by must be ORDER_BY_ASC (1) or ORDER_BY_DESC (2)")
    })
}

fn tx_json(tx: &Tx) -> Result<Value, Status> {
    let body = tx.body.clone().unwrap_or_default().encode_to_vec();
    let auth = tx.auth_info.clone().unwrap_or_default().encode_to_vec();
    let signatures: Vec<String> = tx.signatures.iter().map(|bytes| base64(bytes)).collect();
    Ok(json!({
        "body": json::named("cosmos.tx.v1beta1.TxBody", &body)?,
        "auth_info": json::named("cosmos.tx.v1beta1.AuthInfo", &auth)?,
        "signatures": signatures,
    }))
}

fn tx_response(response: &TxResponse) -> Result<Value, Status> {
    let event = |event| {
        let bytes = Message::encode_to_vec(event);
        json::named("tendermint.abci.Event", &bytes)
    };
    let events: Result<Vec<Value>, Status> = response.events.iter().map(event).collect();
    let tx = match &response.tx {
        Some(any) => {
            let mut tx = tx_json(&parse(&any.value)?)?;
            tx["@type"] = any.type_url.clone().into();
            tx
        }
        None => Value::Null,
    };
    Ok(json!({
        "height": response.height.to_string(),
        "txhash": response.txhash,
        "codespace": response.codespace,
        "code": response.code,
        "data": response.data,
        "raw_log": response.raw_log,
        "logs": [],
        "info": response.info,
        "gas_wanted": response.gas_wanted.to_string(),
        "gas_used": response.gas_used.to_string(),
        "tx": tx,
        "timestamp": response.timestamp,
        "events": events?,
    }))
}

async fn node_info(State(node): State<Node>) -> Answer {
    let path = "/cosmos.base.tendermint.v1beta1.Service/GetNodeInfo";
    let answer: GetNodeInfoResponse = call(&node, path, &()).await?;
    let info = answer.default_node_info.unwrap_or_default();
    let protocol = info.protocol_version.unwrap_or_default();
    let other = info.other.unwrap_or_default();
    let version = answer.application_version.unwrap_or_default();
    Ok(Json(json!({
        "default_node_info": {
            "protocol_version": {
                "p2p": protocol.p2p.to_string(),
                "block": protocol.block.to_string(),
                "app": protocol.app.to_string(),
            },
            "default_node_id": info.default_node_id,
            "listen_addr": info.listen_addr,
            "network": info.network,
            "version": info.version,
            "channels": base64(&info.channels),
            "moniker": info.moniker,
            "other": {"tx_index": other.tx_index, "rpc_address": other.rpc_address},
        },
        "application_version": {
            "name": version.name,
            "app_name": version.app_name,
            "version": version.version,
            "git_commit": "",
            "build_tags": "",
            "go_version": "",
            "build_deps": [],
            "cosmos_sdk_version": "",
        },
    })))
}

async fn syncing(State(node): State<Node>) -> Answer {
    let path = "/cosmos.base.tendermint.v1beta1.Service/GetSyncing";
    let answer: GetSyncingResponse = call(&node, path, &()).await?;
    Ok(Json(json!({"syncing": answer.syncing})))
}

/// `latest`, or a height.
fn height_or_latest(text: &str) -> Result<i64, Status> {
    match text {
        "latest" => Ok(0),
        text => text
            .parse()
            .map_err(|_| Status::invalid_argument("a height is a whole number, or latest")),
    }
}

async fn block(State(node): State<Node>, Path(height): Path<String>) -> Answer {
    let height = height_or_latest(&height)?;
    let path = "/cosmos.base.tendermint.v1beta1.Service/GetBlockByHeight";
    let request = GetBlockByHeightRequest { height };
    let answer: GetBlockByHeightResponse = call(&node, path, &request).await?;
    let part = |what| Status::internal(format!("the block has no {what}"));
    let block = answer.block.ok_or_else(|| part("content"))?;
    let header = block.header.ok_or_else(|| part("header"))?;
    let version = header.version.unwrap_or_default();
    let data = block.data.unwrap_or_default();
    let txs: Vec<String> = data.txs.iter().map(|tx| base64(tx)).collect();
    let commit = block.last_commit.unwrap_or_default();
    let signatures = commit.signatures.iter().map(|signature| {
        json!({
            "block_id_flag": signature.block_id_flag().as_str_name(),
            "validator_address": base64(&signature.validator_address),
            "timestamp": timestamp(signature.timestamp.as_ref()),
            "signature": base64(&signature.signature),
        })
    });
    let signatures: Vec<Value> = signatures.collect();
    Ok(Json(json!({
        "block_id": block_id(answer.block_id),
        "block": {
            "header": {
                "version": {"block": version.block.to_string(), "app": version.app.to_string()},
                "chain_id": header.chain_id,
                "height": header.height.to_string(),
                "time": timestamp(header.time.as_ref()),
                "last_block_id": block_id(header.last_block_id),
                "last_commit_hash": base64(&header.last_commit_hash),
                "data_hash": base64(&header.data_hash),
                "validators_hash": base64(&header.validators_hash),
                "next_validators_hash": base64(&header.next_validators_hash),
                "consensus_hash": base64(&header.consensus_hash),
                "app_hash": base64(&header.app_hash),
                "last_results_hash": base64(&header.last_results_hash),
                "evidence_hash": base64(&header.evidence_hash),
                "proposer_address": base64(&header.proposer_address),
            },
            "data": {"txs": txs},
            "evidence": {"evidence": []},
            "last_commit": {
                "height": commit.height.to_string(),
                "round": commit.round,
                "block_id": block_id(commit.block_id),
                "signatures": signatures,
            },
        },
        "sdk_block": null,
    })))
}

fn block_id(id: Option<cosmos_sdk_proto::tendermint::types::BlockId>) -> Value {
    let id = id.unwrap_or_default();
    let parts = id.part_set_header.unwrap_or_default();
    json!({
        "hash": base64(&id.hash),
        "part_set_header": {"total": parts.total, "hash": base64(&parts.hash)},
    })
}

fn timestamp(time: Option<&tendermint_proto::google::protobuf::Timestamp>) -> Value {
    let time = time.cloned().map(tendermint::Time::try_from);
    time.and_then(Result::ok)
        .map_or(Value::Null, |time| time.to_rfc3339().into())
}

async fn validators(State(node): State<Node>, Path(height): Path<String>) -> Answer {
    let request = GetValidatorSetByHeightRequest {
        height: height_or_latest(&height)?,
        pagination: None,
    };
    let path = match request.height {
        0 => "/cosmos.base.tendermint.v1beta1.Service/GetLatestValidatorSet",
        _ => "/cosmos.base.tendermint.v1beta1.Service/GetValidatorSetByHeight",
    };
    let answer: GetValidatorSetByHeightResponse = call(&node, path, &request).await?;
    let mut validators = Vec::new();
    for validator in &answer.validators {
        let key = validator.pub_key.clone().unwrap_or_default();
        let bytes: cosmos_sdk_proto::cosmos::crypto::ed25519::PubKey = parse(&key.value)?;
        validators.push(json!({
            "address": validator.address,
            "pub_key": {"@type": key.type_url, "key": base64(&bytes.key)},
            "voting_power": validator.voting_power.to_string(),
            "proposer_priority": validator.proposer_priority.to_string(),
        }));
    }
    let total = answer.pagination.unwrap_or_default().total.to_string();
    Ok(Json(json!({
        "block_height": answer.block_height.to_string(),
        "validators": validators,
        "pagination": {"next_key": null, "total": total},
    })))
}

async fn abci_query(State(node): State<Node>, Query(given): Query<Params>) -> Answer {
    let text = |name: &str| given.get(name).cloned().unwrap_or_default();
    let data = from_base64(&text("data"));
    let request = AbciQueryRequest {
        data: data.ok_or_else(|| Status::invalid_argument("data must be base64"))?,
        path: text("path"),
        height: text("height").parse().unwrap_or_default(),
        prove: text("prove") == "true",
    };
    let path = "/cosmos.base.tendermint.v1beta1.Service/ABCIQuery";
    let answer: AbciQueryResponse = call(&node, path, &request).await?;
    let ops = answer.proof_ops.map(|proof| {
        let ops = proof
            .ops
            .iter()
            .map(|op| json!({"type": op.r#type, "key": base64(&op.key), "data": base64(&op.data)}));
        json!({"ops": ops.collect::<Vec<Value>>()})
    });
    Ok(Json(json!({
        "code": answer.code,
        "log": answer.log,
        "info": answer.info,
        "index": answer.index.to_string(),
        "key": base64(&answer.key),
        "value": base64(&answer.value),
        "proof_ops": ops,
        "height": answer.height.to_string(),
        "codespace": answer.codespace,
    })))
}

async fn config(State(node): State<Node>) -> Answer {
    let path = "/cosmos.base.node.v1beta1.Service/Config";
    let answer: ConfigResponse = call(&node, path, &()).await?;
    Ok(Json(json!({
        "minimum_gas_price": answer.minimum_gas_price,
        "pruning_keep_recent": answer.pruning_keep_recent,
        "pruning_interval": answer.pruning_interval,
        "halt_height": answer.halt_height.to_string(),
    })))
}

async fn status(State(node): State<Node>) -> Answer {
    let path = "/cosmos.base.node.v1beta1.Service/Status";
    let answer: StatusResponse = call(&node, path, &()).await?;
    Ok(Json(json!({
        "earliest_store_height": answer.earliest_store_height.to_string(),
        "height": answer.height.to_string(),
        "timestamp": timestamp(answer.timestamp.as_ref()),
        "app_hash": base64(&answer.app_hash),
        "validator_hash": base64(&answer.validator_hash),
    })))
}

//! `cosmos.tx.v1beta1.Service`: transactions sent and found.

use cosmos_sdk_proto::Any;
use cosmos_sdk_proto::cosmos::base::abci::v1beta1::{AbciMessageLog, TxResponse};
use cosmos_sdk_proto::cosmos::tx::v1beta1::{
    BroadcastMode, BroadcastTxRequest, BroadcastTxResponse, GetTxRequest, GetTxResponse,
    GetTxsEventRequest, GetTxsEventResponse, OrderBy, Tx,
};
use cosmos_sdk_proto::tendermint::abci::{Event, EventAttribute};
use prost::Message;
use serde_json::{Value, json};
use tonic::Status;

use super::node::{Node, bytes, number, parse};
use super::tendermint;

/// Transactions of one page when the asker names no number, and at the most.
const PAGES: (u64, u64) = (30, 100);

/// The service and the methods that are answered here.
pub(super) const METHODS: (&str, &[&str]) = (
    "cosmos.tx.v1beta1.Service",
    &["BroadcastTx", "GetTx", "GetTxsEvent"],
);

pub(super) async fn call(node: &Node, method: &str, data: &[u8]) -> Result<Vec<u8>, Status> {
    match method {
        "BroadcastTx" => broadcast(node, parse(data)?).await,
        "GetTx" => get(node, parse(data)?).await,
        "GetTxsEvent" => search(node, parse(data)?).await,
        other => Err(Status::unimplemented(format!("unknown method {other}"))),
    }
}

async fn broadcast(node: &Node, request: BroadcastTxRequest) -> Result<Vec<u8>, Status> {
    let method = match BroadcastMode::try_from(request.mode) {
        Ok(BroadcastMode::Async) => "broadcast_tx_async",
        Ok(BroadcastMode::Sync | BroadcastMode::Block) => "broadcast_tx_sync",
        _ => {
            return Err(Status::invalid_argument(
                "name a broadcast mode: sync or async",
            ));
        }
    };
    if request.tx_bytes.is_empty() {
        return Err(Status::invalid_argument("invalid empty tx"));
    }
    let tx = super::json::base64(&request.tx_bytes);
    let answer = node.ask(method, json!({"tx": tx})).await?;
    let text = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
    let tx_response = Some(TxResponse {
        txhash: text("hash"),
        codespace: text("codespace"),
        code: code(&answer),
        raw_log: text("log"),
        ..TxResponse::default()
    });
    Ok(BroadcastTxResponse { tx_response }.encode_to_vec())
}

async fn get(node: &Node, request: GetTxRequest) -> Result<Vec<u8>, Status> {
    let not_found = || Status::not_found(format!("tx not found: {}", request.hash));
    let hash = hex::decode(&request.hash)
        .map_err(|_| Status::invalid_argument("a hash is written in hexadecimal digits"))?;
    if hash.len() != 32 {
        return Err(Status::invalid_argument("a hash has 32 bytes"));
    }
    let params = json!({"hash": super::json::base64(&hash)});
    let found = match node.ask("tx", params).await {
        Ok(found) => found,
        Err(status) if status.message().contains("not found") => return Err(not_found()),
        Err(status) => return Err(status),
    };
    let (tx, tx_response) = found_tx(&found, &time(node, &found).await?)?;
    Ok(GetTxResponse {
        tx: Some(tx),
        tx_response: Some(tx_response),
    }
    .encode_to_vec())
}

#[expect(deprecated, reason = "older clients send `events` and `pagination`")]
async fn search(node: &Node, request: GetTxsEventRequest) -> Result<Vec<u8>, Status> {
    let query = match request.query.is_empty() {
        true => request.events.join(" AND "),
        false => request.query,
    };
    let asked = request.pagination.unwrap_or_default();
    if query.is_empty() {
        return Err(Status::invalid_argument("query cannot be empty"));
    }
    let limit = [request.limit, asked.limit].into_iter().find(|n| *n > 0);
    let limit = limit.unwrap_or(PAGES.0).min(PAGES.1);
    let page = match request.page {
        0 => (asked.offset / limit).saturating_add(1),
        page => page,
    };
    let order = match OrderBy::try_from(request.order_by) {
        Ok(OrderBy::Desc) => "desc",
        _ => "asc",
    };
    let params = |page: u64| {
        let (page, limit) = (page.to_string(), limit.to_string());
        json!({"query": query, "page": page, "per_page": limit, "order_by": order})
    };
    // A page's number is signed there.
    let page = page.min(signed(page).unsigned_abs());
    let found = match node.ask("tx_search", params(page)).await {
        Err(beyond) if beyond.message().starts_with("page should be within") => {
            let mut found = node.ask("tx_search", params(1)).await?;
            found["txs"] = Value::Null;
            found
        }
        found => found?,
    };
    let mut answer = GetTxsEventResponse {
        total: number(&found["total_count"]),
        ..GetTxsEventResponse::default()
    };
    let found = found["txs"].as_array().map_or(&[][..], Vec::as_slice);
    for block in found.chunk_by(|a, b| a["height"] == b["height"]) {
        let time = time(node, &block[0]).await?;
        for found in block {
            let (tx, response) = found_tx(found, &time)?;
            answer.txs.push(tx);
            answer.tx_responses.push(response);
        }
    }
    Ok(answer.encode_to_vec())
}

/// The time of a transaction's block.
async fn time(node: &Node, found: &Value) -> Result<String, Status> {
    let (_, block) = tendermint::block(node, Some(number(&found["height"]))).await?;
    Ok(block.header.time.to_rfc3339())
}

/// A transaction as the RPC has it, in the SDK's form.
fn found_tx(found: &Value, time: &str) -> Result<(Tx, TxResponse), Status> {
    let raw = bytes(&found["tx"]);
    let tx: Tx = parse(&raw)?;
    let height = number(&found["height"]);
    let result = &found["tx_result"];
    let text = |name: &str| result[name].as_str().unwrap_or_default().to_owned();
    let events: Vec<Event> = result["events"]
        .as_array()
        .into_iter()
        .flatten()
        .map(event)
        .collect();
    let response = TxResponse {
        height: signed(height),
        txhash: found["hash"].as_str().unwrap_or_default().to_owned(),
        codespace: text("codespace"),
        code: code(result),
        data: hex::encode_upper(bytes(&result["data"])),
        raw_log: text("log"),
        logs: Vec::<AbciMessageLog>::new(),
        info: String::new(),
        gas_wanted: signed(number(&result["gas_wanted"])),
        gas_used: signed(number(&result["gas_used"])),
        tx: Some(Any {
            type_url: "/cosmos.tx.v1beta1.Tx".into(),
            value: raw,
        }),
        timestamp: time.to_owned(),
        events,
    };
    Ok((tx, response))
}

fn event(event: &Value) -> Event {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let attribute = |attribute: &Value| EventAttribute {
        key: text(&attribute["key"]),
        value: text(&attribute["value"]),
        index: attribute["index"].as_bool().unwrap_or_default(),
    };
    let attributes = event["attributes"].as_array().into_iter().flatten();
    Event {
        r#type: text(&event["type"]),
        attributes: attributes.map(attribute).collect(),
    }
}

fn code(result: &Value) -> u32 {
    let code = result["code"].as_u64().unwrap_or_default();
    u32::try_from(code).unwrap_or(u32::MAX)
}

/// Heights and gas fit the SDK's signed numbers.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

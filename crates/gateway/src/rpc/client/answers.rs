//! What a node's answers look like in JSON, and how single values of them are read.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;

use super::{ClientError, TxOutcome};

#[derive(Deserialize)]
pub(super) struct Envelope {
    #[serde(default)]
    pub(super) result: Value,
    pub(super) error: Option<ErrorAnswer>,
}

#[derive(Deserialize)]
pub(super) struct ErrorAnswer {
    pub(super) message: String,
    pub(super) data: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct StatusAnswer {
    pub(super) node_info: NodeInfo,
    pub(super) sync_info: SyncInfo,
}

#[derive(Deserialize)]
pub(super) struct NodeInfo {
    pub(super) id: String,
    pub(super) listen_addr: String,
    pub(super) network: String,
    pub(super) moniker: String,
}

#[derive(Deserialize)]
pub(super) struct SyncInfo {
    pub(super) latest_block_height: String,
    pub(super) latest_app_hash: String,
    pub(super) latest_block_time: String,
    pub(super) catching_up: bool,
}

#[derive(Deserialize)]
pub(super) struct InfoAnswer {
    pub(super) response: InfoResponse,
}

#[derive(Deserialize)]
pub(super) struct InfoResponse {
    /// Left out before the first block.
    #[serde(default = "zero")]
    pub(super) last_block_height: String,
    /// Left out before there is a state.
    #[serde(default)]
    pub(super) last_block_app_hash: String,
}

fn zero() -> String {
    "0".to_owned()
}

#[derive(Deserialize)]
pub(super) struct QueryAnswer {
    pub(super) response: QueryResponse,
}

#[derive(Deserialize)]
pub(super) struct QueryResponse {
    pub(super) code: u32,
    pub(super) log: String,
    pub(super) codespace: String,
    pub(super) value: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct HeightAnswer {
    pub(super) height: String,
}

#[derive(Deserialize)]
pub(super) struct BroadcastAnswer {
    pub(super) code: u32,
    pub(super) log: String,
    pub(super) codespace: String,
    pub(super) hash: String,
}

#[derive(Deserialize)]
pub(super) struct TxStateAnswer {
    pub(super) state: String,
    pub(super) tx: Option<TxAnswer>,
    pub(super) result: Option<ResultAnswer>,
}

#[derive(Deserialize)]
pub(super) struct TxAnswer {
    pub(super) hash: String,
    pub(super) height: String,
    pub(super) tx_result: ResultAnswer,
}

#[derive(Deserialize)]
pub(super) struct ResultAnswer {
    pub(super) code: u32,
    pub(super) log: String,
    pub(super) codespace: String,
    pub(super) gas_used: String,
    pub(super) events: Vec<EventAnswer>,
}

#[derive(Deserialize)]
pub(super) struct EventAnswer {
    pub(super) r#type: String,
    pub(super) attributes: Vec<AttributeAnswer>,
}

#[derive(Deserialize)]
pub(super) struct AttributeAnswer {
    pub(super) key: String,
    pub(super) value: String,
}

impl TxAnswer {
    pub(super) fn outcome(self) -> Result<TxOutcome, ClientError> {
        let result = self.tx_result;
        let attributes = |event: EventAnswer| {
            let attributes = event.attributes.into_iter();
            (event.r#type, attributes.map(|a| (a.key, a.value)).collect())
        };
        Ok(TxOutcome {
            hash: hash("tx", &self.hash)?,
            height: number("tx", &self.height)?,
            code: result.code,
            codespace: result.codespace,
            log: result.log,
            gas_used: number("tx", &result.gas_used)?,
            events: result.events.into_iter().map(attributes).collect(),
        })
    }
}

pub(super) fn not_understood(method: &str, what: impl ToString) -> ClientError {
    ClientError::Answer {
        method: method.to_owned(),
        what: what.to_string(),
    }
}

pub(super) fn number(method: &str, text: &str) -> Result<u64, ClientError> {
    text.parse()
        .map_err(|_| not_understood(method, format!("{text:?} is not a number")))
}

pub(super) fn hash(method: &str, digits: &str) -> Result<[u8; 32], ClientError> {
    let bytes = hex::decode(digits)
        .ok()
        .and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| not_understood(method, format!("{digits:?} is not a hash")))
}

pub(super) fn base64(method: &str, text: &str) -> Result<Vec<u8>, ClientError> {
    STANDARD
        .decode(text)
        .map_err(|_| not_understood(method, "it is not base64"))
}

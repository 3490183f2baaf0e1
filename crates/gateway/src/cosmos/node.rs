//! Which part of the node answers a call.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cosmos_sdk_proto::cosmos::base::node::v1beta1::{ConfigResponse, StatusResponse};
use cosmos_sdk_proto::tendermint::types::{
    BlockParams, ConsensusParams, EvidenceParams, ValidatorParams, VersionParams,
};
use prost::Message;
use r3mes_types::auth::AuthParams;
use r3mes_types::{DENOM, wire::Wire};
use serde_json::{Value, json};
use tendermint_proto::google::protobuf::Duration;
use tonic::Status;

use super::{tendermint, tx};
use crate::rpc::{Chain, RpcError};

/// The services and the methods that are answered here.
pub(super) const METHODS: [(&str, &[&str]); 2] = [
    ("cosmos.base.node.v1beta1.Service", &["Config", "Status"]),
    ("cosmos.consensus.v1.Query", &["Params"]),
];

/// A node that answers calls of the Cosmos SDK.
#[derive(Clone)]
pub struct Node {
    chain: Chain,
}

/// `cosmos.consensus.v1.QueryParamsResponse`, which the SDK's types for Rust leave out.
#[derive(Clone, PartialEq, Message)]
struct ConsensusParamsAnswer {
    #[prost(message, optional, tag = "1")]
    params: Option<ConsensusParams>,
}

/// An answer, and the height of the state that was read, if any was.
pub(super) struct Answer {
    pub(super) value: Vec<u8>,
    pub(super) height: Option<u64>,
}

impl Node {
    /// A node whose blocks and state are those of `chain`.
    pub fn new(chain: Chain) -> Self {
        Self { chain }
    }

    /// Answers the call with the path `/package.Service/Method`. `height` is the version of the state
    /// that is asked; the newest if it is none.
    pub(super) async fn call(
        &self,
        path: &str,
        data: &[u8],
        height: Option<u64>,
    ) -> Result<Answer, Status> {
        let value = match path.split_once("Service/") {
            Some(("/cosmos.tx.v1beta1.", method)) if method != "Simulate" => {
                tx::call(self, method, data).await?
            }
            Some(("/cosmos.base.tendermint.v1beta1.", method)) => {
                tendermint::call(self, method, data).await?
            }
            Some(("/cosmos.base.node.v1beta1.", "Config")) => self.config().await?,
            Some(("/cosmos.base.node.v1beta1.", "Status")) => self.status().await?,
            None if path == "/cosmos.consensus.v1.Query/Params" => self.consensus_params().await?,
            _ => return self.state(path, data, height).await,
        };
        Ok(Answer {
            value,
            height: None,
        })
    }

    /// Asks the ledger.
    async fn state(&self, path: &str, data: &[u8], height: Option<u64>) -> Result<Answer, Status> {
        // `/store` and the like are for `ABCIQuery`.
        if !path.contains('.') {
            return Err(Status::unimplemented(format!("unknown method {path}")));
        }
        let mut params = json!({"path": path, "data": hex::encode(data)});
        if let Some(height) = height {
            params["height"] = height.to_string().into();
        }
        let answer = self.ask("abci_query", params).await?;
        let response = &answer["response"];
        let code = response["code"].as_u64().unwrap_or_default();
        if code != 0 {
            let codespace = response["codespace"].as_str().unwrap_or_default();
            let log = response["log"].as_str().unwrap_or_default();
            return Err(refusal(codespace, code, log));
        }
        Ok(Answer {
            value: bytes(&response["value"]),
            height: response["height"].as_str().and_then(|h| h.parse().ok()),
        })
    }

    /// Calls a method of the RPC.
    pub(super) async fn ask(&self, method: &str, params: Value) -> Result<Value, Status> {
        let answer = self.chain.ask(method, params).await;
        answer.map_err(|error: RpcError| error.into_status())
    }

    async fn config(&self) -> Result<Vec<u8>, Status> {
        let question = r3mes_types::governance::QueryParams::default();
        let path = <r3mes_types::governance::QueryParams as r3mes_types::Query>::PATH;
        let answer = self.state(path, &question.encode(), None).await?;
        let params = r3mes_types::governance::Params::decode(&answer.value)
            .map_err(|error| Status::internal(error.to_string()))?;
        let AuthParams {
            fee_per_million_gas,
            ..
        } = params.auth;
        let price = fee_per_million_gas.uremes();
        let (whole, part) = (price / 1_000_000, price % 1_000_000);
        Ok(ConfigResponse {
            minimum_gas_price: format!("{whole}.{part:06}{DENOM}"),
            ..ConfigResponse::default()
        }
        .encode_to_vec())
    }

    async fn consensus_params(&self) -> Result<Vec<u8>, Status> {
        let status = self.ask("status", json!({})).await?;
        // Without a height CometBFT looks for those of the next block, which it has written down only
        // when the newest is executed.
        let params = match status["sync_info"]["latest_block_height"].as_str() {
            Some(height) if height != "0" => json!({"height": height}),
            _ => json!({}),
        };
        let answer = self.ask("consensus_params", params).await?;
        let params = &answer["consensus_params"];
        let signed = |value: &Value| {
            let text = value.as_str().unwrap_or_default();
            text.parse().unwrap_or_default()
        };
        let types = params["validator"]["pub_key_types"].as_array();
        let types = types.into_iter().flatten().filter_map(Value::as_str);
        let evidence = &params["evidence"];
        let age = signed(&evidence["max_age_duration"]);
        let params = ConsensusParams {
            block: Some(BlockParams {
                max_bytes: signed(&params["block"]["max_bytes"]),
                max_gas: signed(&params["block"]["max_gas"]),
            }),
            evidence: Some(EvidenceParams {
                max_age_num_blocks: signed(&evidence["max_age_num_blocks"]),
                max_age_duration: Some(Duration {
                    seconds: age / 1_000_000_000,
                    nanos: (age % 1_000_000_000) as i32,
                }),
                max_bytes: signed(&evidence["max_bytes"]),
            }),
            validator: Some(ValidatorParams {
                pub_key_types: types.map(str::to_owned).collect(),
            }),
            version: Some(VersionParams {
                app: number(&params["version"]["app"]),
            }),
            abci: None,
        };
        let params = Some(params);
        Ok(ConsensusParamsAnswer { params }.encode_to_vec())
    }

    async fn status(&self) -> Result<Vec<u8>, Status> {
        let status = self.ask("status", json!({})).await?;
        let (_, block) = tendermint::block(self, None).await?;
        let earliest = &status["sync_info"]["earliest_block_height"];
        let header = block.header;
        Ok(StatusResponse {
            earliest_store_height: number(earliest),
            height: header.height.value(),
            timestamp: Some(header.time.into()),
            app_hash: header.app_hash.as_bytes().to_vec(),
            validator_hash: header.validators_hash.as_bytes().to_vec(),
        }
        .encode_to_vec())
    }
}

/// A number that CometBFT's JSON writes as text.
pub(super) fn number(value: &Value) -> u64 {
    let text = value.as_str().unwrap_or_default();
    text.parse().unwrap_or_default()
}

/// Bytes in base64; none where there is nothing.
pub(super) fn bytes(value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap_or_default();
    STANDARD.decode(text).unwrap_or_default()
}

/// What the ledger refused, in the words and numbers of gRPC.
fn refusal(codespace: &str, code: u64, log: &str) -> Status {
    match (codespace, code) {
        ("query", 1) => Status::unimplemented(log),
        ("query", 2) | ("sdk", 2 | 18 | 26) => Status::invalid_argument(log),
        ("query", 3) => {
            let what = log.strip_prefix("rpc error: code = NotFound desc = ");
            let what = what.unwrap_or(log).trim_end_matches(": key not found");
            Status::not_found(what)
        }
        ("sdk", 9) => Status::not_found(log),
        _ => Status::unknown(log),
    }
}

/// Parses a call's question.
pub(super) fn parse<M: Message + Default>(data: &[u8]) -> Result<M, Status> {
    M::decode(data).map_err(|error| Status::invalid_argument(error.to_string()))
}

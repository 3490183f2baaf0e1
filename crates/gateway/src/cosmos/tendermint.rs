//! `cosmos.base.tendermint.v1beta1.Service`: blocks, validators and the node itself.

use bech32::{Bech32, Hrp};
use cosmos_sdk_proto::Any;
use cosmos_sdk_proto::cosmos::base::query::v1beta1::PageResponse;
use cosmos_sdk_proto::cosmos::base::tendermint::v1beta1::{
    AbciQueryRequest, AbciQueryResponse, GetBlockByHeightRequest, GetBlockByHeightResponse,
    GetLatestBlockResponse, GetLatestValidatorSetResponse, GetNodeInfoResponse, GetSyncingResponse,
    GetValidatorSetByHeightRequest, GetValidatorSetByHeightResponse, ProofOp, ProofOps, Validator,
    VersionInfo,
};
use cosmos_sdk_proto::cosmos::crypto::ed25519::PubKey;
use cosmos_sdk_proto::tendermint::p2p::{DefaultNodeInfo, DefaultNodeInfoOther, ProtocolVersion};
use prost::Message;
use serde_json::{Value, json};
use tendermint::block::{Block, Id};
use tonic::Status;

use super::node::{Node, bytes, number, parse};
use super::tx::signed;

/// What addresses of block validators begin with in the SDK's form.
const CONSENSUS: Hrp = Hrp::parse_unchecked("remesvalcons");
/// Validators of one page of the RPC.
const PAGE: u64 = 100;

/// The service and the methods that are answered here.
pub(super) const METHODS: (&str, &[&str]) = (
    "cosmos.base.tendermint.v1beta1.Service",
    &[
        "GetNodeInfo",
        "GetSyncing",
        "GetLatestBlock",
        "GetBlockByHeight",
        "GetLatestValidatorSet",
        "GetValidatorSetByHeight",
        "ABCIQuery",
    ],
);

pub(super) async fn call(node: &Node, method: &str, data: &[u8]) -> Result<Vec<u8>, Status> {
    match method {
        "GetNodeInfo" => node_info(node).await,
        "GetSyncing" => {
            let status = node.ask("status", json!({})).await?;
            let syncing = status["sync_info"]["catching_up"].as_bool();
            let syncing = syncing.unwrap_or_default();
            Ok(GetSyncingResponse { syncing }.encode_to_vec())
        }
        "GetLatestBlock" => {
            let (id, block) = block(node, None).await?;
            Ok(GetLatestBlockResponse {
                block_id: Some(id.into()),
                block: Some(block.into()),
                sdk_block: None,
            }
            .encode_to_vec())
        }
        "GetBlockByHeight" => {
            let GetBlockByHeightRequest { height } = parse(data)?;
            let (id, block) = block(node, named(height)?).await?;
            Ok(GetBlockByHeightResponse {
                block_id: Some(id.into()),
                block: Some(block.into()),
                sdk_block: None,
            }
            .encode_to_vec())
        }
        "GetLatestValidatorSet" => {
            let (block_height, validators) = validators(node, None).await?;
            Ok(GetLatestValidatorSetResponse {
                block_height,
                pagination: Some(whole(&validators)),
                validators,
            }
            .encode_to_vec())
        }
        "GetValidatorSetByHeight" => {
            let GetValidatorSetByHeightRequest { height, .. } = parse(data)?;
            let (block_height, validators) = validators(node, named(height)?).await?;
            Ok(GetValidatorSetByHeightResponse {
                block_height,
                pagination: Some(whole(&validators)),
                validators,
            }
            .encode_to_vec())
        }
        "ABCIQuery" => abci_query(node, parse(data)?).await,
        other => Err(Status::unimplemented(format!("unknown method {other}"))),
    }
}

/// The block at a height, or the newest.
pub(super) async fn block(node: &Node, height: Option<u64>) -> Result<(Id, Block), Status> {
    let params = match height {
        Some(height) => json!({"height": height.to_string()}),
        None => json!({}),
    };
    let mut answer = node.ask("block", params).await?;
    let id = serde_json::from_value(answer["block_id"].take());
    let block = serde_json::from_value(answer["block"].take());
    let unreadable = |error: serde_json::Error| Status::internal(format!("the block: {error}"));
    Ok((id.map_err(unreadable)?, block.map_err(unreadable)?))
}

async fn node_info(node: &Node) -> Result<Vec<u8>, Status> {
    let status = node.ask("status", json!({})).await?;
    let info = &status["node_info"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let protocol = &info["protocol_version"];
    let default_node_info = DefaultNodeInfo {
        protocol_version: Some(ProtocolVersion {
            p2p: number(&protocol["p2p"]),
            block: number(&protocol["block"]),
            app: number(&protocol["app"]),
        }),
        default_node_id: text(&info["id"]),
        listen_addr: text(&info["listen_addr"]),
        network: text(&info["network"]),
        version: text(&info["version"]),
        channels: hex::decode(text(&info["channels"])).unwrap_or_default(),
        moniker: text(&info["moniker"]),
        other: Some(DefaultNodeInfoOther {
            tx_index: text(&info["other"]["tx_index"]),
            rpc_address: text(&info["other"]["rpc_address"]),
        }),
    };
    let application_version = VersionInfo {
        name: "r3mes".into(),
        app_name: "r3mes".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        ..VersionInfo::default()
    };
    Ok(GetNodeInfoResponse {
        default_node_info: Some(default_node_info),
        application_version: Some(application_version),
    }
    .encode_to_vec())
}

async fn validators(node: &Node, height: Option<u64>) -> Result<(i64, Vec<Validator>), Status> {
    let mut validators = Vec::new();
    let mut at = height;
    for page in 1.. {
        let mut params = json!({"page": page.to_string(), "per_page": PAGE.to_string()});
        if let Some(height) = at {
            params["height"] = height.to_string().into();
        }
        let answer = node.ask("validators", params).await?;
        let before = validators.len();
        let listed = answer["validators"].as_array().into_iter().flatten();
        validators.extend(listed.map(validator));
        at = Some(number(&answer["block_height"]));
        let total = number(&answer["total"]);
        if validators.len() == before || validators.len() as u64 >= total {
            break;
        }
    }
    Ok((signed(at.unwrap_or_default()), validators))
}

fn validator(validator: &Value) -> Validator {
    let key = PubKey {
        key: bytes(&validator["pub_key"]["value"]),
    };
    let address = hex::decode(validator["address"].as_str().unwrap_or_default());
    let address: [u8; 20] = address
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .unwrap_or_default();
    let number = |name: &str| {
        let text = validator[name].as_str().unwrap_or_default();
        text.parse().unwrap_or_default()
    };
    Validator {
        address: bech32::encode::<Bech32>(CONSENSUS, &address).unwrap_or_default(),
        pub_key: Some(Any {
            type_url: "/cosmos.crypto.ed25519.PubKey".into(),
            value: key.encode_to_vec(),
        }),
        voting_power: number("voting_power"),
        proposer_priority: number("proposer_priority"),
    }
}

fn whole(validators: &[Validator]) -> PageResponse {
    PageResponse {
        next_key: Vec::new(),
        total: validators.len() as u64,
    }
}

async fn abci_query(node: &Node, request: AbciQueryRequest) -> Result<Vec<u8>, Status> {
    let params = json!({
        "path": request.path,
        "data": hex::encode(&request.data),
        "height": positive(request.height)?.to_string(),
        "prove": request.prove,
    });
    let answer = node.ask("abci_query", params).await?;
    let response = &answer["response"];
    let text = |name: &str| response[name].as_str().unwrap_or_default().to_owned();
    let op = |op: &Value| ProofOp {
        r#type: op["type"].as_str().unwrap_or_default().to_owned(),
        key: bytes(&op["key"]),
        data: bytes(&op["data"]),
    };
    let ops = response["proofOps"]["ops"].as_array();
    let code = response["code"].as_u64().unwrap_or_default();
    Ok(AbciQueryResponse {
        code: u32::try_from(code).unwrap_or(u32::MAX),
        log: text("log"),
        info: text("info"),
        index: 0,
        key: bytes(&response["key"]),
        value: bytes(&response["value"]),
        proof_ops: ops.map(|ops| ProofOps {
            ops: ops.iter().map(op).collect(),
        }),
        height: signed(number(&response["height"])),
        codespace: text("codespace"),
    }
    .encode_to_vec())
}

/// A height that is named; 0 is the newest, under either engine.
fn named(height: i64) -> Result<Option<u64>, Status> {
    Ok(Some(positive(height)?).filter(|height| *height > 0))
}

fn positive(height: i64) -> Result<u64, Status> {
    u64::try_from(height).map_err(|_| Status::invalid_argument("a height is not negative"))
}

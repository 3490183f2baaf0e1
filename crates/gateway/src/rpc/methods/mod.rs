//! What each method does.

mod broadcast;

use std::ops::Range;
use std::time::Duration;

use r3mes_consensus::application::{Query, QueryResult};
use r3mes_consensus::block::{SignedBlock, to_tendermint_time};
use r3mes_consensus::local::{BroadcastError, ReadError, WaitError};
use r3mes_types::ConsensusKey;
use serde_json::{Value, json};

pub(super) use self::broadcast::{ALREADY_KNOWN, broadcast_all, broadcasts};
use self::broadcast::{broadcast, broadcast_commit};
use crate::rpc::request::{JsonBytes, Params, RpcError};
use crate::rpc::search;
use crate::rpc::serve::{RpcLimits, Service};
use crate::rpc::shapes;

/// The version of CometBFT whose answers these are: the one that tools/programs builds.
const COMETBFT_VERSION: &str = "0.38.25";
/// The most blocks that `blockchain` answers, as in CometBFT.
const MAX_BLOCK_METAS: u64 = 20;
/// Entries of one page, when none is asked for and at the most, as in CometBFT.
const PAGES: (usize, usize) = (30, 100);
/// A method with the names of its parameters, in CometBFT's order.
pub(super) type Signature = (&'static str, &'static [&'static str]);

/// All methods.
pub(super) const METHODS: &[Signature] = &[
    ("health", &[]),
    ("status", &[]),
    ("net_info", &[]),
    ("genesis", &[]),
    ("blockchain", &["minHeight", "maxHeight"]),
    ("header", &["height"]),
    ("block", &["height"]),
    ("block_by_hash", &["hash"]),
    ("block_results", &["height"]),
    ("commit", &["height"]),
    ("validators", &["height", "page", "per_page"]),
    ("consensus_params", &["height"]),
    ("tx", &["hash", "prove"]),
    (
        "tx_search",
        &["query", "prove", "page", "per_page", "order_by"],
    ),
    ("block_search", &["query", "page", "per_page", "order_by"]),
    ("num_unconfirmed_txs", &[]),
    ("abci_info", &[]),
    ("abci_query", &["path", "data", "height", "prove"]),
    ("broadcast_tx_async", &["tx"]),
    ("broadcast_tx_sync", &["tx"]),
    ("broadcast_tx_commit", &["tx"]),
    ("wait_height", &["above", "timeout_ms"]),
    ("wait_tx", &["hash", "timeout_ms"]),
];

/// Calls a method.
pub(super) async fn call(
    service: &Service,
    method: &str,
    params: &Params,
) -> Result<Value, RpcError> {
    match method {
        "health" => Ok(json!({})),
        "status" => status(service).await,
        "net_info" => Ok(json!({
            "listening": true, "listeners": [], "n_peers": "0", "peers": [],
        })),
        "genesis" => genesis(service),
        "blockchain" => blockchain(service, params).await,
        "header" => {
            let signed = block_at(service, params).await?;
            Ok(json!({"header": shapes::header(&signed.block.header)}))
        }
        "block" => Ok(shapes::block(&block_at(service, params).await?)),
        "block_by_hash" => {
            let found = match params.bytes("hash", JsonBytes::Base64)?.try_into() {
                Ok(hash) => service.handle.block_by_hash(hash).await?,
                // Nothing has it.
                Err(_) => None,
            };
            Ok(found.map_or(
                json!({"block_id": shapes::block_id(None), "block": null}),
                |signed| shapes::block(&signed),
            ))
        }
        "block_results" => block_results(service, params).await,
        "commit" => Ok(shapes::signed_header(&block_at(service, params).await?)),
        "validators" => validators(service, params),
        "consensus_params" => {
            let height = height_up_to(service.handle.latest().height + 1, params)?;
            let params = shapes::consensus_params(service.handle.genesis());
            Ok(json!({"block_height": height.to_string(), "consensus_params": params}))
        }
        "tx" => tx(service, params).await,
        "tx_search" => search::tx_search(service, params).await,
        "block_search" => search::block_search(service, params).await,
        "num_unconfirmed_txs" => {
            let (txs, bytes) = service.handle.status().await?.waiting;
            let (txs, bytes) = (txs.to_string(), bytes.to_string());
            Ok(json!({"n_txs": txs, "total": txs, "total_bytes": bytes, "txs": null}))
        }
        "abci_info" => Ok(abci_info(service)),
        "abci_query" => abci_query(service, params).await,
        method if broadcasts(method) => broadcast(service, method, params).await,
        "broadcast_tx_commit" => broadcast_commit(service, params).await,
        "wait_height" => wait_height(service, params).await,
        "wait_tx" => {
            let hash = params.hash("hash")?;
            let state = service
                .handle
                .wait_for_tx(hash, patience(&service.limits, params)?)
                .await?;
            Ok(shapes::tx_state(&state))
        }
        other => Err(RpcError::unknown_method(other)),
    }
}

async fn status(service: &Service) -> Result<Value, RpcError> {
    let status = service.handle.status().await?;
    let latest = status.latest;
    let earliest = match status.earliest {
        Some(height) => service.handle.block(height).await?,
        None => None,
    };
    let newest = service.handle.block(latest.height).await?;
    let validator = &status.validator;
    let mut sync_info = json!({
        "latest_block_hash": shapes::hash(latest.block_hash),
        "latest_app_hash": "",
        "latest_block_height": latest.height.to_string(),
        "latest_block_time": shapes::time(to_tendermint_time(latest.time)),
        "earliest_block_hash": "",
        "earliest_app_hash": "",
        "earliest_block_height": "0",
        "earliest_block_time": "1970-01-01T00:00:00Z",
        "catching_up": false,
    });
    if let Some(newest) = newest {
        let app_hash = newest.block.header.app_hash;
        sync_info["latest_app_hash"] = shapes::hex(app_hash.as_bytes()).into();
    }
    if let Some(earliest) = earliest {
        let header = &earliest.block.header;
        sync_info["earliest_block_hash"] = shapes::hash(Some(earliest.id.hash)).into();
        sync_info["earliest_app_hash"] = shapes::hex(header.app_hash.as_bytes()).into();
        sync_info["earliest_block_height"] = header.height.value().to_string().into();
        sync_info["earliest_block_time"] = shapes::time(header.time).into();
    }
    Ok(json!({
        "node_info": {
            "protocol_version": {"p2p": "8", "block": "11", "app": "1"},
            "id": shapes::hex(validator.address.as_bytes()).to_lowercase(),
            // CosmJS takes no empty one. Port 0: there are no peers to listen for.
            "listen_addr": "tcp://127.0.0.1:0",
            "network": status.genesis.chain_id,
            "version": COMETBFT_VERSION,
            "channels": "",
            "moniker": service.moniker,
            "other": {"tx_index": "on", "rpc_address": ""},
        },
        "sync_info": sync_info,
        "validator_info": {
            "address": shapes::hex(validator.address.as_bytes()),
            "pub_key": shapes::public_key(&validator.pub_key),
            "voting_power": validator.power().to_string(),
        },
    }))
}

fn genesis(service: &Service) -> Result<Value, RpcError> {
    let genesis = service.handle.genesis();
    let validators = service
        .handle
        .validators(genesis.initial_height)
        .ok_or_else(|| RpcError::internal("the chain has no validators"))?;
    let validators = validators.validators().iter().map(|info| {
        let key = info.pub_key.to_bytes().try_into();
        let key: [u8; 32] = key.expect("engine local signs with an ed25519 key");
        shapes::genesis_validator(&ConsensusKey::from(key), info.power())
    });
    let genesis = shapes::genesis(genesis, validators.collect(), &service.genesis);
    Ok(json!({"genesis": genesis}))
}

async fn blockchain(service: &Service, params: &Params) -> Result<Value, RpcError> {
    let newest = service.handle.latest().height;
    let oldest = service
        .handle
        .status()
        .await?
        .earliest
        .unwrap_or(newest + 1);
    let asked = |name| {
        let height = u64::try_from(params.integer(name)?.unwrap_or_default());
        height.map_err(|_| RpcError::internal("heights must be non-negative"))
    };
    let (min, max) = (asked("minHeight")?, asked("maxHeight")?);
    let max = if max == 0 { newest } else { max.min(newest) };
    let min = min
        .max(1)
        .max(oldest)
        .max((max + 1).saturating_sub(MAX_BLOCK_METAS));
    if min > max {
        return Err(RpcError::internal(format!(
            "min height {min} can't be greater than max height {max}"
        )));
    }
    let mut metas = Vec::new();
    for height in (min..=max).rev() {
        if let Some(signed) = service.handle.block(height).await? {
            metas.push(shapes::block_meta(&signed));
        }
    }
    Ok(json!({"last_height": newest.to_string(), "block_metas": metas}))
}

async fn block_results(service: &Service, params: &Params) -> Result<Value, RpcError> {
    let height = known_height(service, params)?;
    let output = service.handle.block_results(height).await?;
    let output = output.ok_or_else(|| not_kept(height))?;
    Ok(shapes::block_results(height, &output))
}

fn validators(service: &Service, params: &Params) -> Result<Value, RpcError> {
    // The newest ones known sign the next block.
    let newest = service.handle.latest().height + 1;
    let height = height_up_to(newest, params)?;
    let set = service.handle.validators(height);
    let set = set.ok_or_else(|| not_kept(height))?;
    let all = set.validators();
    let total = all.len().to_string();
    let page: Vec<Value> = all[page_of(params, all.len())?]
        .iter()
        .map(shapes::validator)
        .collect();
    Ok(json!({
        "block_height": height.to_string(),
        "count": page.len().to_string(),
        "validators": page,
        "total": total,
    }))
}

async fn tx(service: &Service, params: &Params) -> Result<Value, RpcError> {
    let (hash, prove) = (
        params.bytes("hash", JsonBytes::Base64)?,
        params.flag("prove")?,
    );
    if hash.is_empty() {
        return Err(RpcError::internal("transaction hash cannot be empty"));
    }
    let found = match hash.as_slice().try_into() {
        Ok(hash) => service.handle.tx(hash).await?,
        // No transaction has it.
        Err(_) => None,
    };
    let info = found
        .ok_or_else(|| RpcError::internal(format!("tx ({}) not found", shapes::hex(&hash))))?;
    let mut answer = shapes::tx(&info);
    if prove {
        let signed = service.handle.block(info.height).await?;
        let signed = signed.ok_or_else(|| not_kept(info.height))?;
        answer["proof"] = tx_proof(&signed, info.index as usize);
    }
    Ok(answer)
}

/// Proof that a transaction is under the header's data hash.
pub(super) fn tx_proof(signed: &SignedBlock, index: usize) -> Value {
    let proof = r3mes_consensus::block::tx_proof(&signed.block.data, index);
    let aunts: Vec<String> = proof
        .aunts
        .iter()
        .map(|aunt| shapes::base64(aunt))
        .collect();
    json!({
        "root_hash": shapes::hash(signed.block.header.data_hash),
        "data": shapes::base64(&signed.block.data[index]),
        "proof": {
            "total": signed.block.data.len().to_string(),
            "index": index.to_string(),
            "leaf_hash": shapes::base64(&proof.leaf),
            "aunts": aunts,
        },
    })
}

fn abci_info(service: &Service) -> Value {
    let latest = service.handle.latest();
    json!({"response": {
        "data": "r3mes",
        "version": env!("CARGO_PKG_VERSION"),
        "app_version": "1",
        "last_block_height": latest.height.to_string(),
        "last_block_app_hash": shapes::base64(&latest.app_hash),
    }})
}

async fn abci_query(service: &Service, params: &Params) -> Result<Value, RpcError> {
    let answer = match query(params)? {
        Some(query) => service.handle.query(query).await?,
        None => QueryResult::below_zero(),
    };
    Ok(shapes::query_answer(&answer))
}

/// The question of an `abci_query`; none if it is about a height below zero.
pub(super) fn query(params: &Params) -> Result<Option<Query>, RpcError> {
    let (path, data) = (params.text("path")?, params.bytes("data", JsonBytes::Hex)?);
    let prove = params.flag("prove")?;
    let Ok(height) = u64::try_from(params.integer("height")?.unwrap_or_default()) else {
        return Ok(None);
    };
    Ok(Some(Query {
        path,
        data,
        height: (height > 0).then_some(height),
        prove,
    }))
}

async fn wait_height(service: &Service, params: &Params) -> Result<Value, RpcError> {
    let above = params.number("above")?.unwrap_or_default();
    let reached = service
        .handle
        .wait_for_height(above, patience(&service.limits, params)?)
        .await;
    let height = match reached {
        Ok(latest) => latest.height,
        Err(WaitError::TimedOut { .. }) => service.handle.latest().height,
        Err(error) => return Err(RpcError::caused(&error)),
    };
    Ok(json!({"height": height.to_string()}))
}

/// How long a caller wants to wait, and is let.
pub(super) fn patience(limits: &RpcLimits, params: &Params) -> Result<Duration, RpcError> {
    let longest = limits.longest_wait;
    let wanted = params.number("timeout_ms")?.map(Duration::from_millis);
    Ok(wanted.unwrap_or(longest).min(longest))
}

async fn block_at(service: &Service, params: &Params) -> Result<SignedBlock, RpcError> {
    let height = known_height(service, params)?;
    let signed = service.handle.block(height).await?;
    signed.ok_or_else(|| not_kept(height))
}

/// The height asked for, or the newest; refused when it is not there yet.
fn known_height(service: &Service, params: &Params) -> Result<u64, RpcError> {
    height_up_to(service.handle.latest().height, params)
}

/// The height asked for, up to `newest`, or else that one.
fn height_up_to(newest: u64, params: &Params) -> Result<u64, RpcError> {
    let Some(asked) = params.integer("height")? else {
        return Ok(newest);
    };
    match u64::try_from(asked) {
        Ok(height) if height > newest => Err(RpcError::internal(format!(
            "height {height} must be less than or equal to the current blockchain height {newest}"
        ))),
        Ok(height) if height > 0 => Ok(height),
        _ => Err(RpcError::internal(format!(
            "height must be greater than 0, but got {asked}"
        ))),
    }
}

/// Which of `total` entries the page has that is asked for.
pub(super) fn page_of(params: &Params, total: usize) -> Result<Range<usize>, RpcError> {
    let (usual, most) = PAGES;
    let size = params
        .integer("per_page")?
        .and_then(|size| usize::try_from(size).ok());
    let size = size.filter(|size| *size > 0).unwrap_or(usual).min(most);
    let pages = total.div_ceil(size).max(1);
    let asked = params.integer("page")?.unwrap_or(1);
    let page = usize::try_from(asked)
        .ok()
        .filter(|page| (1..=pages).contains(page));
    let page = page.ok_or_else(|| {
        let why = format!("page should be within [1, {pages}] range, given {asked}");
        RpcError::internal(why)
    })?;
    let first = (page - 1) * size;
    Ok(first..(first + size).min(total))
}

fn not_kept(height: u64) -> RpcError {
    RpcError::internal(format!("height {height} is not available"))
}

impl From<ReadError> for RpcError {
    fn from(error: ReadError) -> Self {
        Self::caused(&error)
    }
}

impl From<BroadcastError> for RpcError {
    fn from(error: BroadcastError) -> Self {
        Self::caused(&error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_told_is_that_of_the_program_that_this_is_tested_with() {
        let pinned = include_str!("../../../../../tools/go/cometbft/go.mod");
        let line = format!("github.com/cometbft/cometbft v{COMETBFT_VERSION}");
        assert!(pinned.contains(&line), "{pinned}");
    }
}

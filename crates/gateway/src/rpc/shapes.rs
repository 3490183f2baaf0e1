//! CometBFT's JSON: 64-bit numbers as strings, hashes in upper-case hexadecimal digits, bytes in base64.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use r3mes_consensus::application::{BlockOutput, Event, QueryResult, TxResult, ValidatorUpdate};
use r3mes_consensus::block::{SignedBlock, to_tendermint_time};
use r3mes_consensus::cometbft::PROOF_TYPE;
use r3mes_consensus::genesis::Genesis;
use r3mes_consensus::local::{TxInfo, TxState};
use r3mes_state::CommitmentProof;
use r3mes_types::ConsensusKey;
use serde_json::{Value, json};
use tendermint::block::{Commit, CommitSig, Header, Id};
use tendermint::{Hash, Time, validator};

/// What CometBFT's JSON calls an ed25519 key.
const ED25519_KEY: &str = "tendermint/PubKeyEd25519";

pub(super) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

pub(super) fn hex(bytes: &[u8]) -> String {
    hex::encode_upper(bytes)
}

pub(super) fn hash(hash: Option<Hash>) -> String {
    hash.map(|hash| hex(hash.as_bytes())).unwrap_or_default()
}

pub(super) fn time(time: Time) -> String {
    time.to_rfc3339()
}

pub(super) fn block_id(id: Option<&Id>) -> Value {
    match id {
        Some(id) => json!({
            "hash": hash(Some(id.hash)),
            "parts": {
                "total": id.part_set_header.total,
                "hash": hash(Some(id.part_set_header.hash)),
            },
        }),
        None => json!({"hash": "", "parts": {"total": 0, "hash": ""}}),
    }
}

pub(super) fn header(header: &Header) -> Value {
    json!({
        "version": {
            "block": header.version.block.to_string(),
            "app": header.version.app.to_string(),
        },
        "chain_id": header.chain_id,
        "height": header.height.value().to_string(),
        "time": time(header.time),
        "last_block_id": block_id(header.last_block_id.as_ref()),
        "last_commit_hash": hash(header.last_commit_hash),
        "data_hash": hash(header.data_hash),
        "validators_hash": hash(Some(header.validators_hash)),
        "next_validators_hash": hash(Some(header.next_validators_hash)),
        "consensus_hash": hash(Some(header.consensus_hash)),
        "app_hash": hex(header.app_hash.as_bytes()),
        "last_results_hash": hash(header.last_results_hash),
        "evidence_hash": hash(header.evidence_hash),
        "proposer_address": hex(header.proposer_address.as_bytes()),
    })
}

pub(super) fn commit(commit: Option<&Commit>) -> Value {
    let Some(commit) = commit else {
        return json!({
            "height": "0", "round": 0, "block_id": block_id(None), "signatures": [],
        });
    };
    let signatures: Vec<Value> = commit.signatures.iter().map(commit_signature).collect();
    json!({
        "height": commit.height.value().to_string(),
        "round": commit.round.value(),
        "block_id": block_id(Some(&commit.block_id)),
        "signatures": signatures,
    })
}

fn commit_signature(signature: &CommitSig) -> Value {
    let (flag, address, at, signature) = match signature {
        CommitSig::BlockIdFlagAbsent => {
            return json!({
                "block_id_flag": 1,
                "validator_address": "",
                "timestamp": "0001-01-01T00:00:00Z",
                "signature": null,
            });
        }
        CommitSig::BlockIdFlagCommit {
            validator_address,
            timestamp,
            signature,
        } => (2, validator_address, timestamp, signature),
        CommitSig::BlockIdFlagNil {
            validator_address,
            timestamp,
            signature,
        } => (3, validator_address, timestamp, signature),
    };
    json!({
        "block_id_flag": flag,
        "validator_address": hex(address.as_bytes()),
        "timestamp": time(*at),
        "signature": signature.as_ref().map(|signature| base64(signature.as_bytes())),
    })
}

pub(super) fn block(signed: &SignedBlock) -> Value {
    let block = &signed.block;
    let txs: Vec<String> = block.data.iter().map(|tx| base64(tx)).collect();
    json!({
        "block_id": block_id(Some(&signed.id)),
        "block": {
            "header": header(&block.header),
            "data": {"txs": txs},
            "evidence": {"evidence": []},
            "last_commit": commit(block.last_commit.as_ref()),
        },
    })
}

pub(super) fn block_meta(signed: &SignedBlock) -> Value {
    json!({
        "block_id": block_id(Some(&signed.id)),
        "block_size": signed.size.to_string(),
        "header": header(&signed.block.header),
        "num_txs": signed.block.data.len().to_string(),
    })
}

pub(super) fn signed_header(signed: &SignedBlock) -> Value {
    json!({
        "signed_header": {
            "header": header(&signed.block.header),
            "commit": commit(Some(&signed.commit)),
        },
        "canonical": true,
    })
}

/// What executing a block gave, as in the event of a new block.
pub(super) fn finalized(output: &BlockOutput) -> Value {
    let results: Vec<Value> = output.tx_results.iter().map(tx_result).collect();
    let updates: Vec<Value> = output
        .validator_updates
        .iter()
        .map(validator_update)
        .collect();
    without_empty(json!({
        "events": told(&output.events),
        "tx_results": results,
        "validator_updates": (!updates.is_empty()).then_some(updates),
        "app_hash": base64(&output.app_hash),
    }))
}

/// A transaction as subscribers hear of it.
pub(super) fn told_tx(height: u64, index: usize, tx: &[u8], result: &TxResult) -> Value {
    let mut told_result = tx_result(result);
    told_result["events"] = told(&result.events);
    without_empty(json!({
        "height": height.to_string(),
        "index": index,
        "tx": base64(tx),
        "result": without_empty(told_result),
    }))
}

/// Events as subscribers hear of them; null for none.
pub(super) fn told(events: &[Event]) -> Value {
    let events: Vec<Value> = events.iter().map(event).map(without_empty).collect();
    (!events.is_empty()).then_some(events).into()
}

/// A record as Go writes one whose fields may be left out: without those that are zero, empty or, but
/// for a list of updates, null.
fn without_empty(record: Value) -> Value {
    let Value::Object(mut fields) = record else {
        return record;
    };
    fields.retain(|name, value| match value {
        Value::Null => name == "validator_updates",
        Value::String(text) => match name.starts_with("gas_") {
            true => text != "0",
            false => !text.is_empty(),
        },
        Value::Number(number) => number.as_u64() != Some(0),
        Value::Array(values) => !values.is_empty(),
        Value::Bool(_) | Value::Object(_) => true,
    });
    Value::Object(fields)
}

pub(super) fn block_results(height: u64, output: &BlockOutput) -> Value {
    let results: Vec<Value> = output.tx_results.iter().map(tx_result).collect();
    let events: Vec<Value> = output.events.iter().map(event).collect();
    let updates: Vec<Value> = output
        .validator_updates
        .iter()
        .map(validator_update)
        .collect();
    json!({
        "height": height.to_string(),
        "txs_results": results,
        "finalize_block_events": events,
        "validator_updates": (!updates.is_empty()).then_some(updates),
        "consensus_param_updates": null,
        "app_hash": base64(&output.app_hash),
    })
}

fn validator_update(update: &ValidatorUpdate) -> Value {
    json!({
        "pub_key": {"Sum": {
            "type": "tendermint.crypto.PublicKey_Ed25519",
            "value": {"ed25519": base64(update.key.as_bytes())},
        }},
        "power": update.power.to_string(),
    })
}

fn event(event: &Event) -> Value {
    let attribute =
        |(key, value): &(String, String)| json!({"key": key, "value": value, "index": true});
    let attributes: Vec<Value> = event.attributes.iter().map(attribute).collect();
    json!({"type": event.kind, "attributes": attributes})
}

pub(super) fn tx_result(result: &TxResult) -> Value {
    let events: Vec<Value> = result.events.iter().map(event).collect();
    json!({
        "code": result.code,
        "data": (!result.data.is_empty()).then(|| base64(&result.data)),
        "log": result.log,
        "info": "",
        "gas_wanted": result.gas_wanted.to_string(),
        "gas_used": result.gas_used.to_string(),
        "events": events,
        "codespace": result.codespace,
    })
}

pub(super) fn tx(info: &TxInfo) -> Value {
    json!({
        "hash": hex(&info.hash),
        "height": info.height.to_string(),
        "index": info.index,
        "tx_result": tx_result(&info.result),
        "tx": base64(&info.tx),
    })
}

pub(super) fn tx_state(state: &TxState) -> Value {
    match state {
        TxState::Included(info) => json!({"state": "included", "tx": tx(info)}),
        TxState::Dropped(result) => json!({"state": "dropped", "result": tx_result(result)}),
        TxState::Waiting => json!({"state": "waiting"}),
        TxState::Unknown => json!({"state": "unknown"}),
    }
}

pub(super) fn public_key(key: &tendermint::PublicKey) -> Value {
    json!({"type": ED25519_KEY, "value": base64(&key.to_bytes())})
}

pub(super) fn validator(info: &validator::Info) -> Value {
    json!({
        "address": hex(info.address.as_bytes()),
        "pub_key": public_key(&info.pub_key),
        "voting_power": info.power().to_string(),
        "proposer_priority": "0",
    })
}

pub(super) fn consensus_params(genesis: &Genesis) -> Value {
    let gas = genesis
        .max_block_gas
        .map_or("-1".to_owned(), |gas| gas.to_string());
    json!({
        "block": {"max_bytes": genesis.max_block_bytes.to_string(), "max_gas": gas},
        "evidence": {
            "max_age_num_blocks": "100000",
            "max_age_duration": "172800000000000",
            "max_bytes": "1048576",
        },
        "validator": {"pub_key_types": ["ed25519"]},
        "version": {"app": "1"},
        "abci": {"vote_extensions_enable_height": "0"},
    })
}

/// What was read of the state.
pub(super) fn query_answer(answer: &QueryResult) -> Value {
    let operation = |(key, proof): &(Vec<u8>, CommitmentProof)| json!({"type": PROOF_TYPE, "key": base64(key), "data": base64(&proof.encode_to_vec())});
    let ops: Vec<Value> = answer.proofs.iter().map(operation).collect();
    let proof = (!ops.is_empty()).then(|| json!({"ops": ops}));
    let some = |bytes: &[u8]| (!bytes.is_empty()).then(|| base64(bytes));
    json!({"response": {
        "code": answer.code,
        "log": answer.log,
        "info": "",
        "index": "0",
        "key": some(&answer.key),
        "value": some(&answer.value),
        "proofOps": proof,
        "height": answer.height.to_string(),
        "codespace": answer.codespace,
    }})
}

/// CometBFT's genesis file. The ledger's part is `app_state.ledger`: its canonical bytes.
pub(super) fn genesis(genesis: &Genesis, validators: Vec<Value>, ledger: &[u8]) -> Value {
    json!({
        "genesis_time": time(to_tendermint_time(genesis.time)),
        "chain_id": genesis.chain_id,
        "initial_height": genesis.initial_height.to_string(),
        "consensus_params": consensus_params(genesis),
        "validators": validators,
        "app_hash": "",
        "app_state": {"ledger": base64(ledger)},
    })
}

pub(super) fn genesis_validator(key: &ConsensusKey, power: u64) -> Value {
    json!({
        "address": hex(key.address().as_bytes()),
        "pub_key": {"type": ED25519_KEY, "value": base64(key.as_bytes())},
        "power": power.to_string(),
        "name": "",
    })
}

//! Methods that offer transactions.

use r3mes_consensus::application::TxResult;
use r3mes_consensus::local::{BroadcastError, Inclusion};
use r3mes_consensus::mempool::Added;
use serde_json::{Value, json};

use crate::rpc::request::{JsonBytes, Params, RpcError};
use crate::rpc::serve::Service;
use crate::rpc::shapes;

/// What CometBFT says of a transaction that waits or was taken already.
pub(in crate::rpc) const ALREADY_KNOWN: &str = "tx already exists in cache";

/// Answers `broadcast_tx_async` and `broadcast_tx_sync`.
pub(super) async fn broadcast(
    service: &Service,
    method: &str,
    params: &Params,
) -> Result<Value, RpcError> {
    let tx = params.bytes("tx", JsonBytes::Base64)?;
    let offered = service.handle.broadcast(tx).await?;
    offered_answer(service, method, offered).await
}

/// Whether a method offers a transaction and answers after its check, so that several of them in one
/// request can go to [`broadcast_all`] together.
pub(in crate::rpc) fn broadcasts(method: &str) -> bool {
    matches!(method, "broadcast_tx_async" | "broadcast_tx_sync")
}

/// What is answered to each of several calls that offer transactions, methods with their parameters.
pub(in crate::rpc) async fn broadcast_all(
    service: &Service,
    calls: &[(&str, &Params)],
) -> Vec<Result<Value, RpcError>> {
    let txs = calls.iter();
    let txs = txs.map(|(_, call)| call.bytes("tx", JsonBytes::Base64));
    let (mut good, mut answers) = (Vec::new(), Vec::new());
    for tx in txs {
        answers.push(tx.map(|tx| good.push(tx)));
    }
    let offered = service.handle.broadcast_all(good).await;
    let mut offered = offered.map(Vec::into_iter).map_err(RpcError::from);
    let mut answered = Vec::with_capacity(calls.len());
    for ((method, _), read) in calls.iter().zip(answers) {
        let next = read.and_then(|()| {
            let offered = offered.as_mut().map_err(|stopped| stopped.clone())?;
            let next = offered.next().expect("every transaction has its answer");
            Ok(next.map_err(BroadcastError::from)?)
        });
        answered.push(match next {
            Ok(offered) => offered_answer(service, method, offered).await,
            Err(error) => Err(error),
        });
    }
    answered
}

/// What is answered to an offer. `broadcast_tx_async` tells nothing of the check.
async fn offered_answer(
    service: &Service,
    method: &str,
    offered: Added,
) -> Result<Value, RpcError> {
    if is_known(service, &offered).await? {
        return Err(RpcError::internal(ALREADY_KNOWN));
    }
    let check = match method {
        "broadcast_tx_async" => TxResult::default(),
        _ => offered.check,
    };
    Ok(json!({
        "code": check.code,
        "data": "",
        "log": check.log,
        "codespace": check.codespace,
        "hash": shapes::hex(&offered.hash),
    }))
}

/// Whether a transaction is refused for the reason that it stands in a block already: CometBFT remembers
/// those, and says so rather than what became of them since.
async fn is_known(service: &Service, offered: &Added) -> Result<bool, RpcError> {
    Ok(offered.check.code != 0 && service.handle.tx(offered.hash).await?.is_some())
}

/// Answers `broadcast_tx_commit`.
pub(super) async fn broadcast_commit(
    service: &Service,
    params: &Params,
) -> Result<Value, RpcError> {
    let tx = params.bytes("tx", JsonBytes::Base64)?;
    let longest = service.limits.longest_wait;
    let in_commit =
        |why: &RpcError| RpcError::internal(format!("error on broadcastTxCommit: {}", why.data));
    let offered = service.handle.broadcast_and_wait(tx, longest).await;
    let offered = offered.map_err(|error| in_commit(&error.into()))?;
    if let Inclusion::Refused(refused) = &offered
        && is_known(service, refused).await?
    {
        return Err(in_commit(&RpcError::internal(ALREADY_KNOWN)));
    }
    let (check, result, hash, height) = match offered {
        Inclusion::Included(info) => (TxResult::default(), info.result, info.hash, info.height),
        Inclusion::Refused(added) | Inclusion::Dropped(added) => {
            (added.check, TxResult::default(), added.hash, 0)
        }
        Inclusion::StillWaiting(added) => {
            return Err(RpcError::internal(format!(
                "timed out waiting for tx to be included in a block: {} may still be included",
                shapes::hex(&added.hash)
            )));
        }
    };
    Ok(json!({
        "check_tx": shapes::tx_result(&check),
        "tx_result": shapes::tx_result(&result),
        "hash": shapes::hex(&hash),
        "height": height.to_string(),
    }))
}

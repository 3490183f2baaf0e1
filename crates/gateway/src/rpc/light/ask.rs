//! What a light client asks of a node, before anything of it is believed.

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tendermint::block::signed_header::SignedHeader;
use tendermint::validator;

use super::block::{self, LightBlock};
use super::error::LightError;
use super::proved::ProvedAnswer;
use crate::rpc::client::{Client, ClientError};

/// Validators that are asked for at a time: CometBFT's most.
const PAGE: u32 = 100;
/// Pages of validators that are read at most.
const MAX_PAGES: u32 = 100;

/// A block as the node sends it, of the height that was asked for.
pub(super) async fn fetch(client: &Client, height: u64) -> Result<LightBlock, LightError> {
    let signed = async {
        let at = json!({"height": height.to_string()});
        let answer = client.raw("commit", at).await?;
        parsed::<SignedHeader>("commit", &answer["signed_header"])
    };
    let (signed, validators, next_validators) = tokio::try_join!(
        signed,
        validators_at(client, height),
        validators_at(client, height.saturating_add(1)),
    )?;
    let got = signed.header.height.value();
    if got != height {
        return Err(LightError::Height { asked: height, got });
    }
    Ok(LightBlock {
        signed,
        validators,
        next_validators,
    })
}

/// The validators that sign the block at a height.
async fn validators_at(client: &Client, height: u64) -> Result<validator::Set, LightError> {
    const METHOD: &str = "validators";
    let mut all: Vec<validator::Info> = Vec::new();
    for page in 1..=MAX_PAGES {
        let at = json!({
            "height": height.to_string(),
            "page": page.to_string(),
            "per_page": PAGE.to_string(),
        });
        let answer = client.raw(METHOD, at).await?;
        let infos: Vec<validator::Info> = parsed(METHOD, &answer["validators"])?;
        let last = infos.is_empty();
        all.extend(infos);
        let total: Option<usize> = answer["total"].as_str().and_then(|text| text.parse().ok());
        if last || total.is_none_or(|total| all.len() >= total) {
            break;
        }
    }
    // Only keys and powers count; addresses follow from the keys.
    let infos = all
        .into_iter()
        .map(|info| validator::Info::new(info.pub_key, info.power));
    let set = block::validators(infos.collect());
    Ok(set.map_err(|error| ClientError::Answer {
        method: METHOD.to_owned(),
        what: error.to_string(),
    })?)
}

/// What the node answers to a question about the state after a height, with proofs.
pub(super) async fn proved_answer(
    client: &Client,
    path: &str,
    question: &[u8],
    height: u64,
) -> Result<ProvedAnswer, LightError> {
    const METHOD: &str = "abci_query";
    let question = hex::encode(question);
    let params = json!({
        "path": path,
        "data": question,
        "height": height.to_string(),
        "prove": true,
    });
    let answer = client.raw(METHOD, params).await?;
    let response = &answer["response"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let ops = response["proofOps"]["ops"].as_array();
    let proofs = ops.map(|ops| ops.iter().map(|op| text(&op["data"])).collect());
    Ok(ProvedAnswer {
        path: path.to_owned(),
        question,
        height,
        code: parsed(METHOD, &response["code"])?,
        answer: text(&response["value"]),
        proofs: proofs.unwrap_or_default(),
    })
}

fn parsed<T: DeserializeOwned>(method: &str, value: &Value) -> Result<T, LightError> {
    let parsed = T::deserialize(value);
    Ok(parsed.map_err(|error| ClientError::Answer {
        method: method.to_owned(),
        what: error.to_string(),
    })?)
}

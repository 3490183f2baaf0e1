//! What can be said of a message about datasets without looking anything up.

use std::collections::BTreeSet;

use r3mes_types::data::{DataMessage, DatasetSpec};

use super::handle::DataError;
use crate::error::LedgerError;

/// Checks a message by itself.
pub(crate) fn check(message: &DataMessage) -> Result<(), LedgerError> {
    match message {
        DataMessage::ProposeDataset(message) => Ok(check_spec(&message.spec)?),
        DataMessage::VoteDataset(_) => Ok(()),
    }
}

pub(super) fn check_spec(spec: &DatasetSpec) -> Result<(), DataError> {
    let refuse = |field, why| Err(DataError::Spec { field, why });
    if spec.name.is_empty() {
        return refuse("name", "a dataset needs a name");
    }
    if spec.licence.is_empty() {
        return refuse(
            "licence",
            "name the licence of the texts, for example public-domain",
        );
    }
    if spec.shards.is_empty() || spec.shards.iter().any(|shard| shard.tokens == 0) {
        return refuse(
            "shards",
            "at least one shard is needed, and none may be empty",
        );
    }
    let files = spec
        .shards
        .iter()
        .chain(&spec.held_out)
        .map(|shard| shard.cid);
    let distinct: BTreeSet<_> = files.clone().collect();
    if distinct.len() != files.count() {
        return refuse(
            "shards",
            "no file may come twice, nor be trained on and held out",
        );
    }
    Ok(())
}

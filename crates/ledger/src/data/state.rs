//! What is kept of datasets.

use r3mes_types::data::{DataParams, DataShard, Dataset, DatasetStatus};
use r3mes_types::{Address, Hash, Time};

use crate::error::LedgerError;
use crate::store::{Item, Map, View};

/// Datasets by number.
pub const DATASETS: Map<u64, Dataset> = Map::new("data/dataset/");
/// Shards by dataset and index, from 0.
pub const SHARDS: Map<(u64, u32), DataShard> = Map::new("data/shard/");
/// Parameters.
pub const PARAMS: Item<DataParams> = Item::new("data/params");
/// Number of the next dataset.
pub(super) const NEXT: Item<u64> = Item::new("data/next");
/// Numbers of datasets that are proposed or adopted, by what they are.
pub(super) const BY_CONTENT: Map<Hash, u64> = Map::new("data/by-content/");
/// Votes by dataset and voter.
pub(super) const VOTES: Map<(u64, Address), bool> = Map::new("data/vote/");
/// Proposed datasets by the end of their vote.
pub(super) const DUE: Map<(Time, u64), bool> = Map::new("data/due/");

/// A dataset that runs may use.
///
/// # Errors
/// When the state cannot be read or the gas is used up.
pub fn adopted(view: &dyn View, id: u64) -> Result<Option<Dataset>, LedgerError> {
    Ok(DATASETS
        .get(view, &id)?
        .filter(|dataset| dataset.status == DatasetStatus::Adopted))
}

/// One shard of a dataset.
///
/// # Errors
/// When the state cannot be read or the gas is used up.
pub fn shard(view: &dyn View, id: u64, index: u32) -> Result<Option<DataShard>, LedgerError> {
    SHARDS.get(view, &(id, index))
}

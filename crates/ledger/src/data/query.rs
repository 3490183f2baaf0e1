//! What is answered about datasets.

use r3mes_types::data::{DatasetAnswer, Datasets, MAX_SHARDS, QueryDataset, QueryDatasets};
use r3mes_types::query::Query;
use r3mes_types::wire::List;

use super::state::{DATASETS, SHARDS};
use crate::error::{LedgerError, QueryError};
use crate::query::{Answer, listed, page, reply};
use crate::store::View;

/// Answers a question of this domain; `None` when the path is of another.
pub(crate) fn route(
    view: &dyn View,
    path: &str,
    data: &[u8],
) -> Option<Result<Answer, LedgerError>> {
    Some(match path {
        QueryDataset::PATH => reply(data, |query: QueryDataset| {
            let dataset = DATASETS.get(view, &query.id)?;
            let shards = SHARDS.range_of(view, &query.id, None, MAX_SHARDS)?;
            let shards = List::new(shards.into_iter().map(|(_, shard)| shard).collect()).map_err(
                |error| QueryError::Malformed {
                    why: error.to_string(),
                },
            )?;
            Ok((
                DatasetAnswer { dataset, shards },
                Some(DATASETS.key(&query.id)),
            ))
        }),
        QueryDatasets::PATH => reply(data, |query: QueryDatasets| {
            let (entries, next) = page(view, &DATASETS, &query.page.unwrap_or_default())?;
            let datasets = listed(entries.into_iter().map(|(_, dataset)| dataset).collect())?;
            Ok((Datasets { datasets, next }, None))
        }),
        _ => return None,
    })
}

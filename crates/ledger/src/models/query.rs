//! What is answered about models.

use r3mes_types::models::{ModelAnswer, Models, QueryModel, QueryModels, QueryVersions, Versions};
use r3mes_types::query::Query;

use super::state::{MODELS, VERSIONS};
use crate::error::LedgerError;
use crate::query::{Answer, listed, page, page_of, reply};
use crate::store::View;

/// Answers a question of this domain; `None` when the path is of another.
pub(crate) fn route(
    view: &dyn View,
    path: &str,
    data: &[u8],
) -> Option<Result<Answer, LedgerError>> {
    Some(match path {
        QueryModel::PATH => reply(data, |query: QueryModel| {
            let model = MODELS.get(view, &query.id)?;
            let last = model.as_ref().map_or(0, |model| model.versions);
            let newest = VERSIONS.get(view, &(query.id, last))?;
            Ok((ModelAnswer { model, newest }, Some(MODELS.key(&query.id))))
        }),
        QueryModels::PATH => reply(data, |query: QueryModels| {
            let (entries, next) = page(view, &MODELS, &query.page.unwrap_or_default())?;
            let models = listed(entries.into_iter().map(|(_, model)| model).collect())?;
            Ok((Models { models, next }, None))
        }),
        QueryVersions::PATH => reply(data, |query: QueryVersions| {
            let request = query.page.unwrap_or_default();
            let (entries, next) = page_of(view, &VERSIONS, &query.model, &request)?;
            let versions = listed(entries.into_iter().map(|(_, version)| version).collect())?;
            Ok((Versions { versions, next }, None))
        }),
        _ => return None,
    })
}

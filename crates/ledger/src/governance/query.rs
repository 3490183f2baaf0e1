//! What governance answers.

use r3mes_types::governance::{Proposals, QueryParams, QueryProposals};
use r3mes_types::query::Query;

use super::apply::params;
use super::state::PROPOSALS;
use crate::error::LedgerError;
use crate::query::{Answer, listed, page, reply};
use crate::store::View;

/// Answers a question of this domain; `None` when the path is of another.
pub(crate) fn route(
    view: &dyn View,
    path: &str,
    data: &[u8],
) -> Option<Result<Answer, LedgerError>> {
    Some(match path {
        QueryProposals::PATH => reply(data, |query: QueryProposals| {
            let (entries, next) = page(view, &PROPOSALS, &query.page.unwrap_or_default())?;
            let proposals = listed(entries.into_iter().map(|(_, proposal)| proposal).collect())?;
            Ok((Proposals { proposals, next }, None))
        }),
        QueryParams::PATH => reply(data, |_: QueryParams| Ok((params(view)?, None))),
        _ => return None,
    })
}

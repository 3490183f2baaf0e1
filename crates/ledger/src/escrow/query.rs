//! What is answered about escrows.

use r3mes_types::escrow::{EscrowAnswer, Escrows, QueryEscrow, QueryEscrows};
use r3mes_types::query::Query;

use super::state::{ESCROWS, OF_ACCOUNT};
use crate::error::LedgerError;
use crate::query::{Answer, listed, page_of, reply};
use crate::store::View;

/// Answers a question of this domain; `None` when the path is of another.
pub(crate) fn route(
    view: &dyn View,
    path: &str,
    data: &[u8],
) -> Option<Result<Answer, LedgerError>> {
    Some(match path {
        QueryEscrow::PATH => reply(data, |query: QueryEscrow| {
            let escrow = ESCROWS.get(view, &query.escrow)?;
            Ok((EscrowAnswer { escrow }, Some(ESCROWS.key(&query.escrow))))
        }),
        QueryEscrows::PATH => reply(data, |query: QueryEscrows| {
            let request = query.page.unwrap_or_default();
            let (entries, next) = page_of(view, &OF_ACCOUNT, &query.account, &request)?;
            let mut escrows = Vec::with_capacity(entries.len());
            for ((_, id), _) in entries {
                escrows.extend(ESCROWS.get(view, &id)?);
            }
            let escrows = listed(escrows)?;
            Ok((Escrows { escrows, next }, None))
        }),
        _ => return None,
    })
}

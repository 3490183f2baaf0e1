//! What rewards answer.

use r3mes_types::query::Query;
use r3mes_types::rewards::{MAX_TRUST, QueryTrust, Trust};

use super::state::RECORDS;
use crate::error::LedgerError;
use crate::query::{Answer, reply};
use crate::store::View;

/// Trust that each tier above 0 begins at.
const TIERS: [u32; 3] = [MAX_TRUST / 4, MAX_TRUST / 2, MAX_TRUST * 9 / 10];

/// Answers a question of this domain; `None` when the path is of another.
pub(crate) fn route(
    view: &dyn View,
    path: &str,
    data: &[u8],
) -> Option<Result<Answer, LedgerError>> {
    Some(match path {
        QueryTrust::PATH => reply(data, |query: QueryTrust| {
            let address = query.address;
            let record = RECORDS.get(view, &address)?.unwrap_or_default();
            let tier = TIERS.iter().filter(|tier| record.trust >= **tier).count() as u32;
            let answer = Trust {
                address,
                record,
                tier,
            };
            Ok((answer, Some(RECORDS.key(&address))))
        }),
        _ => return None,
    })
}

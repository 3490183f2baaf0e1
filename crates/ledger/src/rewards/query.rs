//! What rewards answer.

use r3mes_types::Amount;
use r3mes_types::query::{MAX_PAGE, Query};
use r3mes_types::rewards::{MAX_TRUST, QueryTrust, QueryVesting, Trust, Vesting, VestingPart};

use super::state::{RECORDS, VESTING};
use crate::error::LedgerError;
use crate::query::{Answer, listed, reply};
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
        QueryVesting::PATH => reply(data, |query: QueryVesting| {
            let address = query.address;
            let found = VESTING.range_of(view, &address, None, MAX_PAGE)?;
            let parts: Vec<VestingPart> = found
                .into_iter()
                .map(|((_, due), amount)| VestingPart { due, amount })
                .collect();
            let amounts = parts.iter().map(|part| part.amount);
            let total = amounts.fold(Amount::ZERO, Amount::saturating_add);
            let answer = Vesting {
                address,
                total,
                parts: listed(parts)?,
            };
            Ok((answer, None))
        }),
        _ => return None,
    })
}

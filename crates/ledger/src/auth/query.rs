//! What auth answers.

use std::collections::BTreeMap;

use r3mes_types::Address;
use r3mes_types::auth::{AccountAnswer, GrantEntry, Grants, QueryAccount, QueryGrants};
use r3mes_types::query::{PageRequest, Query};

use super::state::{ACCOUNTS, FEE_GRANTS, GRANTS};
use crate::error::LedgerError;
use crate::query::{Answer, listed, next_page, page_start, reply};
use crate::store::View;

/// Answers a question of this domain; `None` when the path is of another.
pub(crate) fn route(
    view: &dyn View,
    path: &str,
    data: &[u8],
) -> Option<Result<Answer, LedgerError>> {
    Some(match path {
        QueryAccount::PATH => reply(data, |query: QueryAccount| {
            let account = ACCOUNTS.get(view, &query.address)?;
            Ok((
                AccountAnswer { account },
                Some(ACCOUNTS.key(&query.address)),
            ))
        }),
        QueryGrants::PATH => reply(data, |query: QueryGrants| {
            let request = query.page.unwrap_or_default();
            Ok((grants_of(view, query.granter, &request)?, None))
        }),
        _ => return None,
    })
}

/// A page of both tables together, by grantee.
fn grants_of(
    view: &dyn View,
    granter: Address,
    request: &PageRequest,
) -> Result<Grants, LedgerError> {
    let after: Option<(Address, Address)> = page_start(request)?;
    let size = request.size();
    let mut found: BTreeMap<Address, GrantEntry> = BTreeMap::new();
    let empty = |grantee| GrantEntry {
        grantee,
        grant: None,
        fees: None,
    };
    // Whoever is among the first of both together is among the first of its own table.
    for ((_, grantee), grant) in GRANTS.range_of(view, &granter, after.as_ref(), size + 1)? {
        let entry = found.entry(grantee).or_insert_with(|| empty(grantee));
        entry.grant = Some(grant);
    }
    for ((_, grantee), fees) in FEE_GRANTS.range_of(view, &granter, after.as_ref(), size + 1)? {
        let entry = found.entry(grantee).or_insert_with(|| empty(grantee));
        entry.fees = Some(fees);
    }
    let more = found.len() > size;
    let entries: Vec<GrantEntry> = found.into_values().take(size).collect();
    let last = entries.last().filter(|_| more);
    let next = next_page(last.map(|entry| (granter, entry.grantee)).as_ref())?;
    Ok(Grants {
        grants: listed(entries)?,
        next,
    })
}

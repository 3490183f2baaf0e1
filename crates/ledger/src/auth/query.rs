//! What auth answers.

use std::collections::BTreeMap;

use r3mes_types::Address;
use r3mes_types::auth::{AccountAnswer, GrantEntry, Grants, QueryAccount, QueryGrants};
use r3mes_types::query::{MAX_PAGE, Query};

use super::state::{ACCOUNTS, FEE_GRANTS, GRANTS};
use crate::error::LedgerError;
use crate::query::{Answer, listed, reply};
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
            let grants = listed(grants_of(view, &query.granter)?)?;
            Ok((Grants { grants }, None))
        }),
        _ => return None,
    })
}

fn grants_of(view: &dyn View, granter: &Address) -> Result<Vec<GrantEntry>, LedgerError> {
    let mut entries: BTreeMap<Address, GrantEntry> = BTreeMap::new();
    let entry = |grantee| GrantEntry {
        grantee,
        grant: None,
        fees: None,
    };
    for ((_, grantee), grant) in GRANTS.range_of(view, granter, None, MAX_PAGE)? {
        entries
            .entry(grantee)
            .or_insert_with(|| entry(grantee))
            .grant = Some(grant);
    }
    for ((_, grantee), fees) in FEE_GRANTS.range_of(view, granter, None, MAX_PAGE)? {
        entries
            .entry(grantee)
            .or_insert_with(|| entry(grantee))
            .fees = Some(fees);
    }
    Ok(entries.into_values().take(MAX_PAGE).collect())
}

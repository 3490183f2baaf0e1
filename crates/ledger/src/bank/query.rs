//! What the bank answers.

use r3mes_types::bank::{Balance, Balances, QueryBalance, QueryBalances, QuerySupply, Supply};
use r3mes_types::query::Query;

use super::state::{BALANCES, SUPPLY, balance};
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
        QueryBalance::PATH => reply(data, |query: QueryBalance| {
            let amount = balance(view, &query.address)?;
            let answer = Balance {
                address: query.address,
                amount,
            };
            Ok((answer, Some(BALANCES.key(&query.address))))
        }),
        QueryBalances::PATH => reply(data, |query: QueryBalances| {
            let (entries, next) = page(view, &BALANCES, &query.page.unwrap_or_default())?;
            let balances = entries.into_iter();
            let balances = balances
                .map(|(address, amount)| Balance { address, amount })
                .collect();
            let balances = listed(balances)?;
            Ok((Balances { balances, next }, None))
        }),
        QuerySupply::PATH => reply(data, |_: QuerySupply| {
            let amount = SUPPLY.get(view)?.unwrap_or_default();
            Ok((Supply { amount }, Some(SUPPLY.key().into())))
        }),
        _ => return None,
    })
}

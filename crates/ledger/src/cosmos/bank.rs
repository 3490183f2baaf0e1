//! `cosmos.bank.v1beta1`.

use r3mes_types::cosmos::bank::{
    DenomUnit, Metadata, Params, QueryAllBalancesRequest, QueryAllBalancesResponse,
    QueryBalanceRequest, QueryBalanceResponse, QueryDenomMetadataRequest,
    QueryDenomMetadataResponse, QueryDenomsMetadataRequest, QueryDenomsMetadataResponse,
    QueryParamsRequest, QueryParamsResponse, QuerySpendableBalanceByDenomRequest,
    QuerySpendableBalancesRequest, QuerySupplyOfRequest, QuerySupplyOfResponse,
    QueryTotalSupplyRequest, QueryTotalSupplyResponse,
};
use r3mes_types::cosmos::{DenomAmount, MAX_DENOM, PageResponse};
use r3mes_types::query::Query;
use r3mes_types::wire::{DecodeError, List, Text};
use r3mes_types::{Address, Amount, Coin, DENOM, UREMES_PER_REMES};

use crate::bank::{SUPPLY, balance};
use crate::error::{LedgerError, QueryError};
use crate::query::{Answer, reply};
use crate::store::View;

pub(super) fn route(
    view: &dyn View,
    path: &str,
    data: &[u8],
) -> Option<Result<Answer, LedgerError>> {
    Some(match path {
        QueryBalanceRequest::PATH => reply(data, |query: QueryBalanceRequest| {
            let balance = balance_of(view, &query.address, &query.denom)?;
            Ok((QueryBalanceResponse { balance }, None))
        }),
        QuerySpendableBalanceByDenomRequest::PATH => {
            reply(data, |query: QuerySpendableBalanceByDenomRequest| {
                let balance = balance_of(view, &query.address, &query.denom)?;
                Ok((QueryBalanceResponse { balance }, None))
            })
        }
        QueryAllBalancesRequest::PATH => reply(data, |query: QueryAllBalancesRequest| {
            Ok((all_balances(view, &query.address)?, None))
        }),
        // What vests is not in the account yet, so all that is there can be spent.
        QuerySpendableBalancesRequest::PATH => {
            reply(data, |query: QuerySpendableBalancesRequest| {
                Ok((all_balances(view, &query.address)?, None))
            })
        }
        QueryTotalSupplyRequest::PATH => reply(data, |_: QueryTotalSupplyRequest| {
            let supply = coins(supply(view)?)?;
            let pagination = whole(&supply);
            Ok((QueryTotalSupplyResponse { supply, pagination }, None))
        }),
        QuerySupplyOfRequest::PATH => reply(data, |query: QuerySupplyOfRequest| {
            let amount = amount_of(&query.denom, || supply(view))?;
            Ok((QuerySupplyOfResponse { amount }, None))
        }),
        QueryParamsRequest::PATH => reply(data, |_: QueryParamsRequest| {
            let params = Params {
                default_send_enabled: true,
            };
            Ok((QueryParamsResponse { params }, None))
        }),
        QueryDenomMetadataRequest::PATH => reply(data, |query: QueryDenomMetadataRequest| {
            if &*query.denom != DENOM {
                return Err(QueryError::NotFound {
                    what: format!("client metadata for denom {}", query.denom),
                }
                .into());
            }
            let metadata = metadata().map_err(unfit)?;
            Ok((QueryDenomMetadataResponse { metadata }, None))
        }),
        QueryDenomsMetadataRequest::PATH => reply(data, |_: QueryDenomsMetadataRequest| {
            let metadatas = List::new(vec![metadata().map_err(unfit)?]).map_err(unfit)?;
            let pagination = whole(&metadatas);
            let answer = QueryDenomsMetadataResponse {
                metadatas,
                pagination,
            };
            Ok((answer, None))
        }),
        _ => return None,
    })
}

fn supply(view: &dyn View) -> Result<Amount, LedgerError> {
    Ok(SUPPLY.get(view)?.unwrap_or_default())
}

fn balance_of(
    view: &dyn View,
    address: &Address,
    denom: &Text<MAX_DENOM>,
) -> Result<DenomAmount, LedgerError> {
    amount_of(denom, || balance(view, address))
}

/// How much there is of a denomination: none of any that is not ours.
fn amount_of(
    denom: &Text<MAX_DENOM>,
    ours: impl FnOnce() -> Result<Amount, LedgerError>,
) -> Result<DenomAmount, LedgerError> {
    let amount = match &**denom {
        DENOM => ours()?,
        _ => Amount::ZERO,
    };
    Ok(DenomAmount {
        denom: denom.clone(),
        amount: Text::new(amount.uremes().to_string()).map_err(unfit)?,
    })
}

fn all_balances(
    view: &dyn View,
    address: &Address,
) -> Result<QueryAllBalancesResponse, LedgerError> {
    let balances = coins(balance(view, address)?)?;
    let pagination = whole(&balances);
    Ok(QueryAllBalancesResponse {
        balances,
        pagination,
    })
}

fn coins(amount: Amount) -> Result<List<Coin, 1>, LedgerError> {
    let coins = (!amount.is_zero()).then_some(Coin(amount));
    List::new(coins.into_iter().collect()).map_err(unfit)
}

/// One page that holds everything.
fn whole<T>(entries: &[T]) -> PageResponse {
    PageResponse {
        total: entries.len() as u64,
        ..PageResponse::default()
    }
}

fn metadata() -> Result<Metadata, DecodeError> {
    let unit = |denom: &str, exponent| {
        Ok::<_, DecodeError>(DenomUnit {
            denom: Text::new(denom)?,
            exponent,
            aliases: List::default(),
        })
    };
    Ok(Metadata {
        description: Text::new("The coin of the R3MES network")?,
        denom_units: List::new(vec![
            unit(DENOM, 0)?,
            unit("remes", UREMES_PER_REMES.ilog10())?,
        ])?,
        base: Text::new(DENOM)?,
        display: Text::new("remes")?,
        name: Text::new("R3MES")?,
        symbol: Text::new("REMES")?,
    })
}

/// An answer that does not fit its own type is a mistake here, and the asker hears of it.
fn unfit(error: DecodeError) -> LedgerError {
    QueryError::Malformed {
        why: error.to_string(),
    }
    .into()
}

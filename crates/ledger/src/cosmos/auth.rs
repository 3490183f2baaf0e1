//! `cosmos.auth.v1beta1`.

use r3mes_types::auth::Account;
use r3mes_types::cosmos::auth::{
    BASE_ACCOUNT_URL, BaseAccount, Bech32PrefixRequest, Bech32PrefixResponse, MODULE_ACCOUNT_URL,
    ModuleAccount, Params, QueryAccountInfoRequest, QueryAccountInfoResponse, QueryAccountRequest,
    QueryAccountResponse, QueryModuleAccountsRequest, QueryModuleAccountsResponse,
    QueryParamsRequest, QueryParamsResponse,
};
use r3mes_types::query::Query;
use r3mes_types::tx::{Any, MAX_MEMO, PUBLIC_KEY_URL, PublicKeyValue};
use r3mes_types::wire::{Blob, DecodeError, List, Text, Wire};
use r3mes_types::{AccountKey, Address};

use crate::auth::ACCOUNTS;
use crate::bank::{MODULES, Module};
use crate::error::{Fault, LedgerError, QueryError};
use crate::gas;
use crate::query::{Answer, reply};
use crate::store::View;

pub(super) fn route(
    view: &dyn View,
    path: &str,
    data: &[u8],
) -> Option<Result<Answer, LedgerError>> {
    Some(match path {
        QueryAccountRequest::PATH => reply(data, |query: QueryAccountRequest| {
            let account = account(view, &query.address)?;
            Ok((QueryAccountResponse { account }, None))
        }),
        QueryAccountInfoRequest::PATH => reply(data, |query: QueryAccountInfoRequest| {
            let info = base_account(&stored(view, &query.address)?)?;
            Ok((QueryAccountInfoResponse { info }, None))
        }),
        QueryParamsRequest::PATH => reply(data, |_: QueryParamsRequest| {
            Ok((QueryParamsResponse { params: params() }, None))
        }),
        QueryModuleAccountsRequest::PATH => reply(data, |_: QueryModuleAccountsRequest| {
            let of = |module: &Module| of_module(*module, &stored(view, &module.address())?);
            let accounts: Result<Vec<Any>, LedgerError> = MODULES.iter().map(of).collect();
            let accounts = List::new(accounts?).map_err(unfit)?;
            Ok((QueryModuleAccountsResponse { accounts }, None))
        }),
        Bech32PrefixRequest::PATH => reply(data, |_: Bech32PrefixRequest| {
            let bech32_prefix = Text::new(Address::PREFIX).map_err(unfit)?;
            Ok((Bech32PrefixResponse { bech32_prefix }, None))
        }),
        _ => return None,
    })
}

fn params() -> Params {
    Params {
        max_memo_characters: MAX_MEMO as u64,
        tx_sig_limit: 1,
        tx_size_cost_per_byte: gas::TX_BYTE,
        sig_verify_cost_ed25519: gas::SIGNATURE,
        sig_verify_cost_secp256k1: gas::SIGNATURE,
    }
}

fn account(view: &dyn View, address: &Address) -> Result<Any, LedgerError> {
    let stored = stored(view, address)?;
    let module = MODULES.iter().find(|module| module.address() == *address);
    match module {
        Some(module) => of_module(*module, &stored),
        None => any(BASE_ACCOUNT_URL, &base_account(&stored)?),
    }
}

fn stored(view: &dyn View, address: &Address) -> Result<Account, LedgerError> {
    let found = ACCOUNTS.get(view, address)?;
    let missing = || QueryError::NotFound {
        what: format!("account {address}"),
    };
    Ok(found.ok_or_else(missing)?)
}

fn of_module(module: Module, stored: &Account) -> Result<Any, LedgerError> {
    let account = ModuleAccount {
        base_account: base_account(stored)?,
        name: Text::new(module.name()).map_err(unfit)?,
        permissions: List::default(),
    };
    any(MODULE_ACCOUNT_URL, &account)
}

fn base_account(account: &Account) -> Result<BaseAccount, LedgerError> {
    let key = |key: AccountKey| {
        let key = key.public_key().map_err(|error| Fault::Damaged {
            table: ACCOUNTS.prefix(),
            why: error.to_string(),
        })?;
        any(PUBLIC_KEY_URL, &PublicKeyValue { key })
    };
    Ok(BaseAccount {
        address: account.address,
        pub_key: account.public_key.map(key).transpose()?,
        account_number: account.number,
        sequence: account.sequence,
    })
}

fn any(type_url: &str, value: &impl Wire) -> Result<Any, LedgerError> {
    Ok(Any {
        type_url: Text::new(type_url).map_err(unfit)?,
        value: Blob::new(value.encode()).map_err(unfit)?,
    })
}

/// An answer that does not fit its own type is a mistake here, and the asker hears of it.
fn unfit(error: DecodeError) -> LedgerError {
    QueryError::Malformed {
        why: error.to_string(),
    }
    .into()
}

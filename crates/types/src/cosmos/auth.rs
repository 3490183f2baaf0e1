//! `cosmos.auth.v1beta1`: accounts.

use crate::tx::Any;
use crate::wire::{List, Text};
use crate::{Address, queries, schema};

/// Type URL of a [`BaseAccount`].
pub const BASE_ACCOUNT_URL: &str = "/cosmos.auth.v1beta1.BaseAccount";
/// Type URL of a [`ModuleAccount`].
pub const MODULE_ACCOUNT_URL: &str = "/cosmos.auth.v1beta1.ModuleAccount";
/// Longest name of a module.
pub const MAX_MODULE_NAME: usize = 32;
/// Most modules with an account.
pub const MAX_MODULES: usize = 64;
/// Most permissions of a module.
pub const MAX_PERMISSIONS: usize = 4;

schema! {
    /// An account that signs.
    pub struct BaseAccount {
        /// Its address.
        1 => address: Address,
        /// Its key, known from its first transaction on.
        2 => pub_key: Option<Any>,
        /// Its number.
        3 => account_number: u64,
        /// How many transactions its key has signed.
        4 => sequence: u64,
    }

    /// An account of the network itself; nobody has its key.
    pub struct ModuleAccount {
        /// Its address.
        1 => base_account: BaseAccount,
        /// Its name.
        2 => name: Text<MAX_MODULE_NAME>,
        /// What its module may do with coins.
        3 => permissions: List<Text<MAX_MODULE_NAME>, MAX_PERMISSIONS>,
    }

    /// What the SDK's wallets know of a chain's transactions.
    #[derive(Copy)]
    pub struct Params {
        /// Longest memo, in bytes.
        1 => max_memo_characters: u64,
        /// Most signatures.
        2 => tx_sig_limit: u64,
        /// Gas for each byte.
        3 => tx_size_cost_per_byte: u64,
        /// Gas for an ed25519 signature, which is not accepted.
        4 => sig_verify_cost_ed25519: u64,
        /// Gas for a secp256k1 signature.
        5 => sig_verify_cost_secp256k1: u64,
    }

    /// Asks for an account.
    #[derive(Copy)]
    pub struct QueryAccountRequest {
        /// Whose.
        1 => address: Address,
    }

    /// The account, as a [`BaseAccount`] or [`ModuleAccount`].
    pub struct QueryAccountResponse {
        /// The account.
        1 => account: Any,
    }

    /// Asks for an account that signs.
    #[derive(Copy)]
    pub struct QueryAccountInfoRequest {
        /// Whose.
        1 => address: Address,
    }

    /// The account.
    pub struct QueryAccountInfoResponse {
        /// The account.
        1 => info: BaseAccount,
    }

    /// Asks for the parameters.
    #[derive(Copy, Default)]
    pub struct QueryParamsRequest {}

    /// The parameters.
    #[derive(Copy)]
    pub struct QueryParamsResponse {
        /// The parameters.
        1 => params: Params,
    }

    /// Asks for the accounts of the network itself.
    #[derive(Copy, Default)]
    pub struct QueryModuleAccountsRequest {}

    /// The accounts, each a [`ModuleAccount`].
    pub struct QueryModuleAccountsResponse {
        /// The accounts.
        1 => accounts: List<Any, MAX_MODULES>,
    }

    /// Asks what addresses begin with.
    #[derive(Copy, Default)]
    pub struct Bech32PrefixRequest {}

    /// What addresses begin with.
    pub struct Bech32PrefixResponse {
        /// The prefix.
        1 => bech32_prefix: Text<MAX_MODULE_NAME>,
    }
}

queries! {
    "/cosmos.auth.v1beta1.Query/Account" => QueryAccountRequest: QueryAccountResponse,
    "/cosmos.auth.v1beta1.Query/AccountInfo" => QueryAccountInfoRequest: QueryAccountInfoResponse,
    "/cosmos.auth.v1beta1.Query/Params" => QueryParamsRequest: QueryParamsResponse,
    "/cosmos.auth.v1beta1.Query/ModuleAccounts" => QueryModuleAccountsRequest: QueryModuleAccountsResponse,
    "/cosmos.auth.v1beta1.Query/Bech32Prefix" => Bech32PrefixRequest: Bech32PrefixResponse,
}

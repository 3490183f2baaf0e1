//! `cosmos.bank.v1beta1`: balances and the coin.

use super::{DenomAmount, MAX_DENOM, PageRequest, PageResponse};
use crate::wire::{List, Text};
use crate::{Address, Coin, queries, schema};

/// Longest name or description of a coin.
pub const MAX_DESCRIPTION: usize = 256;
/// Most units of a coin.
pub const MAX_UNITS: usize = 8;

schema! {
    /// Asks for an account's balance of one denomination.
    pub struct QueryBalanceRequest {
        /// Whose.
        1 => address: Address,
        /// Of what.
        2 => denom: Text<MAX_DENOM>,
    }

    /// The balance; zero of what it has not.
    pub struct QueryBalanceResponse {
        /// The balance.
        1 => balance: DenomAmount,
    }

    /// Asks for all balances of an account.
    pub struct QueryAllBalancesRequest {
        /// Whose.
        1 => address: Address,
        /// Which part.
        2 => pagination: Option<PageRequest>,
        /// Whether denominations are to be resolved; ours need none.
        3 => resolve_denom: bool,
    }

    /// All balances of an account above zero.
    pub struct QueryAllBalancesResponse {
        /// The balances.
        1 => balances: List<Coin, 1>,
        /// Where the next page begins.
        2 => pagination: PageResponse,
    }

    /// Asks for what an account can spend.
    pub struct QuerySpendableBalancesRequest {
        /// Whose.
        1 => address: Address,
        /// Which part.
        2 => pagination: Option<PageRequest>,
    }

    /// Asks for what an account can spend of one denomination.
    pub struct QuerySpendableBalanceByDenomRequest {
        /// Whose.
        1 => address: Address,
        /// Of what.
        2 => denom: Text<MAX_DENOM>,
    }

    /// Asks for all coins there are.
    #[derive(Default)]
    pub struct QueryTotalSupplyRequest {
        /// Which part.
        1 => pagination: Option<PageRequest>,
    }

    /// All coins there are.
    pub struct QueryTotalSupplyResponse {
        /// How many of each denomination.
        1 => supply: List<Coin, 1>,
        /// Where the next page begins.
        2 => pagination: PageResponse,
    }

    /// Asks for all coins of one denomination.
    pub struct QuerySupplyOfRequest {
        /// Which.
        1 => denom: Text<MAX_DENOM>,
    }

    /// All coins of one denomination.
    pub struct QuerySupplyOfResponse {
        /// How many.
        1 => amount: DenomAmount,
    }

    /// The bank's parameters, as the SDK has them.
    #[derive(Copy)]
    pub struct Params {
        /// Whether coins can be sent.
        2 => default_send_enabled: bool,
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

    /// One unit of a coin.
    pub struct DenomUnit {
        /// Its name.
        1 => denom: Text<MAX_DENOM>,
        /// How many powers of ten above the base unit.
        2 => exponent: u32,
        /// Other names.
        3 => aliases: List<Text<MAX_DENOM>, MAX_UNITS>,
    }

    /// What wallets show of a coin.
    pub struct Metadata {
        /// What it is for.
        1 => description: Text<MAX_DESCRIPTION>,
        /// Its units, the base unit first.
        2 => denom_units: List<DenomUnit, MAX_UNITS>,
        /// The unit amounts are kept in.
        3 => base: Text<MAX_DENOM>,
        /// The unit amounts are shown in.
        4 => display: Text<MAX_DENOM>,
        /// Its name.
        5 => name: Text<MAX_DENOM>,
        /// Its symbol.
        6 => symbol: Text<MAX_DENOM>,
    }

    /// Asks what a denomination is.
    pub struct QueryDenomMetadataRequest {
        /// Which.
        1 => denom: Text<MAX_DENOM>,
    }

    /// What a denomination is.
    pub struct QueryDenomMetadataResponse {
        /// What it is.
        1 => metadata: Metadata,
    }

    /// Asks what all denominations are.
    #[derive(Default)]
    pub struct QueryDenomsMetadataRequest {
        /// Which part.
        1 => pagination: Option<PageRequest>,
    }

    /// What all denominations are.
    pub struct QueryDenomsMetadataResponse {
        /// What they are.
        1 => metadatas: List<Metadata, 1>,
        /// Where the next page begins.
        2 => pagination: PageResponse,
    }
}

queries! {
    "/cosmos.bank.v1beta1.Query/Balance" => QueryBalanceRequest: QueryBalanceResponse,
    "/cosmos.bank.v1beta1.Query/AllBalances" => QueryAllBalancesRequest: QueryAllBalancesResponse,
    "/cosmos.bank.v1beta1.Query/SpendableBalances" => QuerySpendableBalancesRequest: QueryAllBalancesResponse,
    "/cosmos.bank.v1beta1.Query/SpendableBalanceByDenom" => QuerySpendableBalanceByDenomRequest: QueryBalanceResponse,
    "/cosmos.bank.v1beta1.Query/TotalSupply" => QueryTotalSupplyRequest: QueryTotalSupplyResponse,
    "/cosmos.bank.v1beta1.Query/SupplyOf" => QuerySupplyOfRequest: QuerySupplyOfResponse,
    "/cosmos.bank.v1beta1.Query/Params" => QueryParamsRequest: QueryParamsResponse,
    "/cosmos.bank.v1beta1.Query/DenomMetadata" => QueryDenomMetadataRequest: QueryDenomMetadataResponse,
    "/cosmos.bank.v1beta1.Query/DenomsMetadata" => QueryDenomsMetadataRequest: QueryDenomsMetadataResponse,
}

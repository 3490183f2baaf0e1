//! Auth: accounts, and keys that act for them.

use crate::query::{MAX_PAGE, MAX_PAGE_KEY, PageRequest};
use crate::tx::MAX_TYPE_URL;
use crate::wire::{Blob, List, Text};
use crate::{AccountKey, Address, Amount, Time, messages, queries, schema};

/// Most message types of one grant.
pub const MAX_GRANTED_TYPES: usize = 64;

messages! {
    /// Messages of auth.
    pub enum AuthMessage {
        "/r3mes.auth.v1.MsgGrant" => Grant(MsgGrant) by granter,
        "/r3mes.auth.v1.MsgRevoke" => Revoke(MsgRevoke) by granter,
        "/r3mes.auth.v1.MsgGrantFees" => GrantFees(MsgGrantFees) by granter,
        "/r3mes.auth.v1.MsgRevokeFees" => RevokeFees(MsgRevokeFees) by granter,
    }
}

schema! {
    /// Lets another key act for the granter, in some message types, until a time. Replaces an
    /// earlier grant to the same key.
    pub struct MsgGrant {
        /// Who grants.
        1 => granter: Address,
        /// The key that may act.
        2 => grantee: Address,
        /// In which messages, ascending and without repeats.
        3 => type_urls: List<Text<MAX_TYPE_URL>, MAX_GRANTED_TYPES>,
        /// From this time on it may no longer.
        4 => expires_at: Time,
    }

    /// Takes back what [`MsgGrant`] gave.
    pub struct MsgRevoke {
        /// Who granted.
        1 => granter: Address,
        /// The key that may no longer act.
        2 => grantee: Address,
    }

    /// Lets another key pay fees from the granter's account, up to an amount, until a time.
    pub struct MsgGrantFees {
        /// Who grants.
        1 => granter: Address,
        /// The key whose transactions are paid.
        2 => grantee: Address,
        /// How much in all.
        3 => limit: Amount,
        /// From this time on it may no longer.
        4 => expires_at: Time,
    }

    /// Takes back what [`MsgGrantFees`] gave.
    pub struct MsgRevokeFees {
        /// Who granted.
        1 => granter: Address,
        /// The key whose transactions are no longer paid.
        2 => grantee: Address,
    }

    /// Parameters of auth.
    #[derive(Copy)]
    pub struct AuthParams {
        /// Least fee for a million units of gas.
        1 => fee_per_million_gas: Amount,
        /// Most gas one transaction may use.
        2 => max_tx_gas: u64,
        /// Most gas one transaction in the obligation lane may use.
        3 => max_obligation_gas: u64,
        /// Most gas a block may use.
        4 => max_block_gas: u64,
        /// Most bytes of transactions a block may have.
        5 => max_block_bytes: u64,
    }

    /// What is kept of an account.
    pub struct Account {
        /// Its address.
        1 => address: Address,
        /// Its number, given in order of creation.
        2 => number: u64,
        /// How many transactions its key has signed.
        3 => sequence: u64,
        /// Its key, known from the first transaction on.
        4 => public_key: Option<AccountKey>,
    }

    /// What is kept of a [`MsgGrant`].
    pub struct Grant {
        /// In which messages.
        1 => type_urls: List<Text<MAX_TYPE_URL>, MAX_GRANTED_TYPES>,
        /// From this time on no longer.
        2 => expires_at: Time,
    }

    /// What is kept of a [`MsgGrantFees`].
    #[derive(Copy)]
    pub struct FeeGrant {
        /// What may still be spent.
        1 => remaining: Amount,
        /// From this time on no longer.
        2 => expires_at: Time,
    }

    /// Asks for an account.
    #[derive(Copy)]
    pub struct QueryAccount {
        /// Whose.
        1 => address: Address,
    }

    /// The answer to [`QueryAccount`].
    pub struct AccountAnswer {
        /// The account, if it exists.
        1 => account: Option<Account>,
    }

    /// Asks for the grants that an account has given, ascending by grantee.
    pub struct QueryGrants {
        /// By whom.
        1 => granter: Address,
        /// Which part.
        2 => page: Option<PageRequest>,
    }

    /// One grant given by an account.
    pub struct GrantEntry {
        /// To whom.
        1 => grantee: Address,
        /// What.
        2 => grant: Option<Grant>,
        /// How much fee.
        3 => fees: Option<FeeGrant>,
    }

    /// A page of the grants that an account has given.
    pub struct Grants {
        /// The grants, ascending by grantee.
        1 => grants: List<GrantEntry, MAX_PAGE>,
        /// Where the next page begins; empty at the end.
        2 => next: Blob<MAX_PAGE_KEY>,
    }
}

queries! {
    "/r3mes.auth.v1.Query/Account" => QueryAccount: AccountAnswer,
    "/r3mes.auth.v1.Query/Grants" => QueryGrants: Grants,
}

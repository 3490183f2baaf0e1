//! What auth keeps.

use r3mes_types::Address;
use r3mes_types::auth::{Account, AuthParams, FeeGrant, Grant};

use crate::error::LedgerError;
use crate::store::{Context, Item, Map};

/// Accounts.
pub const ACCOUNTS: Map<Address, Account> = Map::new("auth/account/");
/// Grants by (granter, grantee).
pub const GRANTS: Map<(Address, Address), Grant> = Map::new("auth/grant/");
/// Fee grants by (granter, grantee).
pub const FEE_GRANTS: Map<(Address, Address), FeeGrant> = Map::new("auth/fee-grant/");
/// Parameters.
pub const PARAMS: Item<AuthParams> = Item::new("auth/params");
/// Number of the next account.
const NEXT_NUMBER: Item<u64> = Item::new("auth/next-number");

/// Creates the account if it does not exist.
///
/// # Errors
/// When the state cannot be read or the gas is used up.
pub fn ensure_account(ctx: &mut Context<'_>, address: &Address) -> Result<(), LedgerError> {
    if ACCOUNTS.contains(ctx, address)? {
        return Ok(());
    }
    let number = NEXT_NUMBER.next(ctx)?;
    let account = Account {
        address: *address,
        number,
        sequence: 0,
        public_key: None,
    };
    ACCOUNTS.put(ctx, address, &account)
}

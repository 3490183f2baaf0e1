//! What governance keeps.

use r3mes_types::governance::{GovernanceParams, Proposal};
use r3mes_types::{Address, Hash, Time};

use crate::error::LedgerError;
use crate::store::{Item, Map, View};

/// Proposals by number.
pub const PROPOSALS: Map<u64, Proposal> = Map::new("governance/proposal/");
/// Parameters.
pub const PARAMS: Item<GovernanceParams> = Item::new("governance/params");
/// Number of the next proposal.
pub(super) const NEXT: Item<u64> = Item::new("governance/next");
/// Open proposals by what they are, so that a repeat changes nothing.
pub(super) const OPEN: Map<Hash, u64> = Map::new("governance/open/");
/// Votes by proposal and voter.
pub(super) const VOTES: Map<(u64, Address), bool> = Map::new("governance/vote/");
/// Open proposals by the end of their vote.
pub(super) const DUE: Map<(Time, u64), bool> = Map::new("governance/due/");

/// The account that decides alone, on a development network.
///
/// # Errors
/// When the state cannot be read or the gas is used up.
pub fn authority(view: &dyn View) -> Result<Option<Address>, LedgerError> {
    Ok(PARAMS.require(view)?.authority)
}

/// Whether an account decides alone.
///
/// # Errors
/// When the state cannot be read or the gas is used up.
pub fn is_authority(view: &dyn View, account: &Address) -> Result<bool, LedgerError> {
    Ok(authority(view)? == Some(*account))
}

//! What rewards keep.

use r3mes_types::rewards::{Record, RewardsParams};
use r3mes_types::{Address, Amount, Time};

use crate::store::{Item, Map};

/// Parameters.
pub const PARAMS: Item<RewardsParams> = Item::new("rewards/params");
/// What nodes have done so far.
pub const RECORDS: Map<Address, Record> = Map::new("rewards/record/");
/// Rewards that are held, by owner and by when they are paid.
pub const VESTING: Map<(Address, Time), Amount> = Map::new("rewards/vesting/");
/// The same, by when they are paid.
pub(super) const VESTING_DUE: Map<(Time, Address), bool> = Map::new("rewards/vesting-due/");

//! What rewards keep.

use r3mes_types::Address;
use r3mes_types::rewards::{Record, RewardsParams};

use crate::store::{Item, Map};

/// Parameters.
pub const PARAMS: Item<RewardsParams> = Item::new("rewards/params");
/// What nodes have done so far.
pub const RECORDS: Map<Address, Record> = Map::new("rewards/record/");

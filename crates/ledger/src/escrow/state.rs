//! What is kept of escrows: those that are open. One that has ended leaves nothing.

use r3mes_types::escrow::Escrow;
use r3mes_types::{Address, Time};

use crate::store::{Item, Map};

/// Open escrows by number.
pub const ESCROWS: Map<u64, Escrow> = Map::new("escrow/escrow/");
/// Number of the next escrow.
pub(super) const NEXT: Item<u64> = Item::new("escrow/next");
/// Numbers of the open escrows that an account pays or may charge.
pub(super) const OF_ACCOUNT: Map<(Address, u64), bool> = Map::new("escrow/of-account/");
/// Open escrows by their end.
pub(super) const DUE: Map<(Time, u64), bool> = Map::new("escrow/due/");

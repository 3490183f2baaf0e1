//! What the beacon keeps.

use r3mes_types::beacon::Chain;
use r3mes_types::{Address, ConsensusAddress, Hash};

use crate::error::LedgerError;
use crate::store::{Item, Map, View};

/// How many blocks back the random values are kept.
pub const KEPT_MIXES: u64 = 4096;

/// Hash chains by block validator.
pub const CHAINS: Map<ConsensusAddress, Chain> = Map::new("beacon/chain/");
/// Random values by height.
pub const MIXES: Map<u64, Hash> = Map::new("beacon/mix/");
/// The block validator that an account speaks for.
pub(super) const VALIDATOR_OF: Map<Address, ConsensusAddress> = Map::new("beacon/validator-of/");
/// The random value after the last block.
pub(super) const MIX: Item<Hash> = Item::new("beacon/last-mix");

/// The random value after the block at `height`, while it is kept.
///
/// # Errors
/// When the state cannot be read or the gas is used up.
pub fn mix_at(view: &dyn View, height: u64) -> Result<Option<Hash>, LedgerError> {
    MIXES.get(view, &height)
}

/// The random value now: after the last block, or within one, after the present block's reveal.
///
/// # Errors
/// When the state cannot be read or the gas is used up.
pub fn last_mix(view: &dyn View) -> Result<Hash, LedgerError> {
    MIX.require(view)
}
